"""A fitted estimator as an ONNX file, for runtimes that know nothing of Python."""

from __future__ import annotations

import importlib
import json
import os
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from .._head import less_distance
from .._network import Network
from .._system import is_main, own_torch, write_atomically, write_line
from ..backbones import BackboneConfig, pack
from ..data import EvaluationTransform, Images, as_float, evaluation_transform
from ..losses import l2_normalise
from ._int8 import labels_of, quantized

MAX_UINT8 = 255
OPSET = 18  # the opset of torch's exporter, which does not always convert well to others
MAX_BYTES = 2**31 - 1  # that a protobuf message can hold
FREE_SIDE = 64  # of the traced images where the network takes images of any size
N_EXAMPLES = 2  # with one, torch would fix the size of the batch
MAX_CALIBRATION, MAX_HELD_OUT = 200, 500  # images
AXES = ("n", "height", "width")
INDICES, LABELS = "indices", "labels"  # the second replaces the first where codes are indices
OF_THE_EXPORTER = ("metadata_props", "doc_string")  # source lines, files and folders are in them


class OnnxMixin:
    """An estimator that can be written as ONNX."""

    def export_onnx(
        self: Any,
        path: str | os.PathLike[str],
        *,
        input_dtype: Literal["uint8", "float32"] = "uint8",
        quantize: Literal["int8"] | None = None,
        calibration: Any = None,
        min_agreement: float = 0.9,
    ) -> float | None:
        """Write the fitted network as an ONNX file, for programs without Python or PyTorch.

        The file takes a batch of any number of images that have been decoded and resized. It
        holds the rest: scaling, normalisation, backbone, head and the names of the classes.
        Weights are float32; the file is written in one step, and holds nothing of the machine.
        :meth:`load` does not read it.

        Its input is ``"images"``, of shape (n, height, width, channels), or ``"features"``, of
        shape (n, n_features) and float32, for ``backbone="precomputed"``. Of several backbones
        each has an input, ``"images"``, ``"images_2"`` and so on, for the same images as it wants
        them, and what the metadata say of images is a list. Its outputs are
        ``"labels"`` (n,), of the kind of ``classes_``, where characters that UTF-8 can't
        encode become escapes such as ``\\udce9``, or, of several labels an image, (n, n_classes) of
        0 and 1; ``"probabilities"`` (n, n_classes);
        ``"embeddings"`` (n, n_embedding), as :meth:`transform` gives them; ``"scores"`` (n,), as
        :meth:`score_samples` gives them; and after :meth:`calibrate_offset`
        ``"none_of_these"`` (n,), whether a score is below ``offset_``. Its metadata
        hold, each as JSON, ``"sklearn_clce"``, the version; ``"classes"``; ``"offset"`` if it is
        calibrated; and how an image must be resized: ``"image_size"``,
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
        quantize : {"int8"} or None, default=None
            "int8": the backbone computes in integers of 8 bits, and the file has about a quarter of
            the size. It needs onnxruntime.
        calibration : array-like of images, default=None
            Images for ``quantize="int8"``, like those that the file will see. Half of them, up to
            200, show the ranges of values; the others, up to 500, are held out to compare the
            labels with those of :meth:`predict`.
        min_agreement : float, default=0.9
            Share of the held-out images whose label must stay the same with
            ``quantize="int8"``. 0 accepts any file.

        Returns
        -------
        float or None
            The share of held-out images whose label stays the same, which is printed, too; None
            without ``quantize``.

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
            ``input_dtype`` is unknown, or "uint8" can't hold ``max_pixel_value``; if
            ``quantize`` and ``calibration`` do not go together, or too few labels agree. No file
            is written then.

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
        network = DeployedNetwork(
            self.module_, max_pixel_value=max_pixel_value, offset=self._offset
        )
        if network.configs and max_pixel_value is not None and max_pixel_value > MAX_UINT8:
            raise ValueError(
                f"input_dtype='uint8' holds no more than {MAX_UINT8}, and "
                f"max_pixel_value={max_pixel_value!r}: input_dtype='float32' is required, for "
                "pixels divided by it"
            )
        images = self._read_calibration(quantize, calibration, min_agreement)
        expected = None if images is None else _names(self.predict(images[_held_out(images)]))
        if not is_main():
            return None
        with own_torch():
            model, agreement = as_onnx(network, self.classes_), None
            if images is not None and expected is not None:
                model, agreement = _in_8_bits(model, network, images, expected)
        if agreement is not None and agreement < min_agreement:
            raise ValueError(
                f"quantize='int8': {agreement:.1%} of the held-out images keep their label, and "
                f"min_agreement={min_agreement!r}; pass more or other images as calibration, a "
                "lower min_agreement, or quantize=None"
            )
        content = model.SerializeToString()
        write_atomically(Path(path), lambda file: file.write(content))
        return agreement

    def _read_calibration(
        self: Any, quantize: Any, calibration: Any, min_agreement: float
    ) -> Images | None:
        """Return the images that quantisation asks for, if it is asked for."""
        if quantize not in (None, "int8"):
            raise ValueError(f"quantize={quantize!r}: 'int8' or None is required")
        if (quantize is None) != (calibration is None):
            raise ValueError(
                f"quantize={quantize!r} and calibration of {type(calibration).__name__}: both or "
                "none of them is required, quantize='int8' and calibration=images"
            )
        if isinstance(min_agreement, bool) or not 0 <= min_agreement <= 1:
            raise ValueError(f"min_agreement={min_agreement!r}: a share in [0, 1] is required")
        if quantize is None:
            return None
        check_onnx("onnxruntime")
        images = self._read(calibration, reset=False)
        if isinstance(images, Tensor):
            raise ValueError(
                "quantize='int8': backbone='precomputed' has no backbone to compute in 8 bits; "
                "quantize=None is required"
            )
        if len(images) < 2:
            raise ValueError(
                "quantize='int8': calibration holds one image, and at least two are required, "
                "better hundreds"
            )
        return images


class DeployedNetwork(nn.Module):
    """A trained network with its preprocessing, for other runtimes.

    Shapes: images (n, H, W, C), for each backbone in its size, or features (n, n_features) ->
    outputs by name (n, ...).
    """

    means: Tensor  # (n_known, n_features)

    def __init__(
        self, module: Network, *, max_pixel_value: float | None, offset: float | None
    ) -> None:
        super().__init__()
        self.module = module.portable()
        self.offset = offset  # threshold of the scores
        head = self.module.head
        self.register_buffer("means", head.class_means[head.class_counts > 0, : head.n_features])
        self.max_pixel_value = max_pixel_value  # of uint8 pixels; None: they are floats in 0..1
        self.eval()

    @property
    def configs(self) -> tuple[BackboneConfig, ...]:
        """How each backbone wants its images; empty: it takes features."""
        config = self.module.config
        if config is None:
            return ()
        return (config,) if isinstance(config, BackboneConfig) else config.parts

    @property
    def input_names(self) -> list[str]:
        """Name the inputs: features, or images, in a number for each further backbone."""
        further = [f"images_{number}" for number in range(2, len(self.configs) + 1)]
        return ["images", *further] if self.configs else ["features"]

    @property
    def codes(self) -> str:
        """Name what is predicted: indices, which labels replace, or an indicator of these."""
        return INDICES if self.module.outputs.codes_are_indices else LABELS

    @property
    def has_free_size(self) -> bool:
        """Check whether images keep their own size."""
        return any(config.image_size is None for config in self.configs)

    def examples(self) -> tuple[Tensor, ...]:
        """Return a batch for each input."""
        if not self.configs:
            return (torch.zeros(N_EXAMPLES, self.module.head.n_features),)
        dtype = torch.float32 if self.max_pixel_value is None else torch.uint8
        sizes = [(config.image_size or FREE_SIDE, config.n_channels) for config in self.configs]
        return tuple(
            torch.zeros(N_EXAMPLES, side, side, n_channels, dtype=dtype)
            for side, n_channels in sizes
        )

    def inputs_of(self, images: Images, index: int) -> dict[str, np.ndarray]:
        """Return an image as the file takes it: (1, height, width, channels) by input."""
        transforms = list(map(EvaluationTransform, self.configs))
        assert self.module.config is not None
        image = images.decode(index, evaluation_transform(self.module.config).at_least)
        pixels = [as_float(transform(image)).permute(1, 2, 0)[None] for transform in transforms]
        if self.max_pixel_value is not None:
            white = self.max_pixel_value
            pixels = [(part * white).round().to(torch.uint8) for part in pixels]
        return {name: part.numpy() for name, part in zip(self.input_names, pixels, strict=True)}

    def outputs(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Preprocess and classify a batch: outputs by name, without scores if no mean is known."""
        head, outputs = self.module.head, self.module.outputs
        inputs_of_classifier, embeddings = self.module.classifier_inputs(self._batch(inputs))
        logits = head.classifier(inputs_of_classifier)
        found = {self.codes: outputs.codes(logits), "probabilities": outputs.probabilities(logits)}
        found["embeddings"] = l2_normalise(embeddings)
        if len(self.means):
            features = inputs_of_classifier[:, : head.n_features]
            found["scores"] = less_distance(outputs.energy(logits), features, self.means)
            if self.offset is not None:
                found["none_of_these"] = found["scores"] < self.offset
        return found

    def _batch(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return what the network takes: features (n, n_features), or images in 0..1."""
        if not self.configs:
            return inputs[0]
        images = [images.permute(0, 3, 1, 2) for images in inputs]
        if self.max_pixel_value is not None:
            images = [each.float() / self.max_pixel_value for each in images]
        return pack(images) if len(images) > 1 else images[0]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Preprocess and classify a batch."""
        return tuple(self.outputs(*inputs).values())


def as_onnx(network: DeployedNetwork, classes: np.ndarray) -> Any:
    """Return the model of a network, which gives labels, not indices: classes (n_classes,)."""
    check_onnx("onnx", "onnxscript")
    n_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
    if n_bytes > MAX_BYTES:
        raise ValueError(
            f"backbone={type(network.module.backbone).__name__} has {n_bytes / 2**30:.1f} GiB of "
            "weights: an ONNX file holds less than 2; a smaller backbone is required"
        )
    model = _exported(network)
    _remove_traces(model)
    _name_axes(model.graph)
    names = _names(classes)
    if network.module.outputs.codes_are_indices:
        _name_classes(model.graph, names)
    about = {"sklearn_clce": version("sklearn-clce"), "classes": names.tolist()}
    if network.offset is not None:
        about["offset"] = network.offset
    if network.configs:
        about |= _resizing(network.configs)
        about["max_pixel_value"] = network.max_pixel_value or 1
    for name, value in about.items():
        model.metadata_props.add(key=name, value=json.dumps(value))
    return model


def check_onnx(*packages: str) -> None:
    """Raise an ImportError if a package is not installed."""
    try:
        for name in packages:
            importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"export_onnx needs {error.name}, which is not installed: "
            'python -m pip install ".[onnx]"'
        ) from error


