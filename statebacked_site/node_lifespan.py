"""Starts and stops the engine with the server that hosts it, and says whether it is ready."""

from collections.abc import Awaitable, Callable
from typing import Any

from instances.engine import door
from instances.engine.node import EngineNode
from statebacked_site.engine_settings import engine_settings

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


async def run(receive: Receive, send: Send) -> None:
    """Answer the messages of an ASGI `lifespan` scope."""
    node = EngineNode(engine_settings())
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await node.start()
            except Exception as error:  # noqa: BLE001 - whatever it is, the server says it and ends
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            door.install(node)
            await send({"type": "lifespan.startup.complete"})
        else:
            await node.stop()
            door.install(None)
            await send({"type": "lifespan.shutdown.complete"})
            return


async def answer_health(send: Send) -> None:
    """200 while events can be served; 503 before, while stopping, and without a lease."""
    ready = door.is_ready()
    body = b'{"status":"ok"}' if ready else b'{"status":"unavailable"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200 if ready else 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
