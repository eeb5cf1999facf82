"""The ASGI application of a worker: what other nodes send, and whether it is alive.

It has neither pages nor API. Django has been set up by Celery.
"""

from collections.abc import MutableMapping
from typing import Any

from instances import node_requests
from statebacked_site import node_lifespan
from statebacked_site.node_lifespan import Receive, Send


async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await node_lifespan.run(receive, send)
    elif scope["type"] == "http":
        if scope["path"] == node_requests.PATH:
            await node_requests.serve(scope, receive, send)
        elif scope["path"] == "/healthz":
            await node_lifespan.answer_health(send)
        else:
            headers = [(b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 404, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
    else:
        await receive()
        await send({"type": "websocket.close"})
