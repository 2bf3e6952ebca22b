"""The CLCE criterion: cross-entropy plus the label-aware contrastive term."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._checks import (
    at_least_float32,
    check_labels,
    check_samples,
    check_settings,
    check_weights,
    gathered,
    warn_if_apart,
)
from ._contrastive import (
    CONTRASTIVE_SETTINGS,
    contrastive_loss,
    shown_settings,
)

# No label: torch's own, -100, would leave a sample out of one of the two terms alone.
_NOTHING_IGNORED = torch.iinfo(torch.int64).min


def clce_loss(
    logits: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    *,
    weight: float = 0.5,
    temperature: float | Tensor = 0.5,
    hardness: float | Tensor = 1.0,
    positives: str = "each",
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    positive_mask: Tensor | None = None,
    positive_weights: Tensor | None = None,
    negative_mask: Tensor | None = None,
    reduction: str = "mean",
    form: str = "auto",
    gather: bool | None = None,
) -> Tensor:
    """Cross-entropy and the label-aware contrastive term of one batch.

    ``(1 - weight) * cross_entropy + weight * contrastive``, see
    :func:`label_aware_contrastive_loss` for the second term.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        Unnormalised class scores.
    embeddings : Tensor of shape (n, n_dims)
        Embeddings of the same samples, normalised or not.
    labels : Tensor of shape (n,)
        Class indices in ``0 .. n_classes - 1``, of an integer dtype. No index is
        ignored, not even -100.
    weight, temperature, hardness : float
        Settings of :class:`CLCELoss`. A temperature or hardness may be a tensor, which
        gets a gradient.
    positives : {"each", "mean"}, default="each"
        Whether the contrastive term takes the logarithm of each positive or of their mean.
    label_smoothing : float, default=0.0
        Share of the target spread over all classes in the cross-entropy, in [0, 1].
    class_weight : Tensor of shape (n_classes,), default=None
        Non-negative weight of each class, multiplied into ``sample_weight``.
    sample_weight : Tensor of shape (n,), default=None
        Non-negative weight of each sample, in the cross-entropy and, as the weight of
        an anchor, in the contrastive term. Both terms are weighted means.
    references, reference_labels : Tensor, default=None
        What the contrastive term compares in addition, see
        :func:`label_aware_contrastive_loss`. The cross-entropy does not use them.
    positive_mask, positive_weights, negative_mask : Tensor, default=None
        Which pairs it compares instead of those that the labels make.
    reduction : {"mean", "none"}, default="mean"
        "none" gives the loss of each sample, times its weight; the contrastive part is
        0 without a positive.
    form : {"auto", "plain", "tiles"}, default="auto"
        How to compute the contrastive term.
    gather : bool, default=None
        Whether samples of all processes of ``torch.distributed`` make one batch.

    Returns
    -------
    Tensor of shape () or (n,)
        The loss, in float32 or in the wider dtype of the inputs.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, a label is not a class, or a setting or weight
        is out of its range.
    TypeError
        If an argument is not a tensor of the right dtype.
    NotImplementedError
        If ``form="tiles"`` can't compute what is asked for.

    See Also
    --------
    CLCELoss : The same as a module.
    label_aware_contrastive_loss : The contrastive term, with its parameters.

    References
    ----------
    .. [1] Long, Z. et al. "CLCE: An Approach to Refining Cross-Entropy and
       Contrastive Learning for Optimized Learning Fusion", arXiv:2402.14551, 2024.

    Examples
    --------
    >>> import torch
    >>> from sklearn_clce import clce_loss
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    >>> labels = torch.tensor([0, 1, 0, 1])
    >>> logits = torch.zeros(4, 2)
    >>> round(clce_loss(logits, embeddings, labels, weight=0.0).item(), 4)  # log(2)
    0.6931
    >>> round(clce_loss(logits, embeddings, labels, weight=0.5, temperature=0.1).item(), 4)
    0.3466
    """
    terms = _terms(
        logits,
        embeddings,
        labels,
        sample_weight,
        weight=weight,
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        gather=gather,
        settings={
            "temperature": temperature,
            "hardness": hardness,
            "positives": positives,
            "reduction": reduction,
            "form": form,
        },
        references=references,
        reference_labels=reference_labels,
        positive_mask=positive_mask,
        positive_weights=positive_weights,
        negative_mask=negative_mask,
    )
    return _weighed(terms, weight)


class CLCELoss(nn.Module):
    """Cross-entropy and the label-aware contrastive loss, trained jointly.

    Parameters
    ----------
    weight : float, default=0.5
        Share of the contrastive term, in [0, 1]. 0 is plain cross-entropy.
    temperature : float or Tensor of shape (), default=0.5
        Divisor of the cosine similarities, above 0. A :class:`torch.nn.Parameter` is
        learned, here and as ``hardness``.
    hardness : float or Tensor of shape (), default=1.0
        How strongly similarity weights a negative, at least 0.
    label_smoothing : float, default=0.0
        Share of the target spread over all classes in the cross-entropy, in [0, 1].
    class_weight : array-like of shape (n_classes,), default=None
        Non-negative weight of each class. Copied into a buffer, so it moves with the
        module.
    positives : {"each", "mean"}, default="each"
        Whether the contrastive term takes the logarithm of each positive, or one of their
        mean: the authors' term, with a weight of 0.9.
    reduction : {"mean", "none"}, default="mean"
        "none" gives the loss of each sample, times its weight.
    form : {"auto", "plain", "tiles"}, default="auto"
        How to compute the contrastive term, see :func:`label_aware_contrastive_loss`.
    gather : bool, default=None
        Whether samples of all processes of ``torch.distributed`` make one batch.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    See Also
    --------
    clce_loss : The same as a function, with the source.

    Examples
    --------
    >>> import torch
    >>> from sklearn_clce import CLCELoss
    >>> criterion = CLCELoss(weight=0.9, temperature=0.5)
    >>> embeddings = torch.randn(8, 16, requires_grad=True)
    >>> logits = embeddings @ torch.randn(16, 4)
    >>> criterion(logits, embeddings, torch.arange(8) % 4).backward()
    >>> embeddings.grad.shape
    torch.Size([8, 16])
    """

    class_weight: Tensor | None

    def __init__(
        self,
        weight: float = 0.5,
        temperature: float | Tensor = 0.5,
        hardness: float | Tensor = 1.0,
        label_smoothing: float = 0.0,
        class_weight: Tensor | np.ndarray | Sequence[float] | None = None,
        *,
        positives: str = "each",
        reduction: str = "mean",
        form: str = "auto",
        gather: bool | None = None,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.temperature = temperature
        self.hardness = hardness
        self.label_smoothing = label_smoothing
        self.positives = positives
        self.reduction = reduction
        self.form = form
        self.gather = gather
        if class_weight is not None:
            copy = torch.as_tensor(class_weight).detach().clone()
            class_weight = check_weights("class_weight", at_least_float32(copy))
        self.register_buffer("class_weight", class_weight)
        check_settings(weight=weight, label_smoothing=label_smoothing, **self._settings())

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in CONTRASTIVE_SETTINGS}

    def forward(
        self,
        logits: Tensor,
        embeddings: Tensor,
        labels: Tensor,
        sample_weight: Tensor | None = None,
        *,
        references: Tensor | None = None,
        reference_labels: Tensor | None = None,
        positive_mask: Tensor | None = None,
        positive_weights: Tensor | None = None,
        negative_mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of one batch.

        Parameters
        ----------
        logits, embeddings, labels, sample_weight : Tensor
            See :func:`clce_loss`, also for the parameters below.
        references, reference_labels : Tensor, default=None
            What the contrastive term compares in addition.
        positive_mask, positive_weights, negative_mask : Tensor, default=None
            Which pairs it compares instead of those that the labels make.

        Returns
        -------
        Tensor of shape () or (n,)
            The loss.
        """
        terms = self.terms(
            logits,
            embeddings,
            labels,
            sample_weight,
            references=references,
            reference_labels=reference_labels,
            positive_mask=positive_mask,
            positive_weights=positive_weights,
            negative_mask=negative_mask,
        )
        return self.weigh(terms)

    def terms(self, *batch: Any, **compared: Any) -> dict[str, Tensor]:
        """Compute the terms of one batch, before they are weighed.

        Parameters
        ----------
        *batch, **compared : Tensor
            The arguments of :meth:`forward`.

        Returns
        -------
        dict of str to Tensor of shape () or (n,)
            "cross_entropy", and "contrastive" unless its weight is 0.
        """
        return _terms(
            *batch,
            weight=self.weight,
            label_smoothing=self.label_smoothing,
            class_weight=self.class_weight,
            gather=self.gather,
            settings=self._settings(),
            **compared,
        )

    def weigh(self, terms: dict[str, Tensor]) -> Tensor:
        """Add up the terms.

        Parameters
        ----------
        terms : dict of str to Tensor of shape () or (n,)
            What :meth:`terms` returns.

        Returns
        -------
        Tensor of shape () or (n,)
            The loss.
        """
        return _weighed(terms, self.weight)

    def extra_repr(self) -> str:
        """Show the settings in the module's repr.

        Returns
        -------
        str
            The settings.
        """
        names = "weight", "temperature", "hardness", "label_smoothing", "positives"
        return shown_settings(self, *names, "reduction", "form", "class_weight", "gather")


