"""The classifier in closed form where each class is a yes or no: one against the rest."""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from .closed_form import (
    CACHE_BYTES,
    EPS,
    MAX_HELD_OUT,
    MAX_REGRESSED,
    MAX_SAMPLES,
    N_FOLDS,
    ONE_SHOT_RMS,
    REFIT_C,
    SHRINKAGE,
    START_C,
    ResultCache,
    earlier_samples,
    logistic_regression,
    rank_within_class,
    rms,
)
from .head import Head

# Shapes: features (n, n_features); labels (n, n_classes), 0 or 1; weights (n, n_classes), 0 where
# a label is not known -> weight (n_classes, n_features), bias (n_classes,).


def rarest_labels(labels: Tensor) -> Tensor:
    """Return the label of each sample that the fewest others have; n_classes for none: (n,)."""
    counts = torch.where(labels > 0, labels.sum(dim=0), len(labels) + 1)
    return torch.where(labels.any(dim=1), counts.argmin(dim=1), labels.shape[1])


def start_head_by_label(head: Head, features: Tensor, labels: Tensor, weights: Tensor) -> None:
    """Fit the parts of a head that have a closed form: scale and classifier.

    Samples of earlier calls, which were not enough to start from, count by their class means.
    """
    known, means, counts = earlier_samples(head)
    of_means = torch.eye(head.n_classes)[known]
    features = torch.cat([means.to(features), features])
    labels = torch.cat([of_means.to(labels), labels])
    weights = torch.cat([(counts[:, None] * of_means).to(weights), weights])
    differ = head.standardize.adapt(features, weights.sum(dim=1))
    head.is_initialised = differ and bool(_has_both(labels, weights).any())
    with torch.no_grad():
        standardized = head.standardize(features.to(head.classifier.weight.device)).cpu()
        _set_columns(head, standardized, labels, weights, torch.arange(head.n_classes))
        head.class_means[known] = head.inputs(means.to(head.class_means))[0]


def start_late_labels(
    head: Head, inputs: Tensor, labels: Tensor, weights: Tensor, late: Tensor
) -> None:
    """Fit the columns of labels whose first samples these are, from the classifier's inputs."""
    _set_columns(head, inputs[:, : head.n_features], labels[:, late], weights[:, late], late)


def add_labels(head: Head, inputs: Tensor, labels: Tensor, weights: Tensor) -> None:
    """Give the classifier columns of new labels, from its inputs of samples with and without."""
    n_old, n_new = head.n_classes, labels.shape[1]
    parts = [*head.classifier.columns(), head.class_means.cpu(), head.class_counts.cpu()]
    grown = [torch.cat([part, part.new_zeros(n_new, *part.shape[1:])]) for part in parts]
    head.classifier = head.classifier.with_columns(*grown[:2])
    head.class_means = grown[2].to(head.class_means)
    head.class_counts = grown[3].to(head.class_counts)
    places = torch.arange(n_old, n_old + n_new)
    _set_columns(head, inputs[:, : head.n_features], labels, weights, places)


def _set_columns(
    head: Head, standardized: Tensor, labels: Tensor, weights: Tensor, places: Tensor
) -> None:
    """Set columns of the classifier to closed forms; a label without both kinds to its share."""
    standardized, labels, weights = _first_of_each(standardized, labels, weights)
    columns, biases = head.classifier.columns()
    with_label = (weights * labels > 0).sum(dim=0)
    without = (weights > 0).sum(dim=0) - with_label
    columns[places] = 0
    biases[places] = ((with_label + 0.5) / (without + 0.5)).log().to(biases)
    sample_weights = weights.sum(dim=1)
    mean_square = standardized.square().mean(dim=1)
    variance = float(sample_weights @ mean_square / sample_weights.sum())
    usable = _has_both(labels, weights)
    if EPS < variance * head.n_features < math.inf and usable.any():
        weight, bias = mean_of_both(standardized, labels[:, usable], weights[:, usable], variance)
        columns[places[usable], : head.n_features] = weight.to(columns)
        biases[places[usable]] = bias.to(biases)
    head.classifier.set_columns(columns, biases)


def refit_by_label(head: Head, features: Tensor, labels: Tensor, weights: Tensor) -> None:
    """Set the classifier to the mean of itself, if it has learned, and of one fitted to features.

    The column of a label that no sample, or every sample has, stays.
    """
    features, labels, weights = _first_of_each(features, labels, weights)
    usable = _has_both(labels, weights).nonzero()[:, 0]
    if not 1 <= len(usable) <= MAX_REGRESSED:
        return
    with torch.no_grad():
        classifier = head.classifier
        standardized = head.standardize(features.to(classifier.weight.device)).cpu().double()
        share = 0.5 if head.has_classifier else 1.0  # one that has not learned has no say
        columns, biases = classifier.columns()
        for place in usable.tolist():
            weight, bias = _regression(standardized, labels[:, place], weights[:, place], REFIT_C)
            columns[place, : len(weight)] += weight
            columns[place] *= share
            biases[place] = share * (biases[place] + bias)
        classifier.set_columns(columns, biases)


def _fit_both(
    features: Tensor, labels: Tensor, weights: Tensor, variance: float
) -> tuple[Tensor, Tensor]:
    """Return the mean weight and bias of discriminants and logistic regressions."""
    features, labels, weights = _distinct(features, labels, weights)
    basis = None
    if len(features) < features.shape[1]:  # they span a smaller space, in which all is the same
        basis = torch.linalg.qr(features.T).Q
        features = features @ basis
    weight, bias = _tempered_discriminants(features, labels, weights, variance)
    few = slice(MAX_REGRESSED)
    regressed = _has_both(labels[few], weights[few]).nonzero()[:, 0]
    for place in regressed.tolist() if labels.shape[1] <= MAX_REGRESSED else ():
        of_label = _regression(features[few], labels[few, place], weights[few, place], START_C)
        weight[place] = (weight[place] + of_label[0]) / 2
        bias[place] = (bias[place] + of_label[1]) / 2
    return weight if basis is None else weight @ basis.T, bias


