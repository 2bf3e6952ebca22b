"""The classifier in closed form, where it starts and ends: discriminant, logistic regression."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import joblib
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import cross_entropy

from .head import Head

SHRINKAGE = 0.5  # towards one variance for all features; 0.3 to 0.7 are alike
N_FOLDS = 5
START_C = 8.0
REFIT_C = 1.0  # less than at the start: samples that tuned the features look easy on them
MAX_SAMPLES = 10_000  # more make a start slower, and hardly another
MAX_HELD_OUT = 2_000
MAX_REGRESSED = 1_000  # samples and classes; more make a start slower, and hardly another
CACHE_BYTES = 2**26  # of starts, for a search: its candidates start alike in each fold
EPS = 1e-6  # smaller is rounding
ONE_SHOT_RMS = 1.5  # of the scores if no sample can be held out: usual with two of a class


class ResultCache:
    """A function to tensors that keeps the results of its last calls, by the arguments' content.

    How many depends on their size: all kept results take ``max_bytes`` together.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], max_bytes: int) -> None:
        self.function = function
        self.max_bytes = max_bytes
        self.results: OrderedDict[str, tuple[Tensor, ...]] = OrderedDict()

    def __call__(self, *args: Any) -> tuple[Tensor, ...]:
        """Return the function's result, which must not be changed."""
        key = joblib.hash([arg.numpy() if isinstance(arg, Tensor) else arg for arg in args])
        result = self.results.pop(key, None)
        if result is None:
            result = self.function(*args)
        self.results[key] = result
        while self._n_bytes() > self.max_bytes:
            self.results.popitem(last=False)
        return result

    def _n_bytes(self) -> int:
        return sum(part.nbytes for result in self.results.values() for part in result)


def _fit_both(
    features: Tensor, labels: Tensor, weights: Tensor, log_shares: Tensor, variance: float
) -> tuple[Tensor, Tensor]:
    """Return the mean weight and bias of discriminant and logistic regression.

    Shapes: features (n, n_features), labels and weights (n,), log_shares (n_classes,) ->
    weight (n_classes, n_features), bias (n_classes,).
    """
    features, labels, weights = _distinct(features, labels, weights)
    basis, n_classes = None, len(log_shares)
    if len(features) < features.shape[1]:  # they span a smaller space, in which all is the same
        basis = torch.linalg.qr(features.T).Q
        features = features @ basis
    found = [_tempered_discriminant(features, labels, weights, log_shares, variance)]
    if n_classes <= MAX_REGRESSED:
        few = slice(MAX_REGRESSED)
        found.append(
            logistic_regression(features[few], labels[few], weights[few], n_classes, START_C)
        )
    weight, bias = (torch.stack(parts).mean(dim=0) for parts in zip(*found, strict=True))
    return weight if basis is None else weight @ basis.T, bias


mean_of_both = ResultCache(_fit_both, CACHE_BYTES)


