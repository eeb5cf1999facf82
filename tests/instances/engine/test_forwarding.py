"""How events are sent on to another node: what goes over the wire, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from instances.engine import forwarding
from instances.engine.elsewhere import Elsewhere
from instances.engine.errors import (
    EngineError,
    NotReached,
    OutcomeUnknown,
    RejectedByAuthorizer,
    Unavailable,
)
from instances.engine.forwarding import SIGNATURE, TAKEN, Forwarder, Signer
from instances.engine.operations import Kind, Operation, Replayed


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Any:
        raise AssertionError("nothing here waits by this clock")


class Node:
    """A forwarder, and an engine that notes what it is given."""

    def __init__(self, clock: Clock) -> None:
        self.taken: list[Operation] = []
        self.answers: dict[str, Any] = {}  # by event
        self.is_stalled = False  # its database does not answer
        engine: Any = SimpleNamespace(
            clock=clock,
            activations={},
            store=SimpleNamespace(is_stalled=lambda: self.is_stalled),
            take_forwarded=self.taken.append,
            forwarded=lambda operation, body: self.answers.update({operation.event: body}),
            forwarding_failed=lambda operation, error: self.answers.update(
                {operation.event: error}
            ),
        )
        engine.elsewhere = Elsewhere(engine, None)
        self.forwarder = Forwarder(engine, Signer(b"key", clock), answer_limit_s=10)

    def wire_to(self, receiver: Node) -> Wire:
        wire = Wire(receiver)
        session: Any = wire
        self.forwarder._session = session
        return wire


class Wire:
    """Stands in for aiohttp's session: requests wait until the test lets them go on."""

    def __init__(self, receiver: Node) -> None:
        self.receiver = receiver
        self.requests: list[Request] = []
        self.status = 200

    def post(self, url: str, *, data: bytes, headers: dict[str, str], **_: Any) -> Request:
        request = Request(self.receiver, data, headers, self.status)
        self.requests.append(request)
        return request

    async def close(self) -> None:
        pass


class Request:
    def __init__(self, receiver: Node, data: bytes, headers: dict[str, str], status: int) -> None:
        self.receiver, self.data, self.headers = receiver, data, headers
        self.content = self
        self.status = status
        self.parts: asyncio.Queue[bytes] = asyncio.Queue()

    async def __aenter__(self) -> Request:
        return self

    async def __aexit__(self, *exception: object) -> None:
        pass

    async def readany(self) -> bytes:
        return await self.parts.get()

    def take(self, data: bytes | None = None) -> forwarding.Answers | None:
        headers = {SIGNATURE.encode(): self.headers[SIGNATURE].encode()}
        return self.receiver.forwarder.take(headers, self.data if data is None else data)


def an_operation(event: str) -> Operation:
    return Operation(Kind.CLIENT, (1, event), event, "{}")


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_events_of_one_moment_go_in_one_request_and_are_answered_as_they_are_processed(clock):
    async def scenario() -> None:
        sender, receiver = Node(clock), Node(clock)
        wire = sender.wire_to(receiver)
        for event in ("a", "b", "c", "d"):
            sender.forwarder.forward(an_operation(event), "http://other")
        await until(lambda: wire.requests)
        (request,) = wire.requests
        answers = request.take()
        assert answers is not None
        assert [operation.event for operation in receiver.taken] == ["a", "b", "c", "d"]
        assert sender.forwarder.pending() == 4

        # Read in pieces, as they may come: the third one is answered first.
        a, b, c, d = (operation.reply for operation in receiver.taken)
        c.set_result(b'{"n":3}')
        part, more = await answers.next()
        assert more
        for byte in TAKEN + part:
            request.parts.put_nowait(bytes([byte]))
        await until(lambda: sender.answers)
        assert sender.answers == {"c": b'{"n":3}'}

        a.set_result(b"with\nlines")
        b.set_exception(RejectedByAuthorizer("no"))
        d.set_result(Replayed(b"again"))
        part, more = await answers.next()
        assert not more
        request.parts.put_nowait(part)
        request.parts.put_nowait(b"")
        await until(lambda: not sender.forwarder.pending())
        assert sender.answers["a"] == b"with\nlines"
        assert isinstance(sender.answers["b"], RejectedByAuthorizer)
        assert type(sender.answers["d"]) is Replayed
        await sender.forwarder.stop()

    asyncio.run(scenario())


