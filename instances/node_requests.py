"""What other nodes ask of this one: an ASGI application for the internal address."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from instances.engine import door
from instances.engine.forwarding import BODY_BYTES_MAX, PATH, REPLAYED

__all__ = ["PATH", "serve"]

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


async def serve(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer a request for PATH; to whoever cannot sign it, there is nothing here."""
    body = await _body(receive)
    forwarder = door.forwarder()
    if scope["method"] != "POST" or forwarder is None or body is None:
        status, content, is_replayed = 404, b"{}", False
    else:
        status, content, is_replayed = await forwarder.answer(dict(scope["headers"]), body)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    if is_replayed:
        headers.append((REPLAYED.encode(), b"true"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if it is too large or its sender went away."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part: bytes = message.get("body", b"")
        body += part
        if len(body) > BODY_BYTES_MAX:
            return None
        if not message.get("more_body"):
            return body