def _distinct(features: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Merge copies into one sample: one that is held out must have none among the others.

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
    of_class = features.new_zeros(n_classes, 1).index_add_(0, labels, share)
    sums = features.new_zeros(n_classes, features.shape[1]).index_add_(0, labels, share * features)
    means = sums / of_class.clamp(min=torch.finfo(features.dtype).tiny)
    within = features - means[labels]
    covariance = (1 - SHRINKAGE) * (share * within).T @ within
    covariance.diagonal().add_(SHRINKAGE * variance)
    weight = torch.cholesky_solve(means.T, torch.linalg.cholesky(covariance)).T
    bias = -(weight * means).sum(dim=1) / 2
    return weight - weight.mean(dim=0), bias - bias.mean()


def _tempered_discriminant(
    features: Tensor, labels: Tensor, weights: Tensor, log_shares: Tensor, variance: float
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a discriminant that is as confident as held-out samples allow."""
    factor = _temper(features, labels, weights, log_shares, variance)
    weight, bias = discriminant(features, labels, weights, len(log_shares), variance)
    return factor * weight, factor * bias + log_shares - log_shares.mean()


def logistic_regression(
    features: Tensor, labels: Tensor, weights: Tensor, n_classes: int, c: float
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of regularised logistic regression."""
    model = LogisticRegression(C=c, tol=1e-3)
    with warnings.catch_warnings():
        # it is only a start, and there may be many classes for the samples
        warnings.simplefilter("ignore", UserWarning)
        model.fit(features.numpy(), labels.numpy(), (weights / weights.mean()).numpy())
    weight, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    if n_classes == 2:
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return weight, bias


def _temper(
    features: Tensor, labels: Tensor, weights: Tensor, log_shares: Tensor, variance: float
) -> float:
    """Return the factor of the scores that gives held-out samples the least loss."""
    features, labels, weights = (part[:MAX_HELD_OUT] for part in (features, labels, weights))
    n_classes = len(log_shares)
    place = rank_within_class(labels, weights)
    several = torch.bincount(labels, minlength=n_classes)[labels] > 1
    fold = torch.where(several, place % N_FOLDS, -1)  # the only one of a class is never held out
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
        return ONE_SHOT_RMS / max(rms(features @ weight.T + bias), EPS)
    scores, labels, weights = scores[several], labels[several], weights[several]
    least = math.log(1e-3 / max(rms(scores), EPS))
    doubt = 1 / (len(labels) + 2)  # all of a few right doesn't mean that the next will be

    def loss(log_factor: float) -> float:
        logits = scores * math.exp(log_factor) + log_shares
        losses = cross_entropy(logits, labels, reduction="none", label_smoothing=doubt)
        return float(weights @ losses)

    best = minimize_scalar(loss, bounds=(least, least + math.log(1e5)), method="bounded")
    return math.exp(best.x)


def rms(scores: Tensor) -> float:
    """Return the root of the mean square."""
    return float(scores.square().mean().sqrt())


def rank_within_class(labels: Tensor, weights: Tensor) -> Tensor:
    """Count, for each sample, the earlier ones of its class that have a weight: -> (n,)."""
    order = torch.argsort(labels, stable=True)
    counted = (weights > 0)[order].long()
    before = counted.cumsum(dim=0) - counted  # of all classes
    is_first = torch.ones_like(order, dtype=torch.bool)
    is_first[1:] = labels[order][1:] != labels[order][:-1]
    offsets = before[is_first][is_first.cumsum(dim=0) - 1]
    return torch.empty_like(order).scatter_(0, order, before - offsets)


def start_head(head: Head, features: Tensor, labels: Tensor, weights: Tensor) -> None:
    """Fit the parts of a head that have a closed form: scale and classifier.

    Samples of earlier calls, which were not enough to start from, count by their class means.
    Shapes: features (n, n_features), labels and weights (n,).
    """
    known, means, counts = earlier_samples(head)
    if len(known):
        features = torch.cat([means.to(features), features])
        labels = torch.cat([known.to(labels), labels])
        weights = torch.cat([counts.to(weights), weights])
    differ = head.standardize.adapt(features, weights)
    # a scale from less, such as the only sample of a first call, says little about others
    head.is_initialised = differ and len(labels.unique()) > 1
    start_classifier(head, features, labels, weights)
    with torch.no_grad():
        head.class_means[known] = head.inputs(means.to(head.class_means))[0]


def earlier_samples(head: Head) -> tuple[Tensor, Tensor, Tensor]:
    """Return classes that have samples, the mean features of these, and their weights."""
    known = (head.class_counts > 0).nonzero()[:, 0]
    means = head.standardize.inverse(head.class_means[known, : head.n_features]).float()
    return known, means, head.class_counts[known]


def start_classifier(head: Head, features: Tensor, labels: Tensor, weights: Tensor) -> None:
    """Set the classifier to the mean of two linear ones, fitted to features (n, n_features).

    Discriminant analysis is better if a class varies in few directions, as hands do, and logistic
    regression if it doesn't; the mean was behind neither by much. A class without a sample
    stays at zero, and is less likely than each of the others.
    """
    shares = torch.bincount(labels, weights.double()) / weights.double().sum()
    shares = shares[shares > 0]
    features, labels, weights = _first_of_each(features, labels, weights)
    known, labels = labels.unique(return_inverse=True)
    if len(known) < 2:
        return
    with torch.no_grad():
        classifier = head.classifier
        standardized = head.standardize(features.to(classifier.weight.device)).cpu().double()
        variance = float(weights @ standardized.square().mean(dim=1) / weights.sum())
        if not EPS < variance * head.n_features < math.inf:  # all are alike, or too large
            return
        weight, bias = mean_of_both(standardized, labels, weights, shares.log(), variance)
        columns, biases = classifier.columns()
        biases.fill_(float(bias.min()) - math.log(len(labels) + 1))
        columns[known, : weight.shape[1]] = weight.to(columns)
        biases[known] = bias.to(biases)
        classifier.set_columns(columns, biases)


def refit_classifier(head: Head, features: Tensor, labels: Tensor, weights: Tensor) -> None:
    """Set the classifier to the mean of itself, if it has learned, and of one fitted to features.

    Trained together with the backbone, a classifier is too confident of samples that both have seen
    often. A class without a sample keeps its distance to the mean of the others.
    Shapes: features (n, n_features), labels and weights (n,).
    """
    features, labels, weights = _first_of_each(features, labels, weights)
    known, labels = labels.unique(return_inverse=True)
    if not 2 <= len(known) <= MAX_REGRESSED:
        return
    with torch.no_grad():
        classifier = head.classifier
        standardized = head.standardize(features.to(classifier.weight.device)).cpu().double()
        weight, bias = logistic_regression(standardized, labels, weights, len(known), REFIT_C)
        share = 0.5 if head.has_classifier else 1.0  # one that has not learned has no say
        columns, biases = classifier.columns()
        columns_of_known, biases_of_known = columns[known], biases[known]
        columns.sub_(share * columns_of_known.mean(dim=0))
        biases.sub_(share * biases_of_known.mean())
        columns_of_known[:, : weight.shape[1]] += weight
        columns[known] = share * columns_of_known
        biases[known] = (share * (biases_of_known + bias)).to(biases)
        classifier.set_columns(columns, biases)


def _first_of_each(
    features: Tensor, labels: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take samples with a weight, at most ``MAX_SAMPLES``, the first of each class first."""
    kept = torch.argsort(rank_within_class(labels, weights), stable=True)
    kept = kept[weights[kept] > 0][:MAX_SAMPLES]
    return features[kept], labels[kept], weights[kept].double()
