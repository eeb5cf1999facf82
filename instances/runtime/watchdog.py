"""Finds a runner that is stuck in customers' code.

JavaScript can't be interrupted from inside, so the only sign of an endless loop is silence. But
silence alone proves nothing on a busy machine: a runner that was not given the processor is silent
too. So it is asked (`P`), and killed only if it has used a good deal of CPU time without answering.

All of it is driven by one timer for all runners; per event only two flags are set.
"""

from __future__ import annotations

import secrets
from typing import Protocol

from instances.runtime import procfs

TICK_S = 0.25
SILENT_TICKS = 2  # with something expected, before the runner is asked
CPU_LIMIT_S = 2.0  # after the question
WALL_LIMIT_S = 10.0  # whatever it does: it might be stopped, or asleep for ever
WALL_LIMIT_WITHOUT_PROC_S = 5.0


class Watched(Protocol):
    """A runner, as the watchdog sees it."""

    pid: int

    def send(self, line: bytes) -> None: ...
    def kill(self, reason: str) -> None: ...


class Watchdog:
    """Of one runner."""

    __slots__ = ("_asked_at", "_cpu_at_question", "_overdue", "_question", "_silent_ticks")

    def __init__(self) -> None:
        self._question = b""
        self.calm()

    def calm(self) -> None:
        """The runner is alive."""
        self._question = b""
        self._silent_ticks = 0
        self._asked_at = 0.0
        self._cpu_at_question: float | None = None
        self._overdue = False

    def is_answer(self, number: bytes) -> bool:
        """Is this the number that was asked for? It is random: a loop can't foresee it."""
        return self._question != b"" and number == self._question

    def silent(self, runner: Watched, now: float) -> None:
        """A tick in which something was expected of the runner and nothing came."""
        self._silent_ticks += 1
        if self._question:
            self._judge(runner, now)
        elif self._silent_ticks >= SILENT_TICKS:
            self._question = str(secrets.randbits(48)).encode()
            self._asked_at = now
            self._cpu_at_question = procfs.cpu_seconds(runner.pid)
            runner.send(b"P\t%b\n" % self._question)

    def _judge(self, runner: Watched, now: float) -> None:
        if not self._is_over_limit(runner, now):
            return
        if self._overdue:
            runner.kill("cpu")
        # If this process itself was held up, the answer may lie unread in the pipe, and some event
        # loops run timers before they read. The next tick comes after the read.
        self._overdue = True

    def _is_over_limit(self, runner: Watched, now: float) -> bool:
        waited = now - self._asked_at
        cpu = procfs.cpu_seconds(runner.pid)
        if cpu is None or self._cpu_at_question is None:
            return waited > WALL_LIMIT_WITHOUT_PROC_S
        return cpu - self._cpu_at_question > CPU_LIMIT_S or waited > WALL_LIMIT_S
