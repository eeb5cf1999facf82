"""Hands claimed deliveries to the workers of a site, through a broker, shortly before their time.

What the pump has claimed waits here until LEAD_MS before it is due, and is then published: ids
only, up to IDS_TOGETHER of those that come due together in one message. The worker that takes the
message holds them to their exact time (`timers.py`), so that neither the broker nor its own
business makes them late.

The broker holds nothing that counts. What it loses is claimed again when its claim ends. While it
can't be reached, deliveries are processed on the node that has claimed them.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from instances.engine.core import Clock
from instances.engine.operations import Delivery

log = logging.getLogger("statebacked.engine")

LEAD_MS = 120
TOGETHER_MS = 40  # what comes due so soon after goes along
IDS_TOGETHER = 100
HELD_MAX = 5_000  # claimed and not yet published
MESSAGES_WAITING_MAX = 50  # in the broker; more would outlive their claims there
LOOK_EVERY_S = 0.25  # how often a full broker is asked whether it has room
TRY_AGAIN_S = 1.0  # how often a broker that is down is tried


class BrokerDown(Exception):
    """The broker can't be reached; the message says why."""


class Broker(Protocol):
    async def publish(self, delivery_ids: list[int]) -> int:
        """How many messages wait then. Raises BrokerDown, after which nobody knows."""

    async def waiting(self) -> int:
        """How many messages wait. Raises BrokerDown."""

    def stop(self) -> None:
        """End the connection; blocks while a message is under way."""


class Dispatcher:
    """Used on the engine's loop only."""

    def __init__(
        self, clock: Clock, broker: Broker, deliver_here: Callable[[list[Delivery]], None]
    ) -> None:
        self.clock = clock
        self.broker = broker
        self.deliver_here = deliver_here
        self._heap: list[tuple[int, int, Delivery]] = []
        self._due: list[Delivery] = []  # to be published now
        self._publishing: list[Delivery] = []
        self._wake = asyncio.Event()
        self._alarm: Any = None
        self._messages_waiting = 0
        self._is_up = True
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._publish()), loop.create_task(self._look())]

    def stop(self) -> list[int]:
        """Publish nothing more; the ids of what was claimed and not yet published."""
        for task in self._tasks:
            task.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        held = [*self._due, *(delivery for _, _, delivery in self._heap)]
        self._heap, self._due = [], []
        return [delivery.id for delivery in held]

    def has_room(self) -> bool:
        """Whether the pump may claim more."""
        held = len(self._heap) + len(self._due) + len(self._publishing)
        return held < HELD_MAX and self._messages_waiting < MESSAGES_WAITING_MAX

    def add(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            heapq.heappush(self._heap, (delivery.due_at_ms, delivery.id, delivery))
        self._release()

    def _release(self) -> None:
        """Publish what comes due soon, and set the alarm for what comes next."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        now_ms = self.clock.now_ms()
        heap = self._heap
        if heap and heap[0][0] <= now_ms + LEAD_MS:
            while heap and heap[0][0] <= now_ms + LEAD_MS + TOGETHER_MS:
                self._due.append(heapq.heappop(heap)[2])
            self._wake.set()
        if heap:
            in_ms = heap[0][0] - LEAD_MS - now_ms
            when = self.clock.monotonic() + in_ms / 1000
            self._alarm = self.clock.call_at(when, self._release)

    async def _publish(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                together, self._due = self._due[:IDS_TOGETHER], self._due[IDS_TOGETHER:]
                if not self._is_up:
                    self.deliver_here(together)
                    continue
                self._publishing = together
                waiting = await self._ask(self.broker.publish([d.id for d in together]))
                self._publishing = []
                if waiting is None:
                    self.deliver_here(together)

    async def _look(self) -> None:
        """See whether a full broker has room again, and one that was down is back."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S if self._is_up else TRY_AGAIN_S)
            if not self._is_up or self._messages_waiting >= MESSAGES_WAITING_MAX:
                await self._ask(self.broker.waiting())

    async def _ask(self, question: Awaitable[int]) -> int | None:
        try:
            self._messages_waiting = await question
        except BrokerDown as error:
            self._messages_waiting = 0
            if self._is_up:
                self._is_up = False
                log.warning("deliveries are processed here while the broker is down: %s", error)
            return None
        if not self._is_up:
            self._is_up = True
            log.warning("the broker is back: workers process deliveries again")
        return self._messages_waiting
