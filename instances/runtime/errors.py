"""How running customers' code can fail before there is a runner to talk to."""

from __future__ import annotations


class RuntimeFailure(Exception):
    """Base class; the message may be shown to whoever asked for the work."""


class InvalidBundle(RuntimeFailure):
    """A bundle that can't become a version. The message says what its author should change."""


class BundleFailed(RuntimeFailure):
    """A version's code, once accepted, did not load this time."""


class RunnerUnavailable(RuntimeFailure):
    """No process can be had right now: the same work may succeed after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
