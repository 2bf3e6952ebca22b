"""The order of the examples: quick start first, then from the first steps to the last."""

from pathlib import Path

ORDER = [
    "quickstart",
    "tutorial",
    "does_it_help",
    "wrong_labels",
    "multilabel",
    "none_of_these",
    "why",
    "embeddings",
    "grid_search",
    "pipeline_calibration",
    "prediction_sets",
    "images_and_table",
    "active_learning",
    "class_imbalance",
    "retrieval",
    "few_shot",
    "own_backbone",
    "persistence",
]


def key(filename):
    """Return the place of an example; one that is not listed comes last, by name."""
    name = filename.removeprefix("plot_").removesuffix(".py")
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def path_key(path):
    """Return the place of an example that a section of the gallery names by its path."""
    return key(Path(path).name)
