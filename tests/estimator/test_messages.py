"""What is said where something else was meant: the mistakes that people make."""

import io
import pickle
import socket
import time

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.exceptions import DataConversionWarning
from torch.utils.data import TensorDataset

from sklearn_clce import BackboneFeatures, CLCEClassifier
from sklearn_clce._checks import suggestion
from sklearn_clce.backbones import _weights, backbone_aliases, load_backbone
from small_fits import head


@pytest.fixture
def fitted(clouds):
    return head(max_epochs=1).fit(*clouds)


@pytest.mark.parametrize(
    ("missing", "shown"),
    [(None, "None"), (np.nan, "nan"), (pd.NA, "<NA>"), (pd.NaT, "NaT")],
    ids=str,
)
@pytest.mark.parametrize("kind", [list, pd.Series, lambda y: np.array(y, object)])
def test_a_missing_label_is_named_by_its_place(clouds, missing, shown, kind):
    X, _ = clouds
    y = ["a", "b"] * (len(X) // 2)
    y[3] = y[8] = missing
    if kind is pd.Series:
        shown = "(None|nan|<NA>|NaT)"  # pandas has its own
    with pytest.raises(ValueError, match=rf"y\[3\]={shown}.* 2 of {len(X)} labels; leave"):
        head().fit(X, kind(y))


def test_a_missing_number_among_numbers_is_named_by_its_place(clouds):
    X, y = clouds
    y = y.astype(float)
    y[5] = np.nan
    with pytest.raises(ValueError, match=r"y\[5\]=.*nan.* 1 of"):
        head().fit(X, y)


SWAPPED = {
    "arrays of images": lambda photos, paths: (photos, ["cat", "dog"]),
    "PIL images": lambda photos, paths: ([Image.fromarray(p) for p in photos], np.array([0, 1])),
    "paths": lambda photos, paths: (paths, ["cat", "dog"]),
    "a Series of paths": lambda photos, paths: (pd.Series(paths, index=[7, 3]), pd.Series([1, 2])),
    "a frame of paths": lambda photos, paths: (pd.DataFrame({"path": paths}), ["cat", "dog"]),
    "a tensor": lambda photos, paths: (torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])),
}


@pytest.mark.parametrize("kind", SWAPPED)
def test_swapped_images_and_labels(kind, photos, tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(2)]
    for path in paths:
        Image.fromarray(photos[0]).save(path)
    images, labels = SWAPPED[kind](photos, paths)
    clf = CLCEClassifier(trainable="head")
    with pytest.raises(ValueError, match=r"X and y are swapped.*fit\(X, y\) takes the pictures"):
        clf.fit(labels, images)
    with pytest.raises(ValueError, match="X and y are swapped"):
        clf.partial_fit(labels, images, classes=[0, 1])


def test_what_x_holds_is_told_as_it_was_given():
    with pytest.raises(ValueError, match="and X holds 'cat'; fit"):
        CLCEClassifier().fit(np.array(["cat", "dog"]), np.zeros((2, 8, 8)))


def test_swapped_features_and_labels(clouds):
    X, y = clouds
    with pytest.raises(ValueError, match="X and y are swapped"):
        head().fit(y, X)


def test_an_address_is_not_a_file():
    with pytest.raises(FileNotFoundError, match=r"X\[0\].*an address is not read: download"):
        BackboneFeatures().transform(["https://example.org/cat.jpg"])


@pytest.mark.parametrize("X", [["a.png", "b.png"], np.zeros((2, 8, 8))], ids=["paths", "images"])
def test_pictures_where_features_are_expected(X):
    with pytest.raises(
        ValueError, match=r"X holds (paths|images).*BackboneFeatures\(\) makes them"
    ):
        CLCEClassifier("precomputed").fit(X, [0, 1])


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("efficientnet_lite", "efficientnet_lite0"),
        ("dino_v2", "dinov2"),
        ("mobilenet_v4", "mobilenetv4"),
        ("convnxt", "convnext"),
        ("res_net", "resnet"),
    ],
)
def test_the_nearest_backbone_comes_first(name, first):
    with pytest.raises(ValueError, match=rf"is unknown\. Did you mean '{first}'"):
        load_backbone(name, pretrained=False)


def test_of_names_equally_near_the_one_known_first_is_suggested_first():
    assert suggestion("ab", ["abx", "aby", "abz", "abw"]) == " Did you mean 'abx', 'aby', 'abz'?"
    assert suggestion("ab", ["xyz"]) == ""


@pytest.mark.parametrize(
    ("estimator", "name", "meant"),
    [
        (CLCEClassifier, "epochs", "max_epochs"),
        (CLCEClassifier, "lr", "learning_rate"),
        (CLCEClassifier, "learningrate", "learning_rate"),
        (CLCEClassifier, "randomstate", "random_state"),
        (BackboneFeatures, "batchsize", "batch_size"),
        (BackboneFeatures, "imagesize", "image_size"),
    ],
)
def test_a_parameter_that_is_not_one_gets_the_nearest(estimator, name, meant):
    message = rf"{estimator.__name__}\({name}=\.\.\.\): .* Did you mean .*'{meant}'"
    with pytest.raises(TypeError, match=message):
        estimator(**{name: 3})


def test_a_subclass_is_called_by_its_own_name():
    class Mine(CLCEClassifier):
        pass

    with pytest.raises(TypeError, match=r"^Mine\(epochs=\.\.\.\)"):
        Mine(epochs=3)


