"""Tells this process's subscribers of what other nodes commit, by asking the database.

A node hears of its own commits at once, and of the others' by Redis, if the site has one
(`fan_out.py`). What Redis has lost, and everything where there is none, is found here: with one
question for all instances that somebody listens to. Nothing can be lost on the way, and a state
that was passed over is replaced by a newer one, as everywhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from instances.engine.postgres_session import DatabaseError

if TYPE_CHECKING:
    from instances.engine.postgres_store import PostgresStore
    from instances.engine.store import InstanceRow
    from instances.realtime import InstanceKey, Realtime

log = logging.getLogger("statebacked.realtime")

EVERY_S = 1.0
EVERY_S_WHEN_TOLD = 10.0
ALL_FOR_S = 3.0
KEYS_TOGETHER = 1_000


class Resync:
    def __init__(self, realtime: Realtime, store: PostgresStore) -> None:
        self._realtime = realtime
        self._store = store
        self.is_told: Callable[[], bool] = lambda: False  # whether Redis tells most of it
        self._soon: set[InstanceKey] = set()  # to be looked at now,
        self._later: set[InstanceKey] = set()  # and in the next round
        self._all_until = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def look_soon(self, key: InstanceKey) -> None:
        """Look at an instance of which the others may not know yet that somebody listens."""
        self._later.add(key)

    def look_at_all(self) -> None:
        """Something may have been lost, or is being lost yet: look at everything for a while."""
        self._all_until = asyncio.get_running_loop().time() + ALL_FOR_S

    async def _run(self) -> None:
        looked_at = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(EVERY_S)
            now = asyncio.get_running_loop().time()
            is_long_ago = now - looked_at > EVERY_S_WHEN_TOLD - EVERY_S
            if is_long_ago or now < self._all_until or not self.is_told():
                looked_at = now
                await self._look(self._realtime.positions())
            elif self._soon:
                known = dict(self._realtime.positions())
                await self._look([(key, known[key]) for key in self._soon if key in known])
            self._soon, self._later = self._later, set()

    async def _look(self, positions: list[tuple[InstanceKey, int]]) -> None:
        for first in range(0, len(positions), KEYS_TOGETHER):
            part = positions[first : first + KEYS_TOGETHER]
            try:
                moved, gone = await self._store.find_moved(part)
            except DatabaseError as error:
                log.info("subscribers are told later: %s", error)
                self.look_at_all()
                return
            for key in gone:
                self._realtime.instance_deleted(key)
            for key in moved:
                self.read(key)

    def read(self, key: InstanceKey) -> None:
        """Tell the present state of an instance, if it is news."""

        def found(row: InstanceRow | Exception | None) -> None:
            if row is not None and not isinstance(row, Exception):
                self._realtime.found(key, row)

        self._store.read(key, found)
