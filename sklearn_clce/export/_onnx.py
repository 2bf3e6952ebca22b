"""A network becomes an ONNX file, through torch's own exporter."""

from __future__ import annotations

import json
import math
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from ..backbones import BackboneConfig
from ._network import DeployedNetwork

OPSET = 18  # what torch's exporter makes; others it converts to, not always well
MAX_BYTES = 2**31 - 1  # that a protobuf message can hold
AXES = ("n", "height", "width")
OUTPUTS = ("indices", "probabilities", "embeddings")


def as_onnx(network: DeployedNetwork, classes: np.ndarray) -> bytes:
    """Return the file of a network, in which labels stand for the indices: classes (n_classes,)."""
    _check_onnx()
    n_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
    if n_bytes > MAX_BYTES:
        raise ValueError(
            f"backbone={type(network.module.backbone).__name__} has {n_bytes / 2**30:.1f} GiB of "
            "weights: an ONNX file holds less than 2; a smaller backbone is required"
        )
    model = _exported(network)
    _name_axes(model.graph)
    _name_classes(model.graph, classes)
    about = {"sklearn_clce": version("sklearn-clce"), "classes": classes.tolist()}
    if network.module.config is not None:
        about |= _resizing(network.module.config) | {
            "max_pixel_value": network.max_pixel_value or 1
        }
    for name, value in about.items():
        model.metadata_props.add(key=name, value=json.dumps(value, default=str))
    return model.SerializeToString()


def _check_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"export_onnx needs {error.name}, which is not installed: "
            'python -m pip install "sklearn-clce[onnx]"'
        ) from error


def _exported(network: DeployedNetwork) -> Any:
    """Trace a network, with a free number of rows; of pixels too where it has no own size."""
    axes = dict.fromkeys(range(3 if network.has_free_size else 1), torch.export.Dim.DYNAMIC)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch's own code, nothing that a user can mend
            exported = torch.export.export(
                network, (network.example(),), dynamic_shapes={"batch": axes}
            )
            program = torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=OPSET,
                input_names=["images" if network.takes_images else "features"],
                output_names=OUTPUTS,
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


def _name_axes(graph: Any) -> None:
    """Call the free axes of images what they are, where the exporter numbers them."""
    names = {
        axis.dim_param: name
        for axis, name in zip(graph.input[0].type.tensor_type.shape.dim, AXES, strict=False)
        if axis.dim_param
    }
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in names:
                axis.dim_param = names[axis.dim_param]


def _name_classes(graph: Any, classes: np.ndarray) -> None:
    """Look the labels up in the graph: an output "labels" takes the place of the indices."""
    from onnx import helper, numpy_helper

    names = classes if classes.dtype.kind in "biuf" else classes.astype(str).astype(object)
    table = numpy_helper.from_array(names, name="classes")
    graph.initializer.append(table)
    graph.node.append(helper.make_node("Gather", ["classes", OUTPUTS[0]], ["labels"]))
    indices = graph.output.pop(0)
    labels = helper.make_tensor_value_info("labels", table.data_type, None)
    labels.type.tensor_type.shape.CopyFrom(indices.type.tensor_type.shape)
    graph.output.insert(0, labels)


def _resizing(config: BackboneConfig) -> dict[str, Any]:
    """Tell how a picture is resized before it comes to the network."""
    size = config.image_size
    return {
        "image_size": size,
        "resize_to": None if size is None else math.floor(size / config.crop_pct),
        "n_channels": config.n_channels,
        "interpolation": config.interpolation,
        "crop_pct": config.crop_pct,
        "crop_mode": config.crop_mode,
    }
