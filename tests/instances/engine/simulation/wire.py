"""What lies between the servers: sessions to the database, and requests from node to node.

Both take the place of their real ones, behind the real store, the real membership and the real
forwarder, and lose, delay and cut what passes through them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import aiohttp

from instances.engine.forwarding import SIGNATURE, TAKEN, Answers
from instances.engine.postgres_session import ConnectionCut, Identity, NotConnected, Refused
from tests.instances.engine.simulation.clock import Process, World
from tests.instances.engine.simulation.database import INSTANCE, Database, Refusal, Row

if TYPE_CHECKING:
    from tests.instances.engine.simulation.node import SimulatedNode

ANSWER_TIMEOUT_S = 7.0
CONNECT_TIMEOUT_S = 2.0
LINGER_S = 0.8  # how long a statement may go on whose connection was cut


class DatabaseLink:
    """The way from one server to the database, as far as it works."""

    def __init__(self, world: World, process: Process, database: Database) -> None:
        self.world = world
        self.process = process
        self.database = database
        self.is_down = False  # nothing can connect
        self.is_stalled = False  # nothing passes, and nobody is told
        self.cut_chance = 0.0  # of each statement
        self.delay_s = 0.002
        self.slow_session = ""  # the name of one whose statements wait for locks
        # Answers to the lease's session take longer than requests: the server's clock is behind.
        self.lag_s = world.random.choice((0.0, 0.0, 0.03, 0.2))
        self.lingers = True  # statements may go on after their connection was cut
        self.sessions: list[SimulatedSession] = []

    def cut_all(self) -> None:
        for session in self.sessions:
            session.lose()


class SimulatedSession:
    """See `postgres_session.Session`."""

    def __init__(
        self, name: str, link: DatabaseLink, statements: Mapping[str, str], identity: Identity
    ) -> None:
        self.name = name
        self.link = link
        self.statements = statements
        self.identity = identity
        self._is_connected = False
        self._is_closed = False
        self._retry_at = 0.0
        self._answer: asyncio.Future[list[Row]] | None = None
        link.sessions.append(self)

    async def run(self, statement: str, *parameters: Any) -> list[Row]:
        assert self._answer is None, "a session runs one statement at a time"
        if not self._is_connected:
            await self._connect()
        link, process = self.link, self.link.process
        chance = link.world.random
        answer: asyncio.Future[list[Row]] = process.create_future()
        self._answer = answer
        arrives_s = chance.uniform(0.1, 1) * link.delay_s
        if self.name == link.slow_session:
            arrives_s += chance.uniform(0.2, 1.5)
        fate = chance.random() if link.cut_chance else 1.0
        if link.is_stalled or fate < link.cut_chance * 0.3:
            # Never arrives. Where the connection was cut, that is noticed soon.
            if not link.is_stalled:
                process.tell(arrives_s, self.lose)
        else:
            link.world.call_in(arrives_s, self._arrived, answer, statement, parameters, fate)
        patience = process.call_later(ANSWER_TIMEOUT_S, self.lose)
        try:
            rows = await answer
            if statement in ("fail", "bury"):
                link.database.fails_answered[parameters[0], process.number, parameters[1]] += 1
            return rows
        except asyncio.CancelledError:
            self.lose()
            raise
        finally:
            self._answer = None
            patience.cancel()

    def _arrived(
        self,
        answer: asyncio.Future[list[Row]],
        statement: str,
        parameters: tuple[Any, ...],
        fate: float,
    ) -> None:
        link = self.link
        cut_chance = link.cut_chance
        if cut_chance * 0.3 <= fate < cut_chance * 0.6:
            # Cut while it runs: it goes on for a while, with nobody to tell.
            link.process.tell(0, self.lose)
            delay_s = link.world.random.uniform(0, LINGER_S) if link.lingers else 0.0
            lingering = Lingering(self, statement, parameters)
            link.database.lingering.append(lingering)
            link.world.call_in(delay_s, lingering.apply)
            return
        # One that waits for the same rows came first.
        for lingering in list(link.database.lingering):
            if lingering.rows & _rows_of(statement, parameters):
                lingering.apply()
        rows = self._apply(statement, parameters)
        if link.is_stalled:
            return
        back_s = link.world.random.uniform(0.1, 1) * link.delay_s
        if self.name == "lease":
            back_s += link.lag_s
        if fate < cut_chance:
            link.process.tell(back_s, self.lose)  # it took place; the answer is lost
        else:
            link.process.tell(back_s, self._answered, answer, rows)

    def _apply(self, statement: str, parameters: tuple[Any, ...]) -> list[Row] | Refusal:
        try:
            return self.link.database.run(statement, self.statements[statement], parameters)
        except Refusal as refusal:
            return refusal

    def _answered(self, answer: asyncio.Future[list[Row]], rows: list[Row] | Refusal) -> None:
        if self.link.is_stalled or answer.done():
            return
        if isinstance(rows, Refusal):
            answer.set_exception(Refused(str(rows)))
        else:
            answer.set_result(rows)

    async def _connect(self) -> None:
        link, process = self.link, self.link.process
        if self._is_closed or process.time() < self._retry_at:
            raise NotConnected("the database can't be reached")
        await asyncio.sleep(link.world.random.uniform(0.1, 2) * link.delay_s)
        if link.is_down or link.is_stalled:
            self._retry_at = process.time() + 0.2
            raise NotConnected("the database can't be reached")
        if self._is_closed:
            raise NotConnected("closed")
        self.identity.check(link.database.identity)
        self._is_connected = True

    def lose(self) -> None:
        """The connection has ended; a statement under way may have had its effect."""
        self._is_connected = False
        if self._answer is not None and not self._answer.done():
            self.link.world.note("cut", self.link.process.number, self.name)
            self._answer.set_exception(ConnectionCut("cut"))

    disconnect = lose

    def close(self) -> None:
        self._is_closed = True
        self.lose()


class Lingering:
    """A statement whose connection was cut and that the database goes on with."""

    def __init__(
        self, session: SimulatedSession, statement: str, parameters: tuple[Any, ...]
    ) -> None:
        self.session, self.statement, self.parameters = session, statement, parameters
        self.rows = _rows_of(statement, parameters)

    def apply(self) -> None:
        lingering = self.session.link.database.lingering
        if self in lingering:
            lingering.remove(self)
            self.session._apply(self.statement, self.parameters)


def _rows_of(statement: str, parameters: tuple[Any, ...]) -> set[Any]:
    """What a batch of steps locks: instances, and names that it gives."""
    if statement != "batch":
        return set()
    (batch,) = parameters
    names = {row[INSTANCE.index("slug")] for row in batch.inserts}
    return {activation.row_id for activation in batch.updates} | names


# ---------------------------------------------------------------------- from node to node


class CannotConnect(aiohttp.ClientConnectorError):
    def __init__(self) -> None:
        OSError.__init__(self, 111, "refused")

    def __str__(self) -> str:
        return "refused"


class Network:
    """Who can reach whom, and what happens to requests on their way."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: dict[str, SimulatedNode] = {}  # by address: who listens there
        self.parted: set[frozenset[str]] = set()  # pairs of addresses
        self.loss_chance = 0.0
        self.delay_chance = 0.0

    def can_reach(self, one: str, other: str) -> bool:
        return frozenset((one, other)) not in self.parted

    def session_of(self, node: SimulatedNode) -> Any:
        """What stands for an `aiohttp.ClientSession` of that node."""
        return _ClientSession(self, node)


