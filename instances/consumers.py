"""The WebSocket of the API, `/api/rt`: subscriptions, and events with replies.

The published protocol is `subscribe-to-instance`, `unsubscribe-from-instance` and `ping`; the token
comes in the URL. Besides it, a connection may send its token in its first message (`authenticate`),
so that it stands in no log, and may create instances and send events: answers carry the `requestId`
and may come in another order than the requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any
from urllib.parse import parse_qs

import msgspec
from channels.generic.websocket import AsyncWebsocketConsumer

from authz.errors import MissingScope
from instances import lean
from instances.engine import door
from instances.engine.errors import InstanceNotFound, Unavailable
from instances.lookups import LeanCaller, callers, machines
from instances.realtime import Realtime, Subscription, update_text
from statebacked_site.errors import DomainError, InvalidParameter

SILENCE_S = 330.0  # published clients ping every 5 minutes; the rest is for their timers
AUTHENTICATE_WITHIN_S = 10.0
REFUSE_AFTER_S = 1.0  # published clients reconnect at once and for ever
MESSAGE_BYTES_MAX = 600_000
SUBSCRIPTIONS_MAX = 1_000
REQUESTS_AT_ONCE = 256
REQUEST_ID_LENGTH_MAX = 128

# What sending raises when the connection was closed meanwhile.
CLOSED = (RuntimeError, OSError)

CLOSE_GOING_AWAY = 1001
CLOSE_PROTOCOL_ERROR = 1002
CLOSE_TOO_LARGE = 1009
CLOSE_BAD_TOKEN = 4403
CLOSE_SILENT = 4408


class Subscribe(msgspec.Struct, tag="subscribe-to-instance", rename="camel"):
    request_id: str
    machine_name: str
    machine_instance_name: str


class Unsubscribe(msgspec.Struct, tag="unsubscribe-from-instance", rename="camel"):
    machine_name: str
    machine_instance_name: str
    request_id: str = ""


class Ping(msgspec.Struct, tag="ping"):
    pass


class Authenticate(msgspec.Struct, tag="authenticate", rename="camel"):
    token: str
    org_id: str | None = None
    act: msgspec.Raw = msgspec.Raw()  # empty: as the person
    request_id: str = ""


class SendEvent(msgspec.Struct, tag="send-event", rename="camel"):
    request_id: str
    machine_name: str
    machine_instance_name: str
    event: msgspec.Raw
    idempotency_key: str | None = None


class CreateInstance(msgspec.Struct, tag="create-instance", rename="camel"):
    request_id: str
    machine_name: str
    slug: str
    context: msgspec.Raw = msgspec.Raw(b"{}")
    machine_version_id: str | None = None
    idempotency_key: str | None = None


Message = Subscribe | Unsubscribe | Ping | Authenticate | SendEvent | CreateInstance
Request = SendEvent | CreateInstance

_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.encode


class RealtimeConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One connection."""

    # States go from the engine to the connection directly; no channel layer stands between.
    channel_layer_alias = "none"

    caller: LeanCaller

    async def connect(self) -> None:
        self._subscriptions: dict[tuple[str, str], Subscription] = {}
        self._waiting: dict[Subscription, str] = {}  # newest text by subscription, oldest first
        self._sender: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._headers: list[tuple[bytes, bytes]] = []
        self._is_authenticated = False
        self._realtime = _realtime()
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        token = query.get("token", [""])[0]
        if token:
            try:
                await self._authenticate(token, query.get("x-statebacked-org-id", [None])[0], None)
            except DomainError:
                # A refused client is back at once: it has to wait for its refusal.
                await asyncio.sleep(REFUSE_AFTER_S * (1 + random.random()))
                await self.close()
                return
        await self.accept()
        loop = asyncio.get_running_loop()
        self._silence = loop.call_later(
            SILENCE_S if token else AUTHENTICATE_WITHIN_S, self._on_silence
        )

    async def _authenticate(self, token: str, org: str | None, act: bytes | None) -> None:
        authorization = f"Bearer {token}".encode()
        org_header = org.encode() if org else None
        key = (authorization, org_header, act)
        self.caller = callers.get(key) or await callers.verify(key)
        self._headers = [
            (name, value)
            for name, value in (
                (b"authorization", authorization),
                (b"x-statebacked-org-id", org_header),
                (b"x-statebacked-act", act),
            )
            if value is not None
        ]
        self._is_authenticated = True
        loop = asyncio.get_running_loop()
        in_s = max(self.caller.expires_at - time.time(), 0)
        self._expiry = loop.call_later(min(in_s, 30 * 86_400), self.revoke)
        self._realtime.listeners.add(self)

    async def disconnect(self, code: int) -> None:
        if self._is_authenticated:
            self._realtime.listeners.discard(self)
            self._expiry.cancel()
        if hasattr(self, "_silence"):
            self._silence.cancel()
        for subscription in self._subscriptions.values():
            self._realtime.unsubscribe(subscription)
        self._subscriptions.clear()
        self._waiting.clear()
        # Events that were sent are processed all the same; only their answers have nowhere to go.

    # ------------------------------------------------------------------ messages in

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        data = text_data if text_data is not None else bytes_data or b""
        if len(data) > MESSAGE_BYTES_MAX:
            await self.close(CLOSE_TOO_LARGE)
            return
        self._restart_silence()
        try:
            message = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            await self._send_error("", InvalidParameter(f"The message is not understood: {exc}"))
            return
        request_id = getattr(message, "request_id", "")[:REQUEST_ID_LENGTH_MAX]
        try:
            await self._on_message(message, request_id)
        except DomainError as error:
            await self._send_error(request_id, error)

    async def _on_message(self, message: Message, request_id: str) -> None:
        match message:
            case Ping():
                pass
            case Authenticate():
                if self._is_authenticated:
                    raise InvalidParameter("This connection has a token already", "token")
                act = bytes(message.act) or None
                await self._authenticate(message.token, message.org_id, act)
                await self._send_json({"type": "authenticated", "requestId": request_id})
            case _ if not self._is_authenticated:
                raise InvalidParameter("Send an `authenticate` message with a token first", "token")
            case Subscribe():
                await self._subscribe(message, request_id)
            case Unsubscribe():
                name = (message.machine_name, message.machine_instance_name)
                subscription = self._subscriptions.pop(name, None)
                if subscription is not None:
                    self._realtime.unsubscribe(subscription)
                    self._waiting.pop(subscription, None)
            case SendEvent() | CreateInstance():
                await self._start_request(message, request_id)

    async def _subscribe(self, message: Subscribe, request_id: str) -> None:
        if not self.caller.can_read:
            raise MissingScope("This needs the scope state.read")
        machine, slug = message.machine_name, message.machine_instance_name
        if (machine, slug) in self._subscriptions:
            # The published client subscribes again after it has reconnected, and once more for
            # each listener: it wants the present state.
            self._realtime.unsubscribe(self._subscriptions.pop((machine, slug)))
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            raise InvalidParameter(f"A connection has {SUBSCRIPTIONS_MAX} subscriptions at most")
        known = machines.get(self.caller.org_id, machine)
        machine_id, _ = known or await machines.find(self.caller.org_id, machine)
        subscription = Subscription(self, request_id)
        self._subscriptions[machine, slug] = subscription
        # Before the present state is read, so that none is missed in between.
        self._realtime.subscribe(subscription, (machine_id, slug), machine, self.caller.auth)
        try:
            row = await lean.readable_row((machine_id, slug), self.caller.auth)
        except DomainError:
            self._realtime.unsubscribe(subscription)
            if self._subscriptions.get((machine, slug)) is subscription:
                del self._subscriptions[machine, slug]
            raise
        if row.seq > subscription.seq:
            subscription.seq = row.seq
            self.push(subscription, update_text(machine, slug, row))

    async def _start_request(self, message: Request, request_id: str) -> None:
        while len(self._requests) >= REQUESTS_AT_ONCE:
            await asyncio.wait(self._requests, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._answer(message, request_id))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _answer(self, message: Request, request_id: str) -> None:
        headers = list(self._headers)
        if message.idempotency_key is not None:
            headers.append((b"idempotency-key", message.idempotency_key.encode()))
        if isinstance(message, SendEvent):
            status, content, _ = await lean.answer(
                "send",
                message.machine_name,
                message.machine_instance_name,
                headers,
                _encode({"event": message.event}),
            )
        else:
            body: dict[str, Any] = {"slug": message.slug, "context": message.context}
            if message.machine_version_id is not None:
                body["machineVersionId"] = message.machine_version_id
            status, content, _ = await lean.answer(
                "create", message.machine_name, None, headers, _encode(body)
            )
        reply: dict[str, Any] = {"requestId": request_id, "status": status}
        if status == 200:
            reply |= {"type": "reply", "state": msgspec.Raw(content)}
        else:
            reply |= {"type": "error", **msgspec.json.decode(content)}
        with contextlib.suppress(*CLOSED):
            await self._send_json(reply)

    # ------------------------------------------------------------------ messages out

    def push(self, subscription: Subscription, text: str) -> None:
        self._waiting[subscription] = text
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_waiting())

    async def _send_waiting(self) -> None:
        """Send the newest text of each subscription, as fast as the client reads."""
        with contextlib.suppress(*CLOSED):
            while self._waiting:
                subscription = next(iter(self._waiting))
                await self.send(text_data=self._waiting.pop(subscription))

    def gone(self, subscription: Subscription) -> None:
        self.push(
            subscription,
            _error_text(subscription.request_id, InstanceNotFound("The instance was deleted")),
        )

    async def _send_error(self, request_id: str, error: DomainError) -> None:
        await self.send(text_data=_error_text(request_id, error))

    async def _send_json(self, value: Any) -> None:
        await self.send(text_data=_encode(value).decode())

    # ------------------------------------------------------------------ ends

    def revoke(self) -> None:
        self._close_soon(CLOSE_BAD_TOKEN)

    def _restart_silence(self) -> None:
        self._silence.cancel()
        wait_s = SILENCE_S if self._is_authenticated else AUTHENTICATE_WITHIN_S
        self._silence = asyncio.get_running_loop().call_later(wait_s, self._on_silence)

    def _on_silence(self) -> None:
        self._close_soon(CLOSE_SILENT if self._is_authenticated else CLOSE_BAD_TOKEN)

    def _close_soon(self, code: int) -> None:
        task = asyncio.create_task(self.close(code))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)


def _realtime() -> Realtime:
    if not door.is_ready():
        raise Unavailable("The server is starting or shutting down")
    return door.node().realtime


def _error_text(request_id: str, error: DomainError) -> str:
    message = {"type": "error", "requestId": request_id, "status": error.status, **error.body()}
    return _encode(message).decode()
