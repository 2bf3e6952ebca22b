"""Files are read as Pillow reads them, turned by EXIF and blended onto white; errors name them."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin
from torchvision.transforms.v2.functional import resize

from image_kinds import DictDataset
from sklearn_clce.data import as_images, find_unreadable

FORMATS = {
    "PNG": ["1", "L", "P", "RGB"],
    "JPEG": ["L", "RGB", "CMYK"],
    "GIF": ["L", "P"],
    "BMP": ["1", "L", "P", "RGB"],
    "TIFF": ["1", "L", "P", "RGB", "CMYK", "LAB"],
    "WEBP": ["RGB"],
    "PPM": ["1", "L", "RGB"],
    "TGA": ["L", "P", "RGB"],
    "JPEG2000": ["L", "RGB"],
    "PCX": ["L", "P", "RGB"],
    "ICO": ["RGB"],
}


@pytest.fixture
def small_photo(photos):
    return Image.fromarray(photos[1]).resize((64, 48))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(
    ("file_format", "mode"), [(f, mode) for f, modes in FORMATS.items() for mode in modes]
)
def test_file_is_what_pillow_shows(file_format, mode, turn, small_photo):
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"exif": exif} if file_format in ("PNG", "JPEG", "WEBP", "TIFF") else {}
    if not options and turn > 1:
        return
    image = small_photo
    if mode == "LAB":
        image = Image.merge("LAB", image.split())
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, file_format, **options)
    shown = ImageOps.exif_transpose(Image.open(buffer))
    expected = np.asarray(shown if shown.mode == "L" else shown.convert("RGB"))
    pixels = as_images([buffer]).decode(0).permute(1, 2, 0).numpy()
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels[..., 0] if expected.ndim == 2 else pixels, expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_pil_modes(mode):
    image = Image.new("RGB", (6, 5), (255, 255, 255)).convert(mode)
    tensor = as_images([image])[0]
    assert tensor.shape == ((1 if mode == "L" else 3), 5, 6)
    assert tensor.min() > 0.95


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_photo_with_broken_exif_is_read(tmp_path, small_photo):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHII", 0x8769, 4, 1, 2**31) + b"\xff"
    small_photo.save(tmp_path / "a.jpg", exif=exif)
    assert as_images([tmp_path / "a.jpg"])[0].shape == (3, 48, 64)


def test_exif_is_read_and_never_written(tmp_path, small_photo, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    small_photo.save(tmp_path / "a.jpg", exif=exif)
    monkeypatch.setattr(Image.Exif, "tobytes", lambda self, offset=8: 1 / 0)
    assert as_images([tmp_path / "a.jpg"])[0].shape == (3, 64, 48)


KINDS_WITH_ALPHA = ["array", "floats", "list", "tensor", "PIL", "png", "palette", "tRNS", "LA"]


@pytest.mark.parametrize("kind", KINDS_WITH_ALPHA)
def test_transparent_pixels_become_white(kind, tmp_path):
    """An image that is only in its alpha channel: black everywhere, half of it transparent."""
    drawing = np.zeros((6, 8, 4), np.uint8)
    drawing[:, 4:, 3] = 255
    image = Image.fromarray(drawing)
    if kind == "palette":
        image = Image.fromarray((drawing[..., 3] > 0).astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0] * 2)
        image.info["transparency"] = b"\0\xff"
    elif kind == "tRNS":
        image = Image.fromarray(np.where(drawing[..., 3] > 0, 0, 9).astype(np.uint8))
        image.info["transparency"] = 9
    elif kind == "LA":
        image = image.convert("LA")
    path = tmp_path / "drawing.png"
    image.save(path, **image.info)
    X = {
        "array": drawing[None],
        "floats": drawing[None] / 255,
        "list": [drawing],
        "tensor": torch.from_numpy(drawing)[None].permute(0, 3, 1, 2),
        "PIL": [image],
    }.get(kind, [path])
    image = as_images(X)[0]
    assert image.shape == (3, 6, 8)
    assert (image[:, :, :4] == 1).all()
    assert (image[:, :, 4:] == 0).all()


@pytest.mark.parametrize("kind", ["I;16", "png"])
@pytest.mark.parametrize("max_pixel_value", [None, 4095])
def test_transparent_value_of_sixteen_bits_becomes_white(kind, max_pixel_value, tmp_path):
    pixels = np.linspace(0, 4000, 48).astype(np.uint16).reshape(6, 8)
    image = Image.fromarray(pixels)
    image.info["transparency"] = int(pixels[1, 2])
    path = tmp_path / "deep.png"
    image.save(path, transparency=image.info["transparency"])
    X = [image if kind == "I;16" else path]
    white = max_pixel_value or 65535
    expected = torch.from_numpy(pixels.astype(np.float32) / white)
    expected[1, 2] = 1
    assert torch.equal(as_images(X, max_pixel_value=max_pixel_value)[0], expected[None])


def test_half_transparent_pixels_are_alike_in_files_and_arrays():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    from_array = as_images(pixels[None]).decode(0)
    assert torch.equal(as_images([Image.fromarray(pixels)]).decode(0), from_array)
    floats = as_images(pixels[None] / 255)[0]
    assert (floats - from_array / 255).abs().max() < 0.51 / 255


@pytest.mark.parametrize("kind", ["I;16", "png", "tiff", "pgm"])
def test_sixteen_bits_keep_their_depth(kind, tmp_path):
    pixels = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
    image = Image.fromarray(pixels)
    if kind == "pgm":
        path = tmp_path / "deep.pgm"
        path.write_bytes(b"P5 64 48 65535\n" + pixels.astype(">u2").tobytes())
    elif kind != "I;16":
        path = tmp_path / f"deep.{kind}"
        image.save(path)
    read = as_images([image if kind == "I;16" else path])[0]
    assert torch.equal(read, torch.from_numpy(pixels.astype(np.float32) / 65535)[None])
    with pytest.raises(ValueError, match=r"X\[0\] has pixels in 0..65535: .* max_pixel_value=4095"):
        as_images([image], max_pixel_value=4095)[0]


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("no such mode"),
        ValueError("odd size"),
        struct.error("unpack"),
        KeyError(7),
    ],
)
@pytest.mark.parametrize("kind", ["path", "bytes", "Dataset", "PIL"])
def test_errors_of_decoders_become_one_error(error, kind, tmp_path, monkeypatch):
    class Raising:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index:
                raise error
            return np.zeros((4, 4))

    good = Image.new("L", (4, 4))
    (tmp_path / "b.png").write_bytes(b"x")

    def failing(*args, **kwargs):
        raise error

    bad = {"path": tmp_path / "b.png", "bytes": b"x", "PIL": Image.new("L", (4, 4))}.get(kind)
    if kind == "PIL":
        bad.load = failing
    elif kind != "Dataset":
        monkeypatch.setattr(Image, "open", failing)
    images = as_images(Raising() if kind == "Dataset" else [good, bad])
    name = {"path": ".*b.png'", "Dataset": "Raising", "PIL": "Image"}.get(
        kind, "bytes that begin with b'x'"
    )
    message = rf"^X\[1\]: {name} can't be read as an image \({type(error).__name__}: "
    with pytest.raises(ValueError, match=message):
        images[1]


def test_truncated_file_names_path_and_place(photos, tmp_path):
    Image.fromarray(photos[0]).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"X\[0\]: '.*a.jpg' can't be read as an image"):
        as_images([tmp_path / "a.jpg"])[0]


def test_image_beyond_pillows_limit_names_its_file(tmp_path, monkeypatch):
    Image.new("L", (50, 50)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"huge.png' can't be read .*DecompressionBombError"):
        as_images([tmp_path / "huge.png"])[0]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_large_files_are_decoded_small(suffix, photos, tmp_path):
    large = Image.fromarray(photos[0]).resize((1920, 1281), Image.Resampling.BICUBIC)
    large.save(tmp_path / f"large.{suffix}")
    images = as_images([tmp_path / f"large.{suffix}"])
    small = images.decode(0, at_least=100)
    assert small.shape[1] in range(200, 400)
    size = [100, 150]
    difference = resize(small / 255, size) - resize(images[0], size)
    assert difference.abs().mean() < 2 / 255


def test_text_chunks_of_a_png_are_harmless(tmp_path, small_photo):
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Raw profile type exif", "\nexif\n 4\nnonsense")
    small_photo.save(tmp_path / "a.png", pnginfo=notes)
    assert torch.equal(as_images([tmp_path / "a.png"])[0], as_images([small_photo])[0])


@pytest.mark.parametrize("file_format", ["jpg", "png"])
def test_opened_image_may_be_there_more_than_once(file_format, photos, tmp_path, colour_labels):
    files = [tmp_path / f"{number}.{file_format}" for number in range(3)]
    for number, file in enumerate(files):
        Image.fromarray(np.roll(photos[0], 40 * number, axis=1)).save(file)
    order = np.random.default_rng(0).integers(0, 3, 30)
    expected = as_images(files)
    for _ in range(3):
        opened = [Image.open(file) for file in files]
        assert find_unreadable([opened[number] for number in order], verbose=0) == {}
        images = as_images([Image.open(file) for file in files])
        for number in range(3):
            assert torch.equal(images.decode(number), expected.decode(number))


def test_dark_image_of_32_bits_warns():
    images = [Image.fromarray(np.full((8, 8), value, np.int32)) for value in (7, 199)]
    assert images[0].mode == "I"
    with pytest.warns(UserWarning, match="up to 199, which are nearly black where 65535 is white"):
        as_images(images)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    ("file_format", "options"),
    [("TIFF", {"compression": "tiff_lzw"}), ("JPEG2000", {}), ("PNG", {})],
)
def test_damaged_image_raises_at_every_reading(mode, file_format, options, photos):
    buffer = io.BytesIO()
    Image.fromarray(photos[0][:64, :96]).convert(mode).save(buffer, file_format, **options)
    content = bytearray(buffer.getvalue())
    half = len(content) // 2
    if file_format == "TIFF":  # whose directory is at its end
        content[half : half + 99] = bytes(99)
    else:
        del content[half:]
    damaged = Image.open(io.BytesIO(content))
    assert find_unreadable([damaged, damaged], verbose=0).keys() == {0, 1}
    for _ in range(2):
        with pytest.raises(ValueError, match=r"X\[0\]: .* can't be read as an image"):
            as_images([damaged])[0]


@pytest.mark.parametrize("kind", ["path", "bytes", "Dataset"])
def test_file_of_several_pages_warns_once(kind, tmp_path, small_photo):
    paths = [tmp_path / f"{number}.tif" for number in range(3)]
    for path in paths[:2]:
        small_photo.save(path, save_all=True, append_images=[Image.new("RGB", (64, 48))])
    small_photo.save(paths[2])
    X = [path.read_bytes() for path in paths] if kind == "bytes" else paths
    expected = as_images([small_photo])[0]

    def opened_and_read(X):
        images = as_images(X)
        return images, images[0]

    message = r"X\[0\] is a file of several pages, of which only the first is read: save each"
    with pytest.warns(UserWarning, match=message):
        images, first = opened_and_read(DictDataset(X) if kind == "Dataset" else X)
    assert torch.equal(first, expected)
    for index in (0, 1, 2):  # without another warning
        assert torch.equal(images[index], expected)


def test_frames_of_animations_and_opened_pages_do_not_warn(tmp_path, small_photo):
    for name in ("a.gif", "a.webp", "a.tif"):
        small_photo.save(tmp_path / name, save_all=True, append_images=[small_photo.rotate(90)])
    with Image.open(tmp_path / "a.tif") as opened:  # of which the user chooses a page
        opened.seek(1)
        images = as_images([tmp_path / "a.gif", tmp_path / "a.webp", opened])
        assert [image.shape for image in images] == [(3, 48, 64)] * 3


def png_chunk(name, content):
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def test_transparent_colour_of_16_bits_becomes_white():
    colour = struct.pack(">HHH", 1000, 2000, 3000)
    rows = b"".join(b"\0" + colour + 7 * struct.pack(">HHH", 0, 0, 65535) for _ in range(8))
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    png += png_chunk(b"tRNS", colour) + png_chunk(b"IDAT", zlib.compress(rows))
    image = as_images([png + png_chunk(b"IEND", b"")])[0]
    assert image[:, 0, 0].tolist() == [1, 1, 1]
    assert image[:, 0, 1].tolist() == [0, 0, 1]
