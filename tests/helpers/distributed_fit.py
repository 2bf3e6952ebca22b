"""Fits that several processes do together.

Usage: torchrun --nproc-per-node=2 distributed_fit.py FOLDER

Each function is also called by a test in one process, to compare with. What a process finds it
writes to FOLDER/RANK.npz.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sklearn_clce import (
    BackboneFeatures,
    CLCEClassifier,
    CLCELoss,
    label_aware_contrastive_loss,
)
from small_backbones import counting_images, log_images

RNG = np.random.default_rng(0)
LABELS = np.arange(13) % 3
IMAGES = (RNG.random((13, 8, 8, 3)) + LABELS[:, None, None, None]) / 4
WEIGHTS = RNG.random(13)
INDICATOR = np.array([LABELS == 1, LABELS > 0, np.arange(13) % 4 == 0], dtype=float).T
INDICATOR[5, 1] = np.nan


class PlainBackbone(nn.Module):
    """No batch statistics and no dropout; reports the images that pass any copy of it."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 6, 3))

    def forward(self, images):
        log_images(images)
        return self.layers(images).mean(dim=(2, 3))


class NormalizingBackbone(PlainBackbone):
    """Batch statistics and dropout."""

    def __init__(self):
        super().__init__()
        self.layers.insert(1, nn.BatchNorm2d(8))
        self.layers.append(nn.Dropout(0.2))


class Gradients(Callback):
    """Keep the gradients of the first step."""

    gradients = None

    def on_grad_computed(self, net, named_parameters, **kwargs):
        if self.gradients is None:
            parameters = net.module_.parameters()
            self.gradients = torch.cat([p.grad.flatten() for p in parameters if p.requires_grad])


class Crash(Callback):
    def on_epoch_begin(self, net, **kwargs):
        if net.state.epochs_done == 2:
            raise RuntimeError("crash")


def estimator(backbone=PlainBackbone, **parameters):
    defaults = {"batch_size": 13, "max_epochs": 1, "random_state": 0, "augment": None}
    return CLCEClassifier(backbone(), **defaults | parameters)


def weights_of(clf):
    state = clf.module_.state_dict().values()
    return torch.cat([tensor.double().flatten() for tensor in state]).numpy()


def first_gradients(y=LABELS, **parameters):
    recorder = Gradients()
    estimator(callbacks=[recorder], max_grad_norm=None, **parameters).fit(IMAGES, y, WEIGHTS)
    return recorder.gradients.numpy()


def uneven_batches():
    """Two epochs of batches of 5, 4 and 4 rows, with the best of them kept."""
    clf = estimator(batch_size=5, max_epochs=2, sampler="shuffle", weight=0.3)
    return weights_of(clf.fit(IMAGES, LABELS))


def early_stopping():
    clf = estimator(batch_size=6, max_epochs=8, early_stopping=True, validation_fraction=0.4)
    clf.set_params(n_iter_no_change=2, random_state=1, learning_rate=0.1)
    clf.fit(IMAGES, LABELS)
    return np.append(weights_of(clf), clf.validation_scores_)


def scorer():
    """A score that needs what the network says of each sample, in order."""
    clf = estimator(batch_size=6, max_epochs=3, early_stopping=True, scoring="neg_log_loss")
    clf.fit(IMAGES, LABELS, X_val=IMAGES[::-1], y_val=LABELS[::-1], sample_weight_val=WEIGHTS)
    return clf.validation_scores_


def probabilities():
    clf = estimator(max_epochs=2, batch_size=6).fit(IMAGES, LABELS)
    return clf.predict_proba(IMAGES)


def several_labels():
    clf = estimator(batch_size=6, max_epochs=3, early_stopping=True, random_state=1)
    clf.fit(IMAGES, INDICATOR)
    return np.append(clf.predict_proba(IMAGES), clf.validation_scores_)


def unseeded():
    return weights_of(estimator(NormalizingBackbone, random_state=None).fit(IMAGES, LABELS))


