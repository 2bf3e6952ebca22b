"""Batches visit every sample and starve no class; nothing is global; the length is right."""

import pickle
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sklearn_clce import ClassBalancedBatchSampler
from sklearn_clce.data._samplers import (
    ShuffledBatchSampler,
    anchors_without_positive,
    make_batch_sampler,
    resolve_sampler,
)

CLASS_SIZES = [[8, 8, 8, 8], [30, 1, 2, 5], [7, 3], [1, 1, 1], [100], [5] * 40, [50, 2, 2, 2, 2, 2]]


def labels_of(sizes):
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize("sizes", CLASS_SIZES)
@pytest.mark.parametrize(("classes", "rows"), [(2, 2), (4, 4), (8, 3)])
def test_balanced_batches(sizes, classes, rows):
    labels = labels_of(sizes)
    sampler = ClassBalancedBatchSampler(labels, classes_per_batch=classes, samples_per_class=rows)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert set(chain(*batches)) == set(range(len(labels)))
    for batch in batches:
        assert len(set(batch)) == len(batch)
        by_class = Counter(labels[batch])
        assert len(by_class) == min(classes, len(sizes))
        assert all(count == min(rows, sizes[label]) for label, count in by_class.items())


def test_balanced_epochs_are_as_short_as_possible():
    """Equal classes that fill their groups: each sample exactly once."""
    labels = labels_of([8, 8, 8, 8])
    sampler = ClassBalancedBatchSampler(labels, classes_per_batch=2, samples_per_class=4)
    assert Counter(chain(*sampler)) == Counter(range(32))


def test_small_class_is_in_as_many_batches_as_a_large_one():
    labels = labels_of([50, 2])
    sampler = ClassBalancedBatchSampler(labels, classes_per_batch=2, samples_per_class=2)
    assert all(set(labels[batch]) == {0, 1} for batch in sampler)


SAMPLERS = {
    "shuffled": lambda seed: ShuffledBatchSampler(37, 8, seed),
    "balanced": lambda seed: ClassBalancedBatchSampler(
        labels_of([20, 17]), classes_per_batch=2, samples_per_class=4, random_state=seed
    ),
}


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_order_depends_on_seed_and_epoch_alone(make):
    torch_state = torch.get_rng_state()
    one, two, other = make(0), make(0), make(1)
    first, second = list(one), list(one)
    assert first == list(two)
    assert first != second
    assert first != list(other)
    resumed = make(0)
    resumed.epoch = 1
    assert list(resumed) == second
    assert list(pickle.loads(pickle.dumps(two))) == second
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_samplers_feed_a_data_loader(make):
    batches = list(DataLoader(torch.arange(37), batch_sampler=make(0)))
    assert len(batches) == len(make(0))
    assert set(torch.cat(batches).tolist()) == set(range(37))


@pytest.mark.parametrize(("n_rows", "batch_size"), [(33, 32), (65, 32), (5, 64), (1, 4), (10, 3)])
def test_shuffled_batches_are_nearly_equal(n_rows, batch_size):
    batches = list(ShuffledBatchSampler(n_rows, batch_size))
    sizes = [len(batch) for batch in batches]
    assert sorted(chain(*batches)) == list(range(n_rows))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert n_rows == 1 or min(sizes) > 1


def partners(labels):
    return np.bincount(labels)[labels]


@pytest.mark.parametrize(("sizes", "batch_size"), [([10, 10, 10], 4), ([30, 3, 1], 8), ([5], 3)])
def test_anchors_without_positive_agrees_with_a_count(sizes, batch_size):
    labels = labels_of(sizes)
    rng = np.random.default_rng(0)
    alone = []
    for _ in range(4000):
        batch = labels[rng.permutation(len(labels))[:batch_size]]
        counts = Counter(batch)
        alone += [counts[label] == 1 for label in batch]
    assert np.isclose(
        anchors_without_positive(partners(labels), len(labels), batch_size),
        np.mean(alone),
        atol=0.02,
    )


@pytest.mark.parametrize(
    ("sizes", "batch_size", "weight", "expected"),
    [
        ([20] * 2, 16, 0.5, ShuffledBatchSampler),
        ([20] * 50, 16, 0.5, ClassBalancedBatchSampler),
        ([20] * 50, 16, 0.0, ShuffledBatchSampler),
        ([20] * 50, 2, 0.5, ShuffledBatchSampler),
        ([4] * 10, 32, 0.5, ClassBalancedBatchSampler),  # batches of 20: two of 32 there are not
    ],
)
def test_auto_balances_where_anchors_would_lack_positives(sizes, batch_size, weight, expected):
    labels = labels_of(sizes)
    sampler = make_batch_sampler(
        resolve_sampler("auto", labels, batch_size, weight=weight, n_partners=partners(labels)),
        labels,
        batch_size,
        random_state=0,
    )
    assert type(sampler) is expected
    assert all(len(batch) <= batch_size for batch in sampler)


@pytest.mark.parametrize(
    ("n_classes", "batch_size", "expected"),
    [(2, 32, {16: 2}), (10, 32, {3: 10}), (50, 32, {2: 16}), (50, 9, {2: 4}), (10, 4, {2: 2})],
)
def test_balanced_batches_hold_as_many_classes_as_fit(n_classes, batch_size, expected):
    labels = labels_of([48] * n_classes)
    sampler = make_batch_sampler("balanced", labels, batch_size, random_state=0)
    for batch in sampler:
        assert Counter(Counter(labels[batch]).values()) == expected


@pytest.mark.parametrize(
    ("labels", "params", "message"),
    [
        ([0, 1], {"classes_per_batch": 1}, "classes_per_batch=1: an integer of at least 2"),
        ([0, 1], {"random_state": None}, "random_state=None: an integer of at least 0"),
        ([0, 1], {"random_state": -1}, "random_state=-1: an integer of at least 0"),
        ([0, 1], {"samples_per_class": 1.5}, "samples_per_class=1.5: an integer of at least 2"),
        ([], {}, r"labels of shape \(0,\)"),
        ([[0, 1]], {}, r"labels of shape \(1, 2\)"),
    ],
)
def test_bad_input(labels, params, message):
    with pytest.raises(ValueError, match=message):
        ClassBalancedBatchSampler(
            labels, **{"classes_per_batch": 2, "samples_per_class": 2} | params
        )


def test_balanced_batches_need_four_samples():
    with pytest.raises(ValueError, match="batch_size=3: sampler='balanced'"):
        resolve_sampler("balanced", np.array([0, 1]), 3, weight=0.5, n_partners=np.ones(2, int))
