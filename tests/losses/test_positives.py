"""Values by hand and limits of positives="mean", and both statements on random batches."""

import math

import pytest
import torch
from numpy.testing import assert_allclose

from sklearn_clce import label_aware_contrastive_loss
from slow_criterion import positives_by_label, slow_anchor_losses

FORMS = ("auto", "plain", "tiles")
HARDNESS = (0.0, 1.0)


def loss(embeddings, labels, **settings):
    return label_aware_contrastive_loss(embeddings, labels, positives="mean", **settings)


def randn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def value_and_gradient(embeddings, labels, **settings):
    embeddings = embeddings.clone().requires_grad_()
    value = loss(embeddings, labels, **settings)
    return value.detach(), torch.autograd.grad(value.sum(), embeddings)[0]


@pytest.mark.parametrize("form", FORMS)
def test_value_by_hand(form):
    """Two positives at 0 and 90 degrees from the anchor, a negative opposite to it."""
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 0, 1])
    losses = loss(embeddings, labels, temperature=1.0, reduction="none", form=form)
    mean = (math.e + 1) / 2
    assert_allclose(losses[0], math.log((mean + 1 / math.e) / mean), rtol=1e-6)
    assert losses[3] == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("hardness", HARDNESS)
def test_single_positives_are_the_same_as_each(form, hardness):
    embeddings, labels = randn(12, 5), torch.arange(12) % 6
    settings = {"hardness": hardness, "form": form}
    each = label_aware_contrastive_loss(embeddings, labels, **settings)
    assert_allclose(loss(embeddings, labels, **settings), each, rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("hardness", HARDNESS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("n", [2, 9, 700])
def test_anchors_without_a_negative_have_neither_loss_nor_gradient(n, dtype, hardness, form):
    embeddings, labels = randn(n, 3, dtype=dtype), torch.zeros(n, dtype=torch.int64)
    value, gradient = value_and_gradient(embeddings, labels, hardness=hardness, form=form)
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("hardness", HARDNESS)
@pytest.mark.parametrize("n", [1, 5, 700])
def test_batch_without_a_positive_pair_is_zero_with_zero_gradient(n, hardness, form):
    batch = randn(n, 3, dtype=torch.float32), torch.arange(n)
    value, gradient = value_and_gradient(*batch, hardness=hardness, form=form)
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("hardness", HARDNESS)
def test_anchors_without_positive_or_negative_leave_the_others_alone(hardness, form):
    """Anchor 0 has no negative, anchor 1 no positive, the others have both."""
    mask = torch.eye(6, dtype=torch.bool).roll(1, dims=1)
    mask[0], mask[1] = True, False
    embeddings = randn(6, 3).requires_grad_()
    settings = {"hardness": hardness, "form": form, "reduction": "none"}
    losses = loss(embeddings, None, positive_mask=mask, **settings)
    (gradient,) = torch.autograd.grad(losses.sum(), embeddings)
    assert losses[:2].tolist() == [0, 0]
    assert (losses[2:] > 0).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hardness", HARDNESS)
def test_small_losses_are_exact(hardness, dtype):
    """Classes lie together, so that the loss is far below the terms that make it."""
    labels = torch.arange(12) % 3
    embeddings = torch.eye(3, dtype=torch.float64)[labels] + 0.1 * randn(12, 3)
    embeddings = embeddings.to(dtype).double()
    settings = {"temperature": 0.05, "hardness": hardness}
    positives = positives_by_label(labels.tolist())
    exact = slow_anchor_losses(embeddings, positives, statement="mean", **settings).mean()
    assert exact < 1e-4
    for form in FORMS:
        value, _ = value_and_gradient(embeddings.to(dtype), labels, form=form, **settings)
        assert_allclose(value, exact, rtol=1e-4 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize(("n", "seed"), [*((12, seed) for seed in range(12)), (700, 0), (700, 1)])
@pytest.mark.parametrize("statement", ["each", "mean"])
def test_random_batches_agree_with_the_reference(n, seed, statement):
    labels = torch.randint(2 + seed, (n,), generator=torch.Generator().manual_seed(seed))
    settings = {"temperature": (0.05, 0.1, 0.5, 1.0)[seed % 4], "hardness": float(seed % 3)}
    embeddings, positives = randn(n, 5, seed=seed), positives_by_label(labels.tolist())
    exact = slow_anchor_losses(embeddings, positives, statement=statement, **settings)
    exact = exact.sum() / max(sum(map(bool, positives)), 1)
    for form in FORMS:
        found = label_aware_contrastive_loss(
            embeddings, labels, positives=statement, form=form, **settings
        )
        assert_allclose(found, exact, rtol=1e-9, atol=1e-12)
