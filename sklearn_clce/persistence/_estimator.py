"""What a fitted estimator does with its file: it saves, and is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import torch
from sklearn.utils.validation import check_is_fitted

from .._network import Network
from .._system import is_main, own_torch, warn
from ..backbones import Backbones
from ._estimator_state import check_loadable, estimator_state, restore
from ._file import read_model_file, warn_of_versions, write_model_file
from ._module_state import restore_module, tensors_of

OTHER_SUFFIXES = (".pkl", ".pickle", ".joblib", ".pt", ".pth")  # of files that run code when loaded


HUB = "hf-hub:"
FILE_ON_HUB = "model.safetensors"


class ModelFileMixin:
    """What an estimator saves and loads."""

    def save(self: Any, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one file.

        The file holds weights, parameters, labels, preprocessing and the figures of the
        epochs. It holds no code, and nothing of the machine. It is a safetensors file,
        written in one step: a crash leaves the old file or the new one. If several processes
        train together, the first one writes.

        Parameters
        ----------
        path : path
            The file, such as ``"model.safetensors"``.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        FileNotFoundError
            If the folder of the file is not there.
        ValueError
            If a parameter has an invalid value, or no file can hold the labels or the backbone.

        Warns
        -----
        UserWarning
            If callables or other objects are set as parameters. They are not stored, and are at
            their defaults after :meth:`load`; nor, without a warning, are ``device``, ``memory``,
            ``checkpoint`` and a path in ``pretrained``.
            If the name of the file is that of a pickle.

        See Also
        --------
        load : Read the file.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_clce import CLCEClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = CLCEClassifier("precomputed", max_epochs=5, random_state=0).fit(X, y)
        >>> path = Path(tempfile.mkdtemp()) / "iris.safetensors"
        >>> clf.save(path)
        >>> loaded = CLCEClassifier.load(path)
        >>> bool((loaded.predict(X) == clf.predict(X)).all())
        True
        """
        check_is_fitted(self)
        self._validate_params()
        if Path(path).suffix.lower() in OTHER_SUFFIXES:
            warn(
                f"path={os.fspath(path)!r}: the file is a safetensors file, which "
                "CLCEClassifier.load reads and joblib.load does not; a name that ends in "
                ".safetensors says so"
            )
        with own_torch():
            module = self.module_.merged()
            state, left_out = estimator_state(self, module)
            tensors = tensors_of(module)
            check_loadable(self, module, state, tensors)
            if is_main():
                write_model_file(path, state, tensors)
        if left_out:
            warn(
                f"{', '.join(left_out)} can't be stored in a model file: after load they are at "
                "their defaults, and set_params sets them again"
            )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device = "auto",
        backbone: Backbones | None = None,
    ) -> Self:
        """Read an estimator that :meth:`save` wrote.

        Nothing in the file is run, and no other file is opened. Nothing is downloaded but the file
        itself, if it is on the Hugging Face Hub.

        Parameters
        ----------
        path : path
            The file, or ``"hf-hub:owner/name"`` for one that :meth:`push_to_hub` has pushed, with
            ``"@"`` and a revision behind the name where it is not to be the newest. It is
            downloaded once.
        device : str or torch.device, default="auto"
            Parameter ``device`` of the estimator; where it was fitted does not matter.
        backbone : nn.Module or sequence, default=None
            A module of the same architecture, required if the estimator was fitted
            with a module as backbone. It is copied, and the copy gets the saved weights. If one
            of several backbones was a module, all of them as they were passed.

        Returns
        -------
        CLCEClassifier
            Fitted; it predicts as the saved one, and ``partial_fit`` continues from there.

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        OSError
            If a file can't be downloaded.
        ValueError
            If it is not a file of :meth:`save`, is damaged, was written by a newer version, or
            needs a ``backbone``.

        Warns
        -----
        InconsistentVersionWarning
            If it was saved with other versions of the libraries that predictions depend on.

        See Also
        --------
        save : Write the file.
        """
        with own_torch():
            state, tensors = read_model_file(_on_this_machine(path))

        def build(n_classes: int) -> Network:
            return restore_module(state["module"], n_classes, tensors, backbone)

        try:
            with own_torch():
                clf = restore(cls, state, build, device=device, backbone=backbone)
            warn_of_versions(state)
        except (ValueError, RecursionError, OverflowError) as error:
            raise ValueError(f"path={os.fspath(path)!r} can't be loaded: {error}") from error
        return clf


def _on_this_machine(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the path of a file, downloaded if it is on the Hub."""
    if not isinstance(path, str) or not path.startswith(HUB):
        return path
    from huggingface_hub import hf_hub_download

    repo_id, _, revision = path.removeprefix(HUB).partition("@")
    try:
        return str(hf_hub_download(repo_id, FILE_ON_HUB, revision=revision or None))
    except ValueError as error:
        raise ValueError(f"path={path!r}: 'hf-hub:owner/name' is required ({error})") from error
    except Exception as error:  # of the client that it uses, which changes with its versions
        raise OSError(f"path={path!r} can't be downloaded ({error})") from error
