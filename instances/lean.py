"""The event path: creating instances, sending events, reading state. Plain ASGI, no middleware.

Django's request handling costs 0.6 ms of CPU per request bare and 2 ms with the usual middleware;
an event costs 0.15 ms in all. So these three operations are answered here, straight from the ASGI
scope. `respond` gives the same answers to an ordinary Django request, so that the operations stand
in the URLconf too, for `reverse()`, the test client and the OpenAPI description.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse

from instances.engine import door
from instances.engine.errors import EngineError, InstanceNotFound, InstancePaused, MachineThrew
from instances.engine.operations import Code, Replayed, state_body
from instances.engine.store import InstanceRow
from statebacked_site.errors import DomainError
from statebacked_site.identifiers import SLUG

log = logging.getLogger("statebacked.events")

OperationName = Literal["create", "read", "send"]
Headers = list[tuple[bytes, bytes]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

BODY_BYTES_MAX = 512_000
DEPTH_MAX = 64
CALLERS_MAX = 10_000
MACHINES_MAX = 10_000
MACHINE_LIFETIME_S = 10.0  # how long a machine's current version is believed without a look
REQUEST_KEY_LENGTH_MAX = 255
RESERVED_EVENTS = ("xstate.", "done.invoke.", "error.platform.", "statebacked.")
SEND_SCOPES = frozenset({"events.write", "instances.write"})

JSON_TYPE = (b"content-type", b"application/json")
ALLOW_ORIGIN = (b"access-control-allow-origin", b"*")
_lengths = [(b"content-length", b"%d" % size) for size in range(4096)]


class InvalidRequest(DomainError):
    status = 400
    code = "invalid-parameter"


class TooLarge(DomainError):
    status = 413
    code = "too-large"


class MissingScope(DomainError):
    status = 403
    code = "missing-scope"


class MachineNotFound(DomainError):
    status = 404
    code = "not-found"


class NoVersion(DomainError):
    status = 400
    code = "invalid-parameter"


class _EventBody(msgspec.Struct):
    event: msgspec.Raw


class _EventType(msgspec.Struct):
    type: str


class _CreateBody(msgspec.Struct):
    slug: str
    context: msgspec.Raw = msgspec.Raw(b"{}")
    machineVersionId: str | None = None  # noqa: N815  the name in the API


_decode_event_body = msgspec.json.Decoder(_EventBody).decode
_decode_event_type = msgspec.json.Decoder(_EventType).decode
_decode_create_body = msgspec.json.Decoder(_CreateBody).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode
_WHITE_SPACE = bytes.maketrans(b"\n\r\t", b"   ")
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')


# ---------------------------------------------------------------------- who asks


class LeanCaller:
    """A verified token, as the event path needs it."""

    __slots__ = ("auth", "can_create", "can_read", "can_send", "expires_at", "is_admin", "key_id",
                 "org_id")  # fmt: skip

    def __init__(self, caller: Any) -> None:
        scopes: frozenset[str] = caller.scopes
        self.org_id: int | None = caller.org_id
        self.expires_at: float = caller.expires_at
        self.key_id: str | None = caller.key_public_id
        self.auth = _encode(caller.auth_context).decode()
        self.can_send = bool(scopes & SEND_SCOPES)
        self.can_create = "instances.write" in scopes
        self.can_read = "state.read" in scopes
        self.is_admin = "instances.admin" in scopes


CallerKey = tuple[bytes | None, bytes | None, bytes | None]


class Callers:
    """Verified tokens by the headers that carried them, until they expire or their key goes."""

    def __init__(self) -> None:
        self._known: dict[CallerKey, LeanCaller] = {}
        self._generation = 0

    def get(self, key: CallerKey) -> LeanCaller | None:
        caller = self._known.get(key)
        if caller is not None and caller.expires_at > time.time():
            return caller
        return None

    async def verify(self, key: CallerKey) -> LeanCaller:
        generation = self._generation
        caller = LeanCaller(await _identify(*key))
        if generation == self._generation:  # nothing was revoked while it was looked up
            if len(self._known) >= CALLERS_MAX:
                self._known.clear()
            self._known[key] = caller
        return caller

    def forget_key(self, key_id: str) -> None:
        self._generation += 1
        self._known = {k: c for k, c in self._known.items() if c.key_id != key_id}

    def clear(self) -> None:
        self._generation += 1
        self._known.clear()


@sync_to_async(thread_sensitive=False)
def _identify(authorization: bytes | None, org: bytes | None, act: bytes | None) -> Any:
    from django.db import close_old_connections

    from authz.callers import identify

    def text(value: bytes | None) -> str | None:
        return value.decode("utf-8", "replace") if value is not None else None

    close_old_connections()
    try:
        return identify(text(authorization), text(org), text(act), time.time())
    finally:
        close_old_connections()


class Machines:
    """Machine ids and current versions by (org, slug)."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], tuple[int, int | None, float]] = {}

    def get(self, org_id: int, slug: str) -> tuple[int, int | None] | None:
        known = self._known.get((org_id, slug))
        if known is not None and known[2] > time.monotonic():
            return known[0], known[1]
        return None

    async def find(self, org_id: int, slug: str) -> tuple[int, int | None]:
        """(machine id, current version id). Raises MachineNotFound."""
        from machines.models import Machine

        query = Machine.objects.filter(org_id=org_id, slug=slug)
        found = await query.values_list("id", "current_version_id").afirst()
        if found is None:
            raise MachineNotFound(f"there is no machine {slug}")
        if len(self._known) >= MACHINES_MAX:
            self._known.clear()
        self._known[org_id, slug] = (*found, time.monotonic() + MACHINE_LIFETIME_S)
        return found

    def forget(self, machine_id: int) -> None:
        self._known = {k: v for k, v in self._known.items() if v[0] != machine_id}

    def clear(self) -> None:
        self._known.clear()


