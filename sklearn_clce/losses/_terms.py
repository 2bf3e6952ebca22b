"""Both terms of the criterion, of a batch that is checked here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ._anchors import at_least_float32
from ._checks import check_labels, check_samples, check_settings, check_weights
from ._contrastive import check_pairs, reduced_loss
from ._gathering import gathered, warn_if_apart

# No label: torch's own, -100, would leave a sample out of one of the two terms alone.
_NOTHING_IGNORED = torch.iinfo(torch.int64).min


def terms_of_batch(
    logits: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    sample_weight: Tensor | None,
    *,
    settings: dict[str, Any],
    class_weight: Tensor | None,
    references: Tensor | None,
    reference_labels: Tensor | None,
    positive_mask: Tensor | None,
    gather: bool | None,
) -> dict[str, Tensor]:
    """Check a batch and compute its terms; that without weight is left out."""
    check_settings(**settings)
    weight, label_smoothing, reduction = (
        settings[name] for name in ("weight", "label_smoothing", "reduction")
    )
    warn_if_apart(gather)
    logits = gathered("logits", logits, gather)
    embeddings = gathered("embeddings", embeddings, gather)
    labels = gathered("labels", labels, gather)
    sample_weight = gathered("sample_weight", sample_weight, gather)
    check_samples("logits", logits)
    check_samples("embeddings", embeddings)
    labels = check_labels("labels", labels, "embeddings", embeddings)
    check_labels("labels", labels, "logits", logits)
    if sample_weight is not None:
        sample_weight = at_least_float32(
            check_weights("sample_weight", sample_weight, labels.shape[0], "samples")
        )
    losses = _cross_entropies(logits, labels, label_smoothing)
    if class_weight is not None:
        of_class = at_least_float32(
            check_weights("class_weight", class_weight, logits.shape[1], "columns of logits")
        )[labels]
        sample_weight = of_class if sample_weight is None else of_class * sample_weight
    terms = {"cross_entropy": _reduced(losses, sample_weight, reduction)}
    if weight > 0:
        by_label = labels if positive_mask is None else None
        pairs = check_pairs(embeddings, by_label, references, reference_labels, positive_mask)
        terms["contrastive"] = reduced_loss(
            embeddings,
            references,
            pairs,
            sample_weight,
            settings["temperature"],
            settings["hardness"],
            reduction,
            settings["form"],
        )
    return terms


def weighed(terms: dict[str, Tensor], weight: float) -> Tensor:
    """Add up the terms."""
    if weight == 0:
        return terms["cross_entropy"]
    return (1 - weight) * terms["cross_entropy"] + weight * terms["contrastive"]


def _cross_entropies(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Return the cross-entropy of each sample, and refuse a label that is no column of logits."""
    with torch.autocast(logits.device.type, enabled=False):
        try:
            return F.cross_entropy(
                at_least_float32(logits),
                labels,
                reduction="none",
                label_smoothing=label_smoothing,
                ignore_index=_NOTHING_IGNORED,
            )
        except IndexError as error:
            raise ValueError(
                f"labels hold {labels.min().item()} to {labels.max().item()}: indices of the "
                f"{logits.shape[1]} columns of logits are required; leave samples without a class "
                "out of the batch"
            ) from error


def _reduced(losses: Tensor, sample_weight: Tensor | None, reduction: str) -> Tensor:
    if sample_weight is None:
        return losses.mean() if reduction == "mean" else losses
    sample_weight = sample_weight.to(losses.dtype)
    # An infinite loss that doesn't count is left out; NaN is not hidden.
    counted = torch.where((sample_weight > 0) | losses.isnan(), losses, 0)
    total = sample_weight.sum()
    weighted = counted * sample_weight
    return weighted.sum() / torch.where(total > 0, total, 1) if reduction == "mean" else weighted
