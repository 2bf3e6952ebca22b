"""What a net says of samples, outside training."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .._system import bar, gather_objects, gpu_lock, is_main, own_share
from ..data import FeatureBatches
from .loading import in_order, load
from .net import CLCENet
from .parameters import CLCEParameters
from .samples import Samples, features_for, make_dataset

Infer = Callable[[Any], tuple[Tensor, ...]]  # a batch to outputs of shape (n, ...)


def infer(
    parameters: CLCEParameters, net: CLCENet, samples: Samples, how: Infer | None = None
) -> tuple[Tensor, ...]:
    """Return logits (n, n_classes) and embeddings (n, n_embedding), float32 on the CPU.

    ``how`` computes other outputs of a batch.
    """
    with gpu_lock(torch.device(net.device)):
        features = features_for(parameters, net, samples)
        dataset = make_dataset(net.module_, samples if features is None else features)
        outputs = infer_batches(net, dataset, how or net.infer)
    rows = [output.reshape(len(output), -1) for output in outputs]
    finite = torch.cat(rows, dim=1).isfinite().all(dim=1)  # (n,)
    if not finite.all():
        raise ValueError(
            f"X[{finite.int().argmin().item()}] gives scores that are not finite: values of the "
            "size that the fit has seen are required"
        )
    return outputs


def infer_batches(net: CLCENet, dataset: Dataset, how: Infer) -> tuple[Tensor, ...]:
    """Return the outputs of a dataset's batches in order, each process computing some of them."""
    net.module_.eval()
    outputs = []
    batches: Any = load(net, dataset, own_share(in_order(net, dataset)))
    shown = bool(net.verbose) and is_main() and not isinstance(batches, FeatureBatches)
    for batch, _ in bar(batches, total=len(batches), unit="batch", shown=shown):
        with torch.inference_mode():
            outputs.append([output.float().cpu() for output in how(batch)])
    return tuple(map(torch.cat, zip(*chain(*gather_objects(outputs)), strict=True)))
