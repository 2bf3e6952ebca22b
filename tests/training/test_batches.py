"""Batches of a fit: samplers and batch sizes."""

import numpy as np
import pytest

from sklearn_clce import CLCEClassifier
from small_fits import Recorder, head, same_weights, weights_of


def many_classes(n_classes=30, rows=4):
    codes = np.repeat(np.arange(n_classes), rows)
    return np.eye(n_classes)[codes] + 0.1, codes


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, "balanced"),
        ({"weight": 0.0}, "shuffle"),
        ({"batch_size": 200}, "shuffle"),
        ({"sampler": "balanced", "batch_size": 200}, "balanced"),
    ],
)
def test_sampler_is_chosen_by_parameters(params, expected):
    clf = head(**{"batch_size": 16, "max_epochs": 1} | params).fit(*many_classes())
    assert clf.plan_.sampler == expected


def test_anchors_without_positive_warn_once():
    X, codes = many_classes()
    with pytest.warns(UserWarning, match="anchors have a positive.* sampler='balanced'") as caught:
        head(sampler="shuffle", batch_size=8).fit(X, codes)
    assert len(caught) == 1


def test_last_batch_never_has_one_row(tiny_backbone, colour_images, colour_labels):
    recorder = Recorder(lambda net, batch: len(batch[0]))
    clf = CLCEClassifier(tiny_backbone, batch_size=11, max_epochs=1, callbacks=[recorder])
    clf.fit(colour_images, colour_labels)
    assert recorder.seen == [6, 6]


def test_batch_larger_than_data_trains(clouds):
    X, codes = clouds
    before = head(max_epochs=1, learning_rate=1e-12).fit(X, codes)
    after = head(max_epochs=1, batch_size=1000).fit(X, codes)
    assert not same_weights(weights_of(before), weights_of(after))
