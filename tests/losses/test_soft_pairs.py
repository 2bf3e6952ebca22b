"""Weights of positives, and pairs that are neither positive nor negative."""

import functools
import math

import pytest
import torch
from numpy.testing import assert_allclose

from sklearn_clce import CLCELoss, clce_loss, label_aware_contrastive_loss
from sklearn_clce.losses import _fast
from slow_criterion import positives_by_mask, slow_anchor_losses

FORMS = ("auto", "plain", "tiles")
KINDS = ("weights", "neither", "weights and neither")
SETTINGS = {"temperature": 0.2, "hardness": 0.7}
every_form = pytest.mark.parametrize("form", FORMS)
each_and_mean = pytest.mark.parametrize("positives", ["each", "mean"])


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setitem(_fast.TILE_ANCHORS, "cpu", 5)


def random_pairs(n=12, n_references=0, kind="weights and neither", seed=0):
    """Anchors with and without positives and negatives, and positives without weight."""
    generator = torch.Generator().manual_seed(seed)
    shape = n, n + n_references
    code = torch.rand(shape, generator=generator)
    positive, negative = code < 3 / n, code > (0.5 if "neither" in kind else 3 / n)
    positive[0], negative[1], positive[2], negative[2] = False, False, True, False
    weights = torch.rand(shape, generator=generator, dtype=torch.float64) * 3
    weights[torch.rand(shape, generator=generator) < 0.2] = 0
    pairs = {"positive_mask": positive, "negative_mask": negative & ~positive}
    return pairs | {"positive_weights": weights} if "weights" in kind else pairs


def rows(n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=generator, dtype=torch.float64)


def loss_and_gradients(loss, inputs):
    upstream = torch.linspace(1, 2, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    return [loss.detach(), *torch.autograd.grad(loss, list(inputs.values()), upstream)]


def slow(inputs, pairs, positives, sample_weight, reduction):
    columns = positives_by_mask(pairs["positive_mask"].tolist())
    weights = pairs.get("positive_weights", torch.ones(len(columns), 99)).tolist()
    losses = slow_anchor_losses(
        positives=columns,
        negatives=positives_by_mask(pairs["negative_mask"].tolist()),
        weights=weights,
        statement=positives,
        **inputs,
    )
    counted = [any(weights[i][j] > 0 for j in own) for i, own in enumerate(columns)]
    sample_weight = sample_weight * torch.tensor(counted)
    return (
        losses * sample_weight
        if reduction == "none"
        else (losses @ sample_weight / sample_weight.sum())
    )


def assert_agrees(inputs, n_references, kind, form, reduction, positives):
    """Value, and gradients by the inputs, which are embeddings, and what else is learned."""
    pairs = random_pairs(n_references=n_references, kind=kind)
    inputs["embeddings"] = rows(12).requires_grad_()
    if n_references:
        inputs["references"] = rows(n_references, seed=2).requires_grad_()
    sample_weight = torch.arange(12.0, dtype=torch.float64) % 4
    exact = slow(SETTINGS | inputs, pairs, positives, sample_weight, reduction)
    found = label_aware_contrastive_loss(
        **SETTINGS | inputs,
        **pairs,
        sample_weight=sample_weight,
        reduction=reduction,
        positives=positives,
        form=form,
    )
    results = loss_and_gradients(found, inputs), loss_and_gradients(exact, inputs)
    for ours, theirs in zip(*results, strict=True):
        assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("n_references", [0, 7])
@pytest.mark.parametrize("kind", KINDS)
@every_form
@each_and_mean
def test_forms_agree_with_the_reference(kind, n_references, form, reduction, positives):
    assert_agrees({}, n_references, kind, form, reduction, positives)


@pytest.mark.parametrize("n_references", [0, 7])
@every_form
@each_and_mean
def test_learned_settings_agree_with_the_reference(n_references, form, positives):
    names = ["temperature"] if form == "tiles" else ["temperature", "hardness"]
    learned = {name: torch.tensor(SETTINGS[name], dtype=torch.float64) for name in names}
    learned = {name: value.requires_grad_() for name, value in learned.items()}
    assert_agrees(learned, n_references, KINDS[-1], form, "mean", positives)


@each_and_mean
def test_large_batch_agrees_with_the_plain_form(positives):
    pairs = random_pairs(n=700)
    results = []
    for form in ("auto", "plain"):
        inputs = {"embeddings": rows(700).requires_grad_()}
        loss = label_aware_contrastive_loss(**inputs, **pairs, positives=positives, form=form)
        results.append(loss_and_gradients(loss, inputs))
    for ours, theirs in zip(*results, strict=True):
        assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weight", [1.0, 0.3, 3e-39, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_form
@each_and_mean
def test_equal_weights_are_exactly_no_weights(weight, dtype, form, positives):
    mask = random_pairs(n_references=4)["positive_mask"]
    results = []
    for weights in (None, torch.full(mask.shape, weight)):
        inputs = {
            "embeddings": rows(12).to(dtype).requires_grad_(),
            "references": rows(4, seed=2).to(dtype).requires_grad_(),
        }
        loss = label_aware_contrastive_loss(
            **inputs,
            positive_mask=mask,
            positive_weights=weights,
            positives=positives,
            form=form,
            reduction="none",
        )
        results.append(loss_and_gradients(loss, inputs))
    assert all(map(torch.equal, *results))


@every_form
@each_and_mean
def test_complement_as_negatives_is_the_default(form, positives):
    mask = random_pairs()["positive_mask"]
    settings = {"positive_mask": mask, "positives": positives, "form": form, "reduction": "none"}
    expected = label_aware_contrastive_loss(rows(12), **settings)
    found = label_aware_contrastive_loss(rows(12), **settings, negative_mask=~mask)
    assert torch.equal(found, expected)


@every_form
@each_and_mean
def test_reference_in_neither_mask_is_left_out(form, positives):
    pairs = random_pairs(n_references=7)
    for mask in (pairs["positive_mask"], pairs["negative_mask"]):
        mask[:, 15:] = False
    settings = {"positives": positives, "form": form, "reduction": "none"}
    references = rows(7, seed=2)
    found = label_aware_contrastive_loss(rows(12), references=references, **pairs, **settings)
    fewer = {name: matrix[:, :15] for name, matrix in pairs.items()}
    expected = label_aware_contrastive_loss(
        rows(12), references=references[:3], **fewer, **settings
    )
    assert_allclose(found, expected, rtol=1e-12)


@every_form
def test_value_by_hand(form):
    """Positives at 0 and 90 degrees weigh 3 to 1, a negative is opposite, another is left out."""
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]])
    positive = torch.zeros(5, 5, dtype=torch.bool)
    positive[0, 1:3] = True
    negative = torch.zeros_like(positive)
    negative[0, 3] = True
    weights = torch.ones(5, 5)
    weights[0, 1] = 3
    by = functools.partial(
        label_aware_contrastive_loss,
        embeddings,
        positive_mask=positive,
        positive_weights=weights,
        negative_mask=negative,
        temperature=1.0,
        form=form,
    )
    partition = math.e + 1 + 1 / math.e
    assert_allclose(by(positives="each"), math.log(partition) - 3 / 4, rtol=1e-6)
    mean = (3 * math.e + 1) / 4
    assert_allclose(by(positives="mean"), math.log((mean + 1 / math.e) / mean), rtol=1e-6)