def _terms(
    logits: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    sample_weight: Tensor | None = None,
    *,
    weight: float,
    label_smoothing: float,
    class_weight: Tensor | None,
    gather: bool | None,
    settings: dict[str, Any],
    **compared: Any,
) -> dict[str, Tensor]:
    """Check a batch and compute its terms, without the contrastive one if its weight is 0.

    ``settings`` and ``compared`` are those of the contrastive term.
    """
    check_settings(weight=weight, label_smoothing=label_smoothing, **settings)
    warn_if_apart(gather)
    logits, embeddings, labels, sample_weight = gathered(
        gather, logits=logits, embeddings=embeddings, labels=labels, sample_weight=sample_weight
    )
    check_samples("logits", logits)
    check_samples("embeddings", embeddings)
    labels = check_labels("labels", labels, "embeddings", embeddings)
    check_labels("labels", labels, "logits", logits)
    losses = _cross_entropies(logits, labels, label_smoothing)
    sample_weight = _sample_weight(sample_weight, class_weight, labels, logits.shape[1])
    terms = {"cross_entropy": _reduced(losses, sample_weight, settings["reduction"])}
    if weight > 0:
        is_masked = compared.get("positive_mask") is not None
        terms["contrastive"] = contrastive_loss(
            embeddings, None if is_masked else labels, sample_weight, **settings, **compared
        )
    return terms


