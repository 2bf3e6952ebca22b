"""Batches are read ahead, decoded once, and do not depend on who reads them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from image_kinds import PairDataset, save_images
from sklearn_clce import CLCEClassifier
from sklearn_clce.backbones import BackboneConfig
from sklearn_clce.data import (
    EvaluationTransform,
    ImageBatches,
    LabelledImages,
    MemoryBudget,
    PartOfImages,
    RandomCrops,
    _batches,
    _loading,
    _sequences,
    as_images,
)

CONFIG = BackboneConfig(name="any", image_size=16, crop_pct=0.9)
BATCHES = [[3, 1, 2], [5, 3, 0], [4]]


def all_batches(images, transform, *, budget=None, epochs=1, **options):
    dataset = LabelledImages(images, transform, np.arange(len(images)), budget=budget)
    torch.manual_seed(0)
    loader = ImageBatches(dataset, BATCHES, **options)
    return [batch for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize("transform", [EvaluationTransform, RandomCrops])
@pytest.mark.parametrize("kind", ["paths", "array", "Dataset"])
@pytest.mark.parametrize("num_workers", [1, 2, None])
@pytest.mark.parametrize("new_budget", [lambda: None, lambda: MemoryBudget(2000), MemoryBudget])
def test_batch_depends_on_neither_workers_nor_budget(
    transform, kind, num_workers, new_budget, colour_images, tmp_path
):
    X = {
        "paths": lambda: save_images(colour_images, tmp_path),
        "array": lambda: colour_images,
        "Dataset": lambda: PairDataset(colour_images),
    }[kind]()
    images, transform = as_images(X), transform(CONFIG)
    expected = all_batches(images, transform, epochs=2, num_workers=0)
    found = all_batches(images, transform, budget=new_budget(), epochs=2, num_workers=num_workers)
    for (batch, (labels, _)), (other, (other_labels, _)) in zip(expected, found, strict=True):
        assert batch.shape[1:] == (3, 16, 16)
        assert torch.equal(batch, other)
        assert torch.equal(labels, other_labels)
    assert [labels.tolist() for _, (labels, _) in expected[:3]] == BATCHES


@pytest.fixture
def reads(monkeypatch):
    """Names of the images that were read, each as often as it was."""
    names, read_pixels = [], _sequences.read_pixels

    def counted(item, where, *args):
        names.append(where)
        return read_pixels(item, where, *args)

    monkeypatch.setattr(_sequences, "read_pixels", counted)
    return names


@pytest.mark.parametrize("early_stopping", [False, True])
def test_fit_decodes_once_for_all_epochs_and_once_for_its_end(
    early_stopping, tiny_backbone, colour_images, colour_labels, reads
):
    X = [Image.fromarray(image) for image in colour_images]
    clf = CLCEClassifier(tiny_backbone, image_size=16, max_epochs=3, random_state=0)
    clf.set_params(early_stopping=early_stopping, validation_fraction=0.4)
    clf.fit(X, colour_labels)
    before_epochs = 3  # the width of the features, whether it is grey
    the_end = 12  # the means of classes; of what is set aside the content, to know it again
    assert len(reads) <= 12 + before_epochs + the_end
    once = clf.predict_proba(colour_images)
    reads.clear()
    again = clf.set_params(cache_size=0).fit(X, colour_labels).predict_proba(colour_images)
    assert len(reads) >= 3 * 12
    np.testing.assert_array_equal(again, once)


def test_image_beyond_the_budget_is_read_again(colour_images, reads):
    X = [Image.fromarray(image) for image in colour_images[:6]]
    budget = MemoryBudget(2 * 3 * 16 * 16)  # of two crops
    all_batches(as_images(X), EvaluationTransform(CONFIG), budget=budget, epochs=3, num_workers=0)
    counts = [reads.count(f"X[{index}]") for index in range(6)]
    assert counts == [3, 1, 3, 1, 3, 3]  # the first two that are read have room


class NoisyDataset(Dataset):
    """Draws each image at random, at each reading."""

    def __init__(self, column):
        self.column = column

    def __len__(self):
        return 6

    def __getitem__(self, index):
        image = torch.rand(3, 16, 16)
        return {"image": image} if self.column else (image, 0)


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_stochastic_dataset_is_read_again_in_each_epoch(column, num_workers, tiny_backbone):
    seen = []
    clf = CLCEClassifier(tiny_backbone, max_epochs=3, num_workers=num_workers, random_state=0)
    clf.set_params(augment=lambda batch: seen.append(batch.clone()) or batch)
    clf.fit(NoisyDataset(column), [0, 1] * 3)
    assert len(torch.cat(seen).unique(dim=0)) == 3 * 6


def test_budget_is_what_the_machine_has(monkeypatch):
    memory = {"free": 10 * 2**30}

    def two_views():
        yield memory["free"], 16 * 2**30
        yield 8 * 2**30, 8 * 2**30

    monkeypatch.setattr(_batches, "_memory", two_views)
    budget = MemoryBudget()
    assert budget.reserve(2**30)
    memory["free"] = 4 * 2**30
    assert not budget.reserve(2**30)
    memory["free"] = 10 * 2**30
    assert not budget.reserve(1)  # or what is kept would be another in each epoch
    assert all(0 < free <= total for free, total in list(_batches._memory()))


def test_budget_counts_the_limit_of_a_container(tmp_path, monkeypatch):
    monkeypatch.setattr(_batches, "CGROUP", tmp_path)
    assert len(list(_batches._memory())) == 1  # of the machine
    (tmp_path / "memory.max").write_text("max\n")
    assert len(list(_batches._memory())) == 1
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**29}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {2**28}\n")
    assert list(_batches._memory())[1] == (2**30 - 2**28, 2**30)


def test_error_in_a_thread_names_the_image(colour_images, tmp_path):
    paths = save_images(colour_images, tmp_path)
    images = PartOfImages(as_images(paths), range(3, 9))
    (tmp_path / "7.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"X\[7\]: '.*7.png' can't be read"):
        all_batches(images, EvaluationTransform(CONFIG), num_workers=2)


def test_crops_come_from_the_whole_image():
    """The ends of a wide image are bright: its central square never sees them."""
    wide = np.zeros((20, 30, 3), np.uint8)
    wide[:, :3] = wide[:, -3:] = 255
    images = as_images(wide[None])
    assert EvaluationTransform(CONFIG)(images.decode(0)).max() == 0
    dataset = LabelledImages(images, RandomCrops(CONFIG))
    torch.manual_seed(0)
    crops, _ = dataset.__getitems__([0] * 40)
    left, right = crops[:, :, :, 0].amax((1, 2)), crops[:, :, :, -1].amax((1, 2))
    assert 3 < (left > 0.4).sum() < 35
    assert 3 < (right > 0.4).sum() < 35
    assert len(torch.unique(crops, dim=0)) > 15  # of which some are all black


def test_image_is_kept_at_the_resolution_that_crops_need(photos):
    crops = RandomCrops(CONFIG)
    kept = crops(as_images(photos).decode(0))  # 427 x 640
    height, width = kept.shape[1:]
    assert height * width == pytest.approx(2 * 16**2, rel=0.1)
    assert width / height == pytest.approx(640 / 427, rel=0.1)
    small = torch.zeros(3, 12, 14, dtype=torch.uint8)
    assert crops(small) is small or torch.equal(crops(small), small)


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1), (3, 500), (1, 1)])
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_strips_take_little_memory(shape, mode):
    config = BackboneConfig(name="any", image_size=224, crop_pct=0.875, crop_mode=mode)
    strip = torch.zeros(3, *shape, dtype=torch.uint8)
    assert EvaluationTransform(config)(strip).shape == (3, 224, 224)
    crops = RandomCrops(config)
    numbers = torch.rand(crops.n_numbers)
    assert crops.finish(crops(strip), numbers).shape == (3, 224, 224)


def test_crops_are_a_share_of_the_image_and_stay_inside():
    crops = RandomCrops(BackboneConfig(name="any"))
    position = torch.arange(60 * 80).view(1, 60, 80).float() / 4800
    torch.manual_seed(0)
    for numbers in torch.rand(50, crops.n_numbers):
        crop = crops.finish(position, numbers)
        spans = (crop.amax() - crop.amin()) * 60  # height of the crop, about
        assert 30 < spans < 61
        assert crop.shape == (3, 60, 80)


@pytest.mark.parametrize("verbose", [0, 1])
def test_predict_shows_a_line_at_verbose_1(
    verbose, tiny_backbone, colour_images, colour_labels, capsys, monkeypatch
):
    clf = CLCEClassifier(tiny_backbone, max_epochs=1, verbose=verbose, random_state=0)
    clf.fit(colour_images, colour_labels)
    capsys.readouterr()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    clf.predict(colour_images)
    assert ("predicting" in capsys.readouterr().out) == bool(verbose)


def test_reading_threads_compute_on_one_core_and_others_on_all():
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1, initializer=_loading._compute_alone) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == before


def test_threads_do_not_look_for_libraries(colour_images, monkeypatch):
    """While the main thread imports an extension, that would be a deadlock."""
    monkeypatch.setattr(_loading, "ThreadpoolController", lambda: 1 / 0)
    all_batches(as_images(colour_images), EvaluationTransform(CONFIG), num_workers=2)


@pytest.mark.parametrize("transform", [EvaluationTransform, RandomCrops])
def test_kept_image_holds_no_more_memory_than_its_pixels(transform):
    long = [np.random.default_rng(0).integers(0, 256, (20, 200, 3), dtype=np.uint8)]
    dataset = LabelledImages(as_images(long), transform(CONFIG), budget=MemoryBudget())
    dataset.crops([0], dataset.numbers()(1))
    (kept,) = dataset._kept.values()
    assert kept.untyped_storage().nbytes() == kept.nbytes < 20 * 200 * 3


@pytest.mark.parametrize("order", ["HWC", "CHW"])
def test_pixels_do_not_depend_on_their_order_in_memory(order):
    array = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    pixels = torch.from_numpy(array).permute(2, 0, 1)
    image = pixels if order == "HWC" else pixels.contiguous()
    numbers = torch.full((RandomCrops.n_numbers,), 0.3)
    transform = RandomCrops(CONFIG)
    crop = transform.finish(transform(image), numbers)
    expected = transform.finish(transform(pixels.float() / 255), numbers)
    assert (crop / 255 - expected).abs().max() < 2 / 255


def test_batch_is_contiguous_float32(colour_images, tmp_path):
    images = as_images(save_images(colour_images, tmp_path))
    for transform in (EvaluationTransform, RandomCrops):
        batch, _ = next(iter(ImageBatches(LabelledImages(images, transform(CONFIG)), BATCHES)))
        assert batch.is_contiguous()
        assert batch.dtype == torch.float32


def first_and_others(images):
    """Read one batch of two images after another; -> the first, and an iterator of the others."""
    batches = [[0, 1], [2, 3], [4], [5, 6], [7, 8], [9, 10]]
    dataset = LabelledImages(as_images(images), EvaluationTransform(CONFIG))
    iterator = (batch for batch, _ in ImageBatches(dataset, batches, num_workers=0))
    return next(iterator), iterator


def test_memory_of_a_batch_is_used_again(colour_images):
    first, others = first_and_others(colour_images)
    places = {first.data_ptr()}
    del first
    for batch in others:
        places.add(batch.data_ptr())
    assert len(places) == 2


HOLDERS = {
    "part": lambda batch: batch[1, :, 3:],
    "array": lambda batch: batch.numpy()[1],
    "detached": lambda batch: batch.detach(),
    "storage": lambda batch: torch.empty(0).set_(batch.untyped_storage()),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_held_batch_stays_as_it_is(holder, colour_images):
    first, others = first_and_others(colour_images)
    held = HOLDERS[holder](first)
    before = torch.as_tensor(held).clone()
    place = first.data_ptr()
    del first
    assert place not in {batch.data_ptr() for batch in others}
    assert torch.equal(torch.as_tensor(held), before)


def test_batch_needed_by_a_gradient_stays_as_it_is(colour_images):
    weight = torch.ones((), requires_grad=True)
    first, others = first_and_others(colour_images)
    expected, product = first.sum(), (first * weight).sum()
    del first
    assert len(list(others)) == 5
    product.backward()
    assert weight.grad == expected
