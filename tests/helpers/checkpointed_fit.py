"""A fit with a checkpoint, in a process of its own that a test can kill.

Usage: python checkpointed_fit.py FOLDER RESULT KILL_AT, where KILL_AT is "never", "epoch:N"
(at the beginning of epoch N), "step:N" (at training step N), "writing:N" (halfway through
writing the checkpoint of epoch N) or "renaming:N" (written, not yet in its place).
"""

import io
import os
import signal
import sys

import numpy as np
import torch
from skorch.callbacks import Callback

from sklearn_clce import CLCEClassifier
from sklearn_clce._system import files
from small_backbones import TinyBackbone


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


class KillAt(Callback):
    def __init__(self, moment):
        self.moment = moment
        self.steps = 0

    def on_epoch_begin(self, net, **kwargs):
        if self.moment == f"epoch:{net.state.epochs_done + 1}":
            kill()

    def on_batch_end(self, net, training=False, **kwargs):
        self.steps += training
        if self.moment == f"step:{self.steps}":
            kill()


def kill_while_saving(kind, epoch):
    save, replace, calls = torch.save, os.replace, []

    def half_saved(state, file):
        calls.append(1)
        if kind == "writing" and len(calls) == epoch:
            whole = io.BytesIO()
            save(state, whole)
            file.write(whole.getvalue()[: whole.tell() // 2])
            file.flush()
            kill()
        save(state, file)

    def not_replaced(source, target):
        if kind == "renaming" and len(calls) == epoch:
            kill()
        replace(source, target)

    torch.save = half_saved
    files.os.replace = not_replaced


def classifier(checkpoint, **params):
    defaults = {"batch_size": 6, "max_epochs": 5, "random_state": 0, "early_stopping": True}
    defaults |= {"validation_fraction": 0.25, "image_size": 16}
    return CLCEClassifier(TinyBackbone(), checkpoint=checkpoint, **defaults | params)


def data():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 200, size=(16, 16, 16, 3), dtype=np.uint8)
    X[::2, :, :8] += 50
    return X, np.array(["left", "none"] * 8)


def main(folder, result, moment):
    kind, _, number = moment.partition(":")
    if kind in ("writing", "renaming"):
        kill_while_saving(kind, int(number))
    clf = classifier(folder, callbacks=[KillAt(moment)]).fit(*data())
    torch.save(
        clf.module_.state_dict() | {"history": list(map(float, clf.history_[:, "train_loss"]))},
        result,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
