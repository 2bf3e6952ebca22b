"""The criterion for several labels a sample: binary cross-entropies, and pairs that share one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ._checks import at_least_float32, check_settings, gathered, warn_if_apart
from ._contrastive import label_aware_contrastive_loss
from ._criterion import CLCELoss
from ._label_sets import label_set_pairs

SIMILARITY = "jaccard"  # of sets of labels


class MultilabelCLCELoss(CLCELoss):
    """Binary cross-entropy of each label and the contrastive loss of samples that share one.

    Parameters, and how both terms are weighed, are those of :class:`CLCELoss`. The cross-entropy
    is the weighted mean over samples and labels; a weight of 0 leaves a label of a sample out.
    """

    def terms(
        self, logits: Tensor, embeddings: Tensor, labels: Tensor, weights: Tensor, **_: Any
    ) -> dict[str, Tensor]:
        """Compute the terms of one batch.

        Shapes: logits (n, n_classes), embeddings (n, n_dims), labels (n, n_classes) of 0 and 1,
        weights (n, n_classes) -> () each.
        """
        check_settings(weight=self.weight, label_smoothing=self.label_smoothing)
        warn_if_apart(self.gather)
        logits, embeddings, labels, weights = gathered(
            self.gather, logits=logits, embeddings=embeddings, labels=labels, weights=weights
        )
        losses = _cross_entropies(logits, labels, self.label_smoothing)
        total = weights.sum()
        mean = (losses * weights).sum() / torch.where(total > 0, total, 1)
        terms = {"cross_entropy": mean}
        if self.weight > 0:
            terms["contrastive"] = self._contrastive(embeddings, labels, weights)
        return terms

    def _contrastive(self, embeddings: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        is_known = weights > 0
        targets = torch.where(is_known, labels.to(weights.dtype), torch.nan)
        return label_aware_contrastive_loss(
            embeddings,
            sample_weight=weights.sum(dim=1) / is_known.sum(dim=1).clamp(min=1),
            gather=False,
            **label_set_pairs(targets, similarity=SIMILARITY),
            **self._settings(),
        )


def _cross_entropies(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Return the binary cross-entropy of each label, (n, n_classes)."""
    with torch.autocast(logits.device.type, enabled=False):
        logits = at_least_float32(logits)
        targets = (1 - label_smoothing) * labels.to(logits.dtype) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
