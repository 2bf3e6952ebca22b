"""More than a first derivative: second ones, forward mode, torch.func, compilers."""

import functools
import warnings

import pytest
import torch
from numpy.testing import assert_allclose
from torch.autograd import forward_ad

from sklearn_clce import CLCELoss, LabelAwareContrastiveLoss, label_aware_contrastive_loss

# torch's own, the first time that forward mode is used
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
SIZES = (12, 700)
LABELS = torch.arange(700) % 5


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def loss(embeddings, form="auto", **settings):
    labels = LABELS[: len(embeddings)]
    return label_aware_contrastive_loss(embeddings, labels, form=form, **settings)


def gradient(embeddings, **settings):
    embeddings = embeddings.detach().requires_grad_()
    return torch.autograd.grad(loss(embeddings, **settings), embeddings)[0]


def gradient_penalty(embeddings, form):
    embeddings = embeddings.clone().requires_grad_()
    value = loss(embeddings, form)
    (first,) = torch.autograd.grad(value, embeddings, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), embeddings)
    return second


@pytest.mark.parametrize("hardness", [0.0, 1.0])
@pytest.mark.parametrize("form", ["auto", "plain"])
@pytest.mark.parametrize("positives", ["each", "mean"])
def test_second_derivative_of_a_small_batch(form, hardness, positives):
    settings = {"form": form, "temperature": 0.5, "hardness": hardness, "positives": positives}
    embeddings = randn(6, 3).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda z: loss(z, **settings), embeddings)


@pytest.mark.parametrize("form", ["auto", "plain"])
def test_second_derivative_at_a_zero_embedding(form):
    embeddings = randn(6, 3)
    embeddings[0] = 0
    assert gradient_penalty(embeddings, form).isfinite().all()