def resumed(folder):
    """Weights of a fit that crashed and went on, and of one that did not."""
    parameters = {"batch_size": 6, "max_epochs": 3, "augment": "auto"}
    whole = estimator(NormalizingBackbone, **parameters).fit(IMAGES, LABELS)
    clf = estimator(NormalizingBackbone, checkpoint=folder, callbacks=[Crash()], **parameters)
    try:
        clf.fit(IMAGES, LABELS)
    except RuntimeError:
        clf.set_params(callbacks=None).fit(IMAGES, LABELS)
    return np.stack([weights_of(clf), weights_of(whole)])


def frozen_features(folder):
    """Features, and on how many images this process has run the backbone."""
    transformer = BackboneFeatures(PlainBackbone(), memory=folder, batch_size=2, verbose=1)
    with counting_images() as passed:
        features = [transformer.transform(IMAGES) for _ in range(2)]
    return np.stack(features), passed.n_images


def refused():
    try:
        estimator(batch_size=1, sampler="shuffle", weight=0).fit(IMAGES, LABELS)
    except ValueError as error:
        return str(error)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.classify, self.embed = nn.Linear(192, 3), nn.Linear(192, 4)

    def forward(self, images):
        features = images.flatten(1)
        return self.classify(features), self.embed(features)


def own_loop():
    """The gradients of one step in a loop of one's own; processes have 9 and 4 samples."""
    joined = torch.distributed.is_initialized()
    own = slice(None)
    if joined:
        own = slice(9) if torch.distributed.get_rank() == 0 else slice(9, None)
    module = TwoHeads()
    parallel = DistributedDataParallel(module) if joined else module
    criterion = CLCELoss(temperature=nn.Parameter(torch.tensor(0.3)), gather=True)
    logits, embeddings = parallel(torch.tensor(IMAGES[own], dtype=torch.float32))
    bank = torch.linspace(-1, 1, 20).reshape(5, 4)
    criterion(
        logits,
        embeddings,
        torch.tensor(LABELS[own]),
        torch.tensor(WEIGHTS[own]),
        references=bank,
        reference_labels=torch.arange(5) % 3,
    ).backward()
    columns = torch.cat([torch.tensor(LABELS), torch.arange(5) % 3])  # of all processes
    distances = (columns[: len(LABELS), None] - columns).abs()
    logits, embeddings = parallel(torch.tensor(IMAGES[own], dtype=torch.float32))
    criterion(
        logits,
        embeddings,
        torch.tensor(LABELS[own]),
        references=bank,
        positive_mask=distances < 2,
        positive_weights=1 / (1 + distances),
        negative_mask=(distances == 2) & (columns % 2 == 0),
    ).backward()
    gradients = [p.grad.flatten() for p in (*module.parameters(), criterion.temperature)]
    return torch.cat(gradients).numpy()


def apart_and_together():
    """The loss of one sample of each class a process, by ``gather``; how often it warned."""
    embeddings = torch.eye(3)
    losses, n_warnings = [], []
    for gather in (None, False, True):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loss = label_aware_contrastive_loss(embeddings, torch.arange(3), gather=gather)
        losses.append(loss.item())
        n_warnings.append(sum("gather=None" in str(each.message) for each in caught))
    return losses, n_warnings


def main(folder):
    torch.distributed.init_process_group()
    warnings.filterwarnings("error", "gather=None")  # not of the classifier's own loop
    losses, n_warnings = apart_and_together()
    features, n_images = frozen_features(folder / "features")
    results = {
        "gradients": first_gradients(),
        "gradients_in_parts": first_gradients(micro_batch_size=3),
        "gradients_of_cross_entropy": first_gradients(micro_batch_size=3, weight=0.0),
        "gradients_of_several_labels": first_gradients(INDICATOR),
        "several_labels": several_labels(),
        "uneven_batches": uneven_batches(),
        "early_stopping": early_stopping(),
        "scorer": scorer(),
        "probabilities": probabilities(),
        "unseeded": unseeded(),
        "resumed": resumed(folder / "checkpoint"),
        "features": features,
        "n_images": n_images,
        "refused": refused(),
        "own_loop": own_loop(),
        "losses": losses,
        "n_warnings": n_warnings,
    }
    fitted = estimator(verbose=1).fit(IMAGES, LABELS)
    fitted.save(folder / f"saved_by_{torch.distributed.get_rank()}.safetensors")
    np.savez(folder / f"{torch.distributed.get_rank()}.npz", **results)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
