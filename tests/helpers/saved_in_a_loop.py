"""Save two models over one file, again and again, in a process that is killed at random moments.

Usage: python saved_in_a_loop.py FOLDER KILLS. After each kill the file must load, as one of the
two. The process is a fork, so that nothing is imported twice; prints a JSON object.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from sklearn_clce import CLCEClassifier

torch.set_num_threads(1)  # a fork has no other: it would wait for the pool of its parent


def main(folder, kills):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(8, 300)).astype(np.float32), np.arange(8) % 2
    models = [
        CLCEClassifier("precomputed", projection_dim=400, max_epochs=1, random_state=seed).fit(X, y)
        for seed in range(2)
    ]
    path = Path(folder) / "model.safetensors"
    models[0].save(path)
    moments = random.Random(0)
    loaded = 0
    for number in range(int(kills)):
        child = os.fork()
        if child == 0:
            save_for_ever(models, path)
        while not list(path.parent.glob(f".*.{child}-*.unfinished")):
            time.sleep(0.0002)
        if number % 2:  # else at once, for most of a save is not the writing
            time.sleep(moments.uniform(0, 0.08))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WTERMSIG(status) != signal.SIGKILL:
            raise RuntimeError("the child ended by itself")
        proba = CLCEClassifier.load(path).predict_proba(X)
        loaded += any(np.array_equal(proba, clf.predict_proba(X)) for clf in models)
    unfinished = len(list(Path(folder).glob(".*.unfinished")))
    print(json.dumps({"killed": int(kills), "loaded": loaded, "while writing": unfinished}))


def save_for_ever(models, path):
    while True:
        for clf in models:
            clf.save(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
