"""A fitted classifier on the Hugging Face Hub, with a model card made from the fit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._network import Network
from .._system import is_main
from ..backbones import JoinedBackbone, name_of

MODEL_FILE = "model.safetensors"
N_CLASSES_SHOWN = 50
# parameters that say how and where a fit ran, or hold a path or an object
NOT_SHOWN = ("backbone", "pretrained", "memory", "checkpoint", "device", "num_workers", "verbose")
PLAIN = (str, bool, int, float, type(None))

CARD = """\
---
library_name: sklearn-clce
pipeline_tag: {task}
tags:
- image-classification
- sklearn
- clce
---

# {title}

A classifier of {n_classes} classes by [sklearn-clce](https://arxiv.org/abs/2402.14551).

## How to load it

```python
from sklearn_clce import CLCEClassifier

clf = CLCEClassifier.load({source!r})
labels = clf.predict(["image.jpg"])
```

The file runs no code when it is loaded.

## Training

{training}

## Classes

{classes}

## Scores

{scores}

## Licence

{licence}
"""


class HubMixin:
    """Lets a classifier be pushed to the Hub."""

    if TYPE_CHECKING:

        def save(self, path: str | os.PathLike[str]) -> None: ...

    def push_to_hub(
        self,
        repo_id: str,
        *,
        scores: Mapping[str, float] | None = None,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Push the fitted estimator and its model card to the Hugging Face Hub.

        The model file of :meth:`save` and the card of :func:`model_card` come in one commit: both
        or none. :meth:`load` reads it as ``"hf-hub:owner/name"``. If several processes train
        together, the first one pushes.

        Parameters
        ----------
        repo_id : str
            The repository, ``"owner/name"``, which is created if it is not there.
        scores : dict of str to float, default=None
            Scores for the card, such as ``{"accuracy": 0.93}``.
        private : bool, default=False
            Whether a repository that is created can be seen by its owner only.
        token : str, default=None
            Access token; None: the one of ``hf auth login``, or of ``HF_TOKEN``.

        Returns
        -------
        str
            Address of the commit; empty in other processes than the first.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If ``repo_id`` is not a valid name, or :meth:`save` rejects the estimator.
        OSError
            If the Hub can't be reached, or rejects it. Nothing of the estimator is pushed then.

        See Also
        --------
        load : Read what was pushed.
        model_card : The text of the card.

        Examples
        --------
        >>> clf.push_to_hub("owner/name", scores={"accuracy": 0.93})  # doctest: +SKIP
        """
        check_is_fitted(self)
        _check_repo_id(repo_id)
        if not is_main():
            return ""
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder, MODEL_FILE))
            card = model_card(self, scores=scores, repo_id=repo_id)
            Path(folder, "README.md").write_text(card, encoding="utf-8")
            return _upload(folder, repo_id, private=private, token=token)


def model_card(
    clf: Any, *, scores: Mapping[str, float] | None = None, repo_id: str | None = None
) -> str:
    """Write the model card of a fitted classifier: what it is, how it was fitted, how to load it.

    The card holds numbers and the names of classes; no paths, and nothing of the machine.

    Parameters
    ----------
    clf : CLCEClassifier
        A fitted classifier.
    scores : dict of str to float, default=None
        Scores to show, such as ``{"accuracy": 0.93}``.
    repo_id : str, default=None
        Repository on the Hugging Face Hub, ``"owner/name"``; None: the card shows how to load a
        file.

    Returns
    -------
    str
        Markdown, with the metadata that the Hub reads.

    Raises
    ------
    NotFittedError
        If the classifier is not fitted.

    See Also
    --------
    CLCEClassifier.push_to_hub : Push model and card.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_clce import CLCEClassifier, model_card
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = CLCEClassifier("precomputed", max_epochs=5, random_state=0).fit(X, y)
    >>> card = model_card(clf, scores={"accuracy": clf.score(X, y)})
    >>> "- samples: 150" in card
    True
    """
    check_is_fitted(clf)
    has_images = clf.backbone_config_ is not None
    return CARD.format(
        task="image-classification" if has_images else "tabular-classification",
        title=repo_id.split("/")[-1] if repo_id else "Classifier",
        n_classes=len(clf.classes_),
        source=f"hf-hub:{repo_id}" if repo_id else MODEL_FILE,
        training=_as_list(_training(clf)),
        classes=_classes(clf.classes_),
        scores=_as_list({name: f"{score:.4f}" for name, score in (scores or {}).items()})
        or "None were passed.",
        licence=_licence(clf.module_),
    )


def _as_list(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in values.items())


def _training(clf: Any) -> dict[str, Any]:
    """Return what is known of the last fit, and the parameters that are not at their defaults."""
    facts = {"backbone": name_of(clf.backbone), "trained part of the backbone": clf.trainable_}
    n_samples = clf.net_.plan.n_samples  # 0 after load
    if n_samples:
        facts["samples"] = n_samples
    facts["epochs"] = clf.n_iter_
    if clf.best_validation_score_ is not None:
        facts["best validation score"] = f"{clf.best_validation_score_:.4f}"
    defaults = type(clf)().get_params(deep=False)
    for name, value in clf.get_params(deep=False).items():
        is_shown = isinstance(value, PLAIN) and name not in NOT_SHOWN
        if is_shown and value != defaults[name]:
            facts[f"`{name}`"] = f"`{value!r}`"
    return facts


def _classes(classes: np.ndarray) -> str:
    shown = ", ".join(f"`{label}`" for label in classes[:N_CLASSES_SHOWN].tolist())
    n_more = len(classes) - N_CLASSES_SHOWN
    return shown + (f" and {n_more} more" if n_more > 0 else "")


def _licence(module: Network) -> str:
    """Name the licence of a backbone's weights, as timm knows it."""
    if not module.pretrained:
        return "The weights were trained from scratch; no licence was passed."
    backbone = module.backbone
    parts = list(backbone.parts) if isinstance(backbone, JoinedBackbone) else [backbone]
    configs: list[Any] = [getattr(part, "pretrained_cfg", None) or {} for part in parts]
    licences = [config.get("license") or "not known to timm" for config in configs]
    licence = ", ".join(dict.fromkeys(licences))
    return f"The pretrained weights of the backbone: {licence}. The rest: none was passed."


def _check_repo_id(repo_id: str) -> None:
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except (ValueError, TypeError) as error:
        raise ValueError(f"repo_id={repo_id!r}: 'owner/name' is required ({error})") from error


def _upload(folder: str, repo_id: str, *, private: bool, token: str | None) -> str:
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message="Push a classifier"
        )
    except Exception as error:  # of the client that it uses, which changes with its versions
        raise OSError(f"repo_id={repo_id!r}: nothing was pushed ({error})") from error
    return str(commit.commit_url)
