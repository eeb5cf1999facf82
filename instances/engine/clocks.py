"""What time it is: on the loop, and in the database that several nodes share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class LoopClock:
    """The real clock: wall time for what is stored, the loop's monotonic time for waiting."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.monotonic = loop.time
        self.call_at: Callable[..., asyncio.TimerHandle] = loop.call_at

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class DatabaseClock(LoopClock):
    """The database's time, kept by this node's monotonic clock from one look to the next.

    So all nodes agree to within a round trip, and what somebody does to the wall clock of one of
    them changes nothing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._ahead_ms = time.time_ns() / 1_000_000 - loop.time() * 1000

    def set(self, database_ms: int, asked_at: float, answered_at: float) -> None:
        """The database said its time between these two moments of the monotonic clock."""
        self._ahead_ms = database_ms - (asked_at + answered_at) * 500

    def now_ms(self) -> int:
        return int(self.monotonic() * 1000 + self._ahead_ms)