mean_of_both = ResultCache(_fit_both, CACHE_BYTES)


def _regression(
    features: Tensor, labels: Tensor, weights: Tensor, c: float
) -> tuple[Tensor, Tensor]:
    """Return weight (n_features,) and bias () of one label's regularised logistic regression."""
    known = weights > 0
    weight, bias = logistic_regression(features[known], labels[known], weights[known], 2, c)
    return weight[1] - weight[0], bias[1] - bias[0]


def discriminants(
    features: Tensor, labels: Tensor, weights: Tensor, variance: float
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a discriminant analysis for each label.

    The covariance within a label's two classes is that of all samples, which is inverted once for
    all labels, less the part between the two, which is of rank one. It is shrunken towards
    ``variance`` in all directions.
    """
    share = weights / weights.sum(dim=0)
    with_label = share * labels
    of_label = with_label.sum(dim=0)[:, None]  # (n_classes, 1)
    means = with_label.T @ features / of_label
    other_means = (share - with_label).T @ features / (1 - of_label)
    difference = means - other_means
    of_sample = weights.sum(dim=1, keepdim=True) / weights.sum()
    centred = features - (of_sample * features).sum(dim=0)
    covariance = (1 - SHRINKAGE) * (of_sample * centred).T @ centred
    covariance.diagonal().add_(SHRINKAGE * variance)
    solved = torch.cholesky_solve(difference.T, torch.linalg.cholesky(covariance)).T
    along = (difference * solved).sum(dim=1, keepdim=True)
    between = (1 - SHRINKAGE) * of_label * (1 - of_label)
    weight = solved / (1 - between * along).clamp(min=EPS)
    return weight, -(weight * (means + other_means)).sum(dim=1) / 2


def _tempered_discriminants(
    features: Tensor, labels: Tensor, weights: Tensor, variance: float
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of discriminants, each as confident as held-out samples allow."""
    held_out = slice(MAX_HELD_OUT)
    scores, is_scored = _held_out_scores(
        features[held_out], labels[held_out], weights[held_out], variance
    )
    weight, bias = discriminants(features, labels, weights, variance)
    with_label = (weights * labels).sum(dim=0)
    log_odds = (with_label / (weights.sum(dim=0) - with_label)).log()
    for place, known in enumerate(is_scored.T):
        if known.any():
            factor = _temper(
                scores[known, place],
                labels[held_out][known, place],
                weights[held_out][known, place],
                log_odds[place],
            )
        else:
            factor = ONE_SHOT_RMS / max(rms(features @ weight[place] + bias[place]), EPS)
        weight[place] *= factor
        bias[place] = factor * bias[place] + log_odds[place]
    return weight, bias


def _held_out_scores(
    features: Tensor, labels: Tensor, weights: Tensor, variance: float
) -> tuple[Tensor, Tensor]:
    """Return scores of samples from discriminants without them, and where there are: (n, k)."""
    folds = rank_within_class(rarest_labels(labels), weights.sum(dim=1)) % N_FOLDS
    scores = torch.zeros_like(weights)
    is_scored = torch.zeros_like(weights, dtype=torch.bool)
    for out in (folds == number for number in range(N_FOLDS)):
        rest = ~out
        usable = _has_both(labels[rest], weights[rest])
        if not (out.any() and usable.any()):
            continue
        weight, bias = discriminants(
            features[rest], labels[rest][:, usable], weights[rest][:, usable], variance
        )
        places = out[:, None] & usable
        scores[places] = (features[out] @ weight.T + bias).ravel()
        is_scored |= places & (weights > 0)
    return scores, is_scored


def _temper(scores: Tensor, labels: Tensor, weights: Tensor, log_odds: Tensor) -> float:
    """Return the factor of one label's scores (n,) that gives held-out samples the least loss."""
    least = math.log(1e-3 / max(rms(scores), EPS))
    doubt = 1 / (len(labels) + 2)  # all of a few right doesn't mean that the next will be
    targets = (1 - doubt) * labels + doubt / 2

    def loss(log_factor: float) -> float:
        logits = scores * math.exp(log_factor) + log_odds
        return float(weights @ binary_cross_entropy_with_logits(logits, targets, reduction="none"))

    best = minimize_scalar(loss, bounds=(least, least + math.log(1e5)), method="bounded")
    return math.exp(best.x)


def _has_both(labels: Tensor, weights: Tensor) -> Tensor:
    """Return for which labels samples with and without are known: (n_classes,)."""
    return ((labels > 0) & (weights > 0)).any(dim=0) & ((labels == 0) & (weights > 0)).any(dim=0)


def _distinct(features: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Merge copies into one sample: one that is held out must have none among the others."""
    n_classes = labels.shape[1]
    labelled = torch.cat([labels.to(features), features], dim=1)
    distinct, place = labelled.unique(dim=0, return_inverse=True)
    together = weights.new_zeros(len(distinct), n_classes).index_add_(0, place, weights)
    return _first_of_each(distinct[:, n_classes:], distinct[:, :n_classes], together)


def _first_of_each(
    features: Tensor, labels: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take samples with a weight, at most ``MAX_SAMPLES``, the first of each label first."""
    sample_weights = weights.sum(dim=1)
    kept = torch.argsort(rank_within_class(rarest_labels(labels), sample_weights), stable=True)
    kept = kept[sample_weights[kept] > 0][:MAX_SAMPLES]
    return features[kept].double(), labels[kept].double(), weights[kept].double()
