"""Events that another node has to process: an instance with running services stays where they run.

At most one hop. What is on its way to the same node goes in one request, signed with a key that all
nodes of a site derive from their secret key. The owner takes only what was signed a moment ago, so
that nothing is processed long after its sender gave up, and says at once that it has taken it.
Without that word the sender waits no longer, and answers that the outcome is unknown (504): the
word may be lost, too. Only what found no connection, or was turned away, was certainly not applied
(503).

The body of a request is a JSON array of `ForwardedEvent`. Its answer is the line `taken`, and then
for each event, as soon as it is processed, the line `<number> <word> <bytes>` and so many bytes:
`ok`, `yours` (the same, and from now on the asker may have the instance) and `replayed` with the
body, `error` with the error.

While one request waits for its `taken` the next one collects, so batches grow with the load. That
lasts no longer than STALLED_S: one that is stuck does not hold up what comes after it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
import msgspec

from instances.engine import errors
from instances.engine.errors import EngineError, NotReached, OutcomeUnknown, Unavailable
from instances.engine.operations import Delivery, Kind, Operation, Replayed

if TYPE_CHECKING:
    from instances.engine.core import Clock, Engine

PATH = "/internal/events"
SIGNATURE = "x-statebacked-signature"
TAKEN = b"taken\n"
TAKE_WITHIN_MS = 3_000  # of its signing; the clocks of nodes agree much better than the difference
TAKEN_WITHIN_S = 5.0
STALLED_S = 0.5  # without that word, a node is left alone with what need not go there
CONNECT_S = 2.0
BODY_BYTES_MAX = 2_000_000
BATCH_BYTES = 500_000  # then a request takes no more events; one alone may be larger
BATCH_EVENTS = 256


class ForwardedDelivery(msgspec.Struct, array_like=True):
    id: int
    due_at_ms: int
    attempts: int
    claims: int
    send_id: str | None
    hops: int = 0


class ForwardedEvent(msgspec.Struct, array_like=True):
    """One event of an internal request."""

    number: int  # by which the answer names it
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


class _Way:
    """What is to go to one other node."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.queue: deque[Operation] = deque()
        self.is_open = True  # no request waits for its `taken`
        self.requests = 0  # so far
        self.patience: asyncio.TimerHandle | None = None


