"""Every kind of image gives the same tensor; anything else gives one clear error."""

import pickle
from io import BytesIO
from pathlib import Path
from tempfile import NamedTemporaryFile, SpooledTemporaryFile, TemporaryFile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.model_selection import cross_val_score

from image_kinds import KINDS, DictDataset, in_datasets, save_images
from sklearn_clce import CLCEClassifier
from sklearn_clce.backbones import BackboneConfig
from sklearn_clce.data import EvaluationTransform, LabelledFeatures, LabelledImages, as_images


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_give_the_same_images(kind, colour_images, tmp_path):
    expected = as_images(colour_images)
    images = as_images(KINDS[kind](colour_images, tmp_path))
    assert len(images) == len(expected)
    for row, image in enumerate(images):
        assert image.dtype == torch.float32
        assert torch.equal(image, expected[row])


@pytest.mark.parametrize("shape", [(16, 20, 3), (3, 16, 20)])
def test_flattened_images_with_their_shape(shape, colour_images):
    flat = colour_images if shape[-1] == 3 else colour_images.transpose(0, 3, 1, 2)
    images = as_images(flat.reshape(12, -1), image_shape=shape)
    assert torch.equal(images[5], as_images(colour_images)[5])


@pytest.mark.parametrize(
    "as_rows",
    [list, lambda X: pd.Series(list(X)), lambda X: X.tolist()],
    ids=["arrays", "Series", "lists"],
)
def test_flattened_images_in_a_list(as_rows, colour_images):
    rows = as_rows(colour_images.reshape(12, -1))
    images = as_images(rows, image_shape=(16, 20, 3))
    assert images.flattened
    assert torch.equal(images[5], as_images(colour_images)[5])
    with pytest.raises(ValueError, match=r"image_shape=None: .* flattened"):
        as_images(rows)


@pytest.mark.parametrize("kind", ["twice", "nullable", "mixed", "floats", "bool", "pyarrow"])
def test_frames_of_pixels_with_any_columns(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64), dtype=np.uint8)
    frame = pd.DataFrame(pixels)
    expected = as_images(pixels, image_shape=(8, 8))
    if kind == "twice":
        frame.columns = [*range(32)] * 2
    elif kind == "mixed":
        frame[0] = frame[0].astype("UInt8")
    elif kind == "pyarrow":
        pytest.importorskip("pyarrow")
        frame = frame.convert_dtypes(dtype_backend="pyarrow")
    elif kind == "bool":
        frame = (frame > 99).astype("boolean")
        expected = as_images(pixels > 99, image_shape=(8, 8))
    else:
        frame = (frame if kind == "nullable" else frame / 255).convert_dtypes()
    images = as_images(frame, image_shape=(8, 8))
    assert torch.equal(images[2], expected[2])
    assert images.array.dtype != object
    if kind in ("nullable", "floats", "pyarrow"):
        frame.iloc[1, 5] = pd.NA
        with pytest.raises(ValueError, match=r"X\[1\] contains NaN"):
            as_images(frame, image_shape=(8, 8))


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


def test_last_axis_holds_channels_where_both_could():
    X = np.zeros((2, 1, 5, 3), np.uint8)
    assert as_images(X)[0].shape == (3, 1, 5)


def test_images_of_different_sizes(photos):
    X = [photos[0], photos[1][:100, :50], Image.fromarray(photos[0][:, :, 0])]
    assert [tuple(image.shape) for image in as_images(X)] == [
        (3, 427, 640),
        (3, 100, 50),
        (1, 427, 640),
    ]


@pytest.mark.parametrize("make", [NamedTemporaryFile, TemporaryFile, SpooledTemporaryFile])
def test_temporary_files(make, colour_images):
    with make() as file:
        Image.fromarray(colour_images[0]).save(file, "PNG")
        expected = as_images(colour_images).decode(0)
        for X in ([file], DictDataset([{"id": 3, "image": file}])):
            assert torch.equal(as_images(X).decode(0), expected)


