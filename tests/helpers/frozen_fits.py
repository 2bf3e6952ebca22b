"""Small fits whose results must not change: a net under every change of the code.

``python tests/helpers/frozen_fits.py compare`` compares this machine's results bit for bit with
those that ``write`` wrote on it; the test compares with a tolerance, for other machines.
"""

import importlib
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from skorch.callbacks import Callback
from torch.utils.data import TensorDataset

from sklearn_clce import BackboneFeatures, CLCEClassifier
from small_backbones import TinyBackbone

RESULTS = Path(__file__).parents[1] / "estimator" / "frozen_fits.json"
FITS = {}


def frozen(fit):
    """Register a function that returns arrays by name."""
    FITS[fit.__name__] = fit
    return fit


def digits(n=24, n_class=3):
    data = load_digits(n_class=n_class)
    return data.images[:n] / 16, data.target[:n]


def clouds(n=45, n_classes=3):
    rng = np.random.default_rng(0)
    codes = np.arange(n) % n_classes
    return rng.normal(size=(n, 6)) + 2 * np.eye(n_classes, 6)[codes], codes


def colour(n=12, size=(16, 20)):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 128, size=(n, *size, 3), dtype=np.uint8)
    images[::2, :, : size[1] // 2] += 120
    return images, np.array(["left", "none"])[np.arange(n) % 2]


def classifier(backbone="precomputed", **params):
    defaults = {"max_epochs": 2, "batch_size": 8, "random_state": 0}
    return CLCEClassifier(backbone, **defaults | params)


def bundled(**params):
    return classifier("efficientnet_lite0", image_size=32, **params)


def seen(clf, X, *, novelty=False):
    """Return what a fitted classifier says of a few samples, and how its losses went."""
    epochs = clf.history_
    found = {
        "probabilities": clf.predict_proba(X[:4]),
        "embeddings": clf.transform(X[:2])[:, :6],
        "losses": [epoch["train_loss"] for epoch in epochs if "train_loss" in epoch],
    }
    if clf.validation_scores_ is not None:
        found["validation_scores"] = clf.validation_scores_
    if novelty:
        found["novelty"] = clf.score_samples(X[:4])
    return found


@frozen
def features():
    X, y = clouds()
    return seen(classifier(max_epochs=5).fit(X, y), X, novelty=True)


@frozen
def features_weighted():
    X, y = clouds()
    weights = np.arange(len(X)) % 4 / 2
    clf = classifier(
        weight=0.9, hardness=0.5, temperature=0.2, class_weight="balanced", sampler="balanced"
    )
    return seen(clf.fit(X, y, sample_weight=weights), X)


@frozen
def features_two_classes():
    X, y = clouds(n_classes=2)
    clf = classifier(label_smoothing=0.1, projection_dim=None).fit(X, y)
    return seen(clf, X) | {"decision": clf.decision_function(X[:4])}


@frozen
def head():
    X, y = digits()
    return seen(bundled(trainable="head", max_epochs=4).fit(X, y), X, novelty=True)


@frozen
def head_with_memory():
    X, y = digits()
    with tempfile.TemporaryDirectory() as folder:
        clf = bundled(trainable="head", memory=folder).fit(X, y)
        return seen(clf.fit(X, y), X)


@frozen
def upper_blocks():
    X, y = digits()
    return seen(bundled().fit(X, y), X, novelty=True)


@frozen
def last_two_blocks():
    X, y = colour()
    return seen(bundled(trainable=2, weight=0.0, gradient_checkpointing=True).fit(X, y), X)


@frozen
def all_of_a_pretrained_backbone():
    X, y = colour()
    return seen(bundled(trainable="all", n_views=2, layer_decay=0.5).fit(X, y), X)


@frozen
def contrastive_term_alone():
    X, y = colour()
    return seen(bundled(weight=1.0).fit(X, y), X)


@frozen
def low_rank():
    X, y = colour(8, (24, 24))
    clf = classifier("test_vit", pretrained=False, trainable="lora", lora_rank=2)
    return seen(clf.fit(X, y), X)


@frozen
def transformer():
    X, y = colour(8, (24, 24))
    return seen(classifier("test_vit", pretrained=False, weight_decay=0.3).fit(X, y), X)


@frozen
def module_on_grey_images():
    X, y = digits()
    return seen(classifier(TinyBackbone()).fit(X, y), X, novelty=True)


@frozen
def module_on_crops():
    X, y = colour()
    return seen(classifier(TinyBackbone(), image_size=12).fit(X, y), X)


@frozen
def micro_batches():
    X, y = colour()
    return seen(classifier(TinyBackbone(), micro_batch_size=3).fit(X, y), X)


@frozen
def own_augmentation():
    X, y = colour()
    noise = lambda images: (images + 0.1 * torch.rand_like(images)).clamp(0, 1)  # noqa: E731
    return seen(classifier(TinyBackbone(), augment=noise, n_views=2).fit(X, y), X)


@frozen
def bfloat16():
    X, y = colour()
    return seen(classifier(TinyBackbone(), precision="bfloat16").fit(X, y), X)


@frozen
def another_optimizer():
    X, y = clouds()
    skorch_params = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}
    return seen(classifier(skorch_params=skorch_params, max_epochs=3).fit(X, y), X)


@frozen
def early_stopping():
    X, y = clouds()
    clf = classifier(
        early_stopping=True, scoring="loss", n_iter_no_change=2, max_epochs=8, learning_rate=0.05
    )
    return seen(clf.fit(X, y), X)


