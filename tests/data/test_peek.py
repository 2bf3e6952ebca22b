"""A few images answer for all before a fit, each of them decoded once."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from image_kinds import KINDS, DictDataset, save_images
from sklearn_clce.data import PartOfImages, _sequences, as_images
from sklearn_clce.data._peek import sampled_indices
from sklearn_clce.data._pixels import has_no_colour


def test_image_without_colour_has_equal_channels(colour_images, digits):
    assert not has_no_colour(torch.from_numpy(colour_images[0] / 255).permute(2, 0, 1))
    assert has_no_colour(torch.from_numpy(digits[0][:1]))
    assert has_no_colour(torch.from_numpy(digits[0][:1]).expand(3, 8, 8))


GREY = np.arange(3 * 8 * 8).reshape(3, 8, 8)
THREE = np.repeat(GREY[..., None], 3, axis=-1)
COLOUR = THREE * [1, 0, 1]


@pytest.mark.parametrize(
    ("images", "has_one_channel", "is_grey"),
    [(GREY, True, True), (THREE, False, True), (COLOUR, False, False)],
    ids=["one channel", "three equal ones", "colour"],
)
@pytest.mark.parametrize("kind", ["uint8 (n, H, W, C)", "float64", "PIL", "list of paths", "h5py"])
def test_peek_answers_for_all_kinds(kind, images, has_one_channel, is_grey, tmp_path):
    images = as_images(KINDS[kind](images.astype(np.uint8), tmp_path))
    assert images.has_one_channel == has_one_channel
    assert images.is_grey == is_grey


def test_peek_finds_the_one_image_in_colour():
    images = [*GREY.astype(np.uint8), COLOUR[0].astype(np.uint8)]
    assert not as_images(images).has_one_channel
    assert not as_images(images[::-1]).is_grey


class CountingDataset(DictDataset):
    """Counts how often each image is read."""

    def __init__(self, samples):
        super().__init__(samples)
        self.reads = Counter()

    def __getitem__(self, index):
        self.reads[f"X[{index}]"] += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("value", [9, 200], ids=["dark", "light"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["paths", "arrays", "Dataset"])
@pytest.mark.filterwarnings("ignore:X holds integers")
def test_peek_decodes_each_image_once(kind, channels, value, tmp_path, monkeypatch):
    """The warning of dark images and both questions of a fit share what is decoded."""
    shape = (40, 8, 8) if channels == 1 else (40, 8, 8, 3)
    arrays = np.full(shape, value, np.uint8)  # grey, so that all sampled images are looked at
    pil_images = [Image.fromarray(array) for array in arrays]
    dataset = CountingDataset(pil_images)
    X = {"paths": save_images(arrays, tmp_path), "arrays": list(arrays), "Dataset": dataset}[kind]
    decodes, read_pixels = Counter(), _sequences.read_pixels

    def counted(item, where, *args):
        decodes[where] += 1
        return read_pixels(item, where, *args)

    monkeypatch.setattr(_sequences, "read_pixels", counted)
    images = as_images(X)
    assert images.has_one_channel == (channels == 1)
    assert PartOfImages(images, range(30)).is_grey  # of which augmentation asks
    assert images.is_grey
    assert len(decodes) == len({*sampled_indices(40), *sampled_indices(30)})
    assert set(decodes.values()) == {1}
    if kind == "Dataset":
        assert dataset.reads - decodes == Counter({"X[0]": 1})  # to find out what a sample holds


def test_peek_stops_at_the_first_image_in_colour(colour_images, tmp_path, monkeypatch):
    decodes, read_pixels = [], _sequences.read_pixels
    monkeypatch.setattr(
        _sequences, "read_pixels", lambda *args: decodes.append(args[1]) or read_pixels(*args)
    )
    images = as_images(save_images(colour_images, tmp_path))
    assert decodes == []  # the header of a file shows that it is no mask
    assert not images.has_one_channel
    assert not images.is_grey
    assert decodes == ["X[0]"]
