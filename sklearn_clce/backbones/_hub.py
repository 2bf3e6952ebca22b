"""The hub of weights: whether it answers, and loading without it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

PATIENCE = 5.0  # seconds in which the hub has to answer
SILENCE = 60.0  # seconds for which one that did not is not asked again

_silent_since: dict[str, float] = {}


@contextmanager
def hub_if_it_answers() -> Iterator[bool]:
    """Load within the block from the hub, or from its cache alone where it does not answer.

    The hub's own client tries for most of a minute, for each file and in each fold. Yields
    whether it answered; True where the user has turned it off, which the client says itself.
    """
    from huggingface_hub import constants

    turned_off = constants.HF_HUB_OFFLINE
    answers = turned_off or _answers(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = turned_off or not answers
    try:
        yield answers
    finally:
        constants.HF_HUB_OFFLINE = turned_off


def _answers(endpoint: str) -> bool:
    if time.monotonic() - _silent_since.get(endpoint, -SILENCE) < SILENCE:
        return False
    try:
        urlopen(Request(endpoint, method="HEAD"), timeout=PATIENCE).close()
    except HTTPError:
        return True  # an error is an answer
    except OSError as error:
        # certificates that Python does not know may be known to the hub's client
        if not isinstance(getattr(error, "reason", error), ssl.SSLError):
            _silent_since[endpoint] = time.monotonic()
            return False
    return True
