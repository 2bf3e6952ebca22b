"""Columns of the classifier for new classes, from a few samples of them and none of the old."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from .head import Head

RIDGE = 0.01  # of the new weights; a class counts 1
MAX_LOGITS = 20_000_000  # of moved samples, at a time in memory


def add_classes(head: Head, inputs: Tensor, labels: Tensor, order: Tensor) -> None:
    """Give the classifier columns of new classes, from its inputs of their samples.

    Shapes: inputs (n, n_inputs), labels (n,), counted from the first new class; order
    (n_old + n_new,), each class's place among the old ones followed by the new ones.
    """
    n_old, n_classes = head.n_classes, len(order)
    parts = [*head.classifier.columns(), head.class_means.cpu(), head.class_counts.cpu()]
    weight, bias, means, counts = (part.double() for part in parts)
    known = counts > 0
    columns = new_columns(weight, bias, known.nonzero()[:, 0], means[known], inputs, labels)
    head.classifier = head.classifier.with_columns(
        torch.cat([weight, columns[0]])[order], torch.cat([bias, columns[1]])[order]
    )
    padding = torch.zeros(n_classes - n_old, means.shape[1])
    head.class_means = torch.cat([means, padding])[order].to(head.class_means)
    head.class_counts = torch.cat([counts, padding[:, 0]])[order].to(head.class_counts)
    place = torch.argsort(order)[n_old + labels]
    head.add_class_means(inputs, place, torch.ones(len(labels)), keep_earlier=True)


def start_late_classes(head: Head, inputs: Tensor, labels: Tensor) -> None:
    """Fit the columns of classes whose first samples these are.

    The columns of known classes are fitted, and one that starts from zero would need long.
    Shapes: inputs (n, n_inputs), labels (n,), none of a class that has had samples.
    """
    places, codes = labels.unique(return_inverse=True)
    weight, bias = head.classifier.columns()
    means, counts = head.class_means.cpu().double(), head.class_counts.cpu()
    old = (counts > 0).nonzero()[:, 0]
    columns = new_columns(
        weight[old].double(), bias[old].double(), torch.arange(len(old)), means[old], inputs, codes
    )
    weight[places], bias[places] = (part.to(weight) for part in columns)
    head.classifier.set_columns(weight, bias)


def new_columns(
    weight: Tensor, bias: Tensor, old: Tensor, old_means: Tensor, inputs: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Fit weight (n_new, n_inputs) and bias (n_new,) of new classes; those of the old ones stay.

    The new samples replace the missing old ones [1]_: moved from the mean of their class to that of
    an old class, they lie as samples of that class would.

    Shapes: weight (n_old, n_inputs), bias (n_old,), old (n_known,) classes whose old_means
    (n_known, n_inputs) are known, inputs (n, n_inputs), labels (n,).

    References
    ----------
    .. [1] Petit, G. et al. "FeTrIL: Feature Translation for Exemplar-Free Class-Incremental
       Learning", WACV 2023.
    """
    inputs = inputs.double()
    counts = torch.bincount(labels).to(inputs)  # (n_new,)
    means = torch.zeros(len(counts), inputs.shape[1]).to(inputs).index_add(0, labels, inputs)
    means /= counts[:, None]
    shrinks = (counts / (counts - 1).clamp(min=1)).sqrt()  # towards a mean of few
    deviations = (inputs - means[labels]) * shrinks[labels, None]
    n_moved = max(1, MAX_LOGITS // (len(old) * len(weight)))
    deviations = deviations[torch.linspace(0, len(inputs) - 1, min(n_moved, len(inputs))).long()]
    moved = (old_means @ weight.T + bias)[:, None] + deviations @ weight.T  # (n_known, m, n_old)
    moved_energy = moved.logsumexp(dim=2)
    energy = (inputs @ weight.T + bias).logsumexp(dim=1)

    def loss(columns: Tensor) -> Tensor:
        new_weight, new_bias = columns[:, :-1], columns[:, -1]
        of_moved = (old_means @ new_weight.T + new_bias)[:, None] + deviations @ new_weight.T
        logits = inputs @ new_weight.T + new_bias  # (n, n_new)
        # less the logits of the old classes, which are constant
        old_losses = torch.logaddexp(moved_energy, of_moved.logsumexp(dim=2))
        own = logits.gather(1, labels[:, None])[:, 0]
        losses = torch.logaddexp(energy, logits.logsumexp(dim=1)) - own
        ridge = RIDGE / 2 * new_weight.square().sum()
        return old_losses.mean(dim=1).sum() + (losses / counts[labels]).sum() + ridge

    shape = (len(counts), inputs.shape[1] + 1)

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        columns = torch.from_numpy(flat).reshape(shape).requires_grad_()
        value = loss(columns)
        (gradient,) = torch.autograd.grad(value, columns)
        return value.item(), gradient.numpy().ravel()

    with torch.enable_grad():
        found = minimize(
            value_and_gradient, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B"
        )
    columns = torch.from_numpy(found.x).reshape(shape)
    return columns[:, :-1], columns[:, -1]
