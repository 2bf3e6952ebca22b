"""What a net computes of samples, outside training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .._network import Network
from .._system import agree, bar, gather_objects, gpu_lock, is_main, own_share
from ..backbones import FrozenBackbone
from ..data import Images
from ..features import features_of
from .batches import Samples, make_dataset
from .plan import Passes
from .trainer import CLCENet

Infer = Callable[[Any], tuple[Tensor, ...]]  # a batch to outputs of shape (n, ...)


def infer(
    net: CLCENet, samples: Samples, passes: Passes, how: Infer | None = None
) -> tuple[Tensor, ...]:
    """Return logits (n, n_classes) and embeddings (n, n_embedding), float32 on the CPU.

    ``how`` computes other outputs of a batch.
    """
    agree(model_of(net))
    shown = bool(passes.verbose) and is_main()
    with gpu_lock(torch.device(net.device)), bar(what="predicting", shown=shown):
        features = features_for(net.module_, samples, replace(passes, verbose=0))
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


def check_class_means(net: CLCENet, method: str) -> None:
    """Raise a ValueError if the means of classes that a method needs are not there, or stale."""
    needs = f"{method} needs the mean of each class, which a fit"
    if net.fit_state is not None:
        raise ValueError(
            f"{needs} computes at its end: a scorer, which is called in between, may use predict, "
            "predict_proba, decision_function, transform and score"
        )
    if not net.module_.head.has_class_means:
        raise ValueError(
            f"{needs} that was interrupted in its last pass does not have: fit again, or "
            "partial_fit on some images of all classes"
        )


def model_of(net: CLCENet) -> dict[str, Any]:
    """Return what must be the same in all processes that share the batches of a fitted net."""
    return {
        "batch_size of the fit": net.plan.batch_size,
        "micro_batch_size of the fit": net.plan.micro_batch_size,
        "number of classes": net.module_.head.n_classes,
        "number of epochs": len(net.history_),
        "whether the backbone is frozen": net.module_.frozen,
    }


def infer_batches(net: CLCENet, dataset: Dataset, how: Infer) -> tuple[Tensor, ...]:
    """Return the outputs of a dataset's batches in order, each process computing some of them."""
    net.module_.eval()
    outputs = []
    shares = own_share(net.in_order(dataset))
    batches = net.load(dataset, shares)
    with bar(total=sum(map(len, shares)), unit="image", shown=False) as progress:
        for batch, _ in batches:
            with torch.inference_mode():
                outputs.append([output.float().cpu() for output in how(batch)])
            progress.update(len(batch))
    return tuple(map(torch.cat, zip(*chain(*gather_objects(outputs)), strict=True)))


def features_for(network: Network, samples: Samples, passes: Passes) -> Tensor | None:
    """Return features (n, n_features) of samples, unless the backbone is trainable."""
    if isinstance(samples, Tensor):
        return samples
    return frozen_features(as_frozen(network), samples, passes) if network.frozen else None


def as_frozen(network: Network) -> FrozenBackbone:
    """Return the backbone of a network as it is now, for inference."""
    assert network.backbone is not None
    assert network.config is not None
    return FrozenBackbone(network.backbone.eval(), network.config)


def frozen_features(backbone: FrozenBackbone, images: Images, passes: Passes) -> Tensor:
    """Run a frozen backbone, or take kept features: (n, n_features) on the CPU."""
    return features_of(
        images,
        backbone,
        store=passes.store,
        batch_size=passes.batch_size,
        device=passes.device,
        precision=passes.precision,
        num_workers=passes.num_workers,
        verbose=passes.verbose,
    )
