"""A folder for each class: nothing is left out silently; a check finds files that can't be read."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image_kinds import DictDataset
from sklearn_clce import CLCEClassifier, find_unreadable, list_images, load_image_folder


def make_folder(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def names_of(paths, root):
    return [Path(path).relative_to(root).as_posix() for path in paths]


def test_load_image_folder(tmp_path):
    files = ["b/2.JPG", "b/1.png", "a/deep/3.webp", "a/.hidden.png", ".git/4.png", "b/.x/5.png"]
    make_folder(tmp_path, files)
    paths, labels = load_image_folder(tmp_path)
    assert names_of(paths, tmp_path) == ["a/deep/3.webp", "b/1.png", "b/2.JPG"]
    assert labels.tolist() == ["a", "b", "b"]


def test_every_suffix_that_pillow_reads_is_an_image(tmp_path):
    suffixes = ["jfif", "pgm", "tga", "jp2", "tif", "webp", "pcx", "ico"]
    make_folder(tmp_path, [f"{suffix}/picture.{suffix}" for suffix in suffixes])
    _, labels = load_image_folder(tmp_path)
    assert labels.tolist() == sorted(suffixes)


def test_files_that_are_left_out_are_counted(tmp_path):
    make_folder(
        tmp_path,
        [
            "a/1.png",
            "a/notes.txt",
            "a/2.heic",
            "a/3.heic",
            "b/1.png",
            "b/film.mpg",
            "b/x",
            "top.png",
        ],
    )
    message = (
        r"left out 6 files .*: a: 2 \.heic, 1 \.txt; b: 1 \.mpg, 1 without a suffix; "
        r".* itself, next to the classes: 1 \.png"
    )
    with pytest.warns(UserWarning, match=message):
        paths, _ = load_image_folder(tmp_path)
    assert names_of(paths, tmp_path) == ["a/1.png", "b/1.png"]


def test_class_without_an_image_is_an_error(tmp_path):
    make_folder(tmp_path, ["a/1.png", "b/1.heic", "b/2.heic", "c/.hidden.png"])
    message = r"\('b' holds 2 \.heic; 'c' holds nothing\); convert its files"
    with pytest.raises(ValueError, match=message):
        load_image_folder(tmp_path)


def test_folder_named_like_an_image_is_a_folder(tmp_path):
    make_folder(tmp_path, ["a/frames.jpg/1.png", "b/1.png"])
    paths, labels = load_image_folder(tmp_path)
    assert names_of(paths, tmp_path) == ["a/frames.jpg/1.png", "b/1.png"]
    assert labels.tolist() == ["a", "b"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_linked_folders_are_entered_once(tmp_path):
    make_folder(tmp_path / "data", ["a/1.png", "b/sub/1.png"])
    make_folder(tmp_path / "elsewhere", ["2.png", "deep/3.png"])
    (tmp_path / "data/a/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/deep/up").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/b/sub/loop").symlink_to(tmp_path / "data/b")
    (tmp_path / "data/c").symlink_to(tmp_path / "elsewhere")
    paths, labels = load_image_folder(tmp_path / "data")
    found = names_of(paths, tmp_path / "data")
    assert found[:4] == ["a/1.png", "a/again/2.png", "a/again/deep/3.png", "b/sub/1.png"]
    assert found[4:] == ["c/2.png", "c/deep/3.png"]
    assert labels.tolist() == ["a"] * 3 + ["b"] + ["c"] * 2


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("target", ["data", "data/b", "data/b/sub", "."])
def test_link_to_other_classes_is_not_followed(target, tmp_path):
    make_folder(tmp_path, ["data/a/1.png", "data/b/sub/2.png", "3.png"])
    (tmp_path / "data/a/link").symlink_to(tmp_path / target)
    paths, labels = load_image_folder(tmp_path / "data")
    assert names_of(paths, tmp_path / "data") == ["a/1.png", "b/sub/2.png"]
    assert labels.tolist() == ["a", "b"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_link_to_all_classes_is_not_a_class(tmp_path):
    make_folder(tmp_path, ["a/1.png", "b/2.png"])
    (tmp_path / "up").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"a class has no image .*'up' holds nothing"):
        load_image_folder(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_pipe_named_like_an_image_is_left_out(tmp_path):
    make_folder(tmp_path, ["a/1.png"])
    os.mkfifo(tmp_path / "a/pipe.png")
    (tmp_path / "a/lost.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(
        UserWarning, match="left out 1 file that is not an image: a: 1 pipe or device$"
    ):
        paths, _ = load_image_folder(tmp_path)
    assert names_of(paths, tmp_path) == ["a/1.png", "a/lost.png"]  # an error names a lost one


def test_files_of_systems_are_left_out(tmp_path):
    names = ["__MACOSX/a/._1.png", "@eaDir/1.png", "a/@eaDir/1.png", "a/Thumbs.db", ".DS_Store"]
    names += ["System Volume Information/1.png", "#recycle/1.png", "a/THUMBS.DB", "__pycache__/x"]
    make_folder(tmp_path, ["a/1.png", *names])
    paths, labels = load_image_folder(tmp_path)
    assert names_of(paths, tmp_path) == ["a/1.png"]
    assert labels.tolist() == ["a"]


@pytest.mark.parametrize("parts", [["train", "val", "test"], ["Training", "Testing"], ["train"]])
def test_parts_of_a_data_set_are_not_classes(parts, tmp_path):
    make_folder(tmp_path, [f"{part}/{name}/1.png" for part in parts for name in "ab"])
    message = f"holds the parts {', '.join(sorted(parts))} of a data set and not its classes"
    with pytest.raises(ValueError, match=message) as caught:
        load_image_folder(tmp_path)
    for part in sorted(parts):
        line = f"X_{part.lower()}, y_{part.lower()} = load_image_folder({str(tmp_path / part)!r})"
        assert line in str(caught.value)


def test_class_may_be_called_train(tmp_path):
    make_folder(tmp_path, ["train/front/1.png", "car/1.png"])
    assert load_image_folder(tmp_path)[1].tolist() == ["car", "train"]


def test_load_image_folder_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="this folder does not exist"):
        load_image_folder(tmp_path / "nowhere")
    make_folder(tmp_path, ["1.png"])
    message = r"holds no images by class: a folder for each class.*list_images\(path\) lists"
    with pytest.raises(ValueError, match=message):
        load_image_folder(tmp_path)


def test_list_images_takes_any_folder(tmp_path):
    files = ["b/2.JPG", "1.png", "b/deep/3.webp", "__MACOSX/b/._2.JPG", ".git/4.png", "b/.5.png"]
    make_folder(tmp_path, files)
    assert names_of(list_images(tmp_path), tmp_path) == ["1.png", "b/2.JPG", "b/deep/3.webp"]
    assert list_images(str(tmp_path / "b")).dtype.kind == "U"


def test_list_images_finds_what_load_image_folder_finds(tmp_path):
    make_folder(tmp_path, ["a/1.png", "a/deep/2.png", "b/1.tif", "train/1.png"])
    assert list_images(tmp_path).tolist() == load_image_folder(tmp_path)[0].tolist()


def test_list_images_counts_what_it_leaves_out(tmp_path):
    make_folder(tmp_path, ["1.png", "a/2.heic", "a/3.heic", "notes.txt"])
    message = r"^list_images\('.*'\) left out 3 files that are not images: .*: 2 \.heic, 1 \.txt$"
    with pytest.warns(UserWarning, match=message):
        assert names_of(list_images(tmp_path), tmp_path) == ["1.png"]


def test_list_images_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="this folder does not exist"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no image that Pillow reads \(nothing\)"):
        list_images(tmp_path)
    make_folder(tmp_path, ["a/2.heic"])
    with pytest.raises(ValueError, match=r"\(1 \.heic\); convert its files"):
        list_images(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_list_images_follows_links_once_and_never_up(tmp_path):
    make_folder(tmp_path, ["data/a/1.png", "elsewhere/2.png", "3.png"])
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/up").symlink_to(tmp_path)
    (tmp_path / "data/a/self").symlink_to(tmp_path / "data")
    found = list_images(tmp_path / "data")
    assert names_of(found, tmp_path / "data") == ["a/1.png", "linked/2.png"]
    (tmp_path / "door").symlink_to(tmp_path / "data")
    assert len(list_images(tmp_path / "door")) == 2


def test_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    make_folder(tmp_path, ["a/1.png", "a/closed/2.png", "b/1.png"])
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError, match=r"denied: '.*closed'"):
        load_image_folder(tmp_path)


@pytest.fixture
def good_and_bad(tmp_path, colour_images):
    """Eight paths, of which the second, the third and the last can't be read."""
    paths = np.array([str(tmp_path / f"{index}.png") for index in range(8)])
    for path, image in zip(paths, colour_images, strict=False):
        Image.fromarray(image).save(path)
    content = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "2.png").write_bytes(b"not a picture")
    (tmp_path / "7.png").unlink()
    return paths


