"""Arguments are checked: rejected with a remedy, or right."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from sklearn_clce import (
    CLCELoss,
    LabelAwareContrastiveLoss,
    clce_loss,
    label_aware_contrastive_loss,
)

SIZES = (12, 700)
EMBEDDINGS, LABELS = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)
WEIGHTS = torch.ones(4)
MASK = torch.ones(4, 4, dtype=torch.bool)
REFERENCES, REFERENCE_LABELS = torch.zeros(3, 2), LABELS[:3]


def batch(n=12, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 5, generator=generator).to(dtype), torch.arange(n) % 4


@pytest.mark.parametrize("loss", [clce_loss, label_aware_contrastive_loss])
@pytest.mark.parametrize("shape", [(4, 1), (1,), (), (5,)])
def test_sample_weight_of_wrong_shape_is_rejected(loss, shape):
    samples = (EMBEDDINGS, EMBEDDINGS) if loss is clce_loss else (EMBEDDINGS,)
    with pytest.raises(ValueError, match=r"sample_weight of shape \(.*\): one .* of the 4 samples"):
        loss(*samples, LABELS, sample_weight=torch.ones(shape))


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("n", SIZES)
def test_negative_or_non_finite_weights_are_rejected(value, n):
    embeddings, labels = batch(n)
    weights = torch.ones(n)
    weights[3] = value
    with pytest.raises(ValueError, match=f"sample_weight holds {value}: .* finite and >= 0"):
        label_aware_contrastive_loss(embeddings, labels, sample_weight=weights)
    with pytest.raises(ValueError, match=f"sample_weight holds {value}"):
        clce_loss(embeddings, embeddings, labels, sample_weight=weights)
    with pytest.raises(ValueError, match=f"class_weight holds {value}"):
        CLCELoss(class_weight=[1.0, value])


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": torch.tensor(-0.1)},
        {"temperature": -0.1},
        {"hardness": torch.tensor(math.nan)},
        {"hardness": -1.0},
        {"form": "streamed"},
        {"positives": "all"},
        {"reduction": "sum"},
    ],
    ids=str,
)
def test_settings_changed_after_construction_are_checked(settings):
    embeddings, labels = batch()
    ((name, value),) = settings.items()
    for criterion, samples in (
        (LabelAwareContrastiveLoss(), (embeddings,)),
        (CLCELoss(weight=0.0), (embeddings, embeddings)),
    ):
        setattr(criterion, name, value)
        with pytest.raises(ValueError, match=f"{name}="):
            criterion(*samples, labels)


@pytest.mark.parametrize(
    ("name", "value"), [("weight", 2.0), ("label_smoothing", -1), ("class_weight", -torch.ones(5))]
)
def test_settings_of_the_criterion_changed_after_construction_are_checked(name, value):
    embeddings, labels = batch()
    criterion = CLCELoss(class_weight=[1.0] * 5)
    setattr(criterion, name, value)
    with pytest.raises(ValueError, match=name):
        criterion(embeddings, embeddings, labels)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"temperature": "0.5"}, TypeError, "temperature='0.5': a number is required"),
        ({"hardness": None}, TypeError, "hardness=None: a number"),
        ({"temperature": math.inf}, ValueError, "temperature=inf: .* finite"),
        ({"temperature": torch.ones(2)}, ValueError, r"temperature of shape \(2,\): one value"),
        ({"form": "blocks"}, ValueError, "form='blocks': one of 'auto', 'plain', 'tiles'"),
        ({"reduction": "sum"}, ValueError, "reduction='sum': one of 'mean', 'none'"),
        ({"positives": "in"}, ValueError, "positives='in': one of 'each', 'mean' is required"),
        ({"references": REFERENCES}, ValueError, "reference_labels: required with references"),
        ({"reference_labels": LABELS}, ValueError, "reference_labels: .* without them left out"),
        ({"positive_mask": MASK}, ValueError, "labels and positive_mask: exactly one"),
        (
            {"references": torch.zeros(3, 5), "reference_labels": REFERENCE_LABELS},
            ValueError,
            r"references of shape \(3, 5\): as many dimensions as the 2",
        ),
        (
            {"references": REFERENCES, "reference_labels": LABELS},
            ValueError,
            r"references \(3, 2\), reference_labels \(4,\)",
        ),
        (
            {"references": REFERENCES[0], "reference_labels": LABELS},
            ValueError,
            r"references of shape \(2,\)",
        ),
    ],
    ids=str,
)
def test_mismatched_arguments_are_rejected(settings, error, message):
    with pytest.raises(error, match=message):
        label_aware_contrastive_loss(EMBEDDINGS, LABELS, **settings)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (MASK.float(), TypeError, "positive_mask of dtype torch.float32: torch.bool"),
        (MASK[:3], ValueError, r"positive_mask of shape \(3, 4\): \(4, 7\) is required"),
        (MASK, ValueError, r"positive_mask of shape \(4, 4\): \(4, 7\) is required"),
        ([[True]], TypeError, "positive_mask is a list: a torch.Tensor is required"),
    ],
)
def test_mismatched_masks_are_rejected(mask, error, message):
    with pytest.raises(error, match=message):
        label_aware_contrastive_loss(EMBEDDINGS, positive_mask=mask, references=REFERENCES)


def test_missing_labels_and_mask_are_rejected():
    with pytest.raises(ValueError, match="labels and positive_mask: exactly one"):
        label_aware_contrastive_loss(EMBEDDINGS)


@pytest.mark.parametrize("convert", [np.asarray, torch.Tensor.tolist])
@pytest.mark.parametrize("name", ["logits", "embeddings", "labels", "sample_weight"])
def test_arrays_and_lists_get_one_clear_error(name, convert):
    arguments = {
        "logits": EMBEDDINGS,
        "embeddings": EMBEDDINGS,
        "labels": LABELS,
        "sample_weight": WEIGHTS,
    }
    arguments[name] = convert(arguments[name])
    message = rf"{name} is a \w+: a torch.Tensor is required, such as torch.as_tensor\({name}\)"
    with pytest.raises(TypeError, match=message):
        clce_loss(**arguments)
    if name != "logits":
        del arguments["logits"]
        with pytest.raises(TypeError, match=message):
            label_aware_contrastive_loss(**arguments)


@pytest.mark.parametrize("label", [-1, -100, 5])
@pytest.mark.parametrize("n", SIZES)
def test_label_outside_the_classes_is_rejected(label, n):
    """Also -100, which torch would leave out of one of the two terms."""
    embeddings, labels = batch(n)
    labels[2] = label
    for weight in (0.0, 0.5, 1.0):
        with pytest.raises(ValueError, match=rf"labels hold .*{label}.* 5 columns of logits"):
            clce_loss(embeddings, embeddings, labels, weight=weight)
    with pytest.raises(ValueError, match=rf"labels hold .*{label}.* 5 columns of logits"):
        clce_loss(embeddings, embeddings, labels, class_weight=torch.ones(5))


def test_weights_in_float16_are_multiplied_in_float32():
    embeddings, labels = batch()
    heavy = {
        "sample_weight": torch.full((len(labels),), 600, dtype=torch.float16),
        "class_weight": torch.full((5,), 600, dtype=torch.float16),
    }
    expected = clce_loss(embeddings, embeddings, labels)
    torch.testing.assert_close(clce_loss(embeddings, embeddings, labels, **heavy), expected)


def test_contrastive_labels_may_be_any_integer():
    embeddings, labels = batch()
    expected = label_aware_contrastive_loss(embeddings, labels)
    names = torch.tensor([-100, -1, 10**15, 10**15 + 1])
    assert torch.equal(label_aware_contrastive_loss(embeddings, names[labels]), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64])
@pytest.mark.parametrize("n", SIZES)
def test_integer_dtypes_of_labels_do_not_matter(dtype, n):
    embeddings, labels = batch(n)
    class_weight = torch.linspace(1, 2, 5)
    expected = clce_loss(embeddings, embeddings, labels, class_weight=class_weight)
    found = clce_loss(embeddings, embeddings, labels.to(dtype), class_weight=class_weight)
    assert torch.equal(found, expected)


def test_class_weights_are_copied():
    class_weight = np.ones(5)
    criterion = CLCELoss(class_weight=class_weight)
    class_weight[:] = 7
    assert criterion.class_weight.tolist() == [1.0] * 5
    tensor = torch.ones(5)
    criterion = CLCELoss(class_weight=tensor)
    tensor += 1
    assert criterion.class_weight.tolist() == [1.0] * 5


def test_repr_shows_every_setting():
    shown = repr(CLCELoss(0.25, class_weight=[1, 2], temperature=nn.Parameter(torch.tensor(0.5))))
    assert shown == (
        "CLCELoss(weight=0.25, temperature=0.5, hardness=1.0, label_smoothing=0.0, "
        "positives='each', reduction='mean', form='auto', class_weight=[1.0, 2.0], gather=None)"
    )
    assert repr(LabelAwareContrastiveLoss(0.1)) == (
        "LabelAwareContrastiveLoss(temperature=0.1, hardness=1.0, positives='each', "
        "reduction='mean', form='auto', gather=None)"
    )


@pytest.mark.parametrize("form", ["auto", "plain", "tiles"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("n", [1, 2, *SIZES])
@pytest.mark.parametrize("positives", ["each", "mean"])
def test_nan_shows_without_a_positive_pair(n, value, form, positives):
    embeddings, _ = batch(n)
    embeddings[-1, 2] = value
    for reduction in ("mean", "none"):
        loss = label_aware_contrastive_loss(
            embeddings, torch.arange(n), positives=positives, form=form, reduction=reduction
        )
        assert loss.isnan().any()


@pytest.mark.parametrize("form", ["auto", "plain", "tiles"])
def test_nan_among_references_shows_without_a_positive_pair(form):
    embeddings, labels = batch(3)
    references = torch.full((2, 5), math.nan)
    loss = label_aware_contrastive_loss(
        embeddings, labels, references=references, reference_labels=labels[:2] + 7, form=form
    )
    assert loss.isnan()


def test_nan_of_a_sample_without_weight_shows():
    logits, labels = batch()
    logits[0] = math.nan
    weights = torch.ones(len(labels))
    weights[0] = 0
    assert clce_loss(logits, batch()[0], labels, weight=0.0, sample_weight=weights).isnan()


def test_infinite_loss_without_weight_is_left_out():
    logits, labels = batch()
    logits[0, labels[0]] = -math.inf
    weights = torch.ones(len(labels))
    weights[0] = 0
    expected = clce_loss(logits[1:], logits[1:], labels[1:], weight=0.0)
    loss = clce_loss(logits, logits, labels, weight=0.0, sample_weight=weights)
    assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("form", ["auto", "plain", "tiles"])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("positives", ["each", "mean"])
def test_weights_without_a_positive_pair_give_zero_with_zero_gradients(n, form, positives):
    embeddings, _ = batch(n)
    weights = torch.zeros(n, requires_grad=True)
    embeddings.requires_grad_()
    label_aware_contrastive_loss(
        embeddings, torch.arange(n), sample_weight=weights, positives=positives, form=form
    ).backward()
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))
    assert torch.equal(weights.grad, torch.zeros_like(weights))


def test_mask_does_not_change_the_cross_entropy():
    embeddings, labels = batch()
    plain = clce_loss(embeddings, embeddings, labels, weight=0.0)
    with_mask = clce_loss(
        embeddings, embeddings, labels, weight=0.0, positive_mask=labels[:, None] == labels
    )
    assert torch.equal(plain, with_mask)


@pytest.mark.parametrize("n", SIZES)
def test_learned_temperature_is_a_parameter_with_a_gradient(n):
    embeddings, labels = batch(n)
    criterion = CLCELoss(temperature=nn.Parameter(torch.tensor(0.5)))
    assert [name for name, _ in criterion.named_parameters()] == ["temperature"]
    criterion(embeddings, embeddings, labels).backward()
    assert criterion.temperature.grad.isfinite()
    assert criterion.temperature.grad != 0


def test_temperature_of_one_element_is_a_scalar():
    embeddings, labels = batch()
    expected = label_aware_contrastive_loss(embeddings, labels, temperature=0.25)
    for temperature in (torch.tensor([0.25]), torch.tensor(0.25).half(), np.float32(0.25)):
        loss = label_aware_contrastive_loss(embeddings, labels, temperature=temperature)
        assert loss.shape == ()
        assert_allclose(loss, expected, rtol=1e-6)
