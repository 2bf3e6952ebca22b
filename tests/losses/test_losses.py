"""The criterion against the slow reference, hand-made angles and everything that breaks losses."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sklearn_clce import (
    CLCELoss,
    LabelAwareContrastiveLoss,
    clce_loss,
    label_aware_contrastive_loss,
)

VECTORS = json.loads(Path(__file__).with_name("clce_vectors.json").read_text())
SETTINGS = [{"temperature": t, "hardness": h} for t in (0.05, 0.5) for h in (0.0, 1.0, 2.0)]


def embeddings_and_labels(n=12, dim=5, classes=3, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, dim, generator=generator, dtype=torch.float64).to(dtype)
    return embeddings, torch.arange(n) % classes


def at_angles(*degrees):
    radians = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([radians.cos(), radians.sin()], dim=1)


@pytest.mark.parametrize("case", VECTORS, ids=range(len(VECTORS)))
def test_value_agrees_with_the_vectors(case):
    embeddings = torch.tensor(case["embeddings"], dtype=torch.float64)
    logits = torch.tensor(case["logits"], dtype=torch.float64)
    labels = torch.tensor(case["labels"])
    settings = {name: case[name] for name in ("temperature", "hardness")}
    contrastive = label_aware_contrastive_loss(embeddings, labels, **settings)
    total = clce_loss(logits, embeddings, labels, weight=case["weight"], **settings)
    assert_allclose(contrastive.item(), case["contrastive"], rtol=1e-9, atol=1e-9)
    of_mean = label_aware_contrastive_loss(embeddings, labels, positives="mean", **settings)
    assert_allclose(of_mean.item(), case["contrastive_mean"], rtol=1e-9, atol=1e-9)
    assert_allclose(total.item(), case["clce"], rtol=1e-9, atol=1e-9)


def test_vectors_cover_the_cases():
    assert len(VECTORS) == 60
    assert any(case["contrastive"] == 0 for case in VECTORS)
    assert {case["hardness"] for case in VECTORS} == {0.0, 0.5, 1.0, 2.0}


def test_value_by_hand_from_angles():
    """Anchor 0 and 1 at right angles to each other, the negative at 60 degrees from anchor 0."""
    embeddings, labels = at_angles(0, 90, 60), torch.tensor([0, 0, 1])
    positive, first, second = 0.0, 0.5, math.cos(math.radians(30))
    by_hand = sum(
        math.log(math.exp(positive) + math.exp(negative)) - positive for negative in (first, second)
    )
    loss = label_aware_contrastive_loss(embeddings, labels, temperature=1.0, hardness=3.0)
    assert_allclose(loss.item(), by_hand / 2, rtol=1e-12)


def test_hardness_weights_the_nearer_negative_by_hand():
    embeddings, labels = at_angles(0, 0, 60, 180), torch.tensor([0, 0, 1, 2])
    near, far, h = 0.5, -1.0, 2.0
    share = math.exp(h * near) / (math.exp(h * near) + math.exp(h * far))
    negatives = 2 * (share * math.exp(near) + (1 - share) * math.exp(far))
    by_hand = math.log(math.e + negatives) - 1
    loss = label_aware_contrastive_loss(embeddings, labels, temperature=1.0, hardness=h)
    assert_allclose(loss.item(), by_hand, rtol=1e-12)


def test_hardness_zero_is_the_supervised_contrastive_loss():
    embeddings, labels = embeddings_and_labels()
    z = torch.nn.functional.normalize(embeddings)
    similarity = (z @ z.T / 0.1).masked_fill(torch.eye(len(z), dtype=torch.bool), -math.inf)
    log_p = similarity.log_softmax(dim=1)
    same = (labels[:, None] == labels) & ~torch.eye(len(z), dtype=torch.bool)
    by_definition = -(torch.where(same, log_p, 0).sum(1) / same.sum(1)).mean()
    loss = label_aware_contrastive_loss(embeddings, labels, temperature=0.1, hardness=0.0)
    assert_allclose(loss.item(), by_definition.item(), rtol=1e-12)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("positives", ["each", "mean"])
def test_gradient_is_right(settings, positives):
    embeddings, labels = embeddings_and_labels(n=7)
    embeddings.requires_grad_()
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 1.0, 3.0], dtype=torch.float64)

    def loss(z, w):
        return label_aware_contrastive_loss(
            z, labels, sample_weight=w, positives=positives, **settings
        )

    assert torch.autograd.gradcheck(loss, (embeddings, weights))


def test_gradient_of_the_whole_criterion():
    embeddings, labels = embeddings_and_labels(n=6)
    logits = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    criterion = CLCELoss(weight=0.3, label_smoothing=0.1, class_weight=[1.0, 2.0, 0.5])
    tensors = (logits.requires_grad_(), embeddings.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: criterion(a, b, labels), tensors)


@pytest.mark.parametrize("settings", SETTINGS)
def test_order_of_samples_does_not_matter(settings):
    embeddings, labels = embeddings_and_labels()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(2))
    loss = label_aware_contrastive_loss(embeddings, labels, **settings)
    permuted = label_aware_contrastive_loss(embeddings[order], labels[order], **settings)
    assert_allclose(loss.item(), permuted.item(), rtol=1e-12)


@pytest.mark.parametrize("hardness", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 5])
def test_batch_without_positive_pair_is_zero_with_zero_gradient(n, hardness):
    embeddings, _ = embeddings_and_labels(n=n, dtype=torch.float32)
    embeddings.requires_grad_()
    loss = label_aware_contrastive_loss(embeddings, torch.arange(n), hardness=hardness)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


@pytest.mark.parametrize("hardness", [0.0, 1.0])
def test_anchor_without_positive_is_not_counted(hardness):
    embeddings, labels = at_angles(0, 30, 70), torch.tensor([0, 0, 1])
    z = embeddings / 1.0
    by_hand = [
        math.log(math.exp(z[i] @ z[j]) + math.exp(z[i] @ z[2])) - float(z[i] @ z[j])
        for i, j in [(0, 1), (1, 0)]
    ]
    loss = label_aware_contrastive_loss(embeddings, labels, temperature=1.0, hardness=hardness)
    assert_allclose(loss.item(), np.mean(by_hand), rtol=1e-12)


@pytest.mark.parametrize("hardness", [0.0, 1.0])
def test_one_class_is_finite(hardness):
    embeddings, _ = embeddings_and_labels(dtype=torch.float32)
    embeddings.requires_grad_()
    labels = torch.zeros(len(embeddings), dtype=torch.int64)
    loss = label_aware_contrastive_loss(embeddings, labels, hardness=hardness)
    loss.backward()
    assert 0 < loss.item() < 100
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-12, 1e12, 1e30, 1e37])
def test_length_of_embeddings_does_not_matter(scale):
    embeddings, labels = embeddings_and_labels(dtype=torch.float32)
    scaled = (embeddings.double() * scale).float().requires_grad_()
    loss = label_aware_contrastive_loss(scaled, labels)
    loss.backward()
    expected = label_aware_contrastive_loss(embeddings, labels)
    assert_allclose(loss.item(), expected.item(), rtol=1e-4)
    assert not scaled.grad.isnan().any()


def test_zero_embedding_has_a_finite_gradient():
    embeddings, labels = embeddings_and_labels(dtype=torch.float32)
    embeddings[0] = 0
    embeddings.requires_grad_()
    label_aware_contrastive_loss(embeddings, labels).backward()
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad.abs().max() < 100


@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.07])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("hardness", [0.0, 2.0])
def test_low_temperature_in_any_precision(dtype, temperature, hardness):
    embeddings, labels = embeddings_and_labels(dtype=dtype)
    exact = label_aware_contrastive_loss(
        embeddings.double(), labels, temperature=temperature, hardness=hardness
    )
    embeddings.requires_grad_()
    loss = label_aware_contrastive_loss(
        embeddings, labels, temperature=temperature, hardness=hardness
    )
    loss.backward()
    assert loss.dtype == torch.float32
    assert_allclose(loss.item(), exact.item(), rtol=1e-4)
    assert embeddings.grad.dtype == dtype
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits(dtype):
    embeddings, labels = embeddings_and_labels(dtype=dtype)
    logits = (embeddings[:, :3] * 100).requires_grad_()
    loss = clce_loss(logits, embeddings, labels, weight=0.5)
    loss.backward()
    exact = clce_loss(logits.double(), embeddings.double(), labels, weight=0.5)
    assert loss.dtype == torch.float32
    assert_allclose(loss.item(), exact.item(), rtol=1e-4)
    assert logits.grad.isfinite().all()


def test_autocast_does_not_change_the_criterion():
    embeddings, labels = embeddings_and_labels(n=40, dim=64, dtype=torch.float32)
    logits = embeddings[:, :3]
    expected = clce_loss(logits, embeddings, labels, temperature=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = clce_loss(logits, embeddings, labels, temperature=0.01)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


def test_class_weight_is_torchs_own():
    embeddings, labels = embeddings_and_labels()
    logits, class_weight = embeddings[:, :3], torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(logits, labels, weight=class_weight)
    loss = clce_loss(logits, embeddings, labels, weight=0.0, class_weight=class_weight)
    assert_allclose(loss.item(), expected.item(), rtol=1e-12)


def test_label_smoothing_is_torchs_own():
    embeddings, labels = embeddings_and_labels()
    logits = embeddings[:, :3]
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.2)
    loss = clce_loss(logits, embeddings, labels, weight=0.0, label_smoothing=0.2)
    assert_allclose(loss.item(), expected.item(), rtol=1e-12)


def test_integer_weights_repeat_samples_in_the_cross_entropy():
    embeddings, labels = embeddings_and_labels()
    repeats = torch.arange(len(labels)) % 4
    rows = torch.repeat_interleave(torch.arange(len(labels)), repeats)
    logits = embeddings[:, :3]
    weighted = clce_loss(logits, embeddings, labels, weight=0.0, sample_weight=repeats)
    repeated = clce_loss(logits[rows], embeddings[rows], labels[rows], weight=0.0)
    assert_allclose(weighted.item(), repeated.item(), rtol=1e-12)


def test_sample_weight_weights_anchors():
    embeddings, labels = embeddings_and_labels(n=6)
    each = [
        label_aware_contrastive_loss(embeddings, labels, sample_weight=one_hot).item()
        for one_hot in torch.eye(6)
    ]
    weights = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    loss = label_aware_contrastive_loss(embeddings, labels, sample_weight=weights)
    assert_allclose(loss.item(), np.average(each, weights=weights), rtol=1e-12)


def test_weights_that_leave_nothing_give_zero():
    embeddings, labels = embeddings_and_labels()
    embeddings.requires_grad_()
    loss = clce_loss(embeddings[:, :3], embeddings, labels, sample_weight=torch.zeros(len(labels)))
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad.abs().max() == 0


def test_modules_are_the_functions():
    embeddings, labels = embeddings_and_labels()
    weights = torch.linspace(0, 1, len(labels))
    settings = {"temperature": 0.3, "hardness": 0.5, "positives": "mean"}
    assert torch.equal(
        LabelAwareContrastiveLoss(**settings)(embeddings, labels, weights),
        label_aware_contrastive_loss(embeddings, labels, sample_weight=weights, **settings),
    )
    settings |= {"weight": 0.7, "label_smoothing": 0.1}
    class_weight = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(
        CLCELoss(**settings, class_weight=class_weight)(
            embeddings[:, :3], embeddings, labels, weights
        ),
        clce_loss(
            embeddings[:, :3],
            embeddings,
            labels,
            **settings,
            class_weight=class_weight,
            sample_weight=weights,
        ),
    )
    assert "temperature=0.3" in repr(CLCELoss(**settings))


# of the compiler of torch 2.6
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_criterion_compiles_to_one_graph():
    embeddings, labels = embeddings_and_labels(dtype=torch.float32)
    explained = torch._dynamo.explain(clce_loss)(embeddings[:, :3], embeddings, labels)
    assert explained.graph_break_count == 0


EMBEDDINGS, LABELS = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "message"),
    [
        ((EMBEDDINGS, LABELS), {"temperature": 0}, ValueError, "temperature=0: .* > 0"),
        ((EMBEDDINGS, LABELS), {"temperature": math.nan}, ValueError, "temperature=nan"),
        ((EMBEDDINGS, LABELS), {"hardness": -1}, ValueError, "hardness=-1: .* >= 0"),
        ((EMBEDDINGS, LABELS[:3]), {}, ValueError, r"embeddings \(4, 2\), labels \(3,\)"),
        ((EMBEDDINGS[0], LABELS), {}, ValueError, r"embeddings of shape \(2,\)"),
        ((EMBEDDINGS, LABELS.float()), {}, TypeError, "labels of dtype torch.float32"),
        ((EMBEDDINGS[:0], LABELS[:0]), {}, ValueError, "at least one sample"),
    ],
)
def test_bad_input_to_the_contrastive_loss(arguments, settings, error, message):
    with pytest.raises(error, match=message):
        label_aware_contrastive_loss(*arguments, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 1.5}, r"weight=1.5: .* in \[0, 1\]"),
        ({"label_smoothing": -0.1}, "label_smoothing=-0.1"),
        ({"class_weight": torch.ones(3)}, r"class_weight of shape \(3,\).* 2 columns"),
    ],
)
def test_bad_input_to_the_criterion(settings, message):
    with pytest.raises(ValueError, match=message):
        clce_loss(EMBEDDINGS, EMBEDDINGS, LABELS, **settings)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_cuda_is_not_synchronised(dtype):
    embeddings, labels = embeddings_and_labels(n=64, dim=32, dtype=dtype)
    expected = clce_loss(embeddings[:, :3], embeddings, labels)
    on_device = embeddings.cuda().requires_grad_(), labels.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = clce_loss(on_device[0][:, :3], *on_device)
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.device.type == "cuda"
    assert_allclose(loss.item(), expected.item(), rtol=1e-4)


def test_terms_add_up_to_the_loss():
    criterion = CLCELoss(weight=0.3)
    inputs = torch.randn(6, 3), torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    terms = criterion.terms(*inputs)
    assert set(terms) == {"cross_entropy", "contrastive"}
    torch.testing.assert_close(
        0.7 * terms["cross_entropy"] + 0.3 * terms["contrastive"], criterion(*inputs)
    )
    assert set(CLCELoss(weight=0.0).terms(*inputs)) == {"cross_entropy"}
