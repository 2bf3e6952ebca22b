"""Images that processes read and send whole, each process through a pipe of its own.

Nothing is shared: no file is open for an image, and no shared memory is needed. A pipe ends with
the process that writes to it, so a process that dies is noticed at once, in any thread.
"""

from __future__ import annotations

import multiprocessing
import pickle
import random
import signal
import traceback
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._batches import prepare
from ._sequences import Images
from ._transforms import Transform

Packed = tuple[np.ndarray, bool]  # an image, and whether its channels come last


def read_in_processes(
    images: Images,
    transform: Transform,
    batches: Sequence[list[int]],
    *,
    num_workers: int,
    start_method: str,
    seed: int,
) -> Generator[list[Tensor]]:
    """Prepare batches in processes, which take turns; each is one batch ahead.

    ``seed`` is that of the random numbers which a user's Dataset draws, plus the process's number.
    """
    n = min(num_workers, len(batches))
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                closing(
                    _ReadingProcess(
                        start_method, images, transform, batches[number::n], seed + number
                    )
                )
            )
            for number in range(n)
        ]
        for number in range(len(batches)):
            yield processes[number % n].next_batch()


class _ReadingProcess:
    """A process that reads some batches in order, and the end of its pipe."""

    def __init__(self, start_method: str, *args: Any) -> None:
        context: Any = multiprocessing.get_context(start_method)
        self.connection, far_end = context.Pipe(duplex=False)
        self.process = context.Process(target=_read, args=(far_end, *args), daemon=True)
        try:
            self.process.start()
        finally:
            far_end.close()  # or the pipe would stay open when the process has died

    def next_batch(self) -> list[Tensor]:
        """Wait for a batch, and raise what its reading raised."""
        try:
            found = self.connection.recv()
        except (EOFError, OSError):
            raise RuntimeError(self._why_it_died()) from None
        if isinstance(found, Exception):
            raise found
        return [_unpacked(*image) for image in found]

    def _why_it_died(self) -> str:
        self.process.join(1)
        code = self.process.exitcode
        reason = f"exit code {code}"
        if code is not None and code < 0:
            reason = signal.Signals(-code).name
        return (
            f"a process that reads X died ({reason}): SIGKILL is what a system without memory "
            "sends, and a smaller num_workers or batch_size needs less of it; num_workers=0 reads "
            "X in this process, which shows other causes"
        )

    def close(self) -> None:
        """End the process, if it has not ended."""
        self.connection.close()
        if self.process.pid is not None:
            self.process.terminate()
            self.process.join()


def _read(
    connection: Connection,
    images: Images,
    transform: Transform,
    batches: Sequence[list[int]],
    seed: int,
) -> None:
    """Read batches and send each; in a process of its own."""
    _begin_process(seed)
    for indices in batches:
        try:
            found: Any = [_packed(image) for image in prepare(images, transform, indices)]
        except Exception as error:
            found = _portable(error)
        try:
            connection.send(found)
        except OSError:  # nobody reads any more
            return


def _begin_process(seed: int) -> None:
    """Leave Ctrl-C to the parent, compute on one core, and draw other numbers than others do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(np.random.SeedSequence(seed).generate_state(4))  # noqa: NPY002 - a user's


def _packed(image: Tensor) -> Packed:
    """Turn an image (C, H, W) into an array that keeps the order of its axes in memory."""
    is_last = not image.is_contiguous()
    return (image.permute(1, 2, 0) if is_last else image).numpy(), is_last


def _unpacked(array: np.ndarray, is_last: bool) -> Tensor:
    image = torch.from_numpy(array)
    return image.permute(2, 0, 1) if is_last else image


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent, with the place where it arose."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(traceback.format_exc())
    return error