@frozen
def early_stopping_on_images():
    X, y = colour(16)
    clf = classifier(TinyBackbone(), early_stopping=True, validation_fraction=0.3)
    return seen(clf.fit(X, y), X)


@frozen
def own_validation_set():
    X, y = digits(30)
    clf = bundled(trainable="head", early_stopping=True, scoring="f1_macro")
    return seen(clf.fit(X[:20], y[:20], X_val=X[20:], y_val=y[20:]), X)


@frozen
def parts_of_features():
    X, y = clouds()
    clf = classifier()
    for start in (0, 15, 30):
        clf.partial_fit(X[start : start + 15], y[start : start + 15], classes=[0, 1, 2, 3])
    clf.partial_fit(X[:9], np.where(y[:9] == 0, 3, y[:9]))
    return seen(clf, X, novelty=True)


@frozen
def parts_of_images():
    X, y = colour()
    clf = bundled()
    clf.partial_fit(X[:6], y[:6], classes=["left", "none"]).partial_fit(X[6:], y[6:])
    return seen(clf, X)


@frozen
def warm_start():
    X, y = digits()
    clf = bundled(trainable="head", warm_start=True).fit(X, y)
    clf.set_params(trainable=1, learning_rate=3e-4).fit(X, y)
    return seen(clf, X)


class _StopAfter(Callback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history_) > self.epochs:
            raise RuntimeError("stopped")


@frozen
def checkpoint():
    X, y = digits()
    with tempfile.TemporaryDirectory() as folder:
        params = {"checkpoint": folder, "max_epochs": 4, "early_stopping": True}
        try:
            classifier(TinyBackbone(), callbacks=[_StopAfter(2)], **params).fit(X, y)
        except RuntimeError:
            return seen(classifier(TinyBackbone(), **params).fit(X, y), X)
    raise AssertionError("it did not stop")


@frozen
def new_classes():
    X, y = digits(40, 4)
    known = y < 2
    clf = bundled(trainable="head").fit(X[known], y[known]).add_classes(X[~known], y[~known])
    return seen(clf, X, novelty=True) | {"labels": clf.predict(X)}


@frozen
def novelty_threshold():
    X, y = clouds()
    clf = classifier().fit(X[:30], y[:30]).calibrate_offset(X[30:], contamination=0.2)
    return {"offset": [clf.offset_]}


@frozen
def model_file():
    X, y = digits()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        bundled(early_stopping=True).fit(X, y).save(path)
        clf = CLCEClassifier.load(path, device="cpu")
    first = seen(clf, X, novelty=True)
    clf.set_params(early_stopping=False)
    return first | {
        f"{name} later": found for name, found in seen(clf.partial_fit(X, y), X).items()
    }


@frozen
def onnx():
    onnxruntime = importlib.import_module("onnxruntime")  # not an import: it is optional

    X, y = colour()
    clf = bundled(trainable="head").fit(X, y)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        clf.export_onnx(Path(folder) / "model.onnx")
        session = onnxruntime.InferenceSession(Path(folder) / "model.onnx")
        labels, probabilities, embeddings = session.run(
            ["labels", "probabilities", "embeddings"], {"images": images}
        )
    return {
        "labels": [str(label) == "left" for label in labels],
        "probabilities": probabilities,
        "embeddings": embeddings[:, :6],
    }


@frozen
def kinds_of_images():
    images, y = colour()
    deep = images.astype(np.uint16) * 257
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, f"{place}.png") for place in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image).save(path)
        clf = bundled(trainable="head").fit(paths, y)
        kinds = {
            "paths": paths,
            "PIL": [Image.fromarray(image) for image in images],
            "sizes": [image[: 16 - place] for place, image in enumerate(images)],
            "16 bits": deep,
            "channels first": torch.from_numpy(images).permute(0, 3, 1, 2),
            "Dataset": TensorDataset(torch.from_numpy(images).permute(0, 3, 1, 2)),
        }
        for name, X in kinds.items():
            found[name] = clf.predict_proba(X)[:4]
    return found


@frozen
def flattened_images():
    X, y = digits()
    clf = classifier(TinyBackbone(), image_shape=(8, 8), augment=None)
    return seen(clf.fit(X.reshape(len(X), -1), y), X.reshape(len(X), -1))


@frozen
def five_bands():
    X = np.random.default_rng(0).random((10, 5, 16, 16), dtype=np.float32)
    clf = classifier("test_resnet", pretrained=False, n_channels=5, image_size=32)
    return seen(clf.fit(X, np.arange(10) % 2), X)


@frozen
def backbone_features():
    X, _ = colour()
    return {"features": BackboneFeatures(image_size=32).transform(X)[:3, ::200]}


def results(name):
    """Run a fit on one thread and return its numbers in lists."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = FITS[name]()
    finally:
        torch.set_num_threads(threads)
    return {key: np.asarray(value, dtype=float).tolist() for key, value in found.items()}


def main(command):
    found = {name: results(name) for name in FITS}
    if command == "write":
        text = json.dumps(found).replace("}, ", "},\n")
        RESULTS.write_text(text + "\n")
        return
    kept = json.loads(RESULTS.read_text())
    different = [
        f"{name}: {key}"
        for name in FITS
        for key in found[name].keys() | kept[name].keys()
        if found[name].get(key) != kept[name].get(key)
    ]
    print("\n".join(different) or f"all {len(FITS)} fits are the same, bit for bit")
    sys.exit(bool(different))


if __name__ == "__main__":
    main(sys.argv[1])
