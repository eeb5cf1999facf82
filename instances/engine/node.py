"""One process that hosts the engine: wires core, store, runners and timers to an asyncio loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instances import housekeeping
from instances.engine.clocks import DatabaseClock, LoopClock
from instances.engine.core import Clock, Engine
from instances.engine.dispatch import Broker, Dispatcher
from instances.engine.forwarding import Forwarder, Signer
from instances.engine.lock import EngineLock
from instances.engine.membership import Membership
from instances.engine.operations import Delivery, Operation, Outcome
from instances.engine.postgres_store import PostgresStore
from instances.engine.pump import Pump
from instances.engine.sqlite_store import SqliteStore
from instances.engine.store import Store
from instances.engine.timers import Timers
from instances.lookups import DATABASE_TROUBLE, callers
from instances.place_keeper import PlaceKeeper
from instances.realtime import Realtime
from instances.resync import Resync
from instances.runtime.pool import RunnerPool
from instances.runtime.settings import RuntimeSettings
from instances.version_codes import VersionCodes
from machines.schedules.due import Schedules

if TYPE_CHECKING:
    from instances.fan_out import FanOut

log = logging.getLogger("statebacked.engine")

FLUSH_LOGS_EVERY_S = 0.5
FORWARDING_MARGIN_S = 15.0  # beyond the settle limit, until another node's answer is given up
TAKE_AGAIN_S = 0.02  # while there is no room for more deliveries
DRAIN_S = 25.0  # how long unsettled instances may go on when the server stops
STOP_PART_S = 10.0  # how long each part of stopping may take after that


@dataclass(frozen=True)
class NodeSettings:
    database: Path | str  # a SQLite file, or the address of a Postgres database
    synchronous: str  # of SQLite: FULL (durable against a power cut) or NORMAL
    settle_limit_ms: int
    address: str  # where other nodes of the site reach this one
    role: str  # web, worker or all: who brings due deliveries to the engines
    forwarding_key: bytes  # that all of them share
    runtime: RuntimeSettings
    log_retention_ms: int
    redis_url: str = ""  # by which processes of a site on Postgres tell each other news
    site_tag: str = ""  # what tells this site's news from another's
    broker: Callable[[], Broker] | None = None  # of a worker: the way to all workers


class EngineNode:
    """Started and stopped with the server. `engine` may be used on `loop` only."""

    loop: asyncio.AbstractEventLoop
    engine: Engine
    store: Store
    pool: RunnerPool
    timers: Timers
    realtime: Realtime

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.forwarder: Forwarder | None = None  # only where there may be other nodes
        self.dispatcher: Dispatcher | None = None  # only in workers
        self.fan_out: FanOut | None = None  # only with Redis
        self.places = PlaceKeeper()
        self.ready = False
        self._in_a_hurry = False

    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self._open_store()
        codes = VersionCodes()
        self.pool = RunnerPool(
            self.settings.runtime,
            load_code=codes.load,
            load_migration=codes.load_migration,
            on_lines=lambda runner, lines: self.engine.on_lines(runner, lines),
            on_exit=lambda runner, reason: self.engine.on_exit(runner, reason),
            on_retire=lambda runner: self.engine.on_retire(runner),
        )
        self.timers = Timers(self.store, self.clock, self._deliver)
        self.engine = Engine(
            self.store,
            self.pool,
            self.clock,
            settle_limit_ms=self.settings.settle_limit_ms,
            on_timers=self.timers.add,
            on_cancelled=self.timers.forget,
            on_delivered=self.timers.delivered,
            forward=lambda operation, address: self._forward(operation, address),
        )
        callers.is_shared = self.store.has_other_writers
        if isinstance(self.store, PostgresStore):
            await self._join(self.store)
            self._share_deliveries(self.store)
        self.realtime = Realtime(self.engine, self.loop)
        self.resync: Resync | None = None
        if isinstance(self.store, PostgresStore):
            self.resync = Resync(self.realtime, self.store)
            self.resync.start()
            if self.settings.redis_url:
                from instances.fan_out import FanOut  # Redis takes its time to import

                self.fan_out = FanOut(
                    self.settings.redis_url,
                    self.settings.site_tag,
                    engine=self.engine,
                    realtime=self.realtime,
                    resync=self.resync,
                )
                self.fan_out.start()
        await self.pool.start()
        self.timers.start()
        writer = self.sqlite if isinstance(self.settings.database, Path) else self.postgres
        self.schedules = Schedules(writer, self.clock)
        self.schedules.start(self.loop)
        await self.places.start(self.store.node)
        self._flusher = self.loop.create_task(self._flush_logs())
        self._housekeeper = self.loop.create_task(self._keep_house())
        self.ready = True

    async def stop(self) -> None:
        """Settle what can settle, stop the rest, write everything, leave nothing running."""
        self.ready = False
        self._housekeeper.cancel()
        self.schedules.stop()
        self._stop_deliveries()
        self.engine.drain()
        give_up = self.loop.time() + DRAIN_S
        while self._is_busy() and self.loop.time() < give_up and not self._in_a_hurry:
            await asyncio.sleep(0.02)
        self.engine.close_all()
        if self.fan_out is not None:
            await _in_time("news for other processes", self.fan_out.stop())
        self._flusher.cancel()
        self.engine.journal.flush()
        await _in_time("runners", self.pool.stop())
        await self._close_store()

    async def _open_store(self) -> None:
        def on_commit(outcomes: list[tuple[Operation, Outcome]]) -> None:
            self.engine.on_commit(outcomes)
            self.places.note(outcomes)

        database = self.settings.database
        if isinstance(database, Path):
            self.lock = EngineLock(database)
            self.lock.acquire()
            self.clock: Clock = LoopClock(self.loop)
            self.sqlite = SqliteStore(
                str(database),
                "",
                post=self.loop.call_soon_threadsafe,
                on_commit=on_commit,
                synchronous=self.settings.synchronous,
            )
            self.sqlite.start()
            self.store = self.sqlite
        else:
            self.clock = DatabaseClock(self.loop)
            self.postgres = PostgresStore(
                database, "", on_commit=on_commit, on_replaced=lambda: self.membership.fence()
            )
            await self.postgres.start()
            self.store = self.postgres

    async def _close_store(self) -> None:
        if isinstance(self.settings.database, Path):
            await asyncio.to_thread(self.sqlite.stop)
            await _in_time("counts of instances", self.places.stop())
            self.lock.release()
        else:
            assert self.forwarder is not None
            assert self.resync is not None
            self.resync.stop()
            await _in_time("events at other nodes", self.forwarder.stop())
            await _in_time("the store", self.postgres.stop())
            await _in_time("counts of instances", self.places.stop())
            await _in_time("the lease", self.membership.stop())
            if self.dispatcher is not None:
                await _in_time("the broker", asyncio.to_thread(self.broker.stop))

    # ------------------------------------------------------------------ among other nodes

    async def _join(self, store: PostgresStore) -> None:
        assert isinstance(self.clock, DatabaseClock)
        assert isinstance(self.settings.database, str)
        self.forwarder = Forwarder(
            self.engine,
            Signer(self.settings.forwarding_key, self.clock),
            answer_limit_s=self.settings.settle_limit_ms / 1000 + FORWARDING_MARGIN_S,
        )
        self.membership = Membership(
            self.settings.database,
            store.identity,
            self.clock,
            self,
            address=self.settings.address,
            role=self.settings.role,
        )
        await self.membership.start()

    def _share_deliveries(self, store: PostgresStore) -> None:
        """Leave due deliveries to the site's workers, or hand them out as one of these."""
        if self.settings.role == "web":
            self.timers.pump.are_workers_alive = lambda: self.membership.has_workers
        elif self.settings.role == "worker":
            assert self.settings.broker is not None
            self.broker = self.settings.broker()
            self.dispatcher = Dispatcher(self.clock, self.broker, self.timers.add)
            self.dispatcher.start()
            self.timers.pump = Pump(
                store, self.clock, self.dispatcher.add, has_room=self.dispatcher.has_room
            )

    def _stop_deliveries(self) -> None:
        """Give what was claimed and not begun to whoever claims it next."""
        self.timers.stop()
        if isinstance(self.store, PostgresStore):
            held = self.dispatcher.stop() if self.dispatcher is not None else []
            self.store.unclaim([*held, *self.timers.waiting()])

    async def take(self, delivery_ids: list[int]) -> int:
        """Take on deliveries that some pump has claimed; how many of them are to be done still.

        Waits while there is much to do already.
        """
        assert isinstance(self.store, PostgresStore)
        while self.ready and not self.timers.has_room():
            await asyncio.sleep(TAKE_AGAIN_S)
        deliveries = await self.store.claimed(delivery_ids)
        if not self.ready:
            self.store.unclaim(delivery_ids)
            return 0
        self.timers.add(deliveries)
        return len(deliveries)

    def _forward(self, operation: Operation, address: str) -> None:
        assert self.forwarder is not None
        self.forwarder.forward(operation, address)

    def on_joined(self, node_id: str) -> None:
        self.store.node = node_id
        self.places.on_joined(node_id)
        self.pool.keep_alive()

    def on_renewed(self) -> None:
        self.pool.keep_alive()
        self.postgres.renew_claims(self.timers.known())

    def on_suspect(self) -> None:
        self.engine.suspend()

    def on_live(self) -> None:
        self.engine.resume()

    def on_fenced(self) -> None:
        self.engine.end_all()
        self.postgres.disconnect()

    def _is_busy(self) -> bool:
        return self.engine.busy() > 0 or (
            self.forwarder is not None and self.forwarder.pending() > 0
        )

    def hurry(self) -> None:
        """Stop without waiting for instances to settle. May be called from a signal handler."""
        self._in_a_hurry = True

    def _deliver(self, delivery: Delivery) -> None:
        self.engine.deliver(delivery)

    async def _flush_logs(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_LOGS_EVERY_S)
            self.engine.journal.flush()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(housekeeping.EVERY_S)
            try:
                await housekeeping.keep_house_in_thread(
                    self.clock.now_ms(), self.settings.log_retention_ms
                )
            except DATABASE_TROUBLE as error:
                log.warning("housekeeping is left for the next time: %s", error)

    async def call(self, start: Callable[[asyncio.Future[Any]], None]) -> Any:
        """Await an operation of the engine that answers through a future."""
        future = self.loop.create_future()
        start(future)
        return await future


async def _in_time(what: str, work: Coroutine[Any, Any, None]) -> None:
    """Do a part of stopping; one that does not end must not keep the others from theirs."""
    task = asyncio.create_task(work)
    await asyncio.wait({task}, timeout=STOP_PART_S)
    if not task.done():
        log.error("stopping takes too long: %s", what)
        task.cancel()
    elif (error := task.exception()) is not None:
        log.error("stopping failed: %s", what, exc_info=error)