def test_files_are_read_only_when_asked_for(colour_images, tmp_path):
    paths = save_images(colour_images, tmp_path)
    images = as_images(paths)
    with open(paths[3], "wb") as file:
        file.write(b"no longer an image")
    assert images[2].shape == (3, 16, 20)
    with pytest.raises(ValueError, match=r"X\[3\]: '.*3.png' can't be read as an image"):
        images[3]


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
        (bad_pixel(256, np.int32), ValueError, r"X\[2\] .* integers of int32 .* lie in 0..255"),
        (bad_pixel(1j, np.complex128), ValueError, "dtype complex128"),
        ([np.zeros((8, 8)), bad_pixel(2.0)[2]], ValueError, r"X\[1\] has pixels in 0..2"),
        (np.zeros((4, 8, 8, 8)), ValueError, r"image of shape \(8, 8, 8\).* 1, 3 or 4 channels"),
        ([np.zeros((8, 8)), np.zeros((2, 8, 8))], ValueError, r"X\[1\] holds .*\(2, 8, 8\)"),
        (np.zeros((4, 64)), ValueError, "image_shape=None: .* flattened"),
        (np.zeros(4), ValueError, r"X of shape \(4,\)"),
        (np.zeros((4, 0, 8)), ValueError, "holds no pixels"),
        (np.zeros((0, 8, 8)), ValueError, "X is empty"),
        ([], ValueError, "X is empty"),
        ("a.png", TypeError, "is one path"),
        (3, TypeError, "X is int"),
        (np.str_("a.png"), TypeError, "X='a.png' is one path"),
        (Path("a.png"), TypeError, "X='a.png' is one path"),
        (Image.new("L", (8, 8)), TypeError, r"X is one image \(Image\): pass a list, \[X\]"),
        (b"bytes", TypeError, r"X is one image \(bytes\)"),
        (BytesIO(), TypeError, r"X is one image \(BytesIO\)"),
        ({"bytes": b"", "path": "a"}, TypeError, r"X is one image \(dict\)"),
        ({"image": []}, TypeError, "X is dict"),
        (np.zeros((20, 30, 3)), ValueError, r"\(20, 30, 3\) is one image: pass X\[None\]"),
        (torch.zeros(20, 30, 4), ValueError, r"\(20, 30, 4\) is one image"),
        (np.zeros((8, 8)), ValueError, r"one grey image as X\[None\]"),
        (np.array(3), ValueError, "a single value"),
        (np.ma.masked_array(np.zeros((4, 8, 8)), False), TypeError, r"masked .* X.filled\(0\)"),
        (["a.png", None], ValueError, r"X\[1\] is missing \(None\).* 1 of 2 have none"),
        (pd.Series(["a", np.nan, pd.NA]), ValueError, r"X\[1\] is missing \(nan\).* 2 of 3"),
        (pd.Series([pd.NA], dtype="string"), ValueError, r"X\[0\] is missing \(<NA>\)"),
        ([""], ValueError, r"X\[0\] is missing"),
        (
            pd.DataFrame({"path": ["a.png"], "label": ["cat"]}),
            ValueError,
            r"columns \['path', 'label'\]: pass .*, X=df\['path'\]",
        ),
        (DictDataset([{"id": 1}]), ValueError, r"columns \['id'\], of which none can be images"),
        (
            DictDataset([{"a": np.zeros((8, 8)), "b": np.zeros((8, 8))}]),
            ValueError,
            r"exactly one is required: name it, as X = \[sample\['a'\] for sample in X\]",
        ),
        ([np.array("no/such.png")[()]], FileNotFoundError, "there is no file 'no/such.png'"),
        (["tests"], FileNotFoundError, r"X\[0\]: there is no file 'tests'; it is a folder"),
        ([{}], ValueError, r"X\[0\] has the columns \[\]"),
        ([object()], TypeError, r"X\[0\] is object: a path, bytes"),
        (["no/such.png"], FileNotFoundError, r"X\[0\]: there is no file 'no/such.png'"),
        (
            [b"a/path"],
            ValueError,
            r"X\[0\]: bytes that begin with b'a/path' can't be read as an im",
        ),
        (
            [np.ma.masked_array(np.zeros((8, 8)), False)],
            ValueError,
            r"X\[0\]: MaskedArray can't be .* it is masked, .* item.filled\(0\)",
        ),
        ([np.ma.masked_array(np.zeros(64), False)], ValueError, r"X\[0\]: .* it is masked"),
        (np.array([["a", "b"]]), ValueError, "one column of paths"),
        (
            [Image.fromarray(np.full((8, 8), 9.0, np.float32))],
            ValueError,
            r"X\[0\] has pixels in 9..9: floats must lie in 0..1",
        ),
    ],
)
def test_errors_of_other_input(X, error, message):
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


