"""What an estimator exports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from sklearn.utils.validation import check_is_fitted

from .._system import is_main, own_torch, write_atomically
from ._onnx import DeployedNetwork, as_onnx

MAX_UINT8 = 255


class OnnxMixin:
    """An estimator that can be written as ONNX."""

    def export_onnx(
        self: Any,
        path: str | os.PathLike[str],
        *,
        input_dtype: Literal["uint8", "float32"] = "uint8",
    ) -> None:
        """Write the fitted network as an ONNX file, for programs without Python or PyTorch.

        The file takes a batch of any number of images that have been decoded and resized. It
        holds the rest: scaling, normalisation, backbone, head and the names of the classes.
        Weights are float32; the file is written in one step, and holds nothing of the machine.
        :meth:`load` does not read it.

        Its input is ``"images"``, of shape (n, height, width, channels), or ``"features"``, of
        shape (n, n_features) and float32, for ``backbone="precomputed"``. Its outputs are
        ``"labels"`` (n,), of the kind of ``classes_``, where characters that UTF-8 can't
        encode become escapes such as ``\\udce9``; ``"probabilities"`` (n, n_classes);
        and ``"embeddings"`` (n, n_embedding), as :meth:`transform` gives them. Its metadata
        hold, each as JSON, ``"classes"``, and how an image must be resized: ``"image_size"``,
        ``"resize_to"`` (pixels of the shorter side before the central crop),
        ``"interpolation"``, ``"crop_pct"`` and ``"crop_mode"``; its ``"n_channels"``, and
        ``"max_pixel_value"``, the value of white in it.

        Parameters
        ----------
        path : path
            The file, such as ``"model.onnx"``.
        input_dtype : {"uint8", "float32"}, default="uint8"
            Pixels of the input: integers in 0..255, as most images are decoded, or in
            0..``max_pixel_value`` where that is set; or floats in 0..1, which also hold images of
            more depth.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ImportError
            If onnx or onnxscript is not installed; the extra ``onnx`` brings both.
        FileNotFoundError
            If the folder of the file is not there.
        ValueError
            If a backbone can't be exported, has more weights than such a file can hold,
            ``input_dtype`` is unknown, or "uint8" can't hold ``max_pixel_value``.

        See Also
        --------
        save : Write a file that :meth:`load` reads.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_clce import CLCEClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = CLCEClassifier("precomputed", max_epochs=5, random_state=0).fit(X, y)
        >>> clf.export_onnx("iris.onnx")  # doctest: +SKIP
        """
        check_is_fitted(self)
        if input_dtype not in ("uint8", "float32"):
            raise ValueError(f"input_dtype={input_dtype!r}: 'uint8' or 'float32' is required")
        max_pixel_value = (self.max_pixel_value or MAX_UINT8) if input_dtype == "uint8" else None
        network = DeployedNetwork(self.module_, max_pixel_value=max_pixel_value)
        if network.takes_images and max_pixel_value is not None and max_pixel_value > MAX_UINT8:
            raise ValueError(
                f"input_dtype='uint8' holds no more than {MAX_UINT8}, and "
                f"max_pixel_value={max_pixel_value!r}: input_dtype='float32' is required, for "
                "pixels divided by it"
            )
        if is_main():
            with own_torch():
                content = as_onnx(network, self.classes_)
            write_atomically(Path(path), lambda file: file.write(content))
