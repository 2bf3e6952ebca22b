"""Run configurations, each in a process of its own."""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict

PRELOADED = ["benchmarks.accuracy.measure", "timm", "torchvision.transforms.v2"]


def measure_all(configurations, surroundings, jobs):
    """Do runs side by side.

    Each has a fresh process, so that its peak of memory is its own and one that is
    killed takes no other with it.

    Parameters
    ----------
    configurations : list of Configuration
        What to run, in this order.
    surroundings : Surroundings
        Where.
    jobs : int
        How many at a time.

    Yields
    ------
    dict
        A line of results for each, as it ends.
    """
    context = _context(surroundings.threads)
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(_apart, context, one, surroundings) for one in configurations]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _context(threads):
    """Choose how processes start: where possible from one that has imported everything."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _apart(context, configuration, surroundings):
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, configuration, surroundings))
    process.start()
    sender.close()
    try:
        line = receiver.recv()
    except EOFError:
        process.join()
        reason = f"the process ended with exit code {process.exitcode}"
        line = {"configuration": asdict(configuration), "error": reason}
    process.join()
    return line


def _send(sender, configuration, surroundings):
    from .measure import measure

    sender.send(measure(configuration, surroundings))
    sender.close()