@every_form
@each_and_mean
@pytest.mark.parametrize("hardness", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 6])
def test_nothing_to_compare_is_zero_with_zero_gradient(n, hardness, form, positives):
    nothing = torch.zeros(n, n, dtype=torch.bool)
    for pairs in (
        {"positive_mask": nothing, "negative_mask": nothing},
        {"positive_mask": nothing, "negative_mask": ~nothing},
        {"positive_mask": ~nothing, "positive_weights": torch.zeros(n, n)},
    ):
        embeddings = rows(n).float().requires_grad_()
        loss = label_aware_contrastive_loss(
            embeddings, **pairs, hardness=hardness, positives=positives, form=form
        )
        loss.backward()
        assert loss == 0
        assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


@every_form
@pytest.mark.parametrize("hardness", [0.0, 1.0])
def test_loss_of_the_mean_without_negatives_is_zero(hardness, form):
    everything = torch.ones(6, 6, dtype=torch.bool)
    embeddings = rows(6).requires_grad_()
    loss = label_aware_contrastive_loss(
        embeddings,
        positive_mask=everything,
        positive_weights=rows(6)[:, :1].abs().expand(6, 6),
        negative_mask=~everything,
        hardness=hardness,
        positives="mean",
        form=form,
    )
    loss.backward()
    assert loss == 0
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


@pytest.mark.parametrize("hardness", [0.0, 0.5])
@every_form
@each_and_mean
def test_gradient_is_right(hardness, form, positives):
    pairs, settings = random_pairs(n=7), {"hardness": hardness, "positives": positives}

    def loss(z):
        return label_aware_contrastive_loss(z, **pairs, temperature=0.3, form=form, **settings)

    embeddings = rows(7).requires_grad_()
    assert torch.autograd.gradcheck(loss, embeddings)
    if form != "tiles":
        assert torch.autograd.gradgradcheck(loss, embeddings)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [0.01, 0.07])
