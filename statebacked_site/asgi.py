"""The ASGI application: the event path first, then Django; starts and stops the engine.

Order of what a request meets: CORS preflight, the lean event path (instances/lean.py), the address
for other nodes (instances/node_requests.py), `/healthz`, Django. Every answer under `/api` may be
read by pages of any origin: tokens are sent in a header by code that has them, never by the browser
on its own, so there is nothing that CORS could protect.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "statebacked_site.settings")

import django

django.setup(set_prefix=False)

from django.core.asgi import get_asgi_application

from instances import lean, node_requests
from instances.consumers import RealtimeConsumer
from instances.live import live_application
from statebacked_site import node_lifespan
from statebacked_site.errors import TooLarge
from statebacked_site.json_text import write_json

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

django_application = get_asgi_application()
realtime_application = RealtimeConsumer.as_asgi()

PREFLIGHT_HEADERS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, OPTIONS"),
    (b"access-control-max-age", b"86400"),
    (b"content-length", b"0"),
]
# Larger bodies are refused before Django reads them: nothing below /api takes more than a code
# bundle, 10 MB of it, in a multipart form.
BODY_BYTES_MAX = 16 * 1024 * 1024
BODY_BYTES_DRAINED = 4 * BODY_BYTES_MAX  # of a refused one, before the connection is closed

CORS_HEADERS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"x-request-id, retry-after, idempotent-replayed"),
]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        path: str = scope["path"]
        if path.startswith("/api/"):
            method = scope["method"]
            found = lean.match(method, path) if path.startswith("/api/machines/") else None
            # What is asked with a query (`?explain=1`) takes its time in Django.
            if found is not None and not scope["query_string"]:
                await lean.serve(found, scope, receive, send)
            elif method == "OPTIONS":
                await _answer_preflight(scope, send)
            else:
                await _serve_django(scope, receive, _with_cors(send))
        elif path == node_requests.PATH:
            await node_requests.serve(scope, receive, send)
        elif path == "/healthz":
            await node_lifespan.answer_health(send)
        else:
            await _serve_django(scope, receive, send)
    elif scope["type"] == "lifespan":
        await node_lifespan.run(receive, send)
    elif scope["type"] == "websocket":
        if scope["path"] == "/api/rt":
            await realtime_application(scope, receive, send)
        elif scope["path"] == "/live":
            await live_application(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close"})


async def _serve_django(scope: Scope, receive: Receive, send: Send) -> None:
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > BODY_BYTES_MAX:
            await _refuse_body(receive, send)
            return
    await django_application(scope, _bounded(receive), send)  # type: ignore[arg-type]


def _bounded(receive: Receive) -> Receive:
    """A body without a length, as the client sends it: past the bound the client counts as gone."""
    size = 0

    async def receive_bounded() -> Any:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        return message if size <= BODY_BYTES_MAX else {"type": "http.disconnect"}

    return receive_bounded


async def _refuse_body(receive: Receive, send: Send) -> None:
    # Most clients look at the answer only when they have sent everything.
    size, more = 0, True
    while more and size < BODY_BYTES_DRAINED:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    error = TooLarge(f"A request has at most {BODY_BYTES_MAX:,} bytes")
    body = write_json(error.body())
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _answer_preflight(scope: Scope, send: Send) -> None:
    headers = list(PREFLIGHT_HEADERS)
    for name, value in scope["headers"]:
        if name == b"access-control-request-headers":
            headers.append((b"access-control-allow-headers", value))
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _with_cors(send: Send) -> Send:
    async def send_with_cors(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *CORS_HEADERS]
        await send(message)

    return send_with_cors
