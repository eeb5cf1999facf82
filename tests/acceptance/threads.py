"""Requests that wait for their answer beside the test."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

THREADS_MAX = 128
SECONDS_MAX = 120

_threads = ThreadPoolExecutor(THREADS_MAX, "acceptance")


def later(call: Callable[[], T]) -> Future[T]:
    """Start `call` beside the test."""
    return _threads.submit(call)


def together(calls: list[Callable[[], T]]) -> list[T]:
    """The results of all calls, which start at the same moment, each in its own thread."""
    assert len(calls) <= THREADS_MAX
    barrier = threading.Barrier(len(calls))

    def at_the_same_moment(call: Callable[[], T]) -> T:
        barrier.wait(SECONDS_MAX)
        return call()

    futures = [_threads.submit(at_the_same_moment, call) for call in calls]
    return [future.result(SECONDS_MAX) for future in futures]
