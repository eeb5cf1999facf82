"""Keeps the places of this process's instances up to date, in the background (places.py).

The loop's part is one `set.add` per commit. The rest happens in a thread, at most a twentieth
of the time, and not at all while nothing moves.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from instances import places
from instances.lookups import DATABASE_TROUBLE, in_thread

if TYPE_CHECKING:
    from instances.engine.operations import Operation, Outcome

log = logging.getLogger("statebacked.places")

EVERY_S = 2.0
BUSY_SHARE_MAX = 0.05  # of the time, that repairs may take
SWEEP_SHARE_MAX = 0.5
LOOK_FOR_LOST_EVERY_S = 5.0

_begin = in_thread(places.begin)
_end = in_thread(places.end)
_lose_dead = in_thread(places.lose_dead)
_repair = in_thread(places.repair)
_swept = in_thread(places.swept)


class PlaceKeeper:
    """Started and stopped with the node, on its loop."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(8)
        self._owed: set[int] = set()  # instances whose places may be wrong
        self._tasks: list[asyncio.Task[None]] = []
        self._node_id = ""

    async def start(self, node_id: str) -> None:
        self._node_id = node_id
        await _begin(self.id, node_id)
        self._tasks = [
            asyncio.create_task(self._keep()),
            asyncio.create_task(self._sweep_for_lost()),
        ]

    async def stop(self) -> None:
        """Repair what is owed. If that fails, whoever comes next looks at everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._pay()
            await _end(self.id)
        except DATABASE_TROUBLE as error:
            log.warning("counts of instances will be put right later: %s", error)

    def note(self, outcomes: Iterable[tuple[Operation, Outcome]]) -> None:
        """These steps were tried. What became of them does not matter: rows are looked at."""
        for operation, _ in outcomes:
            row_id = operation.activation.row_id
            if row_id is not None:
                self._owed.add(row_id)

    def note_deleted(self, instance_id: int) -> None:
        self._owed.add(instance_id)

    def on_joined(self, node_id: str) -> None:
        """The node goes on under another id; others may have taken it for dead."""
        self._node_id = node_id

    async def _keep(self) -> None:
        while True:
            started = time.monotonic()
            try:
                await self._pay()
            except DATABASE_TROUBLE as error:
                log.warning("counts of instances stay behind: %s", error)
            took_s = time.monotonic() - started
            await asyncio.sleep(max(EVERY_S, took_s / BUSY_SHARE_MAX))

    async def _pay(self) -> None:
        if not self._owed:
            return
        owed, self._owed = self._owed, set()
        try:
            await _repair(sorted(owed))
        except BaseException:
            self._owed |= owed
            raise

    async def _sweep_for_lost(self) -> None:
        while True:
            try:
                await _begin(self.id, self._node_id)
                lost = await _lose_dead(self.id)
                if lost:
                    await self._sweep()
                    await _swept(lost)
            except DATABASE_TROUBLE as error:
                log.warning("counts of instances are put right later: %s", error)
            await asyncio.sleep(LOOK_FOR_LOST_EVERY_S)

    async def _sweep(self) -> None:
        parts = places.sweep()
        wrong = 0
        while True:
            started = time.monotonic()
            part = await _next_part(parts)
            if part is None:
                break
            wrong += part
            await asyncio.sleep((time.monotonic() - started) * (1 / SWEEP_SHARE_MAX - 1))
        log.info("all instances were compared with their counts: %d were elsewhere", wrong)


@in_thread
def _next_part(parts: Iterable[int]) -> int | None:
    return next(iter(parts), None)
