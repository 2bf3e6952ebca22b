"""Ways to load a file that the fuzzer must report; prints the number of reports for each.

Usage: python careless_loads.py FOLDER
"""

import json
import os
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import fuzz_model_file as fuzz

FILES = 24


def unpickles(path, backbone=None):
    pickle.loads(pickle.dumps(os.getpid))
    raise ValueError


def reads_another_file(path, backbone=None):
    open("/etc/hostname").close()
    raise ValueError


def writes_another_file(path, backbone=None):
    Path(path).with_name("other").write_bytes(b"")
    raise ValueError


def starts_a_program(path, backbone=None):
    subprocess.run(["true"])
    raise ValueError


def takes_memory(path, backbone=None):
    np.ones(fuzz.SPARE_BYTES // 4)
    raise ValueError


def asks_for_much_memory(path, backbone=None):
    try:
        np.empty(2**35)
    except MemoryError as error:
        raise ValueError from error


def hangs(path, backbone=None):
    time.sleep(10)


def fails_in_another_way(path, backbone=None):
    raise KeyError("weight")


class Uniform:
    """A model that knows nothing."""

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)


def predicts_otherwise(path, backbone=None):
    return Uniform()


def main(folder):
    careless = [
        unpickles, reads_another_file, writes_another_file, starts_a_program, takes_memory,
        asks_for_much_memory, hangs, fails_in_another_way, predicts_otherwise,
    ]  # fmt: skip
    said = {}
    for load in careless:
        seconds, n_files = (1, 2) if load is hangs else (fuzz.SECONDS, FILES)
        outcome = fuzz.run(Path(folder), n_files, random.Random(0), load, seconds)
        said[load.__name__] = (len(outcome["bad"]), n_files)
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
