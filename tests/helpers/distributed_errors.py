"""Calls that two processes make in different ways, each of which must be an error in both.

Usage: torchrun --nproc-per-node=2 distributed_errors.py FOLDER

What each process gets, and after how many seconds, it writes to FOLDER/errors-RANK.json.
"""

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from skorch.callbacks import Callback
from torch.utils.data import Dataset, Subset

from distributed_fit import IMAGES, LABELS, WEIGHTS, PlainBackbone, estimator
from sklearn_clce import BackboneFeatures, CLCEClassifier

N = len(LABELS)


class Raising(Callback):
    """Raise an error, or interrupt the process, in its second step."""

    def __init__(self, error):
        self.error = error
        self.n_steps = 0

    def on_batch_begin(self, net, **kwargs):
        self.n_steps += 1
        if self.n_steps == 2 and self.error == "signal":
            os.kill(os.getpid(), signal.SIGINT)
        elif self.n_steps == 2:
            raise self.error


class Samples(Dataset):
    """Images that can be read so often."""

    def __init__(self, n_reads=sys.maxsize):
        self.n_reads = n_reads

    def __len__(self):
        return N

    def __getitem__(self, index):
        self.n_reads -= 1
        if self.n_reads < 0:
            raise OSError("the disk is gone")
        return IMAGES[index].astype(np.float32), int(LABELS[index])


def part(rank):
    """What a DistributedSampler would leave: equal lengths, if there is a sample too much."""
    return np.arange(rank, N - 1, 2)


def paths(folder, rank):
    from PIL import Image

    (folder / str(rank)).mkdir(exist_ok=True)
    names = [folder / str(rank) / f"{i}.png" for i in range(N)]
    for name, image in zip(names, IMAGES, strict=True):
        Image.fromarray((image * 255).astype(np.uint8)).save(name)
    return names


def long_fit(rank, failing, error, X=IMAGES, **parameters):
    callbacks = [Raising(error)] if rank == failing else []
    parameters = {"max_epochs": 40, "batch_size": 6, "callbacks": callbacks} | parameters
    return estimator(**parameters).fit(X, LABELS)


def cases(rank, folder):
    """Return calls by name; each is to fail in both processes."""
    clf = estimator().fit(IMAGES, LABELS)
    head = CLCEClassifier("precomputed", max_epochs=1, random_state=0)
    features = IMAGES.reshape(N, -1)
    head.fit(features, LABELS)
    own, mine, order = part(rank), N - rank, np.roll(np.arange(N), rank)
    where = paths(folder, rank)
    unfitted = [clf, estimator()][rank]
    longer = estimator(max_epochs=2).fit(IMAGES, LABELS).set_params(max_epochs=1)
    other = PlainBackbone()
    with torch.no_grad():
        next(other.parameters())[0] += rank
    return {
        "predict part": lambda: clf.predict(IMAGES[own]),
        "predict fewer": lambda: clf.predict(IMAGES[:mine]),
        "predict none": lambda: clf.predict(IMAGES[: rank * N]),
        "predict order": lambda: clf.predict(IMAGES[order]),
        "predict_proba features": lambda: head.predict_proba(features[own]),
        "decision_function list": lambda: clf.decision_function(list(IMAGES[own])),
        "transform Subset": lambda: clf.transform(Subset(Samples(), own.tolist())),
        "score_samples": lambda: clf.score_samples(IMAGES[own]),
        "predict paths": lambda: clf.predict(where),
        "predict other method": lambda: [clf.predict, clf.predict_proba][rank](IMAGES),
        "predict NaN": lambda: head.predict(np.where(rank == 0, np.nan, features)),
        "predict unfitted": lambda: unfitted.predict(IMAGES),
        "predict other model": lambda: [clf, longer][rank].predict(IMAGES),
        "fit part": lambda: estimator().fit(IMAGES[own], LABELS[own]),
        "fit order": lambda: estimator().fit(IMAGES[order], LABELS),
        "fit labels": lambda: estimator().fit(IMAGES, LABELS[order]),
        "fit weights": lambda: estimator().fit(IMAGES, LABELS, WEIGHTS[order]),
        "fit no weights": lambda: estimator().fit(IMAGES, LABELS, [None, WEIGHTS][rank]),
        "fit validation": lambda: estimator(early_stopping=True).fit(
            IMAGES, LABELS, X_val=IMAGES[order], y_val=LABELS
        ),
        "partial_fit": lambda: clf.partial_fit(IMAGES[own], LABELS[own]),
        "add_classes": lambda: clf.add_classes(IMAGES[own], LABELS[own] + 9),
        "features": lambda: BackboneFeatures(PlainBackbone()).transform(IMAGES[own]),
        "features of others": lambda: BackboneFeatures(other).transform(IMAGES),
        "max_epochs": lambda: estimator(max_epochs=1 + rank).fit(IMAGES, LABELS),
        "batch_size": lambda: estimator(batch_size=6 + rank).fit(IMAGES, LABELS),
        "wrong value": lambda: estimator(max_epochs=rank).fit(IMAGES, LABELS),
        "early_stopping": lambda: estimator(early_stopping=bool(rank)).fit(IMAGES, LABELS),
        "checkpoint": lambda: estimator(checkpoint=[None, folder / "c"][rank]).fit(IMAGES, LABELS),
        "raised in 0": lambda: long_fit(rank, 0, KeyError("of the callback")),
        "interrupted in 0": lambda: long_fit(rank, 0, KeyboardInterrupt()),
        "signal in 1": lambda: long_fit(rank, 1, "signal"),
        "signal in a head": lambda: head.set_params(
            max_epochs=40, batch_size=4, callbacks=[Raising("signal")] if rank else []
        ).fit(features, LABELS),
        "unreadable in 1": lambda: long_fit(
            rank, None, None, Samples([sys.maxsize, 100][rank]), max_time=1e3, cache_size=0
        ),
    }


def outcome(call):
    """Return the name of an error, its text, and the seconds until it."""
    begin = time.monotonic()
    try:
        call()
    except BaseException as error:
        found = type(error).__name__, str(error)
    else:
        found = "none", ""
    return *found, time.monotonic() - begin


def main(folder):
    torch.distributed.init_process_group()
    warnings.simplefilter("ignore")
    rank = torch.distributed.get_rank()
    expected = estimator(max_epochs=2).fit(IMAGES, LABELS).predict_proba(IMAGES)
    found = {}
    for name, call in cases(rank, folder).items():
        found[name] = outcome(call)
    again = estimator(max_epochs=2).fit(IMAGES, LABELS).predict_proba(IMAGES)
    found["as before"] = bool((again == expected).all())
    (folder / f"errors-{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
