"""The contrastive term in blocks: the plain form's value and gradient, in less memory."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.utils._python_dispatch import TorchDispatchMode

from sklearn_clce import clce_loss, label_aware_contrastive_loss
from sklearn_clce.losses import _streaming

VECTORS = json.loads(Path(__file__).with_name("clce_vectors.json").read_text())
PLAIN = None


class OperatorNames(TorchDispatchMode):
    """Keep the name of every operator that runs."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.add(str(operator))
        return operator(*args, **(kwargs or {}))


def streams(embeddings, labels, **settings):
    with OperatorNames() as operators:
        label_aware_contrastive_loss(embeddings, labels, **settings)
    return "sklearn_clce.log_partition.default" in operators.names


@pytest.fixture
def force(monkeypatch):
    """Set the form: rows of a block, or PLAIN."""

    def set_form(block_rows):
        for device in ("cpu", "cuda"):
            from_rows = 10**9 if block_rows is PLAIN else 1
            monkeypatch.setitem(_streaming.STREAMING_ROWS, device, from_rows)
            monkeypatch.setitem(_streaming.BLOCK_ROWS, device, block_rows)

    return set_form


def randn(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def random_batch(seed, dtype=torch.float64):
    """Embeddings, labels and weights: some rows and classes alone, some weights zero."""
    rng = np.random.default_rng(seed)
    n, dim, classes = rng.integers([1, 1, 1], [40, 12, 15])
    embeddings = torch.tensor(rng.normal(size=(n, dim))).to(dtype)
    labels = torch.tensor(rng.integers(0, classes, size=n))
    return embeddings, labels, torch.tensor(rng.integers(0, 3, size=n) * rng.random(n))


def value_and_gradients(embeddings, labels, weights=None, **settings):
    tensors = [t.clone().requires_grad_() for t in (embeddings, weights) if t is not None]
    sample_weight = None if weights is None else tensors[1]
    loss = label_aware_contrastive_loss(tensors[0], labels, sample_weight=sample_weight, **settings)
    loss.backward()
    return [loss.detach(), *(tensor.grad for tensor in tensors)]


@pytest.mark.parametrize("case", VECTORS, ids=range(len(VECTORS)))
@pytest.mark.parametrize("block_rows", [1, 3])
def test_agrees_with_the_slow_reference(case, block_rows, force):
    force(block_rows)
    embeddings = torch.tensor(case["embeddings"], dtype=torch.float64)
    settings = {name: case[name] for name in ("temperature", "hardness")}
    loss = label_aware_contrastive_loss(embeddings, torch.tensor(case["labels"]), **settings)
    assert_allclose(loss.item(), case["contrastive"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("hardness", [0.0, 0.3, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("temperature", [0.01, 0.3])
def test_value_and_gradients_are_the_plain_forms(hardness, temperature, force):
    settings = {"temperature": temperature, "hardness": hardness}
    for seed in range(16):
        embeddings, labels, weights = random_batch(seed)
        batch = (embeddings, labels, weights if seed % 2 else None)
        force(PLAIN)
        plain = value_and_gradients(*batch, **settings)
        force(1 + seed % 9)
        streamed = value_and_gradients(*batch, **settings)
        for expected, result in zip(plain, streamed, strict=True):
            assert_allclose(result, expected, rtol=1e-9, atol=1e-11 * expected.abs().max())


@pytest.mark.parametrize("hardness", [0.0, 0.5, 2.0])
def test_gradient_is_that_of_the_value(hardness, force):
    force(3)
    embeddings, labels = randn(7, 4, dtype=torch.float64), torch.tensor([0, 1, 0, 2, 1, 0, 3])
    weights = torch.tensor([1.0, 0.1, 2.0, 0.5, 1.0, 1.0, 3.0], dtype=torch.float64)

    def loss(z, w):
        return label_aware_contrastive_loss(
            z, labels, sample_weight=w, temperature=0.2, hardness=hardness
        )

    assert torch.autograd.gradcheck(loss, (embeddings.requires_grad_(), weights.requires_grad_()))


def test_a_large_batch_streams_by_itself():
    embeddings, labels = randn(640, 4), torch.arange(640) % 5
    assert streams(embeddings, labels)
    assert not streams(embeddings[1:], labels[1:])


def test_exponents_that_fit_no_dtype_take_the_plain_form(force):
    force(4)
    embeddings, labels, _ = random_batch(0, torch.float32)
    assert streams(embeddings, labels, temperature=0.01, hardness=2.0)
    assert not streams(embeddings, labels, temperature=0.001, hardness=2.0)


@pytest.mark.parametrize("hardness", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 5])
def test_no_positive_pair_is_exactly_zero_with_zero_gradient(n, hardness, force):
    force(2)
    value, gradient = value_and_gradients(randn(n, 3), torch.arange(n), hardness=hardness)
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("hardness", [0.0, 1.0])
def test_one_class_is_finite(hardness, force):
    force(4)
    embeddings, labels = randn(9, 3), torch.zeros(9, dtype=torch.int64)
    value, gradient = value_and_gradients(embeddings, labels, hardness=hardness)
    assert 0 < value < 100
    assert gradient.isfinite().all()


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e37])
def test_rows_of_any_length(scale, force):
    embeddings, labels = randn(9, 4, dtype=torch.float64), torch.arange(9) % 3
    embeddings[::2] *= scale
    force(PLAIN)
    expected, _ = value_and_gradients(embeddings, labels)
    force(4)
    value, gradient = value_and_gradients(embeddings.float(), labels)
    assert_allclose(value, expected, rtol=1e-4)
    assert not gradient.isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [0.01, 0.07])
@pytest.mark.parametrize("hardness", [0.0, 2.0])
def test_low_temperature_in_any_precision(dtype, temperature, hardness, force):
    settings = {"temperature": temperature, "hardness": hardness}
    embeddings, labels = randn(12, 5).to(dtype), torch.arange(12) % 3
    force(PLAIN)
    exact, exact_gradient = value_and_gradients(embeddings.double(), labels, **settings)
    force(5)
    value, gradient = value_and_gradients(embeddings, labels, **settings)
    assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
    assert_allclose(value, exact, rtol=1e-4)
    tolerance = 4 * torch.finfo(dtype).eps + 1e-4
    assert (gradient - exact_gradient).abs().max() <= tolerance * exact_gradient.abs().max()


def test_autocast_does_not_reach_it(force):
    force(16)
    embeddings, labels = randn(40, 64), torch.arange(40) % 3
    expected = value_and_gradients(embeddings, labels, temperature=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = value_and_gradients(embeddings, labels, temperature=0.01)
    assert result[0].dtype == torch.float32
    assert all(map(torch.equal, result, expected))


def test_strides_and_integer_dtypes_do_not_matter(force):
    force(4)
    embeddings, labels, _ = random_batch(3)
    expected = value_and_gradients(embeddings, labels)
    transposed = embeddings.T.contiguous().T
    spread = labels.repeat_interleave(2)[::2]
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        result = value_and_gradients(transposed, spread.to(dtype))
        assert_allclose(result[0], expected[0], rtol=1e-12)
        assert_allclose(result[1], expected[1], atol=1e-12)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own tool
def test_operators_keep_the_rules_of_torch_library():
    normalised = torch.nn.functional.normalize(randn(7, 4))
    labels, n_negatives = torch.tensor([0, 1, 0, 1, 0, 1, 0]), torch.tensor([3.0, 4.0] * 3 + [3.0])
    arguments = (normalised.requires_grad_(), labels, n_negatives, 0.1, 1.0, 3)
    torch.library.opcheck(_streaming._log_partition, arguments)


def test_it_compiles_to_one_graph(force):
    force(5)
    compiled = torch.compile(clce_loss, fullgraph=True, backend="aot_eager")
    for n in (12, 17):
        embeddings, labels = randn(n, 5), torch.arange(n) % 3
        logits, losses, gradients = randn(n, 3), [], []
        for loss_function in (clce_loss, compiled):
            rows = embeddings.clone().requires_grad_()
            losses.append(loss_function(logits, rows, labels))
            gradients.append(torch.autograd.grad(losses[-1], rows)[0])
        assert_allclose(losses[1].item(), losses[0].item(), rtol=1e-6)
        assert_allclose(gradients[1], gradients[0], atol=1e-6)


def test_a_second_derivative_is_refused(force):
    force(3)
    embeddings = randn(6, 3).requires_grad_()
    loss = label_aware_contrastive_loss(embeddings, torch.arange(6) % 2)
    (gradient,) = torch.autograd.grad(loss, embeddings, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"no second derivative: .* fewer than 1 rows"):
        gradient.sum().backward()


@pytest.mark.parametrize("hardness", [0.0, 1.0])
def test_a_small_batch_has_a_second_derivative(hardness):
    embeddings, labels = randn(6, 3, dtype=torch.float64), torch.arange(6) % 2

    def loss(z):
        return label_aware_contrastive_loss(z, labels, temperature=0.5, hardness=hardness)

    assert torch.autograd.gradgradcheck(loss, embeddings.requires_grad_())


def test_autocast_does_not_reach_the_small_batchs_gradient():
    embeddings, labels = randn(40, 64), torch.arange(40) % 3
    expected = value_and_gradients(embeddings, labels, temperature=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = value_and_gradients(embeddings, labels, temperature=0.01)
    assert all(map(torch.equal, result, expected))


def largest_allocation(function, path):
    with torch.profiler.profile(
        profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]
    ) as profiler:
        function()
    profiler.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    return max(event["args"]["Bytes"] for event in events if event["name"] == "[memory]")


def test_no_tensor_grows_with_the_square_of_the_batch(tmp_path, force):
    n, float_bytes = 2048, 4
    embeddings, labels = randn(n, 16), torch.arange(n) % 100
    step = functools.partial(value_and_gradients, embeddings, labels)
    assert largest_allocation(step, tmp_path / "streamed.json") < n * n * float_bytes / 4
    force(PLAIN)
    assert largest_allocation(step, tmp_path / "plain.json") >= n * n * float_bytes


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_on_cuda_without_synchronisation(temperature, force):
    force(24)
    embeddings, labels = randn(64, 32), torch.arange(64) % 5
    expected = value_and_gradients(embeddings, labels, temperature=temperature)
    batch = embeddings.cuda(), labels.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = value_and_gradients(*batch, temperature=temperature)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_allclose(result[0].cpu(), expected[0], rtol=1e-4)
    assert_allclose(result[1].cpu(), expected[1], atol=1e-4)
