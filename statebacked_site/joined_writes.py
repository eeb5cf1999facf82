"""An HTTP protocol for uvicorn that sends a response in one write instead of two.

uvicorn writes the head and the body of a response separately, and uvloop makes a system call and
a packet of each: the client wakes up twice. Here the head waits for the body. ASGI allows it: a
server need not send anything before the first part of the body is there.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_START = b"HTTP/1.1 "
CONTINUE_START = b"HTTP/1.1 100"  # sent while the request is still being read; must not wait


class HeadHoldingTransport:
    """A transport that keeps a response's head until the next write, a flush or the end."""

    __slots__ = ("_head", "is_closing", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.is_closing = transport.is_closing
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        head = self._head
        if head is not None:
            self._head = None
            self.transport.write(head + data)
        elif data.startswith(HEAD_START) and not data.startswith(CONTINUE_START):
            self._head = data
        else:
            self.transport.write(data)

    def flush(self) -> None:
        """Send a head that no body follows, as of an answer to HEAD."""
        head = self._head
        if head is not None:
            self._head = None
            self.transport.write(head)

    def close(self) -> None:
        self.flush()
        self.transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


class JoinedWritesProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol on a HeadHoldingTransport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._holding = HeadHoldingTransport(transport)
        super().connection_made(cast(asyncio.Transport, self._holding))

    def on_response_complete(self) -> None:
        self._holding.flush()
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        # The WebSocket protocol writes a head without a body, and then frames.
        self.transport = self._holding.transport
        super().handle_websocket_upgrade()
