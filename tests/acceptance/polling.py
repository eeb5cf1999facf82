"""Waiting for what is to happen, without guessing how long it takes."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.02


def eventually(look: Callable[[], T], *, within_s: float = 20.0, what: str = "") -> T:
    """The first truthy value that `look` returns; fails after `within_s`."""
    give_up = time.monotonic() + within_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > give_up:
            description = what or getattr(look, "__doc__", None) or "what was waited for"
            raise AssertionError(f"not within {within_s} s: {description}; last seen: {seen!r}")
        time.sleep(POLL_SECONDS)
