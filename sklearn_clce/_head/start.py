"""Where the classifier starts and ends: fitted in closed form, before and after training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .closed_form import EPS, MAX_REGRESSED, logistic_regression, mean_of_both, rank_within_class
from .head import Head

REFIT_C = 1.0  # less than at the start: samples that tuned the features look easy on them
MAX_SAMPLES = 10_000  # more make a start slower, and hardly another


def start_head(head: Head, features: Tensor, labels: Tensor, weights: Tensor) -> None:
    """Fit the parts of a head that have a closed form: scale and classifier.

    Samples of earlier calls, which were not enough to start from, count by their class means.
    Shapes: features (n, n_features), labels and weights (n,).
    """
    known = (head.class_counts > 0).nonzero()[:, 0]
    means = head.standardize.inverse(head.class_means[known, : head.n_features]).float()
    if len(known):
        features = torch.cat([means.to(features), features])
        labels = torch.cat([known.to(labels), labels])
        weights = torch.cat([head.class_counts[known].to(weights), weights])
    differ = head.standardize.adapt(features, weights)
    # a scale from less, such as the only sample of a first call, says little about others
    head.is_initialised = differ and len(labels.unique()) > 1
    start_classifier(head, features, labels, weights)
    with torch.no_grad():
        head.class_means[known] = head.inputs(means.to(head.class_means))[0]


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
        classifier.bias.fill_(float(bias.min()) - math.log(len(labels) + 1))
        classifier.weight[known, : weight.shape[1]] = weight.to(classifier.weight)
        classifier.bias[known] = bias.to(classifier.bias)


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
    """Take samples with a weight, at most ``MAX_SAMPLES``, the first of each class first."""
    kept = torch.argsort(rank_within_class(labels, weights), stable=True)
    kept = kept[weights[kept] > 0][:MAX_SAMPLES]
    return features[kept], labels[kept], weights[kept].double()
