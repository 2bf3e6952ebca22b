"""An ONNX model in integers of 8 bits, by onnxruntime's static quantisation."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HEAD = "module.head."  # names of its weights begin so
HIGHEST = 127  # of a weight in 8 bits
OPERATORS = ["Conv", "Gemm", "MatMul", "Clip", "Relu"]  # the last two are part of a convolution
PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")  # torch's exporter did the same
Batches = Sequence[dict[str, np.ndarray]]  # inputs of a model by name, each (n, ...)


def quantized(model: Any, batches: Batches) -> Any:
    """Return a model whose backbone computes in 8 bits, in ranges that batches of inputs show.

    The head, which is small, computes as before: scores and probabilities rest on its sums.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model.metadata_props.add(key=PREPARED[0], value=PREPARED[1])
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            _reader(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=OPERATORS,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=_names_of_head(model.graph),
            extra_options={"CalibMovingAverage": True},  # one odd image widens no range
        )
        found = onnx.load(target)
    model.metadata_props.pop()
    _store_head_in_8_bits(found.graph)
    return found


def labels_of(content: bytes, batches: Batches) -> np.ndarray:
    """Run a file on batches of inputs: -> labels (n,)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content)
    return np.concatenate([session.run(["labels"], batch)[0] for batch in batches])


def _reader(batches: Batches) -> Any:
    """Return batches in the form that onnxruntime asks for."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    return Reader()


def _names_of_head(graph: Any) -> list[str]:
    """Name all nodes from the first that reads a weight of the head; they are in order."""
    reads_head = [any(name.startswith(HEAD) for name in node.input) for node in graph.node]
    return [node.name for node in graph.node[reads_head.index(True) :]]


def _store_head_in_8_bits(graph: Any) -> None:
    """Store the matrices of the head in 8 bits, from which a runtime makes floats once."""
    from onnx import helper, numpy_helper

    matrices = [each for each in graph.initializer if _is_matrix_of_head(each)]
    for tensor in matrices:
        weight = numpy_helper.to_array(tensor)  # (n_outputs, n_inputs)
        scale = np.abs(weight).max(axis=1) / HIGHEST
        scale[scale == 0] = 1
        rounded = np.round(weight / scale[:, None]).astype(np.int8)
        names = [f"{tensor.name}_int8", f"{tensor.name}_scale"]
        stored = map(numpy_helper.from_array, (rounded, scale), names)
        graph.initializer.extend(stored)
        graph.node.insert(0, helper.make_node("DequantizeLinear", names, [tensor.name], axis=0))
        graph.initializer.remove(tensor)


def _is_matrix_of_head(tensor: Any) -> bool:
    return tensor.name.startswith(HEAD) and len(tensor.dims) == 2