@pytest.mark.parametrize("kind", ["array", "list", "h5py"])
def test_negative_pixels_name_a_remedy_that_helps(kind, tmp_path):
    hounsfield = np.random.default_rng(0).integers(-1024, 3071, (3, 8, 8), dtype=np.int16)
    normalised = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8))
    make = {"array": lambda X, _: X, "list": lambda X, _: list(X), "h5py": KINDS["h5py"]}[kind]
    formula = r"np\.clip\(\(X - low\) / \(high - low\), 0, 1\)"
    with pytest.raises(ValueError, match=rf"pixels in -10.*undo a normalisation, .* as {formula}"):
        as_images(make(hounsfield, tmp_path))[0]
    with pytest.raises(ValueError, match=rf"pixels in -0.9.* \(X \+ 1\) / 2 .* as {formula}"):
        as_images(list(normalised))[0]
    low, high = -1024, 3071
    X = np.clip((hounsfield - float(low)) / (high - low), 0, 1)
    assert as_images(X)[1].max() > 0.9
    assert as_images((normalised + 1) / 2)[1].max() > 0.9


def test_rounding_outside_the_range_is_forgiven():
    image = as_images(bad_pixel(1 + 1e-7))[2]
    assert image.max() == 1


def test_datasets_give_batches_with_labels_and_weights(colour_images):
    images = as_images(colour_images)
    labels = np.arange(12)
    weights = np.linspace(0, 1, 12, dtype=np.float32)
    transform = EvaluationTransform(BackboneConfig(name="any"))
    dataset = LabelledImages(images, transform, labels, weights)
    batch, (batch_labels, batch_weights) = dataset.__getitems__([3, 1])
    assert torch.equal(batch[1], images[1])
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


def test_array_on_disk_is_read_by_batch_and_never_whole(colour_images):
    class OnDisk:
        """As h5py's and zarr's: it counts the slices that are read."""

        shape, dtype, chunks, reads = colour_images.shape, colour_images.dtype, (4,), 0

        def __len__(self):
            return len(colour_images)

        def __getitem__(self, part):
            self.reads += 1
            return colour_images[part]

    file = OnDisk()
    images = as_images(file)
    assert file.reads == 1  # which is not dark
    decoded = images.decode_many([5, 4, 3, 9, 3])
    assert file.reads == 1 + 2  # of 3 to 5, and of 9
    expected = as_images(colour_images)
    for index, image in zip([5, 4, 3, 9, 3], decoded, strict=True):
        assert torch.equal(image, expected.decode(index))


def test_earlier_colour_distinguishes_one_image_from_three_grey_ones():
    X = np.zeros((3, 20, 30))
    assert len(as_images(X)) == len(as_images(X, colour=False)) == 3
    with pytest.raises(ValueError, match=r"\(3, 20, 30\) is one image: pass X\[None\]"):
        as_images(X, colour=True)
    assert len(as_images(np.zeros((20, 30, 3)), n_channels=1)) == 20


@pytest.mark.parametrize("shape", [(13, 16, 20), (16, 20, 13), (2, 9, 9)])
def test_channels_beyond_colour_are_the_shorter_outer_axis(shape):
    images = as_images(np.zeros((5, *shape)))
    assert images.n_channels == min(shape)
    assert images[0].shape[0] == min(shape)


@pytest.mark.parametrize("kind", ["array", "list"])
def test_fourth_band_that_is_not_alpha(kind):
    bands = np.random.default_rng(0).random((2, 6, 5, 4))
    X = bands if kind == "array" else list(bands)
    assert as_images(X)[1].shape == (3, 6, 5)
    kept = as_images(X, n_channels=4)[1]
    assert torch.equal(kept, torch.from_numpy(bands[1]).float().permute(2, 0, 1))


@pytest.mark.parametrize("kind", ["array", "list", "tensor"])
@pytest.mark.parametrize(
    ("dtype", "high", "max_pixel_value"),
    [(np.uint8, 1, 255), (np.int64, 16, 255), (np.uint16, 4095, 65535), (np.int16, 9, 32767)],
)
def test_integers_that_are_nearly_black_warn(kind, dtype, high, max_pixel_value):
    X = np.zeros((3, 8, 8), dtype)
    X[1, 2, 3] = high
    given = {"array": X, "list": list(X), "tensor": torch.from_numpy(X)}[kind]
    with pytest.warns(
        UserWarning,
        match=f"up to {high}, .* {max_pixel_value} is white.* max_pixel_value={high}, or X",
    ):
        as_images(given)
    assert as_images(given, max_pixel_value=high)[1].max() == 1
    assert as_images(0 * X).array.max() == 0  # which is black on any scale


