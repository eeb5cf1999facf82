"""Tells this node's subscribers of what other nodes commit.

A node hears of its own commits at once. Of the others' it learns by asking the database, once a
second and with one question for all instances that somebody listens to here. Nothing can be lost
on the way, and a state that was passed over is replaced by a newer one, as everywhere.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from instances.engine.postgres_session import DatabaseError

if TYPE_CHECKING:
    from instances.engine.postgres_store import PostgresStore
    from instances.engine.store import InstanceRow
    from instances.realtime import InstanceKey, Realtime

log = logging.getLogger("statebacked.realtime")

EVERY_S = 1.0
KEYS_TOGETHER = 1_000


class Resync:
    def __init__(self, realtime: Realtime, store: PostgresStore) -> None:
        self._realtime = realtime
        self._store = store
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            positions = self._realtime.positions()
            for first in range(0, len(positions), KEYS_TOGETHER):
                part = positions[first : first + KEYS_TOGETHER]
                try:
                    moved, gone = await self._store.find_moved(part)
                except DatabaseError as error:
                    log.info("subscribers are told later: %s", error)
                    break
                for key in gone:
                    self._realtime.instance_deleted(key)
                for key in moved:
                    self._read(key)

    def _read(self, key: InstanceKey) -> None:
        def found(row: InstanceRow | Exception | None) -> None:
            if row is not None and not isinstance(row, Exception):
                self._realtime.found(key, row)

        self._store.read(key, found)
