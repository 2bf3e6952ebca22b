"""Closed forms of each label against the rest, and splits that keep label shares."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_clce._head import Head, HeadConfig, by_label, closed_form, refit_by_label
from sklearn_clce._head import start_head_by_label as start
from sklearn_clce._targets._splits import split_by_labels


def samples(n=40, n_labels=3, n_features=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, n_labels, generator=generator) < 0.4).long()
    features = torch.randn(n, n_features, generator=generator)
    features[:, :n_labels] += 2 * labels
    weights = torch.rand(n, generator=generator)[:, None].expand(n, n_labels).contiguous()
    return features, labels, weights


def test_discriminant_of_each_label_is_that_of_two_classes():
    features, labels, weights = (part.double() for part in samples())
    weight, bias = by_label.discriminants(features, labels, weights, 0.7)
    for place, column in enumerate(labels.T.long()):
        two, biases = closed_form.discriminant(features, column, weights[:, 0], 2, 0.7)
        assert_allclose(weight[place], two[1] - two[0], rtol=1e-9)
        assert_allclose(bias[place], biases[1] - biases[0], rtol=1e-9)


def test_start_is_near_that_of_two_classes():
    features, labels, weights = samples(n=200)
    several, one = Head([[6]], 3, HeadConfig(None)), Head([[6]], 2, HeadConfig(None))
    start(several, features, labels, weights)
    logits = several.eval()(features)[0]
    for place, column in enumerate(labels.T):
        closed_form.start_head(one, features, column, weights[:, 0])
        pair = one.eval()(features)[0].detach()
        # the folds that are held out differ, and so does the tempering a little
        assert_allclose(logits[:, place].detach(), pair[:, 1] - pair[:, 0], atol=0.4)


def test_start_does_not_depend_on_copies():
    features, labels, weights = samples()
    plain, doubled = (Head([[6]], 3, HeadConfig(None)) for _ in range(2))
    start(plain, features, labels, weights)
    twice = (torch.cat([part, part]) for part in (features, labels, weights / 2))
    start(doubled, *twice)
    assert_allclose(doubled.classifier.weight.detach(), plain.classifier.weight.detach(), atol=1e-4)


def test_label_without_both_kinds_has_the_odds_of_its_share():
    features, labels, weights = samples()
    labels[:, 0], labels[:, 1], weights[:, 2] = 0, 1, 0
    module = Head([[6]], 3, HeadConfig(None))
    start(module, features, labels, weights)
    assert not module.classifier.weight.any()
    assert_allclose(module.classifier.bias.detach(), [-np.log(81), np.log(81), 0], rtol=1e-6)
    refit_by_label(module, features, labels, weights)
    assert not module.classifier.weight.any()


def test_refit_is_the_mean_of_both():
    features, labels, weights = samples()
    module, fitted = Head([[6]], 3, HeadConfig(None)), Head([[6]], 3, HeadConfig(None))
    fitted.standardize.load_state_dict(module.standardize.state_dict())
    refit_by_label(fitted, features, labels, weights)  # it has not learned: all of the new one
    module.classifier.set_columns(torch.ones(3, 6), torch.ones(3))
    refit_by_label(module, features, labels, weights)
    expected = (1 + fitted.classifier.weight) / 2
    assert_allclose(module.classifier.weight.detach(), expected.detach(), rtol=1e-5)


def test_rarest_label_of_each_sample():
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1]])
    assert by_label.rarest_labels(labels).tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize("n_aside", [6, 20, 57])
def test_split_keeps_the_share_of_each_label(n_aside):
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 5)) < [0.5, 0.3, 0.2, 0.1, 0.0]).astype(int)
    train, aside = split_by_labels(labels, n_aside, seed=3)
    assert len(aside) == n_aside
    assert_array_equal(np.sort(np.concatenate([train, aside])), np.arange(60))
    wanted = labels.sum(axis=0) * n_aside / 60
    assert np.abs(labels[aside].sum(axis=0) - wanted).max() <= 1.5
    assert_array_equal(aside, split_by_labels(labels, n_aside, seed=3)[1])
    assert not np.array_equal(aside, split_by_labels(labels, n_aside, seed=4)[1])
