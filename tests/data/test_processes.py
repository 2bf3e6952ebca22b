"""A Dataset that is read in processes: few descriptors, no shared memory, no hang."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from image_kinds import PairDataset
from sklearn_clce.backbones import BackboneConfig
from sklearn_clce.data import (
    EvaluationTransform,
    ImageBatches,
    LabelledImages,
    MemoryBudget,
    RandomCrops,
    _processes,
    as_images,
)

CONFIG = BackboneConfig(name="any", image_size=16, crop_pct=0.9)
WHOLE = EvaluationTransform(BackboneConfig(name="any"))  # as large as it is
BATCHES = [[3, 1, 2], [5, 3, 0], [4], [1]]
SCRIPT = Path(__file__).parents[1] / "helpers" / "dataset_in_processes.py"

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.skipif(os.name != "posix", reason="there are no descriptors to limit"),
]


def loader(dataset, num_workers=2, transform=EvaluationTransform):
    images = LabelledImages(as_images(dataset), transform(CONFIG), budget=MemoryBudget())
    return ImageBatches(images, BATCHES, num_workers=num_workers)


def test_large_batch_needs_few_descriptors():
    command = [sys.executable, SCRIPT, "512"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parent, timeout=120)
    assert done.stdout == "read 600\n", done.stderr


class Deadly(Dataset):
    """Ends the process that reads its fifth image, while images before it may be in the pipe."""

    def __init__(self, end):
        self.end = end

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index == 4 and multiprocessing.parent_process() is not None:
            self.end()
        return np.zeros((400, 400, 3), np.uint8)


ENDS = {
    "exit code 0": lambda: os._exit(0),
    "exit code 3": lambda: os._exit(3),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("end", ENDS)
def test_dead_process_is_an_error(end, in_thread):
    def read():
        message = rf"a process that reads X died \({end}\).*num_workers=0 reads X in this process"
        with pytest.raises(RuntimeError, match=message):
            list(loader(Deadly(ENDS[end])))

    if not in_thread:
        read()
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(read).result(timeout=60)


def test_process_killed_while_it_sends_is_an_error():
    started = _processes._ReadingProcess("fork", as_images(Deadly(int)), WHOLE, [[0], [1]], 0)
    assert started.connection.poll(60)  # it has begun, and waits: a pipe holds less than the image
    os.kill(started.process.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"died \(SIGKILL\)"):
        started.next_batch()
    started.close()


def test_images_travel_without_shared_memory(colour_images, monkeypatch):
    def fails(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", fails)
    monkeypatch.setattr(torch.UntypedStorage, "_share_filename_cpu_", fails)
    assert [len(batch) for batch, _ in loader(PairDataset(colour_images))] == [3, 3, 1, 1]


@pytest.mark.parametrize(
    ("method", "transform"), [("fork", RandomCrops), ("spawn", EvaluationTransform)]
)
def test_batch_does_not_depend_on_start_method(method, transform, colour_images):
    dataset = PairDataset(colour_images)
    batches = loader(dataset, transform=transform)
    batches.start_method = method
    torch.manual_seed(0)
    found = list(batches)
    torch.manual_seed(0)
    for (batch, _), (other, _) in zip(loader(dataset, 0, transform), found, strict=True):
        assert torch.equal(batch, other)


class Drawing(Dataset):
    """Draws images by three generators."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        drawn = [random.random(), np.random.random(), torch.rand(1).item()]  # noqa: NPY002
        return np.full((16, 16, 3), drawn, np.float32)


def test_processes_draw_different_numbers_that_a_seed_repeats():
    batches = loader(Drawing())
    torch.manual_seed(0)
    first, second = (torch.cat([batch for batch, _ in batches]) for _ in range(2))
    assert torch.equal(first, second)  # of one epoch; the next has another seed
    for channel in first.amin((2, 3)).T:
        assert len(channel.unique()) == 8
    torch.manual_seed(1)
    assert not torch.equal(torch.cat([batch for batch, _ in batches]), first)


class UnportableError(Exception):
    def __init__(self, first, second):
        super().__init__(first)


class Failing(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index == 4:
            raise self.error
        return np.zeros((16, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (KeyError("no such column"), ValueError, r"X\[4\]: .* \(KeyError: 'no such column'\)"),
        (UnportableError(1, 2), ValueError, r"X\[4\]: .* \(UnportableError: 1\)"),
        (MemoryError("far too much"), MemoryError, "far too much"),
    ],
)
def test_error_of_a_process_is_raised_with_its_place(error, kind, message):
    with pytest.raises(kind, match=message) as caught:
        list(loader(Failing(error)))
    assert "in __getitem__" in "".join(caught.value.__notes__)


def test_error_that_does_not_pickle_is_sent_as_text():
    assert repr(_processes._portable(UnportableError(1, 2))) == "RuntimeError('UnportableError: 1')"


def test_processes_end_with_the_epoch(colour_images, monkeypatch):
    started = []
    start = _processes._ReadingProcess.__init__

    def noted(self, *args):
        start(self, *args)
        started.append(self.process)

    monkeypatch.setattr(_processes._ReadingProcess, "__init__", noted)
    list(loader(PairDataset(colour_images)))
    partial = iter(loader(PairDataset(colour_images)))
    next(partial)
    partial.close()
    assert len(started) == 4
    assert not any(process.is_alive() for process in started)


class Slow(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        if multiprocessing.parent_process() is not None:
            time.sleep(60)
        return np.zeros((16, 16, 3), np.uint8)


def test_interrupt_does_not_wait_for_a_reading_process():
    batches = iter(loader(Slow()))
    threading.Timer(0.5, lambda: os.kill(os.getpid(), 2)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(batches)
    assert time.monotonic() - start < 20