callers = Callers()
machines = Machines()


# ---------------------------------------------------------------------- the three operations


async def answer(
    operation: OperationName,
    machine: str,
    instance: str | None,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
) -> tuple[int, bytes, Headers]:
    """Status, JSON body and further headers for one request."""
    authorization = org = act = request_key = None
    for name, value in headers:
        if name == b"authorization":
            authorization = value
        elif name == b"x-statebacked-org-id":
            org = value
        elif name == b"x-statebacked-act":
            act = value
        elif name == b"idempotency-key":
            request_key = value
    caller = None
    try:
        key = (authorization, org, act)
        caller = callers.get(key) or await callers.verify(key)
        if operation == "send":
            reply = await _send(caller, machine, instance or "", body, request_key)
        elif operation == "read":
            reply = await _read(caller, machine, instance or "")
        else:
            reply = await _create(caller, machine, body)
    except DomainError as error:
        return error_answer(error, caller)
    except EngineStopped:
        return error_answer(_unavailable(), caller)
    if type(reply) is Replayed:
        return 200, reply, [(b"idempotent-replayed", b"true")]
    return 200, reply, []


class EngineStopped(Exception):
    """No engine runs in this process (yet, or any more)."""


def _node() -> Any:
    if not door.is_ready():
        raise EngineStopped
    return door.node()


async def _send(
    caller: LeanCaller, machine: str, slug: str, body: bytes, request_key: bytes | None
) -> bytes:
    if not caller.can_send:
        raise MissingScope("this token lacks the scope events.write")
    found = machines.get(caller.org_id or 0, machine)
    machine_id, _ = found or await machines.find(_org(caller), machine)
    event = parse_event(body)
    key = _request_key(request_key) if request_key is not None else None
    node = _node()
    future = node.loop.create_future()
    node.engine.send((machine_id, slug), event, caller.auth, future, key)
    return await future  # type: ignore[no-any-return]


async def _create(caller: LeanCaller, machine: str, body: bytes) -> bytes:
    if not caller.can_create:
        raise MissingScope("this token lacks the scope instances.write")
    found = machines.get(caller.org_id or 0, machine)
    machine_id, version_id = found or await machines.find(_org(caller), machine)
    slug, context, version = _parse_create(body)
    if version is not None:
        version_id = await _find_version(machine_id, version)
    if version_id is None:
        raise NoVersion(f"the machine {machine} has no current version: create one first")
    node = _node()
    future = node.loop.create_future()
    node.engine.create((machine_id, slug), version_id, context, caller.auth, future)
    return await future  # type: ignore[no-any-return]


