"""Calls that several processes make together: with the same arguments, and to the same end."""

from __future__ import annotations

import gc
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from .processes import gather_objects, group, n_processes, using
from .summaries import Summary, differ, summarize

F = TypeVar("F", bound=Callable[..., Any])

# What may be another in each process: where and how it computes, and what it says of it.
APART = ("callbacks", "cache_size", "device", "num_workers", "random_state", "verbose")
FOLDERS = ("checkpoint", "memory")  # those of a machine: all have one, or none has
GRACE = 0.5  # s, for processes that fail alike to read what this one has sent

_own: tuple[Any, Any] | None = None  # torch's group of all processes, and ours


class DisagreementError(ValueError):
    """Processes that train together were given different things; raised in all of them."""


def joint(method: F) -> F:
    """Make a method of an estimator one that all processes call together.

    Their arguments and parameters must be the same. An error or an interrupt in one of them, at
    any moment, is an error in all. A single process pays nothing.
    """
    names = list(signature(method).parameters)[1:]

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if n_processes() == 1 or group() is not None:
            return method(self, *args, **kwargs)
        with _ending_all(), using(_own_group()):
            given = dict(zip(names, args, strict=False)) | kwargs
            agree({"the method": _Name(method.__qualname__)} | given | _parameters(self))
            result = method(self, *args, **kwargs)
            gather_objects(None)  # none has failed
            return result

    return cast(F, call)


class _Name:
    """A name that an error message shows as it is."""

    def __init__(self, name: str) -> None:
        self.__qualname__ = name


def _parameters(estimator: Any) -> dict[str, Any]:
    """Return the parameters that must be the same in all processes."""
    parameters = estimator.get_params(deep=False)
    has_folder = {name: parameters[name] is not None for name in FOLDERS if name in parameters}
    return {name: value for name, value in parameters.items() if name not in APART} | has_folder


def agree(values: Mapping[str, Any]) -> None:
    """Raise the same error in all processes if something is not the same in each, by its name."""
    if n_processes() == 1:
        return
    problem = difference([*gather_objects({n: summarize(value) for n, value in values.items()})])
    if problem:
        raise DisagreementError(problem)


def difference(given: list[dict[str, Summary]]) -> str:
    """Say what is not the same in each process; an empty string if nothing is."""
    names = list(dict.fromkeys(name for summaries in given for name in summaries))
    by_name = {name: [each.get(name, summarize(None)) for each in given] for name in names}
    differing = [name for name in names if differ(by_name[name])]
    if not differing:
        return ""
    shown = "; ".join(_shown(name, by_name[name]) for name in differing[:3])
    return (
        f"{shown}: the {len(given)} processes that train together must make the same calls, with "
        "the same X, y and parameters in each. Pass all samples to every process, in the same "
        "order: the library shares the work among them, without a DistributedSampler"
    )


def _shown(name: str, summaries: list[Summary]) -> str:
    """Show a value of the first process, and the first other one."""
    other = next(rank for rank in range(len(summaries)) if differ([summaries[0], summaries[rank]]))
    first, second = (" ".join(filter(None, summaries[rank][:2])) for rank in (0, other))
    return f"{name} is {first} in process 0 and {second} in process {other}"


def _own_group() -> Any:
    """Return a group of all processes for joint calls, the same one until a call fails.

    Closing it ends every wait of the other processes at once, and leaves the user's own group as
    it is. Only gloo notices that a connection is closed; elsewhere it is torch's own group.
    """
    global _own
    world = dist.group.WORLD
    if not _is_gloo():
        return world
    if _own is None or _own[0] is not world:
        created = _start(lambda: _new_group(world))
        try:
            created.result()
        finally:  # also of an interrupt, after which it must be closed
            _own = world, created.result()
    return _own[1]


def _is_gloo() -> bool:
    backends = str(dist.get_backend_config()).split(",")
    return {backend.split(":")[-1] for backend in backends} == {"gloo"}


def _new_group(world: Any) -> Any:
    timeout = world._get_backend(torch.device("cpu")).options._timeout
    return dist.new_group(backend="gloo", timeout=timeout)


def _start(function: Callable[[], Any]) -> Future:
    """Run a function in a thread, which ends with the process."""
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@contextmanager
def _ending_all() -> Iterator[None]:
    """End the call in the other processes, too, if it fails in this one."""
    try:
        yield
    except DisagreementError:
        raise  # in all of them
    except BaseException as error:
        was_ended = _is_of_connection(error)
        try:
            time.sleep(0 if was_ended else GRACE)
        finally:
            _close(error)
        if not was_ended:
            raise
        raise RuntimeError(
            f"another of the {n_processes()} processes that train together has ended this call: "
            "by an error of its own, which its output shows, or because it was interrupted or "
            "killed. Nothing of the call is kept"
        ) from error


def _close(error: BaseException) -> None:
    """Close the connections of this process, by giving up all that holds them.

    torch has no call for it: gloo closes them once nothing refers to the group, such as variables
    of the functions that have failed.
    """
    global _own
    if _own is None:
        return
    dist.destroy_process_group(_own[1])
    _own = None
    for each in _chain(error):
        traceback.clear_frames(each.__traceback__)
    gc.collect()


def _is_of_connection(error: BaseException) -> bool:
    return any(isinstance(each, RuntimeError) and "gloo" in str(each) for each in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and those during which it came."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
