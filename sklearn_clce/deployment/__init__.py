"""From a fitted classifier to where it is used: an ONNX file, the Hugging Face Hub."""

from ._hub import HubMixin, model_card
from ._onnx import OnnxMixin

__all__ = ["HubMixin", "OnnxMixin", "model_card"]
