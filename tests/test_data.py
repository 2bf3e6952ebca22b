"""Every kind of image gives the same tensor; what is no image gives one clear error."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from image_kinds import KINDS, save_images
from sklearn_clce import CLCEClassifier, load_image_folder
from sklearn_clce.data import LabelledFeatures, LabelledImages, as_images


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_images(kind, colour_images, tmp_path):
    expected = as_images(colour_images)
    images = as_images(KINDS[kind](colour_images, tmp_path))
    assert len(images) == len(expected)
    for row, image in enumerate(images):
        assert image.dtype == torch.float32
        assert torch.equal(image[:3], expected[row])


@pytest.mark.parametrize("shape", [(16, 20, 3), (3, 16, 20)])
def test_flattened_images_with_their_shape(shape, colour_images):
    flat = colour_images if shape[-1] == 3 else colour_images.transpose(0, 3, 1, 2)
    images = as_images(flat.reshape(12, -1), image_shape=shape)
    assert torch.equal(images[5], as_images(colour_images)[5])


def test_read_only_images_are_copied_not_shared(colour_images):
    pixels = np.ascontiguousarray(colour_images.transpose(0, 3, 1, 2) / 255, dtype=np.float32)
    pixels.flags.writeable = False
    torch.set_warn_always(True)  # torch warns of read-only memory, else once a process
    try:
        images = as_images(pixels)
        assert torch.equal(images[5], as_images(colour_images)[5])
    finally:
        torch.set_warn_always(False)


@pytest.mark.parametrize("kind", ["array", "tensor", "PIL", "frame", "bool"])
def test_grey_images(kind, tmp_path):
    grey = (np.arange(2 * 6 * 5) % 2 * 255).astype(np.uint8).reshape(2, 6, 5)
    kinds = {
        "array": grey,
        "tensor": torch.from_numpy(grey)[:, None],
        "PIL": [Image.fromarray(image) for image in grey],
        "frame": pd.DataFrame(grey.reshape(2, -1)),
        "bool": grey > 0,
    }
    images = as_images(kinds[kind], image_shape=(6, 5) if kind == "frame" else None)
    expected = torch.from_numpy(grey / 255).float()
    assert torch.equal(torch.cat(list(images)), expected)


def test_where_both_axes_could_be_channels_the_last_one_is():
    X = np.zeros((2, 3, 5, 4), np.uint8)
    assert as_images(X)[0].shape == (4, 3, 5)


def test_pictures_of_different_sizes(photos):
    pictures = [photos[0], photos[1][:100, :50], Image.fromarray(photos[0][:, :, 0])]
    assert [tuple(image.shape) for image in as_images(pictures)] == [
        (3, 427, 640),
        (3, 100, 50),
        (1, 427, 640),
    ]


def test_exif_orientation_is_followed(tmp_path):
    image = Image.fromarray(np.zeros((4, 8, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert as_images([tmp_path / "turned.jpg"])[0].shape == (3, 8, 4)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_pil_modes(mode):
    image = Image.new("RGB", (6, 5), (255, 255, 255)).convert(mode)
    tensor = as_images([image])[0]
    assert tensor.shape == ((1 if mode == "L" else 3), 5, 6)
    assert tensor.min() > 0.95


def test_files_are_read_only_when_asked_for(colour_images, tmp_path):
    paths = save_images(colour_images, tmp_path)
    images = as_images(paths)
    with open(paths[3], "wb") as file:
        file.write(b"no longer an image")
    assert images[2].shape == (3, 16, 20)
    with pytest.raises(ValueError, match=r"X\[3\]: '.*3.png' can't be read as an image"):
        images[3]


def test_a_truncated_file_names_path_and_row(photos, tmp_path):
    Image.fromarray(photos[0]).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"X\[0\]: '.*a.jpg' can't be read as an image"):
        as_images([tmp_path / "a.jpg"])[0]


def bad_pixel(value, dtype=np.float64):
    X = np.zeros((4, 8, 8, 3), dtype)
    X[2, 1, 1, 0] = value
    return X


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (bad_pixel(np.nan), ValueError, r"X\[2\] contains NaN or infinity"),
        (bad_pixel(np.inf), ValueError, r"X\[2\] contains NaN or infinity"),
        (bad_pixel(1.1), ValueError, r"X\[2\] has pixels in 0..1.1: floats must lie in 0..1"),
        (bad_pixel(-0.5), ValueError, r"X\[2\] has pixels in -0.5..0"),
        (bad_pixel(256, np.int32), ValueError, r"X\[2\] .* integers in 0..255"),
        (bad_pixel(1j, np.complex128), ValueError, "dtype complex128"),
        ([np.zeros((8, 8)), bad_pixel(2.0)[2]], ValueError, r"X\[1\] has pixels in 0..2"),
        (np.zeros((4, 8, 8, 5)), ValueError, r"image of shape \(8, 8, 5\).* 1, 3 or 4 channels"),
        ([np.zeros((8, 8)), np.zeros((2, 8, 8))], ValueError, r"X\[1\] holds .*\(2, 8, 8\)"),
        (np.zeros((4, 64)), ValueError, "image_shape=None: .* flattened"),
        (np.zeros(4), ValueError, r"X of shape \(4,\)"),
        (np.zeros((4, 0, 8)), ValueError, "holds no pixels"),
        (np.zeros((0, 8, 8)), ValueError, "X is empty"),
        ([], ValueError, "X is empty"),
        ("a.png", TypeError, "is one path"),
        (3, TypeError, "X is int"),
        (["no/such.png"], FileNotFoundError, r"X\[0\]: there is no file 'no/such.png'"),
        ([b"bytes"], TypeError, r"X\[0\] is bytes"),
        (np.array([["a", "b"]]), ValueError, "one column of paths"),
        ([Image.new("I;16", (8, 8))], ValueError, "PIL mode 'I;16'"),
    ],
)
def test_what_is_no_image(X, error, message):
    with pytest.raises(error, match=message):
        list(as_images(X))


@pytest.mark.parametrize(
    ("X", "image_shape", "message"),
    [
        (np.zeros((4, 64)), (8, 9), r"image_shape=\(8, 9\) takes 72 pixels, but X has 64"),
        (np.zeros((4, 8, 8)), (8, 9), r"image_shape=\(8, 9\), but the images in X have \(8, 8\)"),
    ],
)
def test_image_shape_that_does_not_fit(X, image_shape, message):
    with pytest.raises(ValueError, match=message):
        as_images(X, image_shape=image_shape)


def test_rounding_outside_the_range_is_forgiven():
    image = as_images(bad_pixel(1 + 1e-7))[2]
    assert image.max() == 1


def test_datasets_give_batches_with_labels_and_weights(colour_images):
    images = as_images(colour_images)
    labels = np.arange(12)
    weights = np.linspace(0, 1, 12, dtype=np.float32)
    dataset = LabelledImages(images, torch.neg, labels, weights)
    batch, (batch_labels, batch_weights) = dataset.__getitems__([3, 1])
    assert torch.equal(batch[1], -images[1])
    assert batch_labels.tolist() == [3, 1]
    assert torch.equal(batch_weights, torch.from_numpy(weights[[3, 1]]))
    features = LabelledFeatures(torch.eye(12), labels)
    batch, (batch_labels, batch_weights) = features.__getitems__([3, 1])
    assert batch.argmax(dim=1).tolist() == batch_labels.tolist() == [3, 1]
    assert batch_weights.tolist() == [1, 1]
    assert len(pickle.loads(pickle.dumps(features))) == 12


def test_images_of_different_sizes_in_one_batch_name_the_remedy(tiny_backbone, photos):
    X = [photos[0], photos[1][:100]]
    with pytest.raises(ValueError, match=r"can't share a batch: image_size=\.\.\. is required"):
        CLCEClassifier(tiny_backbone, weight=0).fit(X, [0, 1])


def make_folder(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_load_image_folder(tmp_path):
    make_folder(
        tmp_path,
        [
            "b/2.JPG",
            "b/1.png",
            "a/deep/3.webp",
            "a/notes.txt",
            "a/.hidden.png",
            ".git/4.png",
            "5.png",
        ],
    )
    paths, labels = load_image_folder(tmp_path)
    names = [Path(path).relative_to(tmp_path).as_posix() for path in paths]
    assert names == ["a/deep/3.webp", "b/1.png", "b/2.JPG"]
    assert labels.tolist() == ["a", "b", "b"]


def test_load_image_folder_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        load_image_folder(tmp_path / "nowhere")
    make_folder(tmp_path, ["a/notes.txt"])
    with pytest.raises(ValueError, match="holds no images: a folder for each class"):
        load_image_folder(tmp_path)
