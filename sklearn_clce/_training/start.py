"""Where the classifier starts and ends: at what few training images can't lead astray."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from .module import CLCEModule
from .recent import Recent

SHRINKAGE = 0.5  # towards one variance for all features; 0.3 to 0.7 are alike
N_FOLDS = 5
REGRESSION_C = 8.0
REFIT_C = 1.0  # less, because features that were tuned to the samples make them look easy
# More samples make a start slower, and hardly another.
MAX_SAMPLES = 10_000
MAX_HELD_OUT = 2_000
MAX_REGRESSED = 1_000
RECENT_BYTES = 2**26  # of starts, for a search: its candidates start alike in each fold
LEAST = 1e-6  # what is smaller is rounding
ONE_SHOT_SPREAD = 1.5  # of the scores, where no image can be held out: usual with two of a class


def start_head(
    module: CLCEModule, features: Tensor, labels: np.ndarray, weights: np.ndarray
) -> None:
    """Fit to features (n, n_features) what of a head has a closed form: scale and classifier.

    What earlier calls have shown, which was not enough to start from, counts by its means.
    """
    targets, sample_weights = torch.from_numpy(labels), torch.from_numpy(weights)
    known, read = _known_means(module)
    means = module.standardize.inverse(read).float()
    if len(known):
        features = torch.cat([means.to(features), features])
        targets = torch.cat([known.to(targets), targets])
        sample_weights = torch.cat([module.class_counts[known].to(sample_weights), sample_weights])
    differ = module.standardize.adapt(features, sample_weights)
    # what is settled on less, as on the only sample of a first call, says little of others
    module.started = differ and len(targets.unique()) > 1
    start_classifier(module, features, targets, sample_weights)
    with torch.no_grad():
        module.class_means[known] = module.read(means.to(module.class_means))[0]


def _known_means(module: CLCEModule) -> tuple[Tensor, Tensor]:
    """Return the classes (n,) that had samples, and means of their features (n, n_features)."""
    known = (module.class_counts > 0).nonzero()[:, 0]
    return known, module.class_means[known, : len(module.standardize.mean)]


def start_classifier(module: CLCEModule, features: Tensor, labels: Tensor, weights: Tensor) -> None:
    """Set the classifier to the mean of two linear ones, fitted to features (n, n_features).

    Discriminant analysis leads where a class varies in few directions, as hands do, and logistic
    regression where it doesn't; the mean was behind neither by much. A class without a sample
    stays at zero, and is less likely than each of the others.
    """
    shares = torch.bincount(labels, weights.double()) / weights.double().sum()
    shares = shares[shares > 0]
    features, labels, weights = _first_of_each(features, labels, weights)
    known, labels = labels.unique(return_inverse=True)
    if len(known) < 2:
        return
    with torch.no_grad():
        classifier = module.classifier
        device = classifier.weight.device
        read = module.standardize(features.to(device)).cpu().double()
        variance = float(weights @ read.square().mean(dim=1) / weights.sum())
        if not LEAST < variance * read.shape[1] < math.inf:  # all samples are alike, or too large
            return
        weight, bias = _mean_of_both(read, labels, weights, shares.log(), variance)
        classifier.bias.fill_(float(bias.min()) - math.log(len(labels) + 1))
        classifier.weight[known, : weight.shape[1]] = weight.to(classifier.weight)
        classifier.bias[known] = bias.to(classifier.bias)


def _fit_both(
    features: Tensor, labels: Tensor, weights: Tensor, log_shares: Tensor, variance: float
) -> tuple[Tensor, Tensor]:
    """Return the mean weight and bias of discriminant and logistic regression."""
    features, labels, weights = _distinct(features, labels, weights)
    basis, n_classes = None, len(log_shares)
    if len(features) < features.shape[1]:  # they span a smaller space, in which all is the same
        basis = torch.linalg.qr(features.T).Q
        features = features @ basis
    found = [_tempered_discriminant(features, labels, weights, log_shares, variance)]
    if n_classes <= MAX_REGRESSED:
        few = slice(MAX_REGRESSED)
        found.append(
            _logistic_regression(features[few], labels[few], weights[few], n_classes, REGRESSION_C)
        )
    weight, bias = (torch.stack(parts).mean(dim=0) for parts in zip(*found, strict=True))
    return weight if basis is None else weight @ basis.T, bias


_mean_of_both = Recent(_fit_both, RECENT_BYTES)


def finish_classifier(
    module: CLCEModule, features: Tensor, labels: np.ndarray, weights: np.ndarray
) -> None:
    """Set the classifier to the mean of itself, if it has learned, and of one fitted to features.

    Shapes: features (n, n_features), labels and weights (n,). Trained beside the backbone, a
    classifier is too sure of samples that both have seen often. A class without a sample keeps its
    distance to the mean of the others.
    """
    features, shown, torch_weights = _first_of_each(
        features, torch.from_numpy(labels), torch.from_numpy(weights)
    )
    known, shown = shown.unique(return_inverse=True)
    if not 2 <= len(known) <= MAX_REGRESSED:
        return
    with torch.no_grad():
        classifier = module.classifier
        device = classifier.weight.device
        read = module.standardize(features.to(device)).cpu().double()
        weight, bias = _logistic_regression(read, shown, torch_weights, len(known), REFIT_C)
        share = 0.5 if classifier.weight.any() else 1.0  # what has not learned has nothing to say
        columns, biases = classifier.weight.cpu(), classifier.bias.cpu()
        columns_of_known, biases_of_known = columns[known], biases[known]
        columns.sub_(share * columns_of_known.mean(dim=0))
        biases.sub_(share * biases_of_known.mean())
        columns_of_known[:, : weight.shape[1]] += weight
        columns[known] = share * columns_of_known
        biases[known] = (share * (biases_of_known + bias)).to(biases)
        classifier.weight.copy_(columns)
        classifier.bias.copy_(biases)


def _first_of_each(
    features: Tensor, labels: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take samples that weigh something, at most so many, the first of each class first."""
    kept = torch.argsort(rank_within_class(labels, weights), stable=True)
    kept = kept[weights[kept] > 0][:MAX_SAMPLES]
    return features[kept], labels[kept], weights[kept].double()


