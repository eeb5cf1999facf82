"""What the processes of a site tell each other by Redis, and what each does with it.

States go only to processes in which somebody listens to the instance: each tells the others which
those are (`Interest`), all over again when it or another begins, and every INTEREST_EVERY_S. Where
nobody listens elsewhere, a commit costs a look into an empty dictionary.

What is lost on the way comes with the next look into the database (`resync.py`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from instances.bus import Bus
from instances.engine.operations import Operation
from instances.engine.store import InstanceRow
from instances.lookups import callers, machines
from instances.news import (
    InstanceKey,
    InstanceOutdated,
    InstanceStopped,
    Interest,
    KeyDeleted,
    Message,
    Moved,
    Present,
    TokenRevoked,
    VersionPublished,
)

if TYPE_CHECKING:
    from instances.engine.core import Engine
    from instances.realtime import Realtime
    from instances.resync import Resync

STATE_CHARACTERS_MAX = 32_000  # of state and context; larger ones are read from the database
INTEREST_EVERY_S = 20.0
INTEREST_ENDS_S = 70.0  # of a process that was not heard of
KEYS_TOGETHER = 2_000


class FanOut:
    def __init__(
        self, url: str, site: str, *, engine: Engine, realtime: Realtime, resync: Resync
    ) -> None:
        self.bus = Bus(url, site, on_message=self._on_message, on_connected=self._on_connected)
        self._engine = engine
        self._realtime = realtime
        self._resync = resync
        self._wanted: dict[InstanceKey, set[str]] = {}  # the processes that listen, by instance
        self._wishes: dict[str, set[InstanceKey]] = {}  # the other way round
        self._heard_at: dict[str, float] = {}
        self._moved: dict[InstanceKey, Operation] = {}  # the newest one of this tick
        self._changed: dict[InstanceKey, bool] = {}  # listened to or no longer, in this tick
        self._loop = asyncio.get_running_loop()
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._realtime.on_interest = self._on_interest
        self._resync.is_told = lambda: self.bus.is_connected
        self.bus.start()
        self._keeper = asyncio.create_task(self._keep_interest())

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        self.bus.tell_all(Interest(self.bus.process, True, [], []))
        await self.bus.stop()

    # ------------------------------------------------------------------ what is told

    def committed(self, operation: Operation) -> None:
        """Tell those who listen; several commits of one tick are told once."""
        if operation.key in self._wanted:
            if not self._moved:
                self._loop.call_soon(self._tell_moved)
            self._moved[operation.key] = operation

    def _tell_moved(self) -> None:
        moved, self._moved = self._moved, {}
        for key, operation in moved.items():
            activation = operation.activation
            is_small = len(operation.state) + len(operation.context) <= STATE_CHARACTERS_MAX
            message = Moved(
                *key,
                activation.row_id or 0,
                activation.version_id,
                operation.seq,
                operation.ts,
                operation.state if is_small else "",
                operation.context if is_small else "",
            )
            for process in self._wanted.get(key, ()):
                self.bus.tell(process, message)

    def _on_interest(self, key: InstanceKey, begins: bool) -> None:
        """Somebody here listens to an instance, or nobody any more."""
        if not self._changed:
            self._loop.call_soon(self._tell_interest)
        self._changed[key] = begins
        if begins:
            # A commit may come before the others know that it is wanted.
            self._resync.look_soon(key)

    def _tell_interest(self) -> None:
        changed, self._changed = self._changed, {}
        added = [key for key, begins in changed.items() if begins]
        removed = [key for key, begins in changed.items() if not begins]
        self.bus.tell_all(Interest(self.bus.process, False, added, removed))

    def _tell_all_interest(self) -> None:
        keys = [key for key, _ in self._realtime.positions()]
        for first in range(0, max(len(keys), 1), KEYS_TOGETHER):
            part = keys[first : first + KEYS_TOGETHER]
            self.bus.tell_all(Interest(self.bus.process, first == 0, part, []))

    async def _keep_interest(self) -> None:
        while True:
            await asyncio.sleep(INTEREST_EVERY_S)
            self._tell_all_interest()
            silent_since = self._loop.time() - INTEREST_ENDS_S
            for process, heard_at in list(self._heard_at.items()):
                if heard_at < silent_since:
                    self._forget(process)

    # ------------------------------------------------------------------ what is heard

    def _on_connected(self) -> None:
        for process in list(self._wishes):
            self._forget(process)
        self.bus.tell_all(Present(self.bus.process))
        self._tell_all_interest()
        self._resync.look_at_all()

    def _on_message(self, message: Message) -> None:
        match message:
            case Present():
                if message.process != self.bus.process:
                    self._tell_all_interest()
                    self._resync.look_at_all()  # it may have had something to tell before
            case Interest():
                if message.process != self.bus.process:
                    self._note_interest(message)
            case Moved():
                self._on_moved(message)
            case InstanceStopped():
                key = (message.machine_id, message.slug)
                self._engine.end(key, is_deleted=message.is_deleted)
                if message.is_deleted:
                    self._realtime.instance_deleted(key)
            case InstanceOutdated():
                self._engine.reload((message.machine_id, message.slug))
            case VersionPublished():
                machines.forget(message.machine_id)
            case KeyDeleted():
                callers.forget_key(message.key_id)
                self._realtime.revoke(lambda caller: caller.key_id == message.key_id)
            case TokenRevoked():
                callers.clear()
                self._realtime.revoke(lambda caller: caller.key_id is None)

    def _on_moved(self, message: Moved) -> None:
        key = (message.machine_id, message.slug)
        if not message.state:
            self._resync.read(key)
            return
        row = InstanceRow(
            message.row_id,
            message.version_id,
            0,
            message.seq,
            message.ts,
            message.state,
            "",
            message.context,
            "",
        )
        self._realtime.found(key, row)

    def _note_interest(self, interest: Interest) -> None:
        process = interest.process
        if interest.begins:
            self._forget(process)
        self._heard_at[process] = self._loop.time()
        wishes = self._wishes.setdefault(process, set())
        for key in interest.added:
            wishes.add(key)
            self._wanted.setdefault(key, set()).add(process)
        for key in interest.removed:
            wishes.discard(key)
            self._unwant(key, process)
        self._attend()

    def _forget(self, process: str) -> None:
        self._heard_at.pop(process, None)
        for key in self._wishes.pop(process, ()):
            self._unwant(key, process)
        self._attend()

    def _unwant(self, key: InstanceKey, process: str) -> None:
        processes = self._wanted.get(key)
        if processes is not None:
            processes.discard(process)
            if not processes:
                del self._wanted[key]

    def _attend(self) -> None:
        """Commits cost nothing while nobody listens elsewhere."""
        self._realtime.tell_elsewhere(self.committed if self._wanted else None)
