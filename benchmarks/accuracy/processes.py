"""Run configurations, those of the same pictures in one process if they only train heads."""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from queue import Queue

from sklearn_clce._system import resolve_device

from .configuration import FROZEN, HEADS

PRELOADED = ["benchmarks.accuracy.measure", "timm", "torchvision.transforms.v2"]
END = None  # of what a batch of runs gives


def measure_all(configurations, surroundings, jobs):
    """Do runs side by side, and yield a line of results for each as it ends.

    One that trains a network has a fresh process, so that its peak of memory is its own and one
    that is killed takes no other with it.
    """
    context = context_for(surroundings)
    batches, lines = batches_of(configurations), Queue()
    with ThreadPoolExecutor(jobs) as pool:
        for batch in batches:
            pool.submit(_apart, context, batch, surroundings, lines)
        try:
            for _ in batches:
                while (line := lines.get()) is not END:
                    yield line
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def batches_of(configurations):
    """Put runs on the same kept features together; the first of a batch keeps its place."""
    batches = {}
    for one in configurations:
        same = (one.data, one.n_classes, one.backbone, one.image_size, one.seed)
        batches.setdefault(same if keeps_features(one) else one, []).append(one)
    return list(batches.values())


def keeps_features(one):
    """Say whether a run trains on features that other runs of the same pictures need too."""
    of_multilabel = one.task == "multilabel" and one.method in (*HEADS, *FROZEN)
    return one.task == "head" or of_multilabel


def context_for(surroundings):
    """Choose how processes start: where possible from one that has imported everything.

    A fork can't use CUDA if anything that was imported has touched the device.
    """
    if surroundings.threads:
        os.environ["OMP_NUM_THREADS"] = str(surroundings.threads)
    on_cuda = resolve_device(surroundings.device).type == "cuda"
    if on_cuda or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _apart(context, batch, surroundings, lines):
    """Put the lines of a batch into a queue, and of what the process leaves undone its end."""
    try:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(sender, batch, surroundings))
        process.start()
        sender.close()
        for one in batch:
            try:
                line = receiver.recv()
            except EOFError:
                process.join()
                reason = f"the process ended with exit code {process.exitcode}"
                line = {"configuration": asdict(one), "error": reason}
            lines.put(line)
        process.join()
    finally:
        lines.put(END)


def _send(sender, batch, surroundings):
    from .measure import measure

    for one in batch:
        sender.send(measure(one, surroundings))
    sender.close()
