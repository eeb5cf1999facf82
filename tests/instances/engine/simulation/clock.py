"""Virtual time, and the processes that live in it.

`World` runs what was scheduled, in the order of its time. A `Process` is one server as the loop of
its tasks sees it: what belongs to it stops with it when it is killed, and waits when it stands
still. It is an asyncio loop as far as the engine's own tasks need one.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Callback = Callable[..., Any]

START_MS = 1_700_000_000_000


class Handle:
    """Something scheduled."""

    __slots__ = ("args", "callback", "cancelled", "is_timer", "process")

    def __init__(
        self, process: Process | None, callback: Callback, args: tuple[Any, ...], is_timer: bool
    ) -> None:
        self.process = process
        self.callback = callback
        self.args = args
        self.is_timer = is_timer  # of a process that waits by the clock, not for news
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class World:
    """Virtual time, one source of chance, and a diary of what happened."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.time = 0.0  # seconds since the world began
        self.diary: list[tuple[Any, ...]] = []  # (seconds, what, details …)
        self.failures: list[str] = []  # exceptions that nobody caught
        self._heap: list[tuple[float, int, Handle]] = []
        self._ready: deque[Handle] = deque()
        self._count = itertools.count()
        self._running: Process | None = None
        self.numbers = itertools.count(1)  # of processes, requests and whatever needs one

    def note(self, what: str, *details: Any) -> None:
        self.diary.append((self.time, what, *details))

    def call_in(self, seconds: float, callback: Callback, *args: Any) -> Handle:
        """Something that happens outside of the servers."""
        return self.schedule(None, seconds, callback, args, is_timer=False)

    def schedule(
        self,
        process: Process | None,
        seconds: float,
        callback: Callback,
        args: tuple[Any, ...],
        *,
        is_timer: bool,
    ) -> Handle:
        handle = Handle(process, callback, args, is_timer)
        if seconds <= 0:
            self._ready.append(handle)
        else:
            heapq.heappush(self._heap, (self.time + seconds, next(self._count), handle))
        return handle

    def run(self, seconds: float) -> None:
        """Let everything happen that happens within that time."""
        end = self.time + seconds
        heap, ready = self._heap, self._ready
        before = asyncio._get_running_loop()
        try:
            while True:
                while ready:
                    self._happen(ready.popleft())
                if not heap or heap[0][0] > end:
                    break
                self.time, _, handle = heapq.heappop(heap)
                self._happen(handle)
        finally:
            self._running = None
            asyncio._set_running_loop(before)
        self.time = end

    def _happen(self, handle: Handle) -> None:
        if handle.cancelled:
            return
        process = handle.process
        if process is not None:
            if process.is_dead:
                return
            if process.is_paused:
                process.held.append(handle)
                return
        if process is not self._running:
            self._running = process
            asyncio._set_running_loop(process)  # type: ignore[arg-type]
        try:
            handle.callback(*handle.args)
        except Exception as error:  # noqa: BLE001 (a loop outlives what is called from it)
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """An exception that nobody caught: a fault of the program that is simulated, or of this."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace else "?"
        self.note("exception", repr(error), where)
        self.failures.append(f"{error!r} in {where}")


class Process:
    """The loop of one server. Its monotonic clock has an origin of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.number = next(world.numbers)
        self.origin = world.random.uniform(0, 100_000)
        self.is_dead = False
        self.is_paused = False
        self.held: list[Handle] = []
        self.tasks: set[asyncio.Task[Any]] = set()

    def kill(self) -> None:
        self.is_dead = True
        self.held.clear()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        """Goes on: first with what came from outside, then with its own timers, as a loop does."""
        self.is_paused = False
        held, self.held = self.held, []
        for handle in sorted(held, key=lambda handle: handle.is_timer):
            self.world._ready.append(handle)

    def tell(self, seconds: float, callback: Callback, *args: Any) -> Handle:
        """News from outside, after that time."""
        return self.world.schedule(self, seconds, callback, args, is_timer=False)

    # What asyncio asks of a loop.
    def time(self) -> float:
        return self.world.time + self.origin

    monotonic = time

    def call_soon(self, callback: Callback, *args: Any, context: Any = None) -> Handle:
        return self.world.schedule(self, 0, callback, args, is_timer=False)

    def call_later(
        self, delay: float, callback: Callback, *args: Any, context: Any = None
    ) -> Handle:
        # What is due at once is late by a little, else a loop of timers would stop the time.
        return self.world.schedule(self, max(delay, 1e-6), callback, args, is_timer=True)

    def call_at(self, when: float, callback: Callback, *args: Any, context: Any = None) -> Handle:
        return self.call_later(when - self.time(), callback, *args)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def create_task(
        self, coroutine: Generator[Any, None, Any] | Coroutine[Any, Any, Any], **_options: Any
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=self)  # type: ignore[arg-type]
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self.world.fail(error)

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tasks of a killed server that never end are no news."""
