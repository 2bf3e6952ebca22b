"""New classes in a trained network, from a few pictures of them and none of the old ones."""

from __future__ import annotations

import copy

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from .._system import gpu_lock, resolve_device, seeded_torch
from .assembly import continued_net
from .class_means import note_class_means
from .course import go_on
from .inference import infer, infer_batches
from .module import BatchInvariantLinear, CLCEModule
from .net import CLCENet
from .parameters import CLCEParameters
from .samples import Samples, make_dataset, part_of

RIDGE = 0.01  # of the new weights; a class counts 1
MAX_LOGITS = 20_000_000  # of moved pictures, at a time in memory


def grown_net(
    parameters: CLCEParameters,
    net: CLCENet,
    samples: Samples,
    labels: np.ndarray,
    order: np.ndarray,
) -> CLCENet:
    """Return a copy of a net that knows new classes, too.

    Shapes: labels (n,), counted from the first new class; order (n_old + n_new,), the place of each
    class among the old ones followed by the new ones.
    """
    if not (net.module_.class_counts > 0).any():
        raise ValueError(
            "add_classes needs the mean of each class, which a fit that was interrupted in its "
            "last pass does not hold: fit again, or partial_fit on some images of all classes"
        )
    assert net.course is not None  # it has trained
    device = resolve_device(parameters.device)
    read, _ = infer(parameters, net, samples, net.read)
    course = go_on(parameters, net.course, net.module_.backbone)
    with gpu_lock(device), seeded_torch(course.seed, device):
        module = copy.deepcopy(net.module_)
        grow(module, read, torch.from_numpy(labels), torch.from_numpy(order))
        grown = continued_net(parameters, net, device, module)
    grown.course = course
    return grown


def grow(module: CLCEModule, read: Tensor, labels: Tensor, order: Tensor) -> None:
    """Give the classifier columns of new classes, from what it reads of their samples."""
    old = module.classifier
    n_old, n_classes = old.out_features, len(order)
    parts = [old.weight, old.bias, module.class_means, module.class_counts]
    weight, bias, means, counts = (part.detach().cpu().double() for part in parts)
    known = counts > 0
    columns = new_columns(weight, bias, known.nonzero()[:, 0], means[known], read, labels)
    n_new = n_classes - n_old
    grown = BatchInvariantLinear(old.in_features, n_classes, device=old.weight.device)
    with torch.no_grad():
        grown.weight.copy_(torch.cat([weight, columns[0]])[order])
        grown.bias.copy_(torch.cat([bias, columns[1]])[order])
    module.classifier = grown
    padding = torch.zeros(n_new, old.in_features)
    module.class_means = torch.cat([means, padding])[order].to(module.class_means)
    module.class_counts = torch.cat([counts, padding[:, 0]])[order].to(module.class_counts)
    place = torch.argsort(order)[n_old + labels]
    note_class_means(module, read, place, torch.ones(len(labels)), goes_on=True)


def start_late_classes(net: CLCENet, samples: Samples, labels: np.ndarray) -> None:
    """Give columns to classes that were named, and of which these are the first samples.

    Those of the classes that the net knows are fitted, and one that learns from zero beside them
    would need long. Shapes: labels (n,).
    """
    module = net.module_
    counts = module.class_counts.cpu()
    known = counts > 0
    late = np.flatnonzero(counts.numpy()[labels] == 0)
    if not known.any() or not len(late):
        return
    read, _ = infer_batches(net, make_dataset(module, part_of(samples, late)), net.read)
    places, codes = torch.from_numpy(labels[late]).unique(return_inverse=True)
    classifier = module.classifier
    parts = [classifier.weight, classifier.bias, module.class_means]
    weight, bias, means = (part.detach().cpu().double() for part in parts)
    old = known.nonzero()[:, 0]
    columns = new_columns(weight[old], bias[old], torch.arange(len(old)), means[old], read, codes)
    with torch.no_grad():
        classifier.weight[places] = columns[0].to(classifier.weight)
        classifier.bias[places] = columns[1].to(classifier.bias)


def new_columns(
    weight: Tensor, bias: Tensor, old: Tensor, old_means: Tensor, read: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Fit weight (n_new, n_read) and bias (n_new,) of new classes; those of the old ones stay.

    The new samples stand in for the old ones [1]_: moved from the mean of their class to that of an
    old class, they lie as samples of that class would.

    Shapes: weight (n_old, n_read), bias (n_old,), old (n_known,) classes whose old_means
    (n_known, n_read) are known, read (n, n_read), labels (n,).

    References
    ----------
    .. [1] Petit, G. et al. "FeTrIL: Feature Translation for Exemplar-Free Class-Incremental
       Learning", WACV 2023.
    """
    read = read.double()
    counts = torch.bincount(labels).to(read)  # (n_new,)
    means = torch.zeros(len(counts), read.shape[1]).to(read).index_add(0, labels, read)
    means /= counts[:, None]
    shrinks = (counts / (counts - 1).clamp(min=1)).sqrt()  # towards a mean of few
    deviations = (read - means[labels]) * shrinks[labels, None]
    n_moved = max(1, MAX_LOGITS // (len(old) * len(weight)))
    deviations = deviations[torch.linspace(0, len(read) - 1, min(n_moved, len(read))).long()]
    moved = (old_means @ weight.T + bias)[:, None] + deviations @ weight.T  # (n_known, m, n_old)
    moved_energy = moved.logsumexp(dim=2)
    energy = (read @ weight.T + bias).logsumexp(dim=1)

    def loss(columns: Tensor) -> Tensor:
        new_weight, new_bias = columns[:, :-1], columns[:, -1]
        of_moved = (old_means @ new_weight.T + new_bias)[:, None] + deviations @ new_weight.T
        logits = read @ new_weight.T + new_bias  # (n, n_new)
        # less the logits of the old classes, which are constant
        old_losses = torch.logaddexp(moved_energy, of_moved.logsumexp(dim=2))
        own = logits.gather(1, labels[:, None])[:, 0]
        losses = torch.logaddexp(energy, logits.logsumexp(dim=1)) - own
        ridge = RIDGE / 2 * new_weight.square().sum()
        return old_losses.mean(dim=1).sum() + (losses / counts[labels]).sum() + ridge

    shape = (len(counts), read.shape[1] + 1)

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
