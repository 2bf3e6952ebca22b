"""Values and gradients of every form and option against the slow reference, small and large."""

import functools
import json
from pathlib import Path

import pytest
import torch
from numpy.testing import assert_allclose

from sklearn_clce import CLCELoss, clce_loss, label_aware_contrastive_loss
from slow_criterion import positives_by_label, positives_by_mask, slow_anchor_losses

VECTORS = json.loads(Path(__file__).parent.joinpath("clce_vectors.json").read_text())
SIZES = (12, 700)
FORMS = ("auto", "plain", "tiles")
KINDS = ("labels", "references", "mask", "mask and references")
SETTINGS = {"temperature": 0.2, "hardness": 0.7}
each_and_mean = pytest.mark.parametrize("positives", ["each", "mean"])


@functools.cache
def batch(n, kind):
    """What is differentiated and what is not: anchors without a positive, a one-way mask."""
    generator = torch.Generator().manual_seed(n)
    n_references = n // 2 if "references" in kind else 0
    labels = torch.randint(n // 2, (n + n_references,), generator=generator)
    embeddings = torch.randn(n + n_references, 6, generator=generator, dtype=torch.float64)
    tensors = {"embeddings": embeddings[:n]}
    arguments = {"sample_weight": torch.rand(n, generator=generator, dtype=torch.float64).round()}
    if n_references:
        tensors["references"] = embeddings[n:]
    if "mask" in kind:
        arguments["positive_mask"] = torch.rand(n, n + n_references, generator=generator) < 1.5 / n
    else:
        arguments["labels"] = labels[:n]
        arguments["reference_labels"] = labels[n:] if n_references else None
    return tensors, arguments


def leaves(tensors, **settings):
    settings = {name: torch.tensor(value, dtype=torch.float64) for name, value in settings.items()}
    return {name: x.clone().requires_grad_() for name, x in {**tensors, **settings}.items()}


def loss_and_gradients(loss, inputs):
    """Of a mean, or of losses each with a gradient of its own."""
    upstream = torch.linspace(1, 2, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    return [loss.detach(), *torch.autograd.grad(loss, list(inputs.values()), upstream)]


@functools.cache
def expected(n, kind, reduction, statement):
    """The loss, and its gradients by embeddings, references, temperature and hardness."""
    tensors, arguments = batch(n, kind)
    inputs = leaves(tensors, **SETTINGS)
    if "mask" in kind:
        positives = positives_by_mask(arguments["positive_mask"].tolist())
    else:
        references = arguments["reference_labels"]
        references = [] if references is None else references.tolist()
        positives = positives_by_label(arguments["labels"].tolist(), references)
    losses = slow_anchor_losses(positives=positives, statement=statement, **inputs)
    has_positive = torch.tensor([bool(columns) for columns in positives])
    assert 0 < has_positive.count_nonzero() < n
    weights = arguments["sample_weight"] * has_positive
    loss = losses * weights if reduction == "none" else losses @ weights / weights.sum()
    return loss_and_gradients(loss, inputs)


def assert_agrees(found, reference, rtol=1e-9):
    for ours, theirs in zip(found, reference, strict=True):
        assert_allclose(ours, theirs, rtol=rtol, atol=rtol * float(theirs.abs().max()))


@pytest.mark.parametrize("case", VECTORS, ids=range(len(VECTORS)))
@pytest.mark.parametrize(
    ("statement", "answer"), [("each", "contrastive"), ("mean", "contrastive_mean")]
)
def test_slow_reference_agrees_with_the_vectors(case, statement, answer):
    positives = positives_by_label(case["labels"])
    losses = slow_anchor_losses(
        torch.tensor(case["embeddings"], dtype=torch.float64),
        positives,
        temperature=case["temperature"],
        hardness=case["hardness"],
        statement=statement,
    )
    n_counted = sum(map(bool, positives))
    assert_allclose(losses.sum() / max(n_counted, 1), case[answer], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", SIZES)
@each_and_mean
def test_forms_and_options_agree_with_the_reference(n, kind, form, reduction, positives):
    tensors, arguments = batch(n, kind)
    inputs = leaves(tensors)
    loss = label_aware_contrastive_loss(
        **inputs, **arguments, **SETTINGS, positives=positives, form=form, reduction=reduction
    )
    reference = expected(n, kind, reduction, positives)[: 1 + len(inputs)]
    assert_agrees(loss_and_gradients(loss, inputs), reference)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", SIZES)
@each_and_mean
def test_learned_temperature(n, kind, form, positives):
    tensors, arguments = batch(n, kind)
    inputs = leaves(tensors, temperature=SETTINGS["temperature"])
    settings = {"hardness": 0.7, "positives": positives, "form": form}
    loss = label_aware_contrastive_loss(**inputs, **arguments, **settings)
    assert_agrees(loss_and_gradients(loss, inputs), expected(n, kind, "mean", positives)[:-1])


@pytest.mark.parametrize("form", ["auto", "plain"])
@pytest.mark.parametrize("n", SIZES)
@each_and_mean
def test_learned_temperature_and_hardness(n, form, positives):
    tensors, arguments = batch(n, "references")
    inputs = leaves(tensors, **SETTINGS)
    loss = label_aware_contrastive_loss(**inputs, **arguments, positives=positives, form=form)
    assert_agrees(loss_and_gradients(loss, inputs), expected(n, "references", "mean", positives))


@pytest.mark.parametrize("n", SIZES)
def test_references_without_gradient_change_no_other_gradient(n):
    for kind in ("references", "mask and references"):
        tensors, arguments = batch(n, kind)
        inputs = leaves({"embeddings": tensors["embeddings"]})
        for form in FORMS:
            loss = label_aware_contrastive_loss(
                **inputs, references=tensors["references"], **arguments, **SETTINGS, form=form
            )
            assert_agrees(loss_and_gradients(loss, inputs), expected(n, kind, "mean", "each")[:2])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", SIZES)
@each_and_mean
def test_criterion_agrees_with_the_reference(n, form, positives):
    """Both terms of every sample, with references for one of them."""
    tensors, arguments = batch(n, "references")
    logits = torch.randn(n, n // 2, generator=torch.Generator().manual_seed(1)).double()
    inputs = {"logits": logits.requires_grad_(), **leaves(tensors)}
    cross_entropy = torch.nn.functional.cross_entropy(logits, arguments["labels"], reduction="none")
    contrastive = expected(n, "references", "none", positives)[0]
    losses = 0.7 * cross_entropy * arguments["sample_weight"] + 0.3 * contrastive
    settings = {**SETTINGS, "weight": 0.3, "form": form, "reduction": "none"}
    settings["positives"] = positives
    found = clce_loss(**inputs, **arguments, **settings)
    assert_allclose(found.detach(), losses.detach(), rtol=1e-9)
    assert torch.equal(CLCELoss(**settings)(**inputs, **arguments), found)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@each_and_mean
def test_references_in_low_precision(n, dtype, positives):
    tensors, arguments = batch(n, "references")
    settings = SETTINGS | {"positives": positives}
    inputs = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    exact = label_aware_contrastive_loss(
        **{name: tensor.double() for name, tensor in inputs.items()}, **arguments, **settings
    )
    for form in FORMS:
        loss = label_aware_contrastive_loss(**inputs, **arguments, **settings, form=form)
        assert loss.dtype == torch.float32
        assert_allclose(loss, exact, rtol=1e-5)


def test_mask_of_equal_labels_is_the_same_as_labels():
    tensors, arguments = batch(12, "labels")
    labels = arguments["labels"]
    for form in FORMS:
        by_label = label_aware_contrastive_loss(**tensors, labels=labels, form=form)
        mask = labels[:, None] == labels  # with the anchor itself, which is not looked at
        by_mask = label_aware_contrastive_loss(**tensors, positive_mask=mask, form=form)
        assert_allclose(by_mask, by_label, rtol=1e-12)


def test_empty_references_are_the_same_as_none():
    tensors, arguments = batch(12, "labels")
    none = {"references": torch.empty(0, 6), "reference_labels": torch.empty(0, dtype=torch.int64)}
    for form in FORMS:
        expected_loss = label_aware_contrastive_loss(**tensors, labels=arguments["labels"])
        loss = label_aware_contrastive_loss(
            **tensors, labels=arguments["labels"], **none, form=form
        )
        assert_allclose(loss, expected_loss, rtol=1e-12)