def test_next_request_collects_until_the_one_before_is_taken(clock):
    async def scenario() -> None:
        sender, receiver = Node(clock), Node(clock)
        wire = sender.wire_to(receiver)
        sender.forwarder.forward(an_operation("a"), "http://other")
        await until(lambda: wire.requests)
        for event in ("b", "c"):
            sender.forwarder.forward(an_operation(event), "http://other")
        assert len(wire.requests) == 1

        wire.requests[0].parts.put_nowait(TAKEN)
        await until(lambda: len(wire.requests) == 2)
        assert wire.requests[1].take() is not None
        assert [operation.event for operation in receiver.taken] == ["b", "c"]
        await sender.forwarder.stop()
        assert all(isinstance(error, OutcomeUnknown) for error in sender.answers.values())
        assert len(sender.answers) == 3

    asyncio.run(scenario())


def test_request_that_is_stuck_holds_up_nothing_for_long(clock, monkeypatch):
    monkeypatch.setattr(forwarding, "STALLED_S", 0.01)

    async def scenario() -> None:
        sender, receiver = Node(clock), Node(clock)
        wire = sender.wire_to(receiver)
        sender.forwarder.forward(an_operation("a"), "http://other")
        await until(lambda: wire.requests)
        sender.forwarder.forward(an_operation("b"), "http://other")
        await until(lambda: len(wire.requests) == 2)
        assert sender.forwarder.engine.elsewhere._is_avoided("http://other")
        await sender.forwarder.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (403, b"", Unavailable),  # turned away
        (200, b"", OutcomeUnknown),  # the word may be lost
        (200, TAKEN, OutcomeUnknown),
        (200, TAKEN + b"0 ok 100\n{", OutcomeUnknown),
        (200, TAKEN + b"7 ok 0\n", OutcomeUnknown),
        (200, TAKEN + b"nonsense\n", OutcomeUnknown),
    ],
)
def test_no_answer_is_unknown_unless_the_request_was_turned_away(clock, status, said, error):
    async def scenario() -> None:
        sender, receiver = Node(clock), Node(clock)
        wire = sender.wire_to(receiver)
        wire.status = status
        sender.forwarder.forward(an_operation("a"), "http://other")
        await until(lambda: wire.requests)
        (request,) = wire.requests
        for part in (said, b""):
            request.parts.put_nowait(part)
        await until(lambda: sender.answers)
        assert type(sender.answers["a"]) is error
        await sender.forwarder.stop()

    asyncio.run(scenario())


def test_only_what_was_signed_a_moment_ago_is_taken(clock):
    async def scenario() -> None:
        sender, receiver = Node(clock), Node(clock)
        wire = sender.wire_to(receiver)
        sender.forwarder.forward(an_operation("a"), "http://other")
        await until(lambda: wire.requests)
        (request,) = wire.requests
        assert request.take(request.data.replace(b'"a"', b'"b"')) is None
        clock.ms += forwarding.TAKE_WITHIN_MS + 1
        assert request.take() is None
        assert not receiver.taken
        clock.ms -= 1
        assert request.take() is not None
        await sender.forwarder.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("has_services", [False, True])
def test_node_that_waits_for_its_database_takes_only_what_it_must(clock, has_services):
    async def scenario() -> None:
        sender, receiver = Node(clock), Node(clock)
        wire = sender.wire_to(receiver)
        receiver.is_stalled = True
        activation: Any = SimpleNamespace(is_settled=lambda: not has_services, tail_seq=1)
        receiver.forwarder.engine.activations[1, "a"] = activation
        sender.forwarder.forward(Operation(Kind.CLIENT, (1, "a"), "a", "{}"), "http://other")
        await until(lambda: wire.requests)
        (request,) = wire.requests
        answers = request.take()
        assert answers is not None
        assert len(receiver.taken) == has_services
        if not has_services:
            part, more = await answers.next()
            assert not more
            request.parts.put_nowait(TAKEN + part)
            await until(lambda: sender.answers)
            assert isinstance(sender.answers["a"], NotReached)  # certainly not applied
        await sender.forwarder.stop()

    asyncio.run(scenario())


def test_large_events_go_in_several_requests(clock):
    async def scenario() -> None:
        sender, receiver = Node(clock), Node(clock)
        wire = sender.wire_to(receiver)
        for letter in "abc":
            sender.forwarder.forward(an_operation(letter * 300_000), "http://other")
        for number in range(3):
            await until(lambda number=number: len(wire.requests) > number)
            wire.requests[number].parts.put_nowait(TAKEN)
        assert all(len(r.data) < forwarding.BODY_BYTES_MAX for r in wire.requests)
        await sender.forwarder.stop()
        assert all(isinstance(error, EngineError) for error in sender.answers.values())

    asyncio.run(scenario())
