"""Predictions for many files, as a data frame."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._system import bar, is_main, joint, n_processes, own_torch
from .._training import CLCENet, Passes, Samples, check_class_means, infer
from ..data import Images, read_errors

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 1024  # files that are read again where one of them can't be read


class FrameMixin:
    """Lets a classifier predict files into a data frame."""

    classes_: np.ndarray
    net_: CLCENet
    verbose: int | bool
    _offset: float | None

    if TYPE_CHECKING:

        def _read(self, X: Any, *, reset: bool, checked: bool = True) -> Samples: ...

        def _passes(self) -> Passes: ...

    @joint
    def predict_frame(self, paths: ArrayLike) -> pd.DataFrame:
        """Predict many files, into a data frame.

        A file that can't be read has an error in its row, and the others are predicted. With
        ``verbose=1`` a bar shows the progress. :func:`list_images` lists the files of a folder.

        Parameters
        ----------
        paths : array-like of str or path, of shape (n_files,)
            Paths of images.

        Returns
        -------
        pandas.DataFrame of n_files rows
            With these columns:

            - "path": as passed, a string.
            - "label": as :meth:`predict` gives it, categorical; missing if the file can't be read.
              Of several labels an image, "label_cat" for a label "cat", and so on: bools.
            - "probability_cat" for a class "cat", and so on: as :meth:`predict_proba` gives them,
              in the order of ``classes_``.
            - "score": as :meth:`score_samples` gives it.
            - "none_of_these": whether the score is below ``offset_``. Only after
              :meth:`calibrate_offset`.
            - "error": what is wrong with a file that can't be read, else missing.

        Raises
        ------
        ImportError
            If pandas is not installed.
        TypeError
            If ``paths`` is a single path, or holds something else.
        ValueError
            If ``paths`` is empty, or the classifier takes feature vectors.

        See Also
        --------
        list_images : Paths of the images of a folder.
        find_unreadable : Find the files that can't be read.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from sklearn_clce import CLCEClassifier, list_images
        >>> folder = Path(tempfile.mkdtemp())
        >>> for index, colour in enumerate(["red", "blue", "red", "blue"]):
        ...     Image.new("RGB", (32, 32), colour).save(folder / f"{index}.png")
        >>> paths = list_images(folder)
        >>> clf = CLCEClassifier(trainable="head", image_size=32, random_state=0)
        >>> frame = clf.fit(paths, ["red", "blue"] * 2).predict_frame([*paths[:2], "lost.png"])
        >>> frame["label"].tolist()
        ['red', 'blue', nan]
        >>> frame["error"][2]
        "X[2]: there is no file 'lost.png'"
        >>> frame.to_csv("table.csv", index=False)  # doctest: +SKIP
        """
        check_is_fitted(self)
        pandas = _pandas()
        check_class_means(self.net_, "predict_frame")
        files = _file_names(paths)
        with own_torch():
            logits, scores, errors = self._score_files(files)
        # as objects: pyarrow's strings can't hold the name of a file that is not UTF-8
        columns: dict[str, Any] = {"path": pandas.Series(files, dtype=object)}
        network_outputs = self.net_.module_.outputs
        columns |= network_outputs.frame_columns(pandas, logits, self.classes_, list(errors))
        probabilities = network_outputs.probabilities(logits).numpy()
        for name, column in zip(self.classes_.tolist(), probabilities.T, strict=True):
            columns[f"probability_{name}"] = column
        columns["score"] = scores.numpy()
        if self._offset is not None:
            columns["none_of_these"] = pandas.array(scores.numpy() < self._offset, dtype="boolean")
            columns["none_of_these"][list(errors)] = pandas.NA
        found = [errors.get(index) for index in range(len(files))]
        columns["error"] = pandas.Series(found, dtype=object)
        return pandas.DataFrame(columns)

    def _score_files(self, files: list[str]) -> tuple[Tensor, Tensor, dict[int, str]]:
        """Return logits (n, n_classes) and scores (n,), NaN for files with errors, and these."""
        images = self._read(files, reset=False, checked=False)
        assert isinstance(images, Images)
        outputs: list[tuple[Tensor, Tensor]] = []
        errors: dict[int, str] = {}
        shown = bool(self.verbose) and is_main()
        with bar(total=len(files), unit="image", what="predicting", shown=shown) as progress:
            for start in range(0, len(files), BLOCK):
                block = range(start, min(start + BLOCK, len(files)))
                found, unreadable = self._score_block(images, block)
                outputs.append(found)
                errors |= unreadable
                progress.update(len(block))
        logits, scores = map(torch.cat, zip(*outputs, strict=True))
        return logits, scores, errors

    def _score_block(
        self, images: Images, block: range
    ) -> tuple[tuple[Tensor, Tensor], dict[int, str]]:
        """Score a block of files, and once more without those that can't be read."""
        # an error in one of several processes would end the call in all of them
        errors = read_errors(images, block) if n_processes() > 1 else {}
        try:
            if not errors:
                return self._score(images[block]), {}
        except (ValueError, TypeError, OSError):
            errors = read_errors(images, block)
            if not errors:
                raise
        logits = torch.full((len(block), len(self.classes_)), torch.nan)
        scores = torch.full((len(block),), torch.nan)
        readable = [index for index in block if index not in errors]
        if readable:
            places = [index - block.start for index in readable]
            logits[places], scores[places] = self._score(images[readable])
        return (logits, scores), errors

    def _score(self, images: Images) -> tuple[Tensor, Tensor]:
        net = self.net_

        def score(batch: Any) -> tuple[Tensor, Tensor]:
            inputs, logits = net.classifier_inputs(batch)
            return logits, net.module_.novelty_scores(inputs, logits)

        logits, scores = infer(net, images, replace(self._passes(), verbose=0), score)
        return logits, scores


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "predict_frame needs pandas, which is not installed: python -m pip install pandas"
        ) from error
    return pandas


def _file_names(paths: Any) -> list[str]:
    """Return paths as strings; of a data frame, its one column."""
    items = np.asarray(paths, dtype=object)
    if items.ndim == 0:
        raise TypeError(
            f"paths={paths!r}: a list of paths is required, [path], or list_images(folder)"
        )
    if items.ndim > 1 and items.size != len(items):
        raise ValueError(f"paths of shape {items.shape}: one path for each file is required")
    for index, item in enumerate(items.ravel()):
        if not isinstance(item, (str, os.PathLike)):
            raise TypeError(
                f"paths[{index}] is {type(item).__name__}: a path is required; predict_proba takes "
                "images of other kinds"
            )
    return [str(item) for item in items.ravel()]