@pytest.mark.parametrize(
    "write",
    [
        lambda clf, path: joblib.dump(clf, path),
        lambda clf, path: joblib.dump(clf, path, compress=True),
        lambda clf, path: path.write_bytes(pickle.dumps(clf)),
        lambda clf, path: torch.save(clf.module_.state_dict(), path),
    ],
    ids=["joblib", "joblib, compressed", "pickle", "torch.save"],
)
def test_load_of_a_pickle_says_who_reads_it(fitted, tmp_path, write):
    write(fitted, tmp_path / "model.bin")
    with pytest.raises(ValueError, match=r"looks like a pickle.*joblib\.load.*trust who wrote it"):
        CLCEClassifier.load(tmp_path / "model.bin")


@pytest.mark.parametrize("name", ["model.pkl", "model.JOBLIB", "model.pt"])
def test_save_under_the_name_of_a_pickle_warns_and_writes(fitted, tmp_path, clouds, name):
    with pytest.warns(UserWarning, match=rf"{name}': what is written is a safetensors file"):
        fitted.save(tmp_path / name)
    loaded = CLCEClassifier.load(tmp_path / name)
    np.testing.assert_array_equal(loaded.predict(clouds[0]), fitted.predict(clouds[0]))


def test_memory_without_a_frozen_backbone_warns(
    tiny_backbone, colour_images, colour_labels, tmp_path
):
    clf = CLCEClassifier(tiny_backbone, memory=tmp_path / "features", max_epochs=1, batch_size=6)
    with pytest.warns(UserWarning, match=r"memory=.*nothing is kept.*trainable='auto'"):
        clf.fit(colour_images, colour_labels)
    assert not (tmp_path / "features").exists()


def test_one_path_for_features_is_told(fitted):
    with pytest.raises(ValueError, match=r"backbone='precomputed': X holds paths, such as 'a.jpg'"):
        fitted.predict("a.jpg")


def test_memory_without_a_backbone_warns(clouds, tmp_path):
    clf = CLCEClassifier("precomputed", memory=tmp_path / "features", max_epochs=1)
    with pytest.warns(UserWarning, match=r"memory=.*nothing is kept, because X holds features"):
        clf.fit(*clouds)
    assert not (tmp_path / "features").exists()


def test_a_side_of_a_few_pixels_warns():
    with pytest.warns(UserWarning, match=r"image_size=8: resnet10t .*made for 176 pixels"):
        load_backbone("resnet10t", pretrained=False, image_size=8)


@pytest.fixture
def hub(monkeypatch):
    """An address of a hub that refuses connections, asked as a machine online would."""
    from huggingface_hub import constants

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_weights, "_silent_since", {})
    return address


def test_weights_that_can_not_be_reached_are_asked_for_once_and_briefly(hub, monkeypatch):
    asked = []
    ask = _weights.urlopen
    monkeypatch.setattr(_weights, "urlopen", lambda *a, **k: asked.append(a) or ask(*a, **k))
    start = time.monotonic()
    for name in ("vit_tiny", "vit_tiny", "hf-hub:nobody/nothing"):
        with pytest.raises(OSError, match=r"can't be reached.*the hub does not answer"):
            load_backbone(name)
    assert len(asked) == 1
    assert time.monotonic() - start < 20  # the hub's client alone takes 48 s for one of them


def test_a_hub_that_says_nothing_is_given_up(hub, monkeypatch):
    monkeypatch.setattr(_weights, "HUB_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        endpoint = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        with _weights.hub_if_it_answers() as answers:
            assert not answers


def test_every_alias_is_suggested_for_its_own_misspelling():
    known = list(backbone_aliases())
    for alias in known:
        assert f"mean '{alias}'" in suggestion(f"{alias}x", known)


@pytest.mark.parametrize("kind", ["bytes", "lists", "samples", "dataset"])
def test_labels_in_a_column_are_no_pictures(kind, photos, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(photos[0]).resize((16, 16)).save(buffer, "PNG")
    small = np.asarray(Image.open(buffer))
    X = {
        "bytes": [buffer.getvalue()] * 6,
        "lists": [small.tolist()] * 6,
        "samples": [(small, 0)] * 6,
        "dataset": TensorDataset(torch.from_numpy(np.stack([small] * 6))),
    }[kind]
    clf = CLCEClassifier(trainable="head", image_size=32, max_epochs=1)
    with pytest.warns(DataConversionWarning):
        assert len(clf.fit(X, np.array([[0], [1]] * 3)).classes_) == 2


def test_a_label_may_have_the_name_of_a_file(clouds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat").write_text("x")
    X, _ = clouds
    assert list(head(max_epochs=1).fit(X, ["cat", "dog"] * (len(X) // 2)).classes_) == [
        "cat",
        "dog",
    ]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA], ids=str)
@pytest.mark.parametrize("kind", [pd.DataFrame, lambda y: np.array(y, object)[:, None]])
def test_a_missing_label_in_a_column_is_named_by_its_place(clouds, missing, kind):
    X, _ = clouds
    y = ["a", "b"] * (len(X) // 2)
    y[3] = missing
    with pytest.raises(ValueError, match=r"y\[3\]=(None|nan|<NA>).* 1 of"):
        head().fit(X, kind(y))


def test_a_class_that_is_missing_is_named_by_its_place(clouds):
    with pytest.raises(ValueError, match=r"classes\[0\]=None"):
        head().partial_fit(*clouds, classes=[None, 0, 1])


def test_a_share_that_is_no_number(fitted, clouds):
    with pytest.raises(ValueError, match="contamination='auto': a share"):
        fitted.calibrate_offset(clouds[0], contamination="auto")
