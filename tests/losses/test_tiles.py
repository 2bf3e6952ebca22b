"""Tiles give the value and gradient of the plain form, in less memory."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.utils._python_dispatch import TorchDispatchMode

from sklearn_clce import clce_loss, label_aware_contrastive_loss
from sklearn_clce.losses import _fast

VECTORS = json.loads(Path(__file__).with_name("clce_vectors.json").read_text())


class OperatorNames(TorchDispatchMode):
    """Keep the name of every operator that runs."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.add(str(operator))
        return operator(*args, **(kwargs or {}))


def in_tiles(embeddings, labels, **settings):
    with OperatorNames() as operators:
        label_aware_contrastive_loss(embeddings, labels, **settings)
    return "sklearn_clce.anchor_losses.default" in operators.names


@pytest.fixture
def tile_size(monkeypatch):
    """Set the number of anchors in a tile."""

    def set_size(tile_anchors):
        for device in ("cpu", "cuda"):
            monkeypatch.setitem(_fast.TILE_ANCHORS, device, tile_anchors)

    return set_size


def randn(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def random_batch(seed, dtype=torch.float64):
    """Embeddings, labels and weights: some samples and classes alone, some weights zero."""
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
@pytest.mark.parametrize("tile_anchors", [1, 3])
def test_value_agrees_with_the_vectors(case, tile_anchors, tile_size):
    tile_size(tile_anchors)
    embeddings = torch.tensor(case["embeddings"], dtype=torch.float64)
    settings = {name: case[name] for name in ("temperature", "hardness")} | {"form": "tiles"}
    for positives, answer in (("each", "contrastive"), ("mean", "contrastive_mean")):
        loss = label_aware_contrastive_loss(
            embeddings, torch.tensor(case["labels"]), positives=positives, **settings
        )
        assert_allclose(loss.item(), case[answer], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("hardness", [0.0, 0.3, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("temperature", [0.01, 0.3])
@pytest.mark.parametrize("positives", ["each", "mean"])
def test_value_and_gradients_are_the_plain_forms(hardness, temperature, positives, tile_size):
    settings = {"temperature": temperature, "hardness": hardness, "positives": positives}
    for seed in range(16):
        embeddings, labels, weights = random_batch(seed)
        batch = (embeddings, labels, weights if seed % 2 else None)
        plain = value_and_gradients(*batch, form="plain", **settings)
        tile_size(1 + seed % 9)
        tiles = value_and_gradients(*batch, form="tiles", **settings)
        for expected, result in zip(plain, tiles, strict=True):
            assert_allclose(result, expected, rtol=1e-9, atol=1e-11 * expected.abs().max())


@pytest.mark.parametrize("hardness", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("positives", ["each", "mean"])
def test_gradient_is_right(hardness, positives, tile_size):
    tile_size(3)
    embeddings, labels = randn(7, 4, dtype=torch.float64), torch.tensor([0, 1, 0, 2, 1, 0, 3])
    weights = torch.tensor([1.0, 0.1, 2.0, 0.5, 1.0, 1.0, 3.0], dtype=torch.float64)

    settings = {"temperature": 0.2, "hardness": hardness, "positives": positives}

    def loss(z, w):
        return label_aware_contrastive_loss(z, labels, sample_weight=w, form="tiles", **settings)

    assert torch.autograd.gradcheck(loss, (embeddings.requires_grad_(), weights.requires_grad_()))


def test_large_batch_is_computed_in_tiles():
    embeddings, labels = randn(640, 4), torch.arange(640) % 5
    assert in_tiles(embeddings, labels)
    assert not in_tiles(embeddings[1:], labels[1:])
    assert not in_tiles(embeddings, labels, form="plain")


def test_references_make_a_batch_large():
    embeddings, labels = randn(1600, 4), torch.arange(1600) % 5
    few, many = slice(0, 320), slice(320, 1280)
    references = {"references": embeddings[many], "reference_labels": labels[many]}
    assert in_tiles(embeddings[few], labels[few], **references)
    assert not in_tiles(embeddings[few], labels[few])


def test_exponents_too_large_for_any_dtype_take_the_plain_form():
    embeddings, labels = randn(640, 4), torch.arange(640) % 5
    assert in_tiles(embeddings, labels, temperature=0.01, hardness=2.0)
    assert not in_tiles(embeddings, labels, temperature=0.001, hardness=2.0)
    with pytest.raises(NotImplementedError, match=r"'tiles' overflows .* above 600.0: .*'plain'"):
        in_tiles(embeddings, labels, temperature=0.001, hardness=2.0, form="tiles")


@pytest.mark.parametrize("hardness", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 5])
def test_batch_without_positive_pair_is_zero_with_zero_gradient(n, hardness, tile_size):
    tile_size(2)
    value, gradient = value_and_gradients(
        randn(n, 3), torch.arange(n), hardness=hardness, form="tiles"
    )
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("hardness", [0.0, 1.0])
def test_one_class_is_finite(hardness, tile_size):
    tile_size(4)
    embeddings, labels = randn(9, 3), torch.zeros(9, dtype=torch.int64)
    value, gradient = value_and_gradients(embeddings, labels, hardness=hardness, form="tiles")
    assert 0 < value < 100
    assert gradient.isfinite().all()


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e37])
def test_length_of_embeddings_does_not_matter(scale, tile_size):
    embeddings, labels = randn(9, 4, dtype=torch.float64), torch.arange(9) % 3
    embeddings[::2] *= scale
    expected, _ = value_and_gradients(embeddings, labels, form="plain")
    tile_size(4)
    value, gradient = value_and_gradients(embeddings.float(), labels, form="tiles")
    assert_allclose(value, expected, rtol=1e-4)
    assert not gradient.isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [0.01, 0.07])
@pytest.mark.parametrize("hardness", [0.0, 2.0])
@pytest.mark.parametrize("positives", ["each", "mean"])
def test_low_temperature_in_any_precision(dtype, temperature, hardness, positives, tile_size):
    settings = {"temperature": temperature, "hardness": hardness, "positives": positives}
    embeddings, labels = randn(12, 5).to(dtype), torch.arange(12) % 3
    exact, exact_gradient = value_and_gradients(
        embeddings.double(), labels, form="plain", **settings
    )
    tile_size(5)
    value, gradient = value_and_gradients(embeddings, labels, form="tiles", **settings)
    assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
    assert_allclose(value, exact, rtol=1e-4)
    tolerance = 4 * torch.finfo(dtype).eps + 1e-4
    assert (gradient - exact_gradient).abs().max() <= tolerance * exact_gradient.abs().max()


@pytest.mark.parametrize("form", ["auto", "plain", "tiles"])
def test_autocast_changes_neither_value_nor_gradient(form, tile_size):
    tile_size(16)
    settings = {"temperature": 0.01, "form": form}
    embeddings, labels = randn(40, 64), torch.arange(40) % 3
    expected = value_and_gradients(embeddings, labels, **settings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = value_and_gradients(embeddings, labels, **settings)
    assert result[0].dtype == torch.float32
    assert all(map(torch.equal, result, expected))


INTEGERS = [
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
]


@pytest.mark.parametrize("form", ["auto", "plain", "tiles"])
def test_strides_and_integer_dtypes_do_not_matter(form, tile_size):
    tile_size(4)
    embeddings, labels, _ = random_batch(3)
    expected = value_and_gradients(embeddings, labels)
    transposed = embeddings.T.contiguous().T
    spread = labels.repeat_interleave(2)[::2]
    for dtype in INTEGERS:
        result = value_and_gradients(transposed, spread.to(dtype), form=form)
        assert_allclose(result[0], expected[0], rtol=1e-12)
        assert_allclose(result[1], expected[1], atol=1e-12)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own tool
@pytest.mark.parametrize("kind", ["labels", "mask", "weights"])
@pytest.mark.parametrize("positives", ["each", "mean"])
def test_operators_keep_the_rules_of_torch_library(kind, positives, tile_size):
    tile_size(3)
    columns = torch.nn.functional.normalize(randn(9, 4)).requires_grad_()
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 2, 0])
    mask = labels[:7, None] == labels
    pairs = (labels if kind == "labels" else mask, None, None)
    if kind == "weights":
        pairs = mask, mask / 2, ~mask
    torch.library.opcheck(_fast._tiled_losses, (columns, *pairs, 7, 1.0, positives, 20.0, 9))