def _held_out(images: Images) -> list[int]:
    """Choose every other image, to compare labels on."""
    return _evenly(range(1, len(images), 2), MAX_HELD_OUT)


def _evenly(indices: range, n: int) -> list[int]:
    return [
        indices[place]
        for place in np.linspace(0, len(indices) - 1, min(len(indices), n), dtype=int)
    ]


def _in_8_bits(
    model: Any, network: DeployedNetwork, images: Images, expected: np.ndarray
) -> tuple[Any, float]:
    """Quantise a model by some images; return the share of the others with the expected label."""
    calibration = _evenly(range(0, len(images), 2), MAX_CALIBRATION)
    small = quantized(model, [network.inputs_of(images, index) for index in calibration])
    _remove_traces(small)
    small.metadata_props.extend(model.metadata_props)
    held_out = [network.inputs_of(images, index) for index in _held_out(images)]
    labels = labels_of(small.SerializeToString(), held_out)
    agreement = float((labels == expected).reshape(len(labels), -1).all(axis=1).mean())
    share = small.ByteSize() / model.ByteSize()
    write_line(
        f"int8: {agreement:.1%} of {len(held_out)} held-out images keep their label; "
        f"{small.ByteSize() / 1e6:.1f} MB, {share:.2f} of the float32 file"
    )
    return small, agreement


