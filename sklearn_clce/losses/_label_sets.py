"""Pairs of samples that have sets of labels: who is positive, by how much, and who is negative."""

from __future__ import annotations

from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor

from ._checks import at_least_float32, check_samples, is_readable

SIMILARITIES = ("jaccard", "per_label", "similarity_dissimilarity", "any")


class LabelSetPairs(TypedDict):
    """Keyword arguments of a loss, each of shape (n, n + m)."""

    positive_mask: Tensor
    positive_weights: Tensor
    negative_mask: Tensor


def label_set_pairs(
    targets: Tensor, *, similarity: str = "jaccard", reference_targets: Tensor | None = None
) -> LabelSetPairs:
    r"""Compare sets of labels, for the contrastive loss of samples with several labels.

    Two samples are a positive pair if they share a label, and a negative pair if they share
    none. Where labels are not annotated, some pairs may or may not share one: they are in
    neither mask, so the loss leaves them out.

    Parameters
    ----------
    targets : Tensor of shape (n, n_labels)
        1 where the sample has the label, 0 where it has not, NaN where that is not annotated.
        Of any dtype, bool included.
    similarity : {"jaccard", "per_label", "similarity_dissimilarity", "any"}, default="jaccard"
        How much a positive counts for its anchor. With S the labels of the anchor and T
        those of the positive, both without labels that one of them is not annotated for:

        - "jaccard": :math:`|S \cap T| / |S \cup T|`.
        - "per_label": the sum over shared labels of 1 / (number of the anchor's positives
          with that label). With ``positives="each"`` that is the loss of [1]_: one mean for
          each label of the anchor, over the samples with that label. The paper counts an
          anchor as often as it has labels; ``sample_weight=targets.sum(1)`` does.
        - "similarity_dissimilarity": :math:`|S \cap T| / |S| \cdot 1 / (1 + |T \setminus S|)`,
          the two factors of [2]_. It is not the same both ways.
        - "any": the same for all.
    reference_targets : Tensor of shape (m, n_labels), default=None
        Those of the references that anchors are compared with in addition.

    Returns
    -------
    dict of str to Tensor of shape (n, n + m)
        "positive_mask", "positive_weights" and "negative_mask", the arguments of
        :func:`label_aware_contrastive_loss`.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, an entry is not 0, 1 or NaN, or ``similarity`` is
        not known.
    TypeError
        If targets are not a tensor.

    See Also
    --------
    label_aware_contrastive_loss : The loss of these pairs.

    References
    ----------
    .. [1] Zhang, P. and Wu, M. "Multi-Label Supervised Contrastive Learning", AAAI 2024.
    .. [2] Huang, G. et al. "Similarity-Dissimilarity Loss for Multi-label Supervised
       Contrastive Learning", arXiv:2410.13439, 2024.

    Examples
    --------
    >>> import torch
    >>> from sklearn_clce import label_aware_contrastive_loss, label_set_pairs
    >>> targets = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, float("nan")]])
    >>> pairs = label_set_pairs(targets)
    >>> pairs["positive_weights"][0]
    tensor([1.0000, 0.5000, 0.0000, 0.5000])
    >>> pairs["negative_mask"][2]  # the last sample may have the third label
    tensor([ True,  True, False, False])
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
    >>> label_aware_contrastive_loss(embeddings, **pairs)
    tensor(0.7882)
    """
    if similarity not in SIMILARITIES:
        known = ", ".join(map(repr, SIMILARITIES))
        raise ValueError(f"similarity={similarity!r}: one of {known} is required")
    anchors = columns = _label_sets("targets", targets)
    if reference_targets is not None:
        references = _label_sets("reference_targets", reference_targets)
        _check_same_labels(references, anchors)
        columns = _LabelSets(*(torch.cat(parts) for parts in zip(anchors, references, strict=True)))
    shared = anchors.present @ columns.present.T  # (n, n + m), as all that follow
    possibly_shared = (1 - anchors.absent) @ (1 - columns.absent).T
    return {
        "positive_mask": shared > 0,
        "positive_weights": _weights(similarity, anchors, columns, shared),
        "negative_mask": possibly_shared == 0,
    }


class _LabelSets(NamedTuple):
    """1 where a sample is known to have a label, or to lack it, else 0; (n, n_labels)."""

    present: Tensor
    absent: Tensor


def _label_sets(name: str, targets: Any) -> _LabelSets:
    check_samples(name, targets, may_be_empty=True)
    targets = at_least_float32(targets)
    valid = (targets == 0) | (targets == 1) | targets.isnan()
    if is_readable(valid) and not valid.all():
        raise ValueError(
            f"{name} holds {targets[~valid][0].item()!r}: 1 for a label that a sample has, 0 for "
            "one that it has not, and NaN where that is not annotated are required"
        )
    return _LabelSets((targets == 1).to(targets.dtype), (targets == 0).to(targets.dtype))


def _check_same_labels(references: _LabelSets, anchors: _LabelSets) -> None:
    n_labels = anchors.present.shape[1]
    if references.present.shape[1] != n_labels:
        raise ValueError(
            f"reference_targets of shape {tuple(references.present.shape)}: a column for each of "
            f"the {n_labels} labels of targets is required"
        )


def _weights(similarity: str, anchors: _LabelSets, columns: _LabelSets, shared: Tensor) -> Tensor:
    if similarity == "any":
        return shared.clamp(max=1)
    if similarity == "per_label":
        n_others = columns.present.sum(dim=0) - 1  # with a label, of an anchor with it, (n_labels,)
        return (anchors.present / n_others.clamp(min=1)) @ columns.present.T
    anchor_alone = anchors.present @ columns.absent.T
    column_alone = anchors.absent @ columns.present.T
    if similarity == "jaccard":
        return shared / (shared + anchor_alone + column_alone).clamp(min=1)
    return shared / (shared + anchor_alone).clamp(min=1) / (1 + column_alone)