@every_form
@each_and_mean
def test_low_temperature_in_any_precision(dtype, temperature, form, positives):
    pairs, embeddings = random_pairs(), rows(12).to(dtype)
    settings = {"temperature": temperature, "positives": positives, "reduction": "none"}
    exact = label_aware_contrastive_loss(embeddings.double(), **pairs, **settings, form="plain")
    leaf = embeddings.requires_grad_()
    losses = label_aware_contrastive_loss(leaf, **pairs, **settings, form=form)
    losses.sum().backward()
    assert losses.dtype == torch.float32
    assert_allclose(losses.detach(), exact, rtol=1e-4, atol=1e-5)
    assert leaf.grad.isfinite().all()


def test_func_and_vmap():
    pairs, batches = random_pairs(), torch.stack([rows(12), rows(12, seed=3)])

    def loss(z):
        return label_aware_contrastive_loss(z, **pairs)

    expected = [torch.func.grad(loss)(z) for z in batches]
    assert_allclose(torch.vmap(torch.func.grad(loss))(batches), torch.stack(expected), rtol=1e-9)
    leaf = batches[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    assert_allclose(expected[0], gradient, rtol=1e-9)


def test_weight_that_cannot_be_read_shows_as_nan():
    pairs = random_pairs()
    weights = pairs.pop("positive_weights").abs() + 1
    embeddings = rows(12)

    def loss(w):
        return label_aware_contrastive_loss(embeddings, **pairs, positive_weights=w)

    losses = torch.vmap(loss)(torch.stack([weights, -weights]))
    assert losses.isnan().tolist() == [False, True]


def test_criterion_passes_pairs_on():
    pairs, embeddings, labels = random_pairs(), rows(12), torch.arange(12) % 3
    contrastive = label_aware_contrastive_loss(embeddings, **pairs)
    criterion = CLCELoss(weight=0.4)
    terms = criterion.terms(embeddings, embeddings, labels, **pairs)
    assert torch.equal(terms["contrastive"], contrastive)
    found = criterion(embeddings, embeddings, labels, **pairs)
    assert torch.equal(found, criterion.weigh(terms))
    assert torch.equal(clce_loss(embeddings, embeddings, labels, weight=0.4, **pairs), found)


MASK, WEIGHTS = torch.eye(4, dtype=torch.bool).roll(1, 0), torch.ones(4, 4)


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        ({"positive_weights": WEIGHTS[:3]}, ValueError, r"positive_weights of shape \(3, 4\): "),
        ({"positive_weights": [[1.0]]}, TypeError, "positive_weights is a list"),
        ({"positive_weights": -WEIGHTS}, ValueError, "positive_weights holds -1.0: .* >= 0"),
        ({"positive_weights": WEIGHTS * math.nan}, ValueError, "positive_weights holds nan"),
        ({"positive_weights": WEIGHTS / 0}, ValueError, "positive_weights holds inf"),
        (
            {"positive_weights": torch.ones(4, 4, requires_grad=True)},
            ValueError,
            r"requires a gradient, and gets none: positive_weights.detach\(\)",
        ),
        ({"negative_mask": MASK}, ValueError, "negative_mask and positive_mask: 4 pairs are in"),
        ({"negative_mask": WEIGHTS}, TypeError, "negative_mask of dtype torch.float32"),
        ({"negative_mask": MASK[:, :3]}, ValueError, r"negative_mask of shape \(4, 3\)"),
    ],
    ids=str,
)
def test_bad_pairs_are_rejected(pairs, error, message):
    with pytest.raises(error, match=message):
        label_aware_contrastive_loss(rows(4), positive_mask=MASK, **pairs)


@pytest.mark.parametrize("pairs", [{"positive_weights": WEIGHTS}, {"negative_mask": MASK}])
def test_pairs_without_a_positive_mask_are_rejected(pairs):
    message = "positive_weights and negative_mask: they belong to a positive_mask"
    with pytest.raises(ValueError, match=message):
        label_aware_contrastive_loss(rows(4), torch.arange(4), **pairs)
    with pytest.raises(ValueError, match=message):
        clce_loss(rows(4), rows(4), torch.arange(4), **pairs)


def test_weights_of_pairs_that_are_not_positive_are_ignored():
    weights = torch.where(MASK, WEIGHTS, math.nan)
    found = label_aware_contrastive_loss(rows(4), positive_mask=MASK, positive_weights=weights)
    assert torch.equal(found, label_aware_contrastive_loss(rows(4), positive_mask=MASK))