async def _read(caller: LeanCaller, machine: str, slug: str) -> bytes:
    if not caller.can_read:
        raise MissingScope("this token lacks the scope state.read")
    found = machines.get(caller.org_id or 0, machine)
    machine_id, _ = found or await machines.find(_org(caller), machine)
    node = _node()
    future = node.loop.create_future()
    node.store.read((machine_id, slug), future.set_result)
    row = await future
    if isinstance(row, Exception):
        raise _unavailable()
    if row is None or row.status == 2:
        raise InstanceNotFound(f"there is no instance {slug}")
    return await _authorized_state(node, caller, row, slug)


async def _authorized_state(node: Any, caller: LeanCaller, row: InstanceRow, slug: str) -> bytes:
    from instances.engine.core import public_of

    future = node.loop.create_future()

    def done(result: int | EngineError) -> None:
        if not future.done():
            future.set_result(result)

    node.engine.read(row, slug, caller.auth, done)
    result = await future
    if isinstance(result, EngineError):
        raise result
    if result != Code.CHANGED:
        from instances.engine.errors import RejectedByAuthorizer

        raise RejectedByAuthorizer("the machine's allowRead said no")
    return state_body(row.ts, row.state, public_of(row.context))


def _org(caller: LeanCaller) -> int:
    if caller.org_id is None:
        raise MissingOrg("this token belongs to no org")
    return caller.org_id


class MissingOrg(DomainError):
    status = 403
    code = "missing-org"


async def _find_version(machine_id: int, public_id: str) -> int:
    from machines.models import MachineVersion

    query = MachineVersion.objects.filter(machine_id=machine_id, public_id=public_id)
    version_id = await query.values_list("id", flat=True).afirst()
    if version_id is None:
        raise InvalidRequest("the machine has no such version", parameter="machineVersionId")
    return version_id


# ---------------------------------------------------------------------- input


def parse_event(body: bytes) -> str:
    """The event of a request as one line of JSON text. Raises InvalidRequest."""
    try:
        raw = bytes(_decode_event_body(body).event)
        raw.decode()  # the decoder checks the grammar but not the UTF-8 of what it skips
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest(
            f'the body must be JSON {{"event": …}}: {exc}', parameter="event"
        ) from exc
    if raw[:1] == b'"':
        raw = b'{"type":%b}' % raw  # an event without payload may be its type alone
    _check_depth(raw, "event")
    try:
        event_type = _decode_event_type(raw).type
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise InvalidRequest(
            "the event must be an object with a string `type`, or a string", parameter="event"
        ) from exc
    if event_type.startswith(RESERVED_EVENTS):
        raise InvalidRequest(
            f"events named {event_type[:64]} belong to XState or the platform", parameter="event"
        )
    return _one_line(raw)


def _parse_create(body: bytes) -> tuple[str, str, str | None]:
    """(slug, context as one line of JSON, public id of a version or None)."""
    try:
        request = _decode_create_body(body)
        context = bytes(request.context)
        context.decode()
        if context == b"null":
            context = b"{}"
        _check_depth(context, "context")
        _decode_object(context)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest(f'the body must be JSON {{"slug", "context"?}}: {exc}') from exc
    if SLUG.match(request.slug) is None:
        raise InvalidRequest(
            "a slug has 1 to 128 letters, digits, underscores and dashes", parameter="slug"
        )
    return request.slug, _one_line(context), request.machineVersionId


def _one_line(raw: bytes) -> str:
    # Only white space between tokens can be there: strings with raw control characters are refused.
    if b"\n" in raw or b"\t" in raw or b"\r" in raw:
        raw = raw.translate(_WHITE_SPACE)
    return raw.decode()


def _check_depth(raw: bytes, parameter: str) -> None:
    if raw.count(b"{") + raw.count(b"[") <= DEPTH_MAX:
        return
    depth = 0
    for byte in _STRINGS.sub(b"", raw):
        if byte in b"{[":
            depth += 1
            if depth > DEPTH_MAX:
                raise InvalidRequest(f"nested deeper than {DEPTH_MAX} levels", parameter=parameter)
        elif byte in b"}]":
            depth -= 1