class Forwarder:
    """Both ends: sends operations to their owners, and takes those that others send."""

    def __init__(self, engine: Engine, signer: Signer, *, answer_limit_s: float) -> None:
        self.engine = engine
        self.signer = signer
        self.answer_limit_s = answer_limit_s
        self._session: aiohttp.ClientSession | None = None
        self._ways: dict[str, _Way] = {}
        self._sending: dict[asyncio.Task[None], dict[int, Operation]] = {}

    def forward(self, operation: Operation, address: str) -> None:
        """Have the node at `address` process it; the answer goes to the operation's sender."""
        way = self._ways.get(address)
        if way is None:
            way = self._ways[address] = _Way(address)
        way.queue.append(operation)
        if way.is_open:
            way.is_open = False
            # In a moment: what else came with it goes along.
            asyncio.get_running_loop().call_soon(self._send_batch, way)

    def pending(self) -> int:
        """How many operations are with other nodes now, or on their way."""
        return sum(len(way.queue) for way in self._ways.values()) + sum(
            len(waiting) for waiting in self._sending.values()
        )

    async def stop(self) -> None:
        for way in self._ways.values():
            while way.queue:
                error = Unavailable("the server is shutting down")
                self.engine.forwarding_failed(way.queue.popleft(), error)
            if way.patience is not None:
                way.patience.cancel()
        sending = dict(self._sending)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        for waiting in sending.values():  # of a task that had not begun
            self._fail(waiting, Unavailable("the server is shutting down"))
        if self._session is not None:
            await self._session.close()

    # ------------------------------------------------------------------ the sending end

    def _send_batch(self, way: _Way) -> None:
        if not way.queue:
            way.is_open = True
            return
        waiting, body = _next_batch(way.queue)
        way.requests += 1
        loop = asyncio.get_running_loop()
        way.patience = loop.call_later(STALLED_S, self._stalled, way, way.requests)
        task = loop.create_task(self._forward(waiting, body, way, way.requests))
        self._sending[task] = waiting
        task.add_done_callback(self._sending.pop)

    def _go_on(self, way: _Way, request: int) -> None:
        """That request is held up no more; the next one may go."""
        if way.requests == request and way.patience is not None:
            way.patience.cancel()
            way.patience = None
            self._send_batch(way)

    def _stalled(self, way: _Way, request: int) -> None:
        self.engine.elsewhere.avoid(way.address)
        self._go_on(way, request)

    async def _forward(
        self, waiting: dict[int, Operation], body: bytes, way: _Way, request: int
    ) -> None:
        try:
            await self._post(waiting, body, way.address, partial(self._go_on, way, request))
        except EngineError as error:
            is_gone = isinstance(error, NotReached)
            self.engine.elsewhere.avoid(way.address, is_gone=is_gone)
            self._fail(waiting, error)
        except asyncio.CancelledError:
            self._fail(waiting, OutcomeUnknown("the server is shutting down"))
            raise
        self._go_on(way, request)

    def _fail(self, waiting: dict[int, Operation], error: EngineError) -> None:
        for number in list(waiting):
            self.engine.forwarding_failed(waiting.pop(number), error)

    async def _post(
        self,
        waiting: dict[int, Operation],
        body: bytes,
        address: str,
        on_taken: Callable[[], None],
    ) -> None:
        """Send a batch and give on its answers; whoever has one leaves `waiting`."""
        if self._session is None:
            limits = aiohttp.ClientTimeout(total=self.answer_limit_s, sock_connect=CONNECT_S)
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(timeout=limits, connector=connector)
        headers = {SIGNATURE: self.signer.sign(body), "content-type": "application/json"}
        try:
            async with asyncio.timeout(TAKEN_WITHIN_S) as patience:
                async with self._session.post(
                    f"{address}{PATH}", data=body, headers=headers, allow_redirects=False
                ) as answer:
                    if answer.status != 200:
                        raise Unavailable("the node that runs this instance refuses requests")
                    received = bytearray()
                    is_taken = False
                    while data := await answer.content.readany():
                        received += data
                        if not is_taken and received.startswith(TAKEN):
                            is_taken = True
                            patience.reschedule(None)
                            del received[: len(TAKEN)]
                            on_taken()
                        if is_taken:
                            self._read_answers(received, waiting)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotReached("the node that runs this instance can't be reached") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise OutcomeUnknown("the node that runs this instance did not answer") from error
        if waiting:
            raise OutcomeUnknown("the node that runs this instance did not answer")

    def _read_answers(self, received: bytearray, waiting: dict[int, Operation]) -> None:
        """Give on the whole answers among the bytes that came, and remove them.

        Raises OutcomeUnknown for what is no answer.
        """
        at = 0
        while (end := received.find(b"\n", at)) >= 0:
            try:
                number, word, size = received[at:end].split(b" ")
                next_at = end + 1 + int(size)
                if next_at > len(received):
                    break
                operation = waiting.pop(int(number))
            except (ValueError, KeyError) as error:
                raise OutcomeUnknown("the node that runs this instance is wrong") from error
            self._answered(operation, bytes(word), bytes(received[end + 1 : next_at]))
            at = next_at
        del received[:at]

    def _answered(self, operation: Operation, word: bytes, content: bytes) -> None:
        if word == b"ok":
            self.engine.forwarded(operation, content)
        elif word == b"yours":
            self.engine.elsewhere.take_over(operation.key)
            self.engine.forwarded(operation, content)
        elif word == b"replayed":
            self.engine.forwarded(operation, Replayed(content))
        else:
            self.engine.forwarding_failed(operation, _error(content))

    # ------------------------------------------------------------------ the receiving end

    def take(self, headers: Mapping[bytes, bytes], body: bytes) -> Answers | None:
        """The answers to an internal request; None if it is not to be taken."""
        signature = headers.get(SIGNATURE.encode(), b"").decode("latin-1")
        if not self.signer.is_good(signature, body):
            return None
        try:
            messages = msgspec.json.decode(body, type=list[ForwardedEvent])
            operations = [_as_operation(message) for message in messages]
        except (msgspec.DecodeError, ValueError):
            return None
        if not operations:
            return None
        answers = Answers(len(operations))
        loop = asyncio.get_running_loop()
        for message, operation in zip(messages, operations, strict=True):
            reply: asyncio.Future[bytes] = loop.create_future()
            operation.reply = reply
            elsewhere = self.engine.elsewhere
            if elsewhere.must_decline(operation):
                reply.set_exception(NotReached("that node waits for its database"))
                reply.add_done_callback(partial(answers.add, message.number, False))
                continue
            is_given = elsewhere.is_to_move(operation.key)
            reply.add_done_callback(partial(answers.add, message.number, is_given))
            self.engine.take_forwarded(operation)
        return answers


