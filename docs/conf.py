"""Sphinx configuration: the API and the gallery, built offline."""

import sklearn_clce

project = "sklearn-clce"
author = copyright = "the sklearn-clce developers"
release = sklearn_clce.__version__

extensions = [
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = "sklearn-clce"

autosummary_generate = True
numpydoc_show_class_members = False
autodoc_typehints = "none"

# methods that scikit-learn documents refer to its user guide
suppress_warnings = ["ref.ref"]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "reference_url": {"sklearn_clce": None},
    "abort_on_example_error": True,
}
