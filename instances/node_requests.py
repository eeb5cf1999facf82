"""What other nodes ask of this one: an ASGI application for the internal address."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from instances.engine import door
from instances.engine.forwarding import BODY_BYTES_MAX, PATH, TAKEN

__all__ = ["PATH", "serve"]

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


async def serve(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer a request for PATH; to whoever cannot sign it, there is nothing here."""
    body = await _body(receive)
    forwarder = door.forwarder()
    answers = None
    if scope["method"] == "POST" and forwarder is not None and body is not None:
        answers = forwarder.take(dict(scope["headers"]), body)
    if answers is None:
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": TAKEN, "more_body": True})
    more = True
    while more:
        part, more = await answers.next()
        await send({"type": "http.response.body", "body": part, "more_body": more})


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