class Answers:
    """What follows the line `taken`, as the events of a request are processed."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._came: list[bytes] = []
        self._wake = asyncio.Event()

    def add(self, number: int, is_given: bool, reply: asyncio.Future[bytes]) -> None:
        """Note the answer of one event; `is_given`: its instance may move to the asker."""
        try:
            content = reply.result()
        except EngineError as error:
            stack = error.stack if isinstance(error, errors.MachineThrew) else ""
            told = ForwardedError(type(error).__name__, str(error), stack)
            word, content = b"error", msgspec.json.encode(told)
        else:
            word = b"yours" if is_given else b"ok"
            if type(content) is Replayed:
                word = b"replayed"
        self._came.append(b"%d %s %d\n%s" % (number, word, len(content), content))
        self._wake.set()

    async def next(self) -> tuple[bytes, bool]:
        """Those that came since, one at least, and whether more will."""
        await self._wake.wait()
        self._wake.clear()
        came, self._came = self._came, []
        self._left -= len(came)
        return b"".join(came), self._left > 0


def _next_batch(queue: deque[Operation]) -> tuple[dict[int, Operation], bytes]:
    """The operations of the next request by their numbers, and its body."""
    waiting: dict[int, Operation] = {}
    parts: list[bytes] = []
    size = 0
    while queue and len(parts) < BATCH_EVENTS:
        number = len(parts)
        part = msgspec.json.encode(_as_message(number, queue[0]))
        size += len(part)
        if parts and size > BATCH_BYTES:
            break
        waiting[number] = queue.popleft()
        parts.append(part)
    return waiting, b"[" + b",".join(parts) + b"]"


def _as_message(number: int, operation: Operation) -> ForwardedEvent:
    delivery = operation.delivery
    return ForwardedEvent(
        number=number,
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


def _as_operation(message: ForwardedEvent) -> Operation:
    """Raises ValueError for a kind that there is not."""
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
        request_key=message.request_key,
        delivery=delivery,
    )


def _error(content: bytes) -> EngineError:
    """The error that another node answered with."""
    try:
        told = msgspec.json.decode(content, type=ForwardedError)
    except msgspec.DecodeError:
        return OutcomeUnknown("the node that runs this instance gave no answer")
    known = getattr(errors, told.type, None)
    if isinstance(known, type) and issubclass(known, errors.MachineThrew):
        return known(told.message, told.stack)
    if isinstance(known, type) and issubclass(known, EngineError):
        error: EngineError = known(told.message)
        return error
    return OutcomeUnknown(told.message)
