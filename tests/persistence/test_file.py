"""The file itself: its readers, its versions, and a writer that is killed."""

import copy
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError

from model_files import assert_same_model, on_features, tiny, vectors, vit
from sklearn_clce import CLCEClassifier
from sklearn_clce.persistence import _file

FOLDER = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def fitted_head():
    return on_features(max_epochs=1).fit(vectors(), [0, 1] * 6)


def test_weights_are_readable_by_other_programs(colour_images, colour_labels, tmp_path):
    clf = vit().fit(colour_images, colour_labels)
    clf.save(tmp_path / "model.safetensors")
    weights, state = load_file(tmp_path / "model.safetensors"), clf.module_.state_dict()
    assert weights.keys() == state.keys() | {"head.class_means", "head.class_counts"}
    assert all(torch.equal(weights[name], state[name]) for name in state)


def test_save_needs_a_fitted_estimator(tmp_path):
    with pytest.raises(NotFittedError):
        CLCEClassifier().save(tmp_path / "model")


def test_missing_folder_is_named(tmp_path, fitted_head):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*elsewhere"):
        fitted_head.save(tmp_path / "elsewhere" / "model")


def test_paths_that_are_not_files_are_rejected(tmp_path, fitted_head):
    with pytest.raises(FileNotFoundError, match="this file does not exist"):
        CLCEClassifier.load(tmp_path / "missing")
    with pytest.raises(ValueError, match="is not a model file: it is a folder or a device"):
        CLCEClassifier.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        fitted_head.save(tmp_path / "missing" / "model")


def test_save_rejects_what_load_would_reject(colour_images, colour_labels, tmp_path):
    clf = vit().fit(colour_images, colour_labels)
    clf.module_.backbone.factory_args = {"depth": 10**9}
    with pytest.raises(ValueError, match=r"no model file can hold .* its arguments; a pickle can"):
        clf.save(tmp_path / "model")
    own_size = tiny(max_epochs=1).fit(colour_images, colour_labels)
    config = replace(own_size.backbone_config_, image_size=10**5)
    own_size.module_.config = config
    with pytest.raises(ValueError, match="its preprocessing is impossible"):
        own_size.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_huge_history_is_rejected_before_it_is_written(fitted_head, tmp_path):
    clf = copy.deepcopy(fitted_head)
    fitted_head.save(tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    clf.history_.extend([{f"figure {number}": 1.0 for number in range(1000)}] * 600)
    with pytest.raises(ValueError, match=r"its header takes .* and at most"):
        clf.save(tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == before


def rewritten(path, **metadata):
    """Change the metadata of a file, with a digest that is right."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    strings = header["__metadata__"]
    strings |= metadata
    strings[_file.DIGEST] = _file._digest(
        strings[_file.VERSION], strings[_file.MODEL], load_file(path)
    )
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def test_newer_format_is_rejected_with_its_writer(fitted_head, tmp_path):
    path = tmp_path / "model"
    fitted_head.save(path)
    rewritten(path, format_version="2", written_by="sklearn-clce 9.8.7")
    with pytest.raises(
        ValueError, match=r"of format 2, written by 'sklearn-clce 9.8.7', .* newer sklearn-clce is"
    ):
        CLCEClassifier.load(path)


def test_format_zero_is_rejected(fitted_head, tmp_path):
    path = tmp_path / "model"
    fitted_head.save(path)
    rewritten(path, format_version="0")
    with pytest.raises(ValueError, match="there was never a format 0"):
        CLCEClassifier.load(path)


def test_other_library_versions_are_named(fitted_head, tmp_path, monkeypatch):
    now = _file._version
    with monkeypatch.context() as patch:
        patch.setattr(_file, "_version", lambda name: {"torch": "1.0"}.get(name, now(name)))
        fitted_head.save(tmp_path / "model")
    message = f"saved with other versions: torch 1.0, here {now('torch')}. Its predictions may"
    with pytest.warns(InconsistentVersionWarning, match=message) as caught:
        CLCEClassifier.load(tmp_path / "model")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert caught[0].message.differences == [f"torch 1.0, here {now('torch')}"]


def test_build_for_another_device_is_the_same_version(monkeypatch):
    monkeypatch.setattr(_file, "version", lambda name: "2.6.0+cu124")
    assert _file._version("torch") == "2.6.0"


@pytest.mark.skipif(sys.platform != "linux", reason="the process that saves is a fork")
def test_killed_save_leaves_the_old_file_or_the_new_one(tmp_path):
    script = FOLDER / "helpers" / "saved_in_a_loop.py"
    result = subprocess.run(
        [sys.executable, script, tmp_path, "20"], capture_output=True, text=True, cwd=FOLDER
    )
    assert result.returncode == 0, result.stderr
    outcome = json.loads(result.stdout)
    assert outcome["killed"] == 20
    assert outcome["loaded"] == 20
    assert outcome["while writing"] > 0


def test_link_stays_and_its_target_keeps_its_mode(fitted_head, tmp_path):
    (tmp_path / "models").mkdir()
    target, link = tmp_path / "models" / "2.safetensors", tmp_path / "newest"
    target.write_bytes(b"the old one")
    target.chmod(0o640)
    link.symlink_to(target)
    fitted_head.save(link)
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert_same_model(CLCEClassifier.load(target), fitted_head, vectors())
    ahead = tmp_path / "ahead"
    ahead.symlink_to(tmp_path / "models" / "3.safetensors")  # of a file to come
    fitted_head.save(ahead)
    assert ahead.is_symlink()
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [
        "2.safetensors",
        "3.safetensors",
    ]


def test_folders_and_devices_are_not_replaced(fitted_head, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for place in (tmp_path, tmp_path / "pipe", tmp_path / "link", "/dev/null"):
        with pytest.raises(ValueError, match=r"is a folder or a device: a file is required"):
            fitted_head.save(place)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_file_truncated_while_it_loads_does_no_harm(fitted_head, tmp_path, monkeypatch):
    path = tmp_path / "model"
    fitted_head.save(path)
    digest = _file._digest

    def cut_off(*args):
        os.truncate(path, 100)  # memory that is mapped to the file is gone
        return digest(*args)

    monkeypatch.setattr(_file, "_digest", cut_off)
    assert_same_model(CLCEClassifier.load(path), fitted_head, vectors())


@pytest.mark.parametrize("escaped", [False, True])
def test_brackets_are_counted_before_they_are_parsed(fitted_head, tmp_path, monkeypatch, escaped):
    path = tmp_path / "model"
    fitted_head.save(path)
    # few commas and many lists
    description = "[" + ",".join(["[[[[]]]]"] * 200_000) + "]"
    rewritten(path, sklearn_clce=description)
    if escaped:
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = content[8 : 8 + length].replace(b"[[[[", b"\\u005b" * 4)
        path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    loads = json.loads
    monkeypatch.setattr(
        _file.json,
        "loads",
        lambda text: loads(text) if text != description else pytest.fail("parsed"),
    )
    with pytest.raises(ValueError, match=r"values, and at most"):
        CLCEClassifier.load(path)