def _exported(network: DeployedNetwork) -> Any:
    """Trace a network, for any number of images, and for any size where it has none of its own."""
    axes = dict.fromkeys(range(3 if network.has_free_size else 1), torch.export.Dim.DYNAMIC)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch's own code, which a user can't change
            exported = torch.export.export(
                network,
                network.examples(),
                dynamic_shapes={"inputs": (axes,) * len(network.input_names)},
            )
            program = torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=OPSET,
                input_names=network.input_names,
                output_names=list(network.outputs(*network.examples())),
                verbose=False,
            )
    except Exception as error:  # torch has many
        reason = str(error).strip().splitlines()[:1]
        raise ValueError(
            f"backbone={type(network.module.backbone).__name__} can't be exported"
            f"{' for images of any size, so image_size=... is required' * network.has_free_size} "
            f"({type(error).__name__}: {reason})"
        ) from error
    assert program is not None
    return program.model_proto


def _remove_traces(message: Any) -> None:
    """Remove what the exporter notes of the machine, from a message and all within it."""
    for name in OF_THE_EXPORTER:
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                _remove_traces(part)


def _name_axes(graph: Any) -> None:
    """Name the free axes of images, which the exporter numbers."""
    names = {
        axis.dim_param: name
        for axis, name in zip(graph.input[0].type.tensor_type.shape.dim, AXES, strict=False)
        if axis.dim_param
    }
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in names:
                axis.dim_param = names[axis.dim_param]


