"""Sphinx configuration: pages, API and gallery, built offline."""

import sys
from pathlib import Path

import sklearn_clce

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "sklearn-clce"
author = copyright = "the sklearn-clce developers"
release = sklearn_clce.__version__

extensions = [
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "matplotlib.sphinxext.plot_directive",
    "changes",
    "details",
    "house",
    "mathml",
    "measured",
    "offline_inventories",
    "page_files",
]
exclude_patterns = ["_build", "**sg_execution_times.rst"]
templates_path = ["_templates"]
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "sklearn-clce"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_context = {"default_mode": "auto"}
html_show_sourcelink = False
html_sidebars = {name: [] for name in ("index", "install", "changelog", "reference", "results")}
html_theme_options = {
    "logo": {"text": f"sklearn-clce {release}"},
    "navbar_align": "left",
    "show_toc_level": 2,
    "header_links_before_dropdown": 5,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
}

autosummary_generate = True
numpydoc_show_class_members = False
autodoc_typehints = "none"
# scikit-learn's machinery of metadata, which its own pages explain
requests = ["fit", "partial_fit", "score", "transform", "predict"]
autodoc_default_options = {
    "exclude-members": ", ".join(
        ["get_metadata_routing", *(f"set_{method}_request" for method in requests)]
    )
}
del requests

intersphinx_mapping = {
    "numpy": ("https://numpy.org/doc/stable", None),
    "python": ("https://docs.python.org/3", None),
    "sklearn": ("https://scikit-learn.org/stable", None),
    "skorch": ("https://skorch.readthedocs.io/en/stable", None),
    "torch": ("https://docs.pytorch.org/docs/stable", None),
}
intersphinx_timeout = 5

# methods that scikit-learn documents refer to its user guide
suppress_warnings = ["ref.ref"]

copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# A notebook brings the helper that cuts its images.
photographs = (Path(__file__).parents[1] / "examples" / "photographs.py").read_text("utf-8")
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "within_subsection_order": "gallery_order.key",
    "minigallery_sort_order": "gallery_order.path_key",
    "doc_module": ("sklearn_clce",),
    "backreferences_dir": "generated/backreferences",
    "reference_url": {"sklearn_clce": None},
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "ignore_pattern": r"photographs\.py",
    "first_notebook_cell": (
        "# In Colab, or wherever sklearn-clce is missing: upload its wheel first (Installation)\n"
        "import importlib.util\n\n"
        "if importlib.util.find_spec('sklearn_clce') is None:\n"
        "    %pip install --quiet sklearn_clce-*.whl scikit-image cleanlab mapie pandas\n\n"
        f"with open('photographs.py', 'w') as file:\n    file.write({photographs!r})\n"
        "%matplotlib inline"
    ),
}

# Figures of the pages: their code runs in a folder with images, and they fit both themes.
plot_working_directory = str(Path(__file__).parent / "generated" / "files")
plot_formats = ["svg"]
plot_html_show_formats = plot_html_show_source_link = False
plot_apply_rcparams = True
ink = dict.fromkeys(
    ["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], "#808080"
)
plot_rcparams = {**ink, "figure.facecolor": "none", "axes.facecolor": "none", "font.size": 9}
plot_rcparams |= {"savefig.facecolor": "none", "legend.facecolor": "none", "svg.fonttype": "none"}
plot_rcparams |= {"savefig.bbox": "tight"}
del ink

# the HTML repr of an estimator, in the gallery, leads to its page
for estimator in (sklearn_clce.CLCEClassifier, sklearn_clce.BackboneFeatures):
    estimator._doc_link_module = "sklearn_clce"
    estimator._doc_link_template = "../generated/sklearn_clce.{estimator_name}.html"
