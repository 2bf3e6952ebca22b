"""predict_frame: files to a table, with errors in a column."""

import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.exceptions import NotFittedError

from model_files import saved_and_loaded, tiny, vectors
from sklearn_clce._methods import _frame as frames
from small_fits import head


@pytest.fixture(scope="module")
def paths(tmp_path_factory, colour_images):
    folder = tmp_path_factory.mktemp("files")
    for index, image in enumerate(colour_images):
        Image.fromarray(image).save(folder / f"{index:02}.png")
    return np.array(sorted(map(str, folder.iterdir())))


@pytest.fixture(scope="module", params=["all", "head"])
def fitted(request, paths, colour_labels):
    return tiny(trainable=request.param).fit(paths, colour_labels)


@pytest.fixture
def broken(paths, tmp_path):
    """Twelve paths, of which the first, the fourth and the last can't be read."""
    (tmp_path / "text.png").write_text("not an image")
    found = paths.tolist()
    found[0], found[3], found[11] = tmp_path / "lost.png", tmp_path / "text.png", tmp_path
    return found


def test_frame_holds_what_the_methods_return(fitted, paths):
    frame = fitted.predict_frame(paths)
    assert list(frame) == [
        "path",
        "label",
        "probability_left",
        "probability_none",
        "score",
        "error",
    ]
    assert frame["path"].tolist() == paths.tolist()
    assert_array_equal(frame["label"], fitted.predict(paths))
    assert_array_equal(frame.filter(like="probability_"), fitted.predict_proba(paths))
    assert_array_equal(frame["score"], fitted.score_samples(paths))
    assert frame["error"].isna().all()


def test_files_that_cannot_be_read_have_an_error_in_their_row(fitted, broken, monkeypatch):
    monkeypatch.setattr(frames, "BLOCK", 5)  # a block of each kind: mixed, whole and mixed
    frame = fitted.predict_frame(broken)
    bad = [0, 3, 11]
    assert np.flatnonzero(frame["error"].notna()).tolist() == bad
    assert frame["error"][0] == f"X[0]: there is no file '{broken[0]}'"
    assert frame["error"][3].startswith(f"X[3]: '{broken[3]}' can't be read as an image")
    assert frame["error"][11].endswith("it is a folder")
    assert frame.loc[bad, "label":"score"].isna().all(axis=None)
    rest = frame.drop(bad)
    files = rest["path"].tolist()
    assert_array_equal(rest["label"], fitted.predict(files))
    assert_allclose(rest.filter(like="probability_"), fitted.predict_proba(files), rtol=1e-4)
    assert_allclose(rest["score"], fitted.score_samples(files), rtol=1e-4)


def test_frame_of_nothing_but_errors(fitted):
    frame = fitted.predict_frame(["lost.png", "gone.png"])
    assert frame["error"].notna().all()
    assert frame.loc[:, "label":"score"].isna().all(axis=None)
    assert frame["label"].cat.categories.tolist() == fitted.classes_.tolist()


def test_error_that_is_not_of_a_file_is_raised(fitted, paths, monkeypatch):
    def failing(*args, **kwargs):
        raise ValueError("the network is broken")

    monkeypatch.setattr(frames, "infer", failing)
    with pytest.raises(ValueError, match="the network is broken"):
        fitted.predict_frame(paths)


def test_calibrated_classifier_decides_none_of_these(fitted, broken, tmp_path):
    clf = pickle.loads(pickle.dumps(fitted))
    assert "none_of_these" not in clf.predict_frame(broken)
    clf.offset_ = float(np.median(clf.score_samples(broken[4:11])))
    frame = saved_and_loaded(clf, tmp_path).predict_frame(broken)
    decided = frame["error"].isna()
    below = frame.loc[decided, "score"] < clf.offset_
    assert_array_equal(frame.loc[decided, "none_of_these"].astype(bool), below)
    assert 0 < below.sum() < decided.sum()
    assert frame.loc[~decided, "none_of_these"].isna().all()


@pytest.mark.parametrize("labels", [[3, 7] * 6, [True, False] * 6])
def test_labels_keep_their_kind_next_to_errors(labels, paths, broken, tmp_path):
    clf = tiny(trainable="head", max_epochs=1).fit(paths, labels)
    frame = clf.predict_frame(broken)
    found = frame["label"].dropna().tolist()
    assert {type(label) for label in found} == {type(labels[0])}
    assert f"probability_{labels[0]}" in frame
    frame.to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv", dtype={"label": "string"})
    assert read["label"].dropna().tolist() == [str(label) for label in found]


def test_frame_takes_what_holds_paths(fitted, paths):
    expected = fitted.predict_frame(paths)
    for given in (pd.Series(paths), pd.DataFrame({"image": paths}), paths.astype(object)):
        pd.testing.assert_frame_equal(fitted.predict_frame(given), expected)


def test_frame_shows_a_bar_of_all_files(paths, colour_labels, capsys, monkeypatch):
    clf = tiny(trainable="head", max_epochs=1).fit(paths, colour_labels)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    clf.predict_frame(paths)
    assert capsys.readouterr().out == ""
    clf.set_params(verbose=1).predict_frame(paths)
    assert "| 0/12 images" in capsys.readouterr().out


def test_frame_errors(fitted, paths, colour_images, monkeypatch):
    with pytest.raises(NotFittedError):
        tiny().predict_frame(paths)
    with pytest.raises(TypeError, match=r"paths='a.png': a list of paths is required"):
        fitted.predict_frame("a.png")
    with pytest.raises(TypeError, match=r"paths\[1\] is float: a path is required"):
        fitted.predict_frame([paths[0], np.nan])
    with pytest.raises(ValueError, match="X is empty"):
        fitted.predict_frame([])
    with pytest.raises(ValueError, match="a feature vector for each sample is required"):
        head(max_epochs=1).fit(vectors(), [0, 1] * 6).predict_frame(paths)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"predict_frame needs pandas.*pip install pandas"):
        fitted.predict_frame(paths)