def _names(classes: np.ndarray) -> np.ndarray:
    """Return labels that ONNX can hold: numbers, bools, or strings in UTF-8.

    Of a string that can't be encoded, such as a file name in another encoding, the characters in
    question become escapes.
    """
    if classes.dtype.kind in "biuf":
        return classes
    names = [label.encode(errors="backslashreplace").decode() for label in classes.astype(str)]
    return np.array(names, dtype=object)


def _name_classes(graph: Any, names: np.ndarray) -> None:
    """Look the labels up in the graph: an output "labels" replaces the indices."""
    from onnx import helper, numpy_helper

    table = numpy_helper.from_array(names, name="classes")
    graph.initializer.append(table)
    graph.node.append(helper.make_node("Gather", ["classes", INDICES], [LABELS], name=LABELS))
    indices = graph.output.pop(0)
    labels = helper.make_tensor_value_info(LABELS, table.data_type, None)
    labels.type.tensor_type.shape.CopyFrom(indices.type.tensor_type.shape)
    graph.output.insert(0, labels)


def _resizing(configs: Sequence[BackboneConfig]) -> dict[str, Any]:
    """Say how an image must be resized for the network; in a list for each of several inputs."""
    found = [
        {
            "image_size": config.image_size,
            "resize_to": EvaluationTransform(config).at_least,
            "n_channels": config.n_channels,
            "interpolation": config.interpolation,
            "crop_pct": config.crop_pct,
            "crop_mode": config.crop_mode,
        }
        for config in configs
    ]
    return (
        found[0] if len(found) == 1 else {name: [one[name] for one in found] for name in found[0]}
    )
