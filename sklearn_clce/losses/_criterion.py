"""The CLCE criterion: cross-entropy plus the label-aware contrastive term."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ._anchors import at_least_float32
from ._checks import check_settings, check_weights
from ._contrastive import shown_settings
from ._terms import terms_of_batch, weighed


def clce_loss(
    logits: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    *,
    weight: float = 0.5,
    temperature: float | Tensor = 0.5,
    hardness: float | Tensor = 1.0,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    positive_mask: Tensor | None = None,
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
        Class indices in ``0 .. n_classes - 1``, of an integer dtype. None is left
        out, -100 neither.
    weight : float, default=0.5
        Share of the contrastive term, in [0, 1]. 0 is plain cross-entropy.
    temperature : float or Tensor of shape (), default=0.5
        Divisor of the cosine similarities, above 0. A tensor gets a gradient.
    hardness : float or Tensor of shape (), default=1.0
        How strongly similarity weights a negative, at least 0. 0 is the
        supervised contrastive loss.
    label_smoothing : float, default=0.0
        Share of the target spread over all classes in the cross-entropy, in [0, 1].
    class_weight : Tensor of shape (n_classes,), default=None
        Non-negative weight of each class, multiplied into ``sample_weight``.
    sample_weight : Tensor of shape (n,), default=None
        Non-negative weight of each sample, in the cross-entropy and, as the weight of
        an anchor, in the contrastive term. Both terms are weighted means.
    references : Tensor of shape (m, n_dims), default=None
        Embeddings that anchors are compared with beside those of the batch.
    reference_labels : Tensor of shape (m,), default=None
        Their labels.
    positive_mask : Tensor of shape (n, n + m), default=None
        Which pairs the contrastive term takes for positives, in place of the labels.
    reduction : {"mean", "none"}, default="mean"
        "none" gives the loss of each sample, times its weight; the contrastive part is
        0 without a positive.
    form : {"auto", "plain", "blocks"}, default="auto"
        How to compute the contrastive term.
    gather : bool, default=None
        Whether samples of all processes of ``torch.distributed`` make one batch. None
        is False, with a warning where there are several.

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
        If ``form="blocks"`` can't give what is asked.

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
    terms = terms_of_batch(
        logits,
        embeddings,
        labels,
        sample_weight,
        settings={
            "weight": weight,
            "temperature": temperature,
            "hardness": hardness,
            "label_smoothing": label_smoothing,
            "reduction": reduction,
            "form": form,
        },
        class_weight=class_weight,
        references=references,
        reference_labels=reference_labels,
        positive_mask=positive_mask,
        gather=gather,
    )
    return weighed(terms, weight)


class CLCELoss(nn.Module):
    """Cross-entropy and the label-aware contrastive loss, trained jointly.

    Parameters
    ----------
    weight : float, default=0.5
        Share of the contrastive term, in [0, 1]. 0 is plain cross-entropy.
    temperature : float or Tensor of shape (), default=0.5
        Divisor of the cosine similarities, above 0. An :class:`torch.nn.Parameter` is
        learned.
    hardness : float or Tensor of shape (), default=1.0
        How strongly similarity weights a negative, at least 0.
    label_smoothing : float, default=0.0
        Share of the target spread over all classes in the cross-entropy, in [0, 1].
    class_weight : array-like of shape (n_classes,), default=None
        Non-negative weight of each class. Copied into a buffer, so it moves with the
        module.
    reduction : {"mean", "none"}, default="mean"
        "none" gives the loss of each sample, times its weight.
    form : {"auto", "plain", "blocks"}, default="auto"
        How to compute the contrastive term, see :func:`label_aware_contrastive_loss`.
    gather : bool, default=None
        Whether samples of all processes of ``torch.distributed`` make one batch. None
        is False, with a warning where there are several.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    See Also
    --------
    clce_loss : The same as a function.

    References
    ----------
    .. [1] Long, Z. et al. "CLCE: An Approach to Refining Cross-Entropy and
       Contrastive Learning for Optimized Learning Fusion", arXiv:2402.14551, 2024.

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
        reduction: str = "mean",
        form: str = "auto",
        gather: bool | None = None,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.temperature = temperature
        self.hardness = hardness
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.form = form
        self.gather = gather
        if class_weight is not None:
            copy = torch.as_tensor(class_weight).detach().clone()
            class_weight = check_weights("class_weight", at_least_float32(copy))
        self.register_buffer("class_weight", class_weight)
        check_settings(**self._settings())

    def _settings(self) -> dict[str, Any]:
        names = "weight", "temperature", "hardness", "label_smoothing", "reduction", "form"
        return {name: getattr(self, name) for name in names}

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
    ) -> Tensor:
        """Compute the loss of one batch.

        Parameters
        ----------
        logits : Tensor of shape (n, n_classes)
            Unnormalised class scores.
        embeddings : Tensor of shape (n, n_dims)
            Embeddings of the same samples.
        labels : Tensor of shape (n,)
            Class indices, of an integer dtype.
        sample_weight : Tensor of shape (n,), default=None
            Non-negative weight of each sample.
        references : Tensor of shape (m, n_dims), default=None
            Embeddings that anchors are compared with beside those of the batch.
        reference_labels : Tensor of shape (m,), default=None
            Their labels.
        positive_mask : Tensor of shape (n, n + m), default=None
            Which pairs are positives, in place of the labels.

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
        )
        return self.weigh(terms)

    def terms(
        self,
        logits: Tensor,
        embeddings: Tensor,
        labels: Tensor,
        sample_weight: Tensor | None = None,
        *,
        references: Tensor | None = None,
        reference_labels: Tensor | None = None,
        positive_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms of one batch, before they are weighed.

        Parameters
        ----------
        logits : Tensor of shape (n, n_classes)
            Unnormalised class scores.
        embeddings : Tensor of shape (n, n_dims)
            Embeddings of the same samples.
        labels : Tensor of shape (n,)
            Class indices, of an integer dtype.
        sample_weight : Tensor of shape (n,), default=None
            Non-negative weight of each sample.
        references : Tensor of shape (m, n_dims), default=None
            Embeddings that anchors are compared with beside those of the batch.
        reference_labels : Tensor of shape (m,), default=None
            Their labels.
        positive_mask : Tensor of shape (n, n + m), default=None
            Which pairs are positives, in place of the labels.

        Returns
        -------
        dict of str to Tensor of shape () or (n,)
            "cross_entropy", and "contrastive" unless its weight is 0.
        """
        return terms_of_batch(
            logits,
            embeddings,
            labels,
            sample_weight,
            settings=self._settings(),
            class_weight=self.class_weight,
            references=references,
            reference_labels=reference_labels,
            positive_mask=positive_mask,
            gather=self.gather,
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
        return weighed(terms, self.weight)

    def extra_repr(self) -> str:
        """Show the settings in the module's repr.

        Returns
        -------
        str
            The settings.
        """
        return shown_settings(self, *self._settings(), "class_weight", "gather")