def test_find_unreadable_finds_all_at_once(good_and_bad, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)  # there somebody watches the line
    bad = find_unreadable(good_and_bad)
    assert list(bad) == [1, 2, 7]
    assert bad[1].startswith(f"X[1]: {str(good_and_bad[1])!r} can't be read as an image (OSError")
    assert "| 0/8 images" in capsys.readouterr().out
    assert find_unreadable([*good_and_bad[3:5], None], verbose=0).keys() == {2}
    assert "".join(capsys.readouterr()) == ""


def test_fit_without_unreadable_files(good_and_bad, tiny_backbone, colour_labels):
    bad = list(find_unreadable(good_and_bad, verbose=0))
    X, y = np.delete(good_and_bad, bad), np.delete(colour_labels[:8], bad)
    clf = CLCEClassifier(tiny_backbone, max_epochs=1, weight=0, random_state=0).fit(X, y)
    assert clf.predict(X).shape == (5,)


@pytest.mark.parametrize(
    ("X", "options"),
    [
        ([np.full((8, 8), 4095, np.int32)] * 2, {"max_pixel_value": 4095}),
        ([np.full((8, 9, 5), 0.5)] * 2, {"n_channels": 5}),
        ([np.full((8, 8, 3), 0.5), np.full((8, 8, 5), 0.5)], {"n_channels": 5}),
        (np.full((2, 64), 4095, np.int32), {"image_shape": (8, 8), "max_pixel_value": 4095}),
    ],
)
def test_find_unreadable_takes_the_parameters_of_the_classifier(X, options):
    is_bad = [image.shape[-1] == 3 for image in X]  # where five channels are required
    assert list(find_unreadable(X, verbose=0, **options)) == np.flatnonzero(is_bad).tolist()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_find_unreadable_does_not_wait_for_a_pipe(good_and_bad, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    bad = find_unreadable([tmp_path / "pipe.png", good_and_bad[0]], verbose=0)
    assert list(bad) == [0]
    assert bad[0].startswith("X[0]: there is no file '")


@pytest.mark.parametrize("kind", ["arrays", "array", "Dataset", "missing", "no column", "no file"])
def test_find_unreadable_among_other_kinds(kind, colour_images):
    class Broken:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 0:
                raise RuntimeError("the disk is on fire")
            return colour_images[index]

    class NoFile(Broken):
        def __getitem__(self, index):
            return open("no_such.png") if index == 0 else colour_images[index]

    dicts = [{"id": 7, "image": image} for image in [None, *colour_images[:2]]]
    kinds = {
        "arrays": ([*colour_images[:2], np.zeros((8, 8)) + 7], {2: "has pixels in 7..7"}),
        "array": (colour_images, {}),
        "Dataset": (Broken(), {0: "RuntimeError: the disk is on fire"}),
        "missing": (DictDataset(dicts), {0: "X[0] is NoneType: a path, bytes, a PIL image"}),
        "no column": (DictDataset(dicts[:1]), {0: "X[0] is dict: a path, bytes, a PIL image"}),
        "no file": (NoFile(), {0: "X[0]: there is no file 'no_such.png'"}),
    }
    X, expected = kinds[kind]
    found = find_unreadable(X, verbose=0)
    assert found.keys() == expected.keys()
    for index, message in expected.items():
        assert message in found[index]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_link_to_another_class_is_not_a_class(tmp_path):
    make_folder(tmp_path, ["a/1.png", "b/2.png"])
    (tmp_path / "c").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match=r"a class has no image .*'c' holds nothing"):
        load_image_folder(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_pipe_is_named_as_one(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    paths = [str(tmp_path / "pipe.png"), os.devnull, str(tmp_path)]
    reasons = ["pipe or a device", "pipe or a device", "folder"]
    bad = find_unreadable(paths, verbose=0)
    assert [reason.rsplit("; it is a ")[1] for reason in bad.values()] == reasons
