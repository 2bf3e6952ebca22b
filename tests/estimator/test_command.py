"""The command ``python -m sklearn_clce``: what it prints, writes and exits with."""

import runpy
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sklearn_clce import CLCEClassifier, list_images
from sklearn_clce.__main__ import main


def make_images(folder, n, seed):
    rng = np.random.default_rng(seed)
    for name, channel in {"red": 0, "blue": 2}.items():
        (folder / name).mkdir(parents=True)
        for index in range(n):
            pixels = rng.integers(0, 60, size=(24, 24, 3), dtype=np.uint8)
            pixels[..., channel] += 180
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of two classes, with a file that can't be read in each, and a fitted model."""
    root = tmp_path_factory.mktemp("command")
    make_images(root / "train", 4, seed=0)
    make_images(root / "test", 3, seed=1)
    for part in ("train", "test"):
        (root / part / "red/broken.png").write_text("not an image")
    paths = [path for path in list_images(root / "train") if "broken" not in path]
    clf = CLCEClassifier(trainable="head", image_size=32, random_state=0)
    labels = ["red" if "red" in path.rsplit("train")[-1] else "blue" for path in paths]
    clf.fit(paths, labels).save(root / "model.safetensors")
    return root


def test_fit_saves_model_and_prints_score(folder, tmp_path, capsys):
    output = str(tmp_path / "new.safetensors")
    arguments = ["fit", str(folder / "train"), "-o", output, "--head"]
    assert main([*arguments, "--test", str(folder / "test")]) == 3
    out, err = capsys.readouterr()
    assert f"{output}: fitted to 8 images of 2 classes" in out
    assert f"accuracy on 6 images of {folder / 'test'}: 1.000" in out
    assert err.count("left out: ") == 2
    for part in ("train", "test"):
        assert f"'{folder / part / 'red/broken.png'}' can't be read as an image" in err
    clf = CLCEClassifier.load(output)
    assert clf.trainable_ == "head"
    assert clf.classes_.tolist() == ["blue", "red"]


def test_fit_without_options_trains_the_backbone(folder, tmp_path, monkeypatch):
    fitted = []

    def stop(self, X, y):
        fitted.append((self.get_params(), len(X)))
        raise ValueError("enough")

    monkeypatch.setattr(CLCEClassifier, "fit", stop)
    assert main(["fit", str(folder / "train"), "-o", str(tmp_path / "m.safetensors")]) == 1
    ((params, n_images),) = fitted
    defaults = CLCEClassifier(verbose=1).get_params()
    assert (params, n_images) == (defaults, 8)


def test_predict_writes_table_as_predict_frame_gives_it(folder, tmp_path, capsys):
    model, output = str(folder / "model.safetensors"), str(tmp_path / "table.csv")
    assert main(["predict", model, str(folder / "test"), "-o", output]) == 3
    out, err = capsys.readouterr()
    assert f"{output}: 7 images, 6 predicted" in out
    assert "broken.png' can't be read as an image" in err
    frame = CLCEClassifier.load(model).predict_frame(list_images(folder / "test"))
    frame["label"] = frame["label"].astype("str")
    frame["error"] = frame["error"].astype("str")
    read = pd.read_csv(output)
    pd.testing.assert_frame_equal(read, frame, check_dtype=False, rtol=1e-6)
    assert read["label"][0] == "blue"


def test_predict_without_errors_exits_with_0(folder, tmp_path):
    model, output = str(folder / "model.safetensors"), str(tmp_path / "table.csv")
    assert main(["predict", model, str(folder / "test/blue"), "-o", output]) == 0
    assert pd.read_csv(output)["label"].tolist() == ["blue"] * 3


def test_table_keeps_names_that_are_not_utf8(folder, tmp_path):
    (tmp_path / "images").mkdir()
    name = b"\xe9t\xe9.png"
    try:
        path = tmp_path / "images" / name.decode("utf-8", "surrogateescape")
        path.write_bytes((folder / "test/red/0.png").read_bytes())
    except (OSError, UnicodeError):
        pytest.skip("no such names here")
    model, output = str(folder / "model.safetensors"), tmp_path / "table.csv"
    assert main(["predict", model, str(tmp_path / "images"), "-o", str(output)]) == 0
    assert name in output.read_bytes()


def test_export_writes_onnx_of_the_model(folder, tmp_path, monkeypatch):
    exported = []
    monkeypatch.setattr(CLCEClassifier, "export_onnx", lambda *args: exported.append(args))
    output = str(tmp_path / "model.onnx")
    assert main(["export", str(folder / "model.safetensors"), output]) == 0
    ((clf, path),) = exported
    assert path == output
    assert clf.classes_.tolist() == ["blue", "red"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere", "-o", "m.safetensors"], "path='nowhere': there is no such folder"),
        (["fit", ".", "-o", "nowhere/m.safetensors"], "there is no folder 'nowhere'"),
        (["predict", "no.safetensors", ".", "-o", "t.csv"], "no.safetensors"),
        (["export", "no.safetensors", "m.onnx"], "no.safetensors"),
    ],
)
def test_errors_are_one_line_and_exit_with_1(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line(folder, tmp_path, capsys):
    make_images(tmp_path / "images", 1, seed=2)
    (tmp_path / "images/notes.txt").write_text("")
    model = str(folder / "model.safetensors")
    assert main(["predict", model, str(tmp_path / "images"), "-o", str(tmp_path / "t.csv")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: list_images(")
    assert line.endswith("left out 1 files that are not images: images: 1 .txt")


def test_folder_of_nothing_readable_names_its_files(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_text("not an image")
    assert main(["fit", str(tmp_path), "-o", str(tmp_path / "m.safetensors")]) == 1
    err = capsys.readouterr().err
    assert err.count("left out: ") == 2
    assert "error: X is empty" in err


@pytest.mark.parametrize("command", ["fit", "predict", "export"])
def test_help_names_operands_and_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "Exit code: 0" in out
    assert "model." in out


def test_wrong_arguments_exit_with_2(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "sklearn_clce.__main__")
    monkeypatch.setattr(sys, "argv", ["sklearn_clce", "fit", ".", "-o", "m", "--epochs", "3"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("sklearn_clce", run_name="__main__")  # as python -m does
    assert caught.value.code == 2
    message = "python -m sklearn_clce: error: unrecognized arguments: --epochs 3"
    assert message in capsys.readouterr().err
