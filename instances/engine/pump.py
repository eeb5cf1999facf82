"""Claims deliveries that come due, and gives them to whoever brings them to an engine.

Each node of a site may pump: claims are made with SKIP LOCKED, so none gets what another has. A
claim is only a wake-up; losing all that is here loses nothing but time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from instances.engine.core import Clock
from instances.engine.operations import Delivery

HORIZON_MS = 1_000  # how long before their time deliveries are claimed
# A node beside living workers leaves deliveries to them, except what they seem unable to do.
LEFT_TO_WORKERS_MS = 5_000
PUMP_EVERY_S = 0.25
CLAIM_ROWS = 500  # that one transaction claims


class DeliverySource(Protocol):
    def has_due(self, before_ms: int, now_ms: int) -> bool: ...
    def claim_due(
        self, before_ms: int, limit: int, done: Callable[[list[Delivery]], None]
    ) -> None: ...


class Pump:
    def __init__(
        self,
        source: DeliverySource,
        clock: Clock,
        give: Callable[[list[Delivery]], None],
        *,
        has_room: Callable[[], bool] = lambda: True,
        are_workers_alive: Callable[[], bool] = lambda: False,
    ) -> None:
        self.source = source
        self.clock = clock
        self.give = give
        self.has_room = has_room  # whether more can be taken on
        self.are_workers_alive = are_workers_alive
        self._claiming = False
        self._stopped = False

    def start(self) -> None:
        self._pump()

    def stop(self) -> None:
        self._stopped = True

    def _pump(self) -> None:
        if self._stopped:
            return
        self.clock.call_at(self.clock.monotonic() + PUMP_EVERY_S, self._pump)
        self.claim()

    def claim(self) -> None:
        """Look for due deliveries now, unless that is being done."""
        if self._claiming or self._stopped or not self.has_room():
            return
        now_ms = self.clock.now_ms()
        before_ms = now_ms + (-LEFT_TO_WORKERS_MS if self.are_workers_alive() else HORIZON_MS)
        if self.source.has_due(before_ms, now_ms):
            self._claiming = True
            self.source.claim_due(before_ms, CLAIM_ROWS, self._claimed)

    def _claimed(self, deliveries: list[Delivery]) -> None:
        self._claiming = False
        self.give(deliveries)
        if len(deliveries) == CLAIM_ROWS:
            self.claim()