def _distinct(features: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Make one sample of copies: one that is held out is to have none among the others.

    The first of each class come first, so that any beginning holds samples of all.
    """
    labelled = torch.cat([labels[:, None].to(features), features], dim=1)
    distinct, place = labelled.unique(dim=0, return_inverse=True)
    together = torch.zeros(len(distinct), dtype=weights.dtype).index_add(0, place, weights)
    labels = distinct[:, 0].long()
    order = torch.argsort(rank_within_class(labels, together), stable=True)
    return distinct[order, 1:], labels[order], together[order]


def discriminant(
    features: Tensor, labels: Tensor, weights: Tensor, n_classes: int, variance: float
) -> tuple[Tensor, Tensor]:
    """Return weight (n_classes, n_features) and bias (n_classes,) of discriminant analysis.

    The covariance is shrunken towards ``variance`` in all directions.
    """
    share = (weights / weights.sum())[:, None]  # (n, 1)
    of_class = one_hot(labels, n_classes).to(features) * share  # (n, n_classes)
    tiny = torch.finfo(features.dtype).tiny
    means = of_class.T @ features / of_class.sum(dim=0)[:, None].clamp(min=tiny)
    within = features - means[labels]
    covariance = (1 - SHRINKAGE) * (share * within).T @ within
    covariance.diagonal().add_(SHRINKAGE * variance)
    weight = torch.cholesky_solve(means.T, torch.linalg.cholesky(covariance)).T
    bias = -(weight * means).sum(dim=1) / 2
    return weight - weight.mean(dim=0), bias - bias.mean()


def _tempered_discriminant(
    features: Tensor, labels: Tensor, weights: Tensor, log_shares: Tensor, variance: float
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a discriminant that is as sure as it may be."""
    factor = _temper(features, labels, weights, log_shares, variance)
    weight, bias = discriminant(features, labels, weights, len(log_shares), variance)
    return factor * weight, factor * bias + log_shares - log_shares.mean()


def _logistic_regression(
    features: Tensor, labels: Tensor, weights: Tensor, n_classes: int, c: float
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of regularised logistic regression."""
    model = LogisticRegression(C=c, tol=1e-3)
    with warnings.catch_warnings():
        # it only begins, and there may be many classes for the samples
        warnings.simplefilter("ignore", UserWarning)
        model.fit(features.numpy(), labels.numpy(), (weights / weights.mean()).numpy())
    weight, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    if n_classes == 2:
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return weight, bias


def _temper(
    features: Tensor, labels: Tensor, weights: Tensor, log_shares: Tensor, variance: float
) -> float:
    """Return the factor of the scores at which samples that are held out have the least loss."""
    features, labels, weights = (part[:MAX_HELD_OUT] for part in (features, labels, weights))
    n_classes = len(log_shares)
    place = rank_within_class(labels, weights)
    several = torch.bincount(labels, minlength=n_classes)[labels] > 1
    fold = torch.where(several, place % N_FOLDS, -1)  # who is alone in a class is never held out
    scores = torch.zeros(len(labels), n_classes, dtype=features.dtype)
    for held_out in (fold == number for number in range(N_FOLDS)):
        if held_out.any():
            rest = ~held_out
            weight, bias = discriminant(
                features[rest], labels[rest], weights[rest], n_classes, variance
            )
            scores[held_out] = features[held_out] @ weight.T + bias
    if not several.any():
        weight, bias = discriminant(features, labels, weights, n_classes, variance)
        return ONE_SHOT_SPREAD / max(_rms(features @ weight.T + bias), LEAST)
    scores, labels, weights = scores[several], labels[several], weights[several]
    least = math.log(1e-3 / max(_rms(scores), LEAST))
    doubt = 1 / (len(labels) + 2)  # that all are right doesn't say that the next will be

    def loss(log_factor: float) -> float:
        logits = scores * math.exp(log_factor) + log_shares
        losses = cross_entropy(logits, labels, reduction="none", label_smoothing=doubt)
        return float(weights @ losses)

    best = minimize_scalar(loss, bounds=(least, least + math.log(1e5)), method="bounded")
    return math.exp(best.x)


def _rms(scores: Tensor) -> float:
    return float(scores.square().mean().sqrt())


def rank_within_class(labels: Tensor, weights: Tensor) -> Tensor:
    """Count, for each sample, those of its class that stand before it and weigh something."""
    counts = one_hot(labels) * (weights > 0)[:, None]  # (n, n_classes)
    return (counts.cumsum(dim=0) - counts).gather(1, labels[:, None]).squeeze(1)
