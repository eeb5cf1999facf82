"""Brings claimed deliveries to the engine at their time.

A delivery is a row in the database; what is here is only the wake-up. Rows that come due are
claimed by the pump and wait in a heap; timers that a commit has just written and that are due soon
come here directly. Losing all of this loses nothing: claims end with the process.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any

from instances.engine.core import Clock
from instances.engine.operations import Delivery, DeliveryKind
from instances.engine.pump import DeliverySource, Pump

HEAP_MAX = 5_000  # claimed and not yet due, or held up
IN_FLIGHT_MAX = 256  # deliveries in the engine at once: clients' events need the rest


class Timers:
    def __init__(
        self, source: DeliverySource, clock: Clock, deliver: Callable[[Delivery], None]
    ) -> None:
        self.clock = clock
        self.deliver = deliver
        self.in_flight = 0
        self._heap: list[tuple[int, int, Delivery]] = []
        self._known: dict[int, bool] = {}  # by delivery id: whether it is in flight
        self._alarm: Any = None
        self._alarm_ms = 0
        self._stopped = False
        self.pump = Pump(source, clock, self.add, has_room=self.has_room)

    def start(self) -> None:
        self.pump.start()

    def stop(self) -> None:
        """Deliver nothing more. What was claimed is claimed again at the next start."""
        self._stopped = True
        self.pump.stop()
        if self._alarm is not None:
            self._alarm.cancel()

    def add(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.id not in self._known:
                self._known[delivery.id] = False
                heapq.heappush(self._heap, (delivery.due_at_ms, delivery.id, delivery))
        self._fire()

    def has_room(self) -> bool:
        return len(self._known) < HEAP_MAX

    def waiting(self) -> list[int]:
        """Ids of what is claimed and not yet with the engine."""
        return [delivery_id for delivery_id, in_flight in self._known.items() if not in_flight]

    def known(self) -> list[int]:
        """Ids of what is claimed and not yet delivered."""
        return list(self._known)

    def forget(self, delivery_ids: Iterable[int]) -> None:
        """They were cancelled. One in flight finds its row gone when it is committed."""
        for delivery_id in delivery_ids:
            if self._known.get(delivery_id) is False:
                del self._known[delivery_id]  # its place in the heap is skipped later

    def delivered(self, delivery: Delivery) -> None:
        if self._known.pop(delivery.id, False):
            self.in_flight -= 1
            if self.in_flight == IN_FLIGHT_MAX - 1:
                self._fire()

    def _fire(self) -> None:
        """Deliver what is due, and set the alarm for what comes next."""
        if self._stopped:
            return
        now_ms = self.clock.now_ms()
        heap = self._heap
        while heap and heap[0][0] <= now_ms and self.in_flight < IN_FLIGHT_MAX:
            _, delivery_id, delivery = heapq.heappop(heap)
            if self._known.get(delivery_id) is False:
                # Messages wait for one another elsewhere: they take no turns from timers.
                self._known[delivery_id] = delivery.kind == DeliveryKind.TIMER
                self.in_flight += self._known[delivery_id]
                self.deliver(delivery)
        if heap and heap[0][0] > now_ms:
            self._set_alarm(heap[0][0], now_ms)

    def _set_alarm(self, due_at_ms: int, now_ms: int) -> None:
        if self._alarm is not None:
            if self._alarm_ms == due_at_ms:
                return
            self._alarm.cancel()
        self._alarm_ms = due_at_ms
        when = self.clock.monotonic() + (due_at_ms - now_ms) / 1000
        self._alarm = self.clock.call_at(when, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        self._fire()