class _ClientSession:
    def __init__(self, network: Network, node: SimulatedNode) -> None:
        self.network, self.node = network, node

    def post(
        self, url: str, *, data: bytes, headers: dict[str, str], allow_redirects: bool
    ) -> _Request:
        return _Request(self.network, self.node, url, data, headers)


class _Request:
    """One request and its answer, as its sender reads it: status, `taken`, and then answers."""

    status = 200

    def __init__(
        self,
        network: Network,
        node: SimulatedNode,
        url: str,
        data: bytes,
        headers: dict[str, str],
    ) -> None:
        self.network, self.world, self.node = network, network.world, node
        self.address = url[: url.rindex("/internal")]
        self.data, self.headers = data, headers
        self.number = next(self.world.numbers)
        self.content = self
        process = node.process
        self._begun: asyncio.Future[None] = process.create_future()
        self._ended: asyncio.Future[None] = process.create_future()
        self._ended.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._begun.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._parts: list[bytes] = []  # that came and are not read yet
        self._came, self._count = 0, -1  # parts of the answers, and how many there are in all
        self._wake: asyncio.Future[None] | None = None  # of the reader

    async def __aenter__(self) -> _Request:
        chance = self.world.random
        network, process = self.network, self.node.process
        limit = process.call_later(self.node.forwarder_limit_s, self._break, TimeoutError())
        self._ended.add_done_callback(lambda future: limit.cancel())
        receiver = network.nodes.get(self.address)
        way_s = chance.uniform(0.0002, 0.003)
        if not network.can_reach(self.node.address, self.address):
            process.call_later(CONNECT_TIMEOUT_S, self._break, CannotConnect())
        elif receiver is None or receiver.process.is_dead:
            process.tell(way_s, self._break, CannotConnect())
        elif chance.random() < network.loss_chance:
            self.world.note("forward lost", self.node.address, self.address)
        else:
            if chance.random() < network.delay_chance:
                way_s = chance.uniform(0.5, 8)
                self.world.note("forward delayed", self.node.address, self.address, way_s)
            self.world.call_in(way_s, receiver.process.tell, 0, self._received, receiver)
        await self._begun
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._break(aiohttp.ServerDisconnectedError())

    async def readany(self) -> bytes:
        while not self._parts and not self._ended.done():
            self._wake = self.node.process.create_future()
            await self._wake
        if self._parts:
            return self._parts.pop(0)
        self._ended.result()
        return b""

    def _break(self, error: BaseException) -> None:
        for future in (self._begun, self._ended):
            if not future.done():
                future.set_exception(error)
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # What the other node does.
    def _received(self, receiver: SimulatedNode) -> None:
        headers = {SIGNATURE.encode(): self.headers[SIGNATURE].encode()}
        answers = receiver.forwarder.take(headers, self.data)
        self.world.note(
            "taken" if answers else "not taken", receiver.address, self.data[:70].decode()
        )
        if answers is None:
            self.status = 403
            self._back(receiver, self._begin)
            return
        receiver.requests.add(self)
        self._back(receiver, self._begin)
        receiver.process.create_task(self._answer(receiver, answers))

    async def _answer(self, receiver: SimulatedNode, answers: Answers) -> None:
        more, sent = True, 0
        while more:
            part, more = await answers.next()
            sent += 1
            if not more:
                receiver.requests.discard(self)
            self._back(receiver, self._go_on, part, None if more else sent)

    def _back(
        self, receiver: SimulatedNode, callback: Callable[..., None], *arguments: Any
    ) -> None:
        chance = self.world.random
        if not self.network.can_reach(receiver.address, self.node.address):
            return
        if chance.random() < self.network.loss_chance:
            error = aiohttp.ServerDisconnectedError()
            self.node.process.tell(chance.uniform(0, 0.01), self._break, error)
        else:
            self.node.process.tell(chance.uniform(0.0002, 0.003), callback, *arguments)

    def receiver_died(self) -> None:
        if self.network.can_reach(self.address, self.node.address):
            self.node.process.tell(0.001, self._break, aiohttp.ServerDisconnectedError())

    def _begin(self) -> None:
        if not self._begun.done():
            self._begun.set_result(None)
            if self.status == 200:
                self._parts = [TAKEN]

    def _go_on(self, part: bytes, count: int | None) -> None:
        """A part of the answers has come, each of them whole; with the last one, their number."""
        self._begin()
        self._parts.append(part)
        self._came += 1
        self._count = count or self._count
        if self._came == self._count and not self._ended.done():
            self._ended.set_result(None)
        self._wake_reader()
