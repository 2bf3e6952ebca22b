"""The versions of the libraries that predictions depend on: then, and now."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import Any

from sklearn.exceptions import InconsistentVersionWarning

LIBRARIES = ("sklearn-clce", "scikit-learn", "skorch", "timm", "torch", "torchvision", "pillow")


class SavedWithOtherVersions(InconsistentVersionWarning):
    """A model file was saved with other versions of its libraries.

    Parameters
    ----------
    differences : list of str
        Library, its version then and its version now.
    **versions
        As :class:`sklearn.exceptions.InconsistentVersionWarning` takes them.
    """

    def __init__(self, differences: list[str], **versions: str) -> None:
        super().__init__(**versions)
        self.differences = differences

    def __str__(self) -> str:
        return (
            f"the {self.estimator_name} was saved with other versions: "
            f"{'; '.join(self.differences)}. Its predictions may differ; compare them, or "
            "install the versions that it was saved with"
        )


def versions_here() -> dict[str, str]:
    """Return the versions that are here."""
    return {name: _version(name) for name in LIBRARIES}


def _version(package: str) -> str:
    """Return the release of a package, whatever it was built for (torch 2.6.0+cu124 is 2.6.0)."""
    return version(package).split("+")[0]


def warn_of_versions(saved_with: dict[str, Any]) -> None:
    """Warn where a model was saved with other versions of its libraries."""
    saved = {name: str(saved_with.get(name))[:40] for name in LIBRARIES}
    now = versions_here()
    differences = [
        f"{name} {saved[name]}, here {now[name]}" for name in LIBRARIES if saved[name] != now[name]
    ]
    if differences:
        warnings.warn(
            SavedWithOtherVersions(
                differences,
                estimator_name="CLCEClassifier",
                current_sklearn_version=now["scikit-learn"],
                original_sklearn_version=saved["scikit-learn"],
            ),
            stacklevel=3,
        )
