"""One server: the real engine, store, timers, membership and forwarder on a simulated loop."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from instances.engine import clocks, core, elsewhere, membership, postgres_store, pump
from instances.engine.clocks import DatabaseClock
from instances.engine.core import Engine
from instances.engine.forwarding import Forwarder, Signer, signing_key
from instances.engine.membership import Membership
from instances.engine.node import EngineNode
from instances.engine.operations import Delivery, Operation, Outcome
from instances.engine.plan import Plan
from instances.engine.postgres_session import DatabaseError
from instances.engine.postgres_store import PostgresStore
from instances.engine.timers import Timers
from tests.instances.engine.simulation.clock import START_MS, Process, World
from tests.instances.engine.simulation.database import Database
from tests.instances.engine.simulation.runners import SimulatedPool
from tests.instances.engine.simulation.wire import DatabaseLink, Network, SimulatedSession, _Request

FORWARDING_MARGIN_S = 6.0
SIGNING_KEY = signing_key("simulated")

# Waits that say how patient a site is, not what it promises: shortened, so that a run is short.
PATIENCE = [
    (pump, "PUMP_EVERY_S", 0.5),
    (postgres_store, "RETRY_AFTER_MS", 2_000),
    (postgres_store, "CLAIM_MS", 6_000),
    (postgres_store, "IDS_TAKEN_TOGETHER", 1_000),  # each start takes them
    (membership, "LOOK_EVERY_S", 0.5),
]


class SimulatedStore(PostgresStore):
    """Tells of attempts that are to be counted, also of those that never come to the database."""

    database: Database
    process: Process

    def fail(self, delivery: Delivery, error: str, done: Callable[[], None] = lambda: None) -> None:
        self.database.fails_begun[delivery.id, self.process.number, delivery.attempts] += 1
        super().fail(delivery, error, done)


class SimulatedNode(EngineNode):
    """What `EngineNode` does, with the world's parts in place of processes and sockets."""

    def __init__(
        self,
        world: World,
        database: Database,
        network: Network,
        address: str,
        *,
        has_other_writers: bool,
        settle_limit_ms: int,
    ) -> None:
        self.settle_limit_ms = settle_limit_ms
        self.world = world
        self.network = network
        self.address = address
        self.process = Process(world)
        self.link = DatabaseLink(world, self.process, database)
        self.dispatcher = None
        self.requests: set[_Request] = set()  # of other nodes, taken and not yet answered
        self.forwarder_limit_s = settle_limit_ms / 1000 + FORWARDING_MARGIN_S
        self.has_other_writers = has_other_writers
        self.ready = False
        self.id = ""
        self.clients: set[Any] = set()  # replies that wait here
        network.nodes[address] = self
        self.process.create_task(self._start())

    async def _start(self) -> None:
        process, world = self.process, self.world
        self.loop = process  # type: ignore[assignment]
        self.clock = DatabaseClock(process)  # type: ignore[arg-type]

        def on_commit(outcomes: list[tuple[Operation, Outcome]]) -> None:
            self.engine.on_commit(outcomes)

        while True:
            self.postgres = self.store = store = SimulatedStore(
                self.link,  # type: ignore[arg-type]
                "",
                on_commit=on_commit,
                on_replaced=lambda: self.membership.fence(),
            )
            store.database, store.process = self.link.database, self.process
            self.store.has_other_writers = self.has_other_writers
            self.pool = SimulatedPool(world, self)  # type: ignore[assignment]
            self.timers = Timers(self.store, self.clock, self._deliver)
            self.engine = Engine(
                self.store,
                self.pool,
                self.clock,
                settle_limit_ms=self.settle_limit_ms,
                on_timers=self.timers.add,
                on_cancelled=self.timers.forget,
                on_delivered=self.timers.delivered,
                forward=lambda operation, address: self._forward(operation, address),
            )
            if world.seed % 2 == 0:  # else nodes would seldom contend
                self.engine.elsewhere.fresh_ms = 0
            self.forwarder = Forwarder(
                self.engine,
                Signer(SIGNING_KEY, self.clock),
                answer_limit_s=self.forwarder_limit_s,
            )
            self.forwarder._session = self.network.session_of(self)
            self.membership = Membership(
                self.link,  # type: ignore[arg-type]
                self.postgres.identity,
                self.clock,
                self,
                address=self.address,
            )
            try:
                await self.postgres.start()
                await self.membership.start()
            except DatabaseError:
                continue  # whoever looks after servers starts it again
            break
        self.timers.start()
        self.ready = True

    def on_joined(self, node_id: str) -> None:
        self.id = node_id
        self.world.note("id", self.process.number, node_id)
        self.store.node = node_id
        self.pool.keep_alive()

    def on_fenced(self) -> None:
        self.world.note("fenced", self.process.number, self.id)
        super().on_fenced()

    @property
    def is_up(self) -> bool:
        return self.ready and not self.process.is_dead

    def kill(self) -> None:
        """`kill -9`: its connections end, and its runners with them."""
        self.process.kill()
        self.world.note("killed", self.process.number)
        self.world.call_in(self.world.random.uniform(0, 0.005), self.pool_died)
        for request in sorted(self.requests, key=lambda request: request.number):
            request.receiver_died()
        for reply in sorted(self.clients, key=lambda reply: reply.number):
            reply.cut()
        self.clients.clear()

    def pool_died(self) -> None:
        if self.ready:
            self.pool.kill_all()  # type: ignore[attr-defined]


def _parameters(batch: Plan) -> tuple[str, list[Any]]:
    return "batch_with_upgrades" if batch.upgrades else "batch", [batch]


@contextlib.contextmanager
def simulated(world: World) -> Iterator[None]:
    """Have the real modules work on the simulated wire, with the world's chance and time."""
    chance = world.random
    identity: Callable[[Any], Any] = lambda value: value  # noqa: E731
    numbers = itertools.count(1)
    with contextlib.ExitStack() as stack:

        def put(target: Any, name: str, value: Any) -> None:
            stack.enter_context(patch.object(target, name, value))

        for target, name, value in PATIENCE:
            put(target, name, value)
        if world.seed % 4 < 2:  # else instances would seldom move to and fro
            put(elsewhere, "HOME_MS", 20)
        # A plan comes to the database as it is, and parameters as Python's own.
        put(postgres_store, "_parameters", _parameters)
        for name in ("bigint", "bigints", "texts"):
            put(postgres_store, name, identity)
        for module in (postgres_store, membership):
            put(module, "Session", SimulatedSession)
            put(module, "conninfo_for_sessions", identity)
        hexes = SimpleNamespace(token_hex=lambda size: f"{chance.getrandbits(32):08x}")
        put(membership, "secrets", hexes)
        put(membership, "socket", SimpleNamespace(gethostname=lambda: "sim"))
        put(membership, "getpid", lambda: next(numbers))
        wall = SimpleNamespace(time_ns=lambda: int((START_MS + world.time * 1000) * 1e6))
        put(clocks, "time", wall)
        put(core, "random", random.Random(world.seed))
        yield
