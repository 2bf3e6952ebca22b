"""Load mutated model files, thousands of them, and count what comes out.

Each file must raise a ValueError or give a model that predicts exactly as before, within seconds,
within twice the file's memory, and without running, downloading or opening anything. Some
mutations come with a digest that is right, as a stranger would write them.

    python tests/helpers/fuzz_model_file.py --files 100000 --seed 1

prints a JSON object: the number of files, rejections by kind of mutation, violations of the rule
("bad"), the longest load in seconds, and the most memory that a load took above twice its file.
"""

import argparse
import gc
import json
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from model_file_mutations import ANOTHER_MODEL, MUTATIONS
from sklearn_clce import CLCEClassifier

SECONDS = 20
SPARE_BYTES = (
    128 * 2**20
)  # what Python, torch and the largest header may take in addition to the file
WATCHED = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen",
           "socket.connect", "socket.getaddrinfo", "ctypes.dlopen", "os.mkdir", "os.rename",
           "os.remove", "shutil.rmtree")  # fmt: skip


class Hang(BaseException):
    """A load took too long."""


class Watch:
    """Note what a load does outside of its file; Python reports it to audit hooks."""

    def __init__(self):
        self.on = False
        self.seen = []
        self.code = tuple(str(Path(entry).resolve()) for entry in {*sys.path, sys.prefix} if entry)
        sys.addaudithook(self.note)

    def note(self, event, args):
        if not self.on:
            return
        if event in WATCHED or (event == "open" and not self.may_open(*args[:2])):
            self.seen.append((event, str(args)[:200]))

    def may_open(self, path, mode):
        if isinstance(path, int) or str(path) == self.path:
            return True
        # modules are read when they are first needed
        return mode in ("r", "rb", None) and str(Path(str(path)).resolve()).startswith(self.code)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3)

    def forward(self, images):
        return self.layer(images).mean(dim=(2, 3))


@cache
def models(folder):
    """Fit a tiny estimator of each kind of backbone: file, X, backbone, estimator."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, size=(8, 32, 32, 3), dtype=np.uint8)
    vectors = rng.normal(size=(8, 5)).astype(np.float32)
    small = Small()
    kinds = {
        "features": (CLCEClassifier("precomputed"), vectors, None),
        "timm": (CLCEClassifier("test_vit", pretrained=False, image_size=32), images, None),
        "module": (CLCEClassifier(small, image_size=16, trainable="head"), images, small),
    }
    fitted = []
    for name, (clf, X, backbone) in kinds.items():
        clf.set_params(max_epochs=1, random_state=0, batch_size=8, class_weight={"a": 1, "b\0c": 2})
        clf.fit(X, np.array(["a", "b\0c"] * 4))
        path = folder / f"{name}.safetensors"
        clf.save(path)
        fitted.append((path.read_bytes(), X, backbone, clf))
    return fitted


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of other versions of libraries, which mutations invent
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(Path(folder), options.files, random.Random(options.seed))))


def run(folder, n_files, rng, load=CLCEClassifier.load, seconds=SECONDS):
    watch = Watch()
    originals = models(folder)
    path = folder / "mutated.safetensors"
    watch.path = str(path)
    for content, _, backbone, _ in originals:  # everything that a load needs is imported now
        path.write_bytes(content)
        CLCEClassifier.load(path, backbone=backbone)
    limit_memory()
    signal.signal(signal.SIGALRM, hang)
    outcomes = {kind: Counter() for kind in ("rejected", "same", "another model")}
    bad, longest, most = [], 0.0, 0
    for number in range(n_files):
        mutate = MUTATIONS[number % len(MUTATIONS)]
        content, X, backbone, original = rng.choice(originals)
        mutated = mutate(content, rng)
        path.write_bytes(mutated)
        reset_peak()
        before, start = peak(), time.perf_counter()
        loaded, error = attempt(load, path, backbone, watch, seconds)
        longest = max(longest, time.perf_counter() - start)
        above = peak() - before - 2 * len(mutated)
        most = max(most, above)
        outcome = judge(loaded, error, X, original, mutate in ANOTHER_MODEL)
        complaints = [*watch.seen]
        if outcome is None:
            complaints.append(repr(error)[:300])
        else:
            outcomes[outcome][mutate.__name__] += 1
        if above > SPARE_BYTES:
            complaints.append(f"{above} bytes above twice the file")
        if complaints:
            bad.append((number, mutate.__name__, complaints))
    return outcomes | {
        "files": n_files,
        "bad": bad[:20],
        "longest_seconds": round(longest, 2),
        "most_bytes_above_twice_the_file": most,
    }


def attempt(load, path, backbone, watch, seconds):
    signal.alarm(seconds)
    watch.seen.clear()
    watch.on = True
    try:
        return load(path, backbone=backbone), None
    except BaseException as error:
        return None, error
    finally:
        watch.on = False
        signal.alarm(0)


def judge(loaded, error, X, original, may_differ):
    """Return the outcome of a load; None is a violation."""
    if error is not None:
        return "rejected" if type(error) is ValueError and not out_of_memory(error) else None
    if may_differ and not alike(loaded, original):
        return "another model"
    same = np.array_equal(loaded.predict_proba(X), original.predict_proba(X))
    return "same" if same else None


def alike(loaded, original):
    """Check that everything but weights is the same that predictions depend on."""
    names = ("backbone_config_", "n_features_in_", "feature_names_in_")
    names += ("backbone", "batch_size", "compile", "image_shape", "n_channels", "num_workers")
    names += ("precision", "max_pixel_value")
    return all(getattr(loaded, name, 0) == getattr(original, name, 0) for name in names)


def hang(*args):
    raise Hang("a load took too long")


def out_of_memory(error):
    """Check whether a failed allocation is behind an error."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def limit_memory():
    """Let a large allocation fail, also where it is never written to."""
    import resource  # which Windows lacks

    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, hard))


def reset_peak():
    gc.collect(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak():
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