@pytest.mark.parametrize("kind", ["h5py", "zarr", "Dataset", "Dataset of dicts"])
def test_dark_integers_warn_where_they_are_read_by_batch(kind, tmp_path):
    X = np.full((40, 8, 8), 4095, np.uint16)
    X[0] = 0  # black on any scale
    pairs = DictDataset([(image, 0) for image in X])
    given = {"Dataset": pairs, "Dataset of dicts": DictDataset([{"image": i} for i in X])}.get(kind)
    if given is None:
        given = KINDS[kind](X, tmp_path)
    with pytest.warns(
        UserWarning, match="up to 4095, .* 65535 is white.* max_pixel_value=4095, or X"
    ):
        as_images(given)
    assert as_images(given, max_pixel_value=4095)[1].max() == 1


@pytest.mark.parametrize("kind", ["path", "PIL", "bytes", "dict"])
@pytest.mark.parametrize(
    ("dtype", "high", "max_pixel_value"),
    [(np.uint8, 1, 255), (np.uint8, 17, 255), (np.uint16, 8191, 65535)],
)
def test_grey_files_that_are_nearly_black_warn(kind, dtype, high, max_pixel_value, tmp_path):
    masks = np.zeros((3, 8, 8), dtype)
    masks[1, 2, 3] = high
    paths = save_images(masks, tmp_path)
    take = {
        "path": str,
        "PIL": Image.open,
        "bytes": lambda path: Path(path).read_bytes(),
        "dict": lambda path: {"bytes": None, "path": path},
    }[kind]
    given = [take(path) for path in paths]
    with pytest.warns(
        UserWarning,
        match=f"up to {high}, .* {max_pixel_value} is white.* max_pixel_value={high}, or X",
    ):
        as_images(given)
    if dtype == np.uint8:
        assert as_images(given, max_pixel_value=high)[1].max() == 1
    as_images([*given, Image.fromarray(np.full((8, 8), 200, np.uint8))])  # one is not dark


def test_dark_images_in_colour_and_in_two_tones_do_not_warn(tmp_path):
    dark = np.full((3, 8, 8, 3), 2, np.uint8)
    as_images(save_images(dark, tmp_path / "colour"))
    as_images([Image.fromarray(dark[0, ..., 0]).convert("P"), Image.new("1", (8, 8))])


def test_columns_of_a_dataset_of_images(colour_images, colour_labels, tiny_backbone, tmp_path):
    X = in_datasets(colour_images, tmp_path)
    clf = CLCEClassifier(tiny_backbone, max_epochs=1, batch_size=6).fit(X, colour_labels)
    encoded = in_datasets(colour_images, tmp_path, decode=False)
    scores = cross_val_score(clf, encoded["image"], colour_labels, cv=2)
    assert len(scores) == 2
    with pytest.raises(ValueError, match=r"X=df\['image'\]"):
        clf.predict(encoded.to_pandas())
    np.testing.assert_array_equal(clf.predict(encoded.to_pandas()["image"]), clf.predict(X))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_white_of_sixteen_bits_is_the_highest_value(dtype):
    X = np.full((2, 8, 8), np.iinfo(dtype).max, dtype)
    assert as_images(X)[0].min() == as_images(list(X))[0].min() == 1


def test_values_above_white_name_it():
    with pytest.raises(
        ValueError, match=r"int64 with max_pixel_value=16 must lie in 0..16; divide"
    ):
        as_images(np.full((2, 8, 8), 17), max_pixel_value=16)


@pytest.mark.parametrize("kind", ["array", "list", "PIL"])
def test_max_pixel_value_beyond_eight_bits_is_that_of_other_images(kind):
    X = np.full((2, 8, 8), 255, np.uint8)
    X = {"array": X, "list": list(X), "PIL": [Image.fromarray(image) for image in X]}[kind]
    assert as_images(X, max_pixel_value=4095)[1].min() == 1
    assert as_images(np.full((2, 8, 8), 4095, np.uint16), max_pixel_value=4095)[1].min() == 1