@pytest.mark.parametrize("form", ["auto", "plain"])
def test_gradient_penalty_under_autocast(form):
    embeddings = randn(6, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = gradient_penalty(embeddings, form)
    assert_allclose(found, gradient_penalty(embeddings, form), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("n", SIZES)
def test_gradient_penalty(n):
    """Against a difference of first derivatives along the gradient: H g."""
    embeddings, step = randn(n, 4), 1e-5
    direction = gradient(embeddings)
    ahead = gradient(embeddings + step * direction)
    behind = gradient(embeddings - step * direction)
    expected = (ahead - behind) / step
    found = gradient_penalty(embeddings, "plain")
    assert_allclose(found, expected, rtol=1e-5, atol=1e-7 * expected.abs().max())


def test_tiles_reject_a_second_derivative():
    with pytest.raises(NotImplementedError, match="no second derivative: form='plain' has"):
        gradient_penalty(randn(700, 4), "auto")
    with pytest.raises(NotImplementedError, match="form='plain' has"):
        gradient_penalty(randn(12, 4), "tiles")


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("positives", ["each", "mean"])
def test_forward_mode_is_right(n, positives):
    value = functools.partial(loss, positives=positives)
    embeddings, tangent = randn(n, 4), randn(n, 4, seed=1)
    expected = (gradient(embeddings, positives=positives) * tangent).sum()
    with forward_ad.dual_level():
        dual = value(forward_ad.make_dual(embeddings, tangent))
        assert_allclose(forward_ad.unpack_dual(dual).tangent, expected, rtol=1e-9)
    _, by_func = torch.func.jvp(value, (embeddings,), (tangent,))
    assert_allclose(by_func, expected, rtol=1e-9)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", ["temperature", "references"])
def test_forward_mode_by_something_else_is_right(name, n):
    embeddings = randn(n, 4)
    arguments = {
        "temperature": torch.tensor(0.3, dtype=torch.float64),
        "references": randn(20, 4, seed=1),
    }
    point, tangent = arguments[name], randn(*arguments[name].shape, seed=2)

    def value(x):
        others = arguments | {name: x}
        return loss(embeddings, reference_labels=LABELS[:20], **others)

    leaf = point.clone().requires_grad_()
    expected = (torch.autograd.grad(value(leaf), leaf)[0] * tangent).sum()
    assert_allclose(torch.func.jvp(value, (point,), (tangent,))[1], expected, rtol=1e-9)


@pytest.mark.parametrize(
    "transformed",
    [
        lambda z: torch.func.jvp(functools.partial(loss, form="tiles"), (z,), (z,)),
        lambda z: torch.func.grad(functools.partial(loss, form="tiles"))(z),
        lambda z: torch.vmap(functools.partial(loss, form="tiles"))(z[None]),
    ],
)
def test_tiles_reject_forward_mode_and_func(transformed):
    with pytest.raises(NotImplementedError, match=r"'tiles' has no forward mode .* 'plain'"):
        transformed(randn(12, 4))


@pytest.mark.parametrize("n", SIZES)
def test_func_grad_and_vmap(n):
    embeddings = randn(3, n, 4)
    values = torch.stack([loss(z) for z in embeddings])
    gradients = torch.stack([gradient(z) for z in embeddings])
    assert_allclose(torch.vmap(loss)(embeddings), values, rtol=1e-9)
    found = torch.vmap(torch.func.grad(loss))(embeddings)
    assert_allclose(found, gradients, rtol=1e-9, atol=1e-12)


def test_hessian():
    embeddings = randn(6, 3)
    expected = torch.autograd.functional.hessian(loss, embeddings)
    assert_allclose(torch.func.hessian(loss)(embeddings), expected, rtol=1e-9, atol=1e-12)


def test_vmap_over_weights_shows_a_bad_one():
    """Values that can't be read can't be rejected: the loss is NaN."""
    embeddings, weights = randn(12, 4), torch.ones(3, 12)
    weights[1, 4] = -1
    losses = torch.vmap(lambda w: loss(embeddings, sample_weight=w))(weights)
    assert losses.isnan().tolist() == [False, True, False]


CRITERIA = {
    "contrastive": LabelAwareContrastiveLoss(),
    "tiles": LabelAwareContrastiveLoss(form="tiles"),
    "mean": LabelAwareContrastiveLoss(positives="mean"),
    "mean in tiles": LabelAwareContrastiveLoss(positives="mean", form="tiles"),
    "learned": LabelAwareContrastiveLoss(torch.nn.Parameter(torch.tensor(0.3))),
    "both": CLCELoss(0.4, label_smoothing=0.1, class_weight=[1.0, 2.0, 0.5, 1.0, 1.0]),
}


def inputs_to(name, n):
    embeddings, labels = randn(n, 5).float(), LABELS[:n]
    return (embeddings, embeddings, labels) if name == "both" else (embeddings, labels)


# of the compiler of torch 2.6
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("both", "eager"),
        ("mean", "eager"),
        pytest.param("both", "aot_eager", marks=pytest.mark.slow),
        pytest.param("learned", "aot_eager", marks=pytest.mark.slow),
    ],
)
def test_criterion_compiles_with_a_free_batch_size(name, backend):
    torch._dynamo.reset()
    criterion = CRITERIA[name]
    compiled = torch.compile(criterion, dynamic=True, fullgraph=True, backend=backend)
    for n in (12, 700):
        results = []
        for function in (criterion, compiled):
            leaf, *others = inputs_to(name, n)
            leaf.requires_grad_()
            value = function(leaf, *others)
            results.append([value.detach(), *torch.autograd.grad(value, leaf)])
        for expected, found in zip(*results, strict=True):
            assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", CRITERIA)
def test_criterion_exports_with_a_free_batch_size(name):
    size = torch.export.Dim("n", min=2, max=4096)
    inputs = inputs_to(name, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its own
        program = torch.export.export(
            CRITERIA[name], inputs, dynamic_shapes=[{0: size} for _ in inputs]
        ).module()
    for n in (12, 5, 700):
        found = program(*inputs_to(name, n))
        expected = CRITERIA[name](*inputs_to(name, n))
        assert_allclose(found.detach(), expected.detach(), rtol=1e-5)