def _request_key(value: bytes) -> str:
    text = value.decode("latin-1")
    if not text or len(text) > REQUEST_KEY_LENGTH_MAX or not text.isprintable():
        raise InvalidRequest(
            f"Idempotency-Key must have 1 to {REQUEST_KEY_LENGTH_MAX} printable characters",
            parameter="Idempotency-Key",
        )
    return text


# ---------------------------------------------------------------------- errors


def _unavailable() -> EngineError:
    from instances.engine.errors import Unavailable

    return Unavailable("the server is starting or shutting down")


def error_answer(error: DomainError, caller: LeanCaller | None) -> tuple[int, bytes, Headers]:
    request_id = secrets.token_hex(8)
    body = error.body()
    if isinstance(error, MachineThrew):
        if caller is None or not caller.is_admin:
            body["error"] = (
                f"the machine failed while it processed the event (request {request_id})"
            )
        log.info("request %s: machine-error: %s", request_id, error)
    headers: Headers = [(b"x-request-id", request_id.encode())]
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % retry_after_s))
    if caller is None and error.status == 403:
        headers.append((b"www-authenticate", b"Bearer"))
    return error.status, _encode(body), headers


# ---------------------------------------------------------------------- ASGI


def match(method: str, path: str) -> tuple[OperationName, str, str | None] | None:
    """Which of the three operations a request is, with machine and instance slug."""
    parts = path.split("/")  # "", "api", "machines", machine[, "i", instance[, "events"]]
    size = len(parts)
    if size == 7:
        if method == "POST" and parts[6] == "events" and parts[4] == "i":
            return "send", parts[3], parts[5]
    elif size == 4:
        if method == "POST" and parts[3]:
            return "create", parts[3], None
    elif size == 6 and method == "GET" and parts[4] == "i" and parts[5]:
        return "read", parts[3], parts[5]
    return None


async def serve(
    found: tuple[OperationName, str, str | None],
    scope: Mapping[str, Any],
    receive: Receive,
    send: Send,
) -> None:
    """Answer a matched request of an ASGI server."""
    message = await receive()
    body = message.get("body", b"")
    if message.get("more_body"):
        read = await _read_body(body, receive)
        if read is None:
            return  # the client is gone
        body = read
    try:
        if len(body) > BODY_BYTES_MAX:
            raise TooLarge(f"a request has at most {BODY_BYTES_MAX:,} bytes")
        status, content, headers = await answer(*found, scope["headers"], body)
    except DomainError as error:
        status, content, headers = error_answer(error, None)
    except Exception:
        log.exception("request failed: %s %s", scope["method"], scope["path"])
        status, content, headers = 500, b'{"error":"internal error","code":"internal-error"}', []
    size = len(content)
    length = _lengths[size] if size < 4096 else (b"content-length", b"%d" % size)
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [JSON_TYPE, length, ALLOW_ORIGIN, *headers],
    }
    await send(start)
    await send({"type": "http.response.body", "body": content})


async def _read_body(first: bytes, receive: Receive) -> bytes | None:
    """The whole body, or as much of it as shows that it is too large; None if the client left."""
    parts, size = [first], len(first)
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        size += len(message["body"])
        if size <= BODY_BYTES_MAX:
            parts.append(message["body"])
        more = message.get("more_body", False)
    return b"".join(parts) if size <= BODY_BYTES_MAX else b" " * (BODY_BYTES_MAX + 1)


# ---------------------------------------------------------------------- Django


def respond(
    request: HttpRequest, *, operation: OperationName, machine: str, instance: str | None = None
) -> HttpResponse:
    """The same answer for a request that came through Django."""
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in request.headers.items()
    ]
    status, content, extra = door.run(answer(operation, machine, instance, headers, request.body))
    response = HttpResponse(content, status=status, content_type="application/json")
    for name, value in extra:
        response[name.decode()] = value.decode()
    return response


__all__ = ["answer", "callers", "machines", "match", "respond", "serve"]
