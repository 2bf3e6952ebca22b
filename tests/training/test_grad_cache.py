"""Micro-batches give the gradient of the whole batch."""

import numpy as np
import pytest
import torch
from torch import nn

from distributed_fit import NormalizingBackbone, PlainBackbone, estimator, first_gradients
from sklearn_clce._network import backward_in_parts


@pytest.mark.parametrize("size", [1, 4, 12, 13, 100])
def test_micro_batches_match_whole_batch_gradient(size):
    expected = first_gradients()
    np.testing.assert_allclose(
        first_gradients(micro_batch_size=size), expected, rtol=1e-4, atol=1e-7
    )


def test_views_may_be_split_across_micro_batches():
    views = {"augment": lambda images: images + 0.1 * torch.rand_like(images), "n_views": 2}
    expected = first_gradients(**views)
    np.testing.assert_allclose(
        first_gradients(micro_batch_size=5, **views), expected, rtol=1e-4, atol=1e-7
    )


def test_both_passes_use_equal_random_numbers():
    weights = torch.ones(3, requires_grad=True)
    masks = []

    def forward(rows):
        masks.append(torch.rand_like(rows) > 0.5)
        return [rows * weights * masks[-1]]

    batch = torch.rand(6, 3)
    loss, (output,) = backward_in_parts(forward, lambda outputs: outputs[0].sum(), batch, 2)
    first, second = masks[:3], masks[3:]
    assert all(map(torch.equal, first, second))
    assert loss == output.sum()
    torch.testing.assert_close(weights.grad, (batch * torch.cat(first)).sum(dim=0))


def test_network_sees_at_most_micro_batch_size_rows():
    class Backbone(PlainBackbone):
        most = 0

        def forward(self, images):
            Backbone.most = max(Backbone.most, len(images))
            return super().forward(images)

    images = np.random.default_rng(0).random((40, 8, 8, 3))
    labels = np.arange(40) % 2
    clf = estimator(Backbone, batch_size=20, micro_batch_size=3, early_stopping=True)
    clf.fit(images, labels).predict(images)
    assert Backbone.most == 3


def test_batch_statistics_are_per_micro_batch():
    whole = first_gradients(backbone=NormalizingBackbone)
    in_parts = first_gradients(backbone=NormalizingBackbone, micro_batch_size=4)
    assert np.abs(whole - in_parts).max() > 1e-3


def test_step_memory_is_that_of_micro_batch():
    layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(8)))

    def kept_for_backward(size):
        kept = [0]

        def count(tensor):
            kept[-1] += tensor.numel() * (tensor.shape[0] != 64)  # activations, not weights
            return tensor

        def forward(rows):
            kept.append(0)
            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                return [layers(rows)]

        batch = torch.rand(96, 64)
        backward_in_parts(forward, lambda outputs: outputs[0].square().sum(), batch, size)
        return max(kept)

    assert kept_for_backward(96) == 8 * kept_for_backward(12) > 0
