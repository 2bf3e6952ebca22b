"""Error messages and warnings for common mistakes."""

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
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch.utils.data import DataLoader, TensorDataset

from sklearn_clce import BackboneFeatures, CLCEClassifier, EmbeddingDisplay, TopLossesDisplay
from sklearn_clce._checks import ALIASES, suggestion
from sklearn_clce.backbones import _weights, backbone_aliases, load_backbone
from small_fits import StopAfter, head


@pytest.fixture
def fitted(clouds):
    return head(max_epochs=1).fit(*clouds)


@pytest.mark.parametrize(
    ("missing", "shown"),
    [(None, "None"), (np.nan, "nan"), (pd.NA, "<NA>"), (pd.NaT, "NaT")],
    ids=str,
)
@pytest.mark.parametrize("kind", [list, pd.Series, lambda y: np.array(y, object)])
def test_missing_label_is_reported_with_index(clouds, missing, shown, kind):
    X, _ = clouds
    y = ["a", "b"] * (len(X) // 2)
    y[3] = y[8] = missing
    if kind is pd.Series:
        shown = "(None|nan|<NA>|NaT)"  # pandas has its own
    with pytest.raises(ValueError, match=rf"y\[3\]={shown}.* 2 of {len(X)} labels; leave"):
        head().fit(X, kind(y))


def test_missing_numeric_label_is_reported_with_index(clouds):
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
def test_swapped_images_and_labels_are_reported(kind, photos, tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(2)]
    for path in paths:
        Image.fromarray(photos[0]).save(path)
    images, labels = SWAPPED[kind](photos, paths)
    clf = CLCEClassifier(trainable="head")
    with pytest.raises(ValueError, match=r"X and y are swapped.*fit\(X, y\) takes the images"):
        clf.fit(labels, images)
    with pytest.raises(ValueError, match="X and y are swapped"):
        clf.partial_fit(labels, images, classes=[0, 1])


def test_swapped_labels_are_quoted_as_given():
    with pytest.raises(ValueError, match="and X holds 'cat'; fit"):
        CLCEClassifier().fit(np.array(["cat", "dog"]), np.zeros((2, 8, 8)))


def test_swapped_features_and_labels_are_reported(clouds):
    X, y = clouds
    with pytest.raises(ValueError, match="X and y are swapped"):
        head().fit(y, X)


def test_url_is_rejected_with_remedy():
    with pytest.raises(FileNotFoundError, match=r"X\[0\].*addresses are not read: download"):
        BackboneFeatures().transform(["https://example.org/cat.jpg"])


@pytest.mark.parametrize("X", [["a.png", "b.png"], np.zeros((2, 8, 8))], ids=["paths", "images"])
def test_images_for_precomputed_backbone_are_rejected(X):
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
def test_nearest_backbone_is_suggested_first(name, first):
    with pytest.raises(ValueError, match=rf"is unknown\. Did you mean '{first}'"):
        load_backbone(name, pretrained=False)


def test_suggestion_breaks_ties_by_known_order():
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
def test_unknown_parameter_gets_suggestion(estimator, name, meant):
    message = rf"^{estimator.__name__} has no parameter '{name}'\. Did you mean .*'{meant}'"
    with pytest.raises(TypeError, match=message):
        estimator(**{name: 3})


def test_unknown_parameter_message_names_subclass():
    class Mine(CLCEClassifier):
        pass

    with pytest.raises(TypeError, match=r"^Mine has no parameter 'epochs'"):
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
def test_load_of_pickle_names_its_reader(fitted, tmp_path, write):
    write(fitted, tmp_path / "model.bin")
    with pytest.raises(ValueError, match=r"looks like a pickle.*joblib\.load.*trust its author"):
        CLCEClassifier.load(tmp_path / "model.bin")


@pytest.mark.parametrize("name", ["model.pkl", "model.JOBLIB", "model.pt"])
def test_save_with_pickle_suffix_warns_and_writes(fitted, tmp_path, clouds, name):
    with pytest.warns(UserWarning, match=rf"{name}': the file is a safetensors file"):
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


def test_path_given_as_features_is_rejected(fitted):
    with pytest.raises(ValueError, match=r"backbone='precomputed': X holds paths, such as 'a.jpg'"):
        fitted.predict("a.jpg")


def test_memory_without_a_backbone_warns(clouds, tmp_path):
    clf = CLCEClassifier("precomputed", memory=tmp_path / "features", max_epochs=1)
    with pytest.warns(UserWarning, match=r"memory=.*nothing is kept, because X holds features"):
        clf.fit(*clouds)
    assert not (tmp_path / "features").exists()


def test_tiny_image_size_warns():
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


def test_unreachable_hub_is_asked_once(hub, monkeypatch):
    asked = []
    ask = _weights.urlopen
    monkeypatch.setattr(_weights, "urlopen", lambda *a, **k: asked.append(a) or ask(*a, **k))
    start = time.monotonic()
    for name in ("vit_tiny", "vit_tiny", "hf-hub:nobody/nothing"):
        with pytest.raises(OSError, match=r"can't be reached.*the hub does not answer"):
            load_backbone(name)
    assert len(asked) == 1
    assert time.monotonic() - start < 20  # the hub's client alone takes 48 s for one of them


def test_silent_hub_times_out(hub, monkeypatch):
    monkeypatch.setattr(_weights, "HUB_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        endpoint = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        with _weights.hub_if_it_answers() as answers:
            assert not answers


def test_backbone_alias_is_suggested_for_its_misspelling():
    known = list(backbone_aliases())
    for alias in known:
        assert f"mean '{alias}'" in suggestion(f"{alias}x", known)


@pytest.mark.parametrize("kind", ["bytes", "lists", "samples", "dataset"])
def test_label_column_is_not_taken_for_images(kind, photos, tmp_path):
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


def test_label_may_equal_a_file_name(clouds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat").write_text("x")
    X, _ = clouds
    assert list(head(max_epochs=1).fit(X, ["cat", "dog"] * (len(X) // 2)).classes_) == [
        "cat",
        "dog",
    ]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA], ids=str)
@pytest.mark.parametrize("kind", [pd.DataFrame, lambda y: np.array(y, object)[:, None]])
def test_missing_label_in_column_is_reported_with_index(clouds, missing, kind):
    X, _ = clouds
    y = ["a", "b"] * (len(X) // 2)
    y[3] = missing
    with pytest.raises(ValueError, match=r"y\[3\]=(None|nan|<NA>).* 1 of"):
        head().fit(X, kind(y))


def test_missing_class_is_reported_with_index(clouds):
    with pytest.raises(ValueError, match=r"classes\[0\]=None"):
        head().partial_fit(*clouds, classes=[None, 0, 1])


def test_contamination_that_is_not_a_number_is_rejected(fitted, clouds):
    with pytest.raises(ValueError, match="contamination='auto': a share"):
        fitted.calibrate_offset(clouds[0], contamination="auto")


@pytest.mark.parametrize("estimator", [CLCEClassifier, BackboneFeatures])
@pytest.mark.parametrize("alias", ALIASES)
def test_alias_suggests_its_parameter(alias, estimator):
    meant = ALIASES[alias]
    if meant.split("=")[0] not in estimator().get_params():
        meant = None
    for error, call in [
        (TypeError, lambda: estimator(**{alias: 1})),
        (ValueError, lambda: estimator().set_params(**{alias: 1})),
    ]:
        with pytest.raises(error) as caught:
            call()
        assert (f"Did you mean {meant!r}?" in str(caught.value)) == (meant is not None)


def test_aliases_are_not_parameters_and_name_some():
    known = CLCEClassifier().get_params()
    assert not known.keys() & ALIASES.keys()
    assert {meant.split("=")[0] for meant in ALIASES.values()} <= known.keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lr", r"Invalid parameter 'lr' for estimator CLCEClassifier\(\)\. .*'learning_rate'\?"),
        ("optimizer", r"mean 'skorch_params={\"optimizer\": \.\.\.}'\?"),
        ("learningrate", r"mean 'learning_rate'\? Valid parameters are: \['augment', "),
        ("lr__x", r"Invalid parameter 'lr__x' for"),
        ("zebra", r"Invalid parameter 'zebra' for estimator CLCEClassifier\(\)\. Valid param"),
    ],
)
def test_set_params_suggests_parameters_and_sets_none(name, message):
    clf = CLCEClassifier()
    with pytest.raises(ValueError, match=message):
        clf.set_params(weight=0.1, **{name: 3})
    assert clf.weight == 0.5


def test_pipeline_and_grid_search_suggest_parameters(clouds):
    pipeline = make_pipeline(BackboneFeatures(), head())
    with pytest.raises(ValueError, match="mean 'max_epochs'"):
        pipeline.set_params(clceclassifier__epochs=3)
    with pytest.raises(ValueError, match="mean 'image_size'"):
        pipeline.set_params(backbonefeatures__img_size=32)
    for estimator, grid in [(head(), {"lr": [0.1]}), (pipeline, {"clceclassifier__lr": [0.1]})]:
        with pytest.raises(ValueError, match=r"(?s)Invalid parameter 'lr' .* mean 'learning_rate'"):
            GridSearchCV(estimator, grid, cv=2).fit(*clouds)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CLCEClassifier("dinov2", "head"), "takes only backbone by .*trainable='head'"),
        (lambda: BackboneFeatures("dinov2", 64, 3), r"^BackboneFeatures takes only backbone"),
    ],
)
def test_parameter_by_position_is_named(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(
    ("estimator", "params", "message"),
    [
        (CLCEClassifier, {"image_size": (224, 224)}, r"image_size=\(224, 224\): one number is"),
        (BackboneFeatures, {"image_size": [64, 64]}, r"image_size=\[64, 64\]: one number is"),
        (CLCEClassifier, {"augment": True}, "augment=True: 'auto', None or a callable"),
        (CLCEClassifier, {"memory": True}, "memory=True: the path of a folder.*memory='features'"),
        (BackboneFeatures, {"memory": False}, "memory=False: the path of a folder"),
    ],
)
def test_usual_wrong_value_gets_its_remedy(estimator, params, message, colour_images):
    with pytest.raises(ValueError, match=message):
        estimator(**params).fit(colour_images, [0, 1] * 6)


def test_gpu_suggests_cuda(clouds):
    with pytest.raises(ValueError, match=r"device='gpu' .* \(did you mean 'cuda'\?\)$"):
        head(device="gpu").fit(*clouds)
    with pytest.raises(
        ValueError, match=r"device='zebra' .* \(torch knows 'cpu', 'cuda', 'cuda:1'"
    ):
        head(device="zebra").fit(*clouds)


def test_dataset_needs_its_labels_apart(colour_images, colour_labels, on_images):
    dataset = list(zip(colour_images, colour_labels, strict=True))
    clf = on_images()
    for fit in [clf.fit, lambda X: clf.fit(X, None)]:
        with pytest.raises(ValueError, match=r"fit\(dataset, \[label for _, label in dataset\]\)"):
            fit(dataset)
    assert len(clf.fit(dataset, [label for _, label in dataset]).classes_) == 2


def test_data_loader_is_rejected_with_remedy(clouds, fitted):
    X, y = clouds
    loader = DataLoader(TensorDataset(torch.from_numpy(X)))
    for call in [lambda: head().fit(loader), lambda: fitted.partial_fit(loader, y)]:
        with pytest.raises(TypeError, match=r"X is a DataLoader: .*fit\(loader\.dataset, y\)"):
            call()


def test_one_sample_of_each_class_is_reported(clouds):
    X, _ = clouds
    with pytest.warns(UserWarning, match="each class has only one sample, .* n_views=2, or wei"):
        head(max_epochs=1).fit(X[:6], range(6))


def test_display_wants_the_estimator_first(clouds, fitted):
    X, y = clouds
    for display in [TopLossesDisplay, EmbeddingDisplay]:
        with pytest.raises(TypeError, match=r"^estimator is ndarray: a fitted estimator comes fir"):
            display.from_estimator(X, fitted, y)


def test_resumed_checkpoint_is_reported(clouds, tmp_path, capsys):
    params = {"checkpoint": tmp_path / "ck", "max_epochs": 8, "verbose": 1}
    with pytest.warns(ConvergenceWarning):
        head(**params, callbacks=[StopAfter(3)]).fit(*clouds)
    assert "continuing" not in capsys.readouterr().out
    head(**params).fit(*clouds)
    assert f"checkpoint={str(tmp_path / 'ck')!r}: continuing after epoch 3 of 8" in (
        capsys.readouterr().out
    )
    head(**params).fit(*clouds)
    assert "the fit is over after epoch 8 of 8" in capsys.readouterr().out


def test_file_that_is_no_model_is_reported_without_its_length(tmp_path):
    (tmp_path / "model").write_bytes(b"some text that is no model")
    with pytest.raises(ValueError, match=r"it is not a safetensors file, or was cut off") as caught:
        CLCEClassifier.load(tmp_path / "model")
    assert "length" not in str(caught.value)


@pytest.mark.parametrize("method", ["fit", "partial_fit", "fit_transform"])
def test_warnings_name_the_line_of_the_user(method, clouds, tmp_path):
    clf = CLCEClassifier("precomputed", memory=tmp_path / "features", max_epochs=1)
    arguments = {"classes": [0, 1, 2]} if method == "partial_fit" else {}
    with pytest.warns(UserWarning, match="nothing is kept") as caught:
        getattr(clf, method)(*clouds, **arguments)
    assert caught[0].filename == __file__