def _weighed(terms: dict[str, Tensor], weight: float) -> Tensor:
    if weight == 0:
        return terms["cross_entropy"]
    return (1 - weight) * terms["cross_entropy"] + weight * terms["contrastive"]


def _cross_entropies(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Return the cross-entropy of each sample; raise an error for a label without a column."""
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


def _sample_weight(
    sample_weight: Tensor | None, class_weight: Tensor | None, labels: Tensor, n_classes: int
) -> Tensor | None:
    """Return the product of both weights of each sample, (n,)."""
    if sample_weight is not None:
        checked = check_weights("sample_weight", sample_weight, labels.shape[0], "samples")
        sample_weight = at_least_float32(checked)
    if class_weight is None:
        return sample_weight
    checked = check_weights("class_weight", class_weight, n_classes, "columns of logits")
    of_class = at_least_float32(checked)[labels]
    if sample_weight is None:
        return of_class
    return check_weights("class_weight times sample_weight", of_class * sample_weight)


def _reduced(losses: Tensor, sample_weight: Tensor | None, reduction: str) -> Tensor:
    if sample_weight is None:
        return losses.mean() if reduction == "mean" else losses
    sample_weight = sample_weight.to(losses.dtype)
    # An infinite loss without weight is left out; NaN is not hidden.
    counted = torch.where((sample_weight > 0) | losses.isnan(), losses, 0)
    total = sample_weight.sum()
    weighted = counted * sample_weight
    return weighted.sum() / torch.where(total > 0, total, 1) if reduction == "mean" else weighted