def test_tiles_compile_to_one_graph(tile_size):
    tile_size(5)
    in_tiles = functools.partial(clce_loss, form="tiles")
    compiled = torch.compile(in_tiles, fullgraph=True, backend="aot_eager")
    for n in (12, 17):
        embeddings, labels = randn(n, 5), torch.arange(n) % 3
        logits, losses, gradients = randn(n, 3), [], []
        for loss_function in (in_tiles, compiled):
            leaf = embeddings.clone().requires_grad_()
            losses.append(loss_function(logits, leaf, labels))
            gradients.append(torch.autograd.grad(losses[-1], leaf)[0])
        assert_allclose(losses[1].item(), losses[0].item(), rtol=1e-6)
        assert_allclose(gradients[1], gradients[0], atol=1e-6)


def largest_allocation(function, path):
    with torch.profiler.profile(
        profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]
    ) as profiler:
        function()
    profiler.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    return max(event["args"]["Bytes"] for event in events if event["name"] == "[memory]")


def test_no_tensor_grows_with_the_square_of_the_batch(tmp_path):
    n, float_bytes = 2048, 4
    embeddings, labels = randn(n, 16), torch.arange(n) % 100
    step = functools.partial(value_and_gradients, embeddings, labels)
    assert largest_allocation(step, tmp_path / "tiles.json") < n * n * float_bytes / 4
    plain = functools.partial(step, form="plain")
    assert largest_allocation(plain, tmp_path / "plain.json") >= n * n * float_bytes


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_cuda_is_not_synchronised(temperature, tile_size):
    tile_size(24)
    embeddings, labels = randn(64, 32), torch.arange(64) % 5
    expected = value_and_gradients(embeddings, labels, temperature=temperature, form="tiles")
    batch = embeddings.cuda(), labels.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = value_and_gradients(*batch, temperature=temperature, form="tiles")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_allclose(result[0].cpu(), expected[0], rtol=1e-4)
    assert_allclose(result[1].cpu(), expected[1], atol=1e-4)
