"""Events that another node has to process: an instance with running services stays where they run.

One internal request per event, at most one hop. It is signed with a key that all nodes of a site
derive from their secret key. The owner takes only what was signed a moment ago, so that nothing is
processed long after its sender gave up, and says at once that it has taken it. Without that word
the sender waits no longer, and answers that the outcome is unknown (504): the word may be lost,
too. Only a request that found no connection, or was turned away, was certainly not applied (503).

An answer is the line `taken`, and when the event is processed one more line and the rest: `ok` and
the body, `replayed` and the body, or `error` and the error.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec

from instances.engine import errors
from instances.engine.errors import EngineError, OutcomeUnknown, Unavailable
from instances.engine.operations import Delivery, Kind, Operation, Replayed

if TYPE_CHECKING:
    from instances.engine.core import Clock, Engine

PATH = "/internal/events"
SIGNATURE = "x-statebacked-signature"
TAKEN = b"taken\n"
TAKE_WITHIN_MS = 3_000  # of its signing; the clocks of nodes agree much better than the difference
TAKEN_WITHIN_S = 5.0
CONNECT_S = 2.0
BODY_BYTES_MAX = 2_000_000


class ForwardedDelivery(msgspec.Struct):
    id: int
    due_at_ms: int
    attempts: int
    claims: int
    send_id: str | None
    hops: int = 0


class ForwardedEvent(msgspec.Struct):
    """The body of an internal request."""

    kind: int
    machine_id: int
    slug: str
    event: str
    auth: str
    request_key: str | None
    delivery: ForwardedDelivery | None


class ForwardedError(msgspec.Struct):
    """An EngineError by the name of its class."""

    type: str
    message: str
    stack: str = ""


def signing_key(secret: str) -> bytes:
    return hashlib.sha256(b"statebacked forwarding\0" + secret.encode()).digest()


class Signer:
    def __init__(self, key: bytes, clock: Clock) -> None:
        self._key = key
        self._clock = clock

    def sign(self, body: bytes) -> str:
        time_ms = self._clock.now_ms()
        return f"{time_ms}.{self._digest(time_ms, body)}"

    def is_good(self, signature: str, body: bytes) -> bool:
        time, _, digest = signature.partition(".")
        if not time.isdecimal() or len(time) > 15:
            return False
        time_ms = int(time)
        if abs(self._clock.now_ms() - time_ms) > TAKE_WITHIN_MS:
            return False
        return hmac.compare_digest(self._digest(time_ms, body).encode(), digest.encode())

    def _digest(self, time_ms: int, body: bytes) -> str:
        hashed = hashlib.sha256(body).hexdigest()
        return hmac.digest(self._key, f"{PATH}\n{time_ms}\n{hashed}".encode(), "sha256").hex()


class Forwarder:
    """Both ends: sends operations to their owners, and takes those that others send."""

    def __init__(self, engine: Engine, signer: Signer, *, answer_limit_s: float) -> None:
        self.engine = engine
        self.signer = signer
        self.answer_limit_s = answer_limit_s
        self._session: aiohttp.ClientSession | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def forward(self, operation: Operation, address: str) -> None:
        """Have the node at `address` process it; the answer goes to the operation's sender."""
        task = asyncio.get_running_loop().create_task(self._forward(operation, address))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def pending(self) -> int:
        """How many operations are with other nodes now."""
        return len(self._sending)

    async def stop(self) -> None:
        for task in list(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _forward(self, operation: Operation, address: str) -> None:
        try:
            answer = await self._post(operation, address)
        except EngineError as error:
            self.engine.forwarding_failed(operation, error)
        except asyncio.CancelledError:
            self.engine.forwarding_failed(operation, OutcomeUnknown("the server is shutting down"))
            raise
        else:
            self.engine.forwarded(operation, answer)

    async def _post(self, operation: Operation, address: str) -> bytes:
        if self._session is None:
            limits = aiohttp.ClientTimeout(total=self.answer_limit_s, sock_connect=CONNECT_S)
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(timeout=limits, connector=connector)
        body = msgspec.json.encode(_as_message(operation))
        headers = {SIGNATURE: self.signer.sign(body), "content-type": "application/json"}
        try:
            async with asyncio.timeout(TAKEN_WITHIN_S) as patience:
                async with self._session.post(
                    f"{address}{PATH}", data=body, headers=headers, allow_redirects=False
                ) as answer:
                    if answer.status != 200 or await answer.content.readline() != TAKEN:
                        raise Unavailable("the node that runs this instance refuses requests")
                    patience.reschedule(None)
                    outcome = await answer.content.readline()
                    content = await answer.content.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unavailable("the node that runs this instance can't be reached") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise OutcomeUnknown("the node that runs this instance did not answer") from error
        if outcome == b"ok\n":
            return content
        if outcome == b"replayed\n":
            return Replayed(content)
        raise _error(content)

    # ------------------------------------------------------------------ the receiving end

    def take(self, headers: Mapping[bytes, bytes], body: bytes) -> asyncio.Future[bytes] | None:
        """The future answer to an internal request; None if it is not to be taken."""
        signature = headers.get(SIGNATURE.encode(), b"").decode("latin-1")
        if not self.signer.is_good(signature, body):
            return None
        try:
            message = msgspec.json.decode(body, type=ForwardedEvent)
        except msgspec.DecodeError:
            return None
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.engine.take_forwarded(_as_operation(message, reply))
        return reply


async def outcome(reply: asyncio.Future[bytes]) -> bytes:
    """What follows the line `taken`."""
    try:
        body = await reply
    except EngineError as error:
        stack = error.stack if isinstance(error, errors.MachineThrew) else ""
        told = ForwardedError(type(error).__name__, str(error), stack)
        return b"error\n" + msgspec.json.encode(told)
    return (b"replayed\n" if type(body) is Replayed else b"ok\n") + body


def _as_message(operation: Operation) -> ForwardedEvent:
    delivery = operation.delivery
    return ForwardedEvent(
        kind=operation.kind,
        machine_id=operation.key[0],
        slug=operation.key[1],
        event=operation.event,
        auth=operation.auth,
        request_key=operation.request_key,
        delivery=ForwardedDelivery(
            delivery.id,
            delivery.due_at_ms,
            delivery.attempts,
            delivery.claims,
            delivery.send_id,
            delivery.hops,
        )
        if delivery is not None
        else None,
    )


def _as_operation(message: ForwardedEvent, reply: Any) -> Operation:
    key = (message.machine_id, message.slug)
    delivery = None
    if message.delivery is not None:
        d = message.delivery
        delivery = Delivery(
            d.id,
            0,
            key,
            message.event,
            d.due_at_ms,
            d.attempts,
            d.claims,
            d.send_id,
            hops=d.hops,
        )
    return Operation(
        Kind(message.kind),
        key,
        message.event,
        message.auth,
        reply,
        request_key=message.request_key,
        delivery=delivery,
    )


def _error(content: bytes) -> EngineError:
    """The error that another node answered with."""
    try:
        told = msgspec.json.decode(content, type=ForwardedError)
    except msgspec.DecodeError:
        return OutcomeUnknown("the node that runs this instance gave no answer")
    if told.type == "MachineThrew":
        return errors.MachineThrew(told.message, told.stack)
    known = getattr(errors, told.type, None)
    if isinstance(known, type) and issubclass(known, EngineError):
        error: EngineError = known(told.message)
        return error
    return OutcomeUnknown(told.message)
