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
        self._ahead_ms: float = time.time_ns() / 1_000_000 - loop.time() * 1000
        self._is_set = False

    def set(self, database_ms: int, asked_at: float, answered_at: float) -> None:
        """The database said its time between these two moments of the monotonic clock.

        So the truth lies between two bounds, which are far apart when either side was busy. What
        was known before stays as it is between them: a slow answer makes it no worse.
        """
        least = database_ms - answered_at * 1000
        most = database_ms + 1 - asked_at * 1000
        if not self._is_set:
            self._is_set = True
            self._ahead_ms = (least + most) / 2
        else:
            self._ahead_ms = min(max(self._ahead_ms, least), most)

    def now_ms(self) -> int:
        return int(self.monotonic() * 1000 + self._ahead_ms)
