"""A TCP proxy between one node and one server that can cut, stall, delay and swallow."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

CHUNK_BYTES = 65_536
CONNECT_S = 2.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: send a reset instead of what is left


class Proxy:
    """Listens on 127.0.0.1; what it does to connections is changed by plain attributes."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.port = 0
        self.delay_s = 0.0  # of each piece of data, in both directions
        self.refuses = False  # new connections
        self.swallows = False  # what the server answers
        self._flows = asyncio.Event()
        self._flows.set()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.heal()
        self.cut()

    def cut(self) -> None:
        """Reset all connections on both sides."""
        for pair in list(self._pairs):
            for writer in pair:
                _reset(writer)

    def stall(self) -> None:
        """Hold everything back; connections stay, and new ones are taken."""
        self._flows.clear()

    def heal(self) -> None:
        """Let everything flow again."""
        self.delay_s = 0.0
        self.refuses = self.swallows = False
        self._flows.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            _reset(writer)
            return
        try:
            opening = asyncio.open_connection("127.0.0.1", self.upstream_port)
            upstream_reader, upstream_writer = await asyncio.wait_for(opening, CONNECT_S)
        except (OSError, TimeoutError):
            _reset(writer)
            return
        pair = (writer, upstream_writer)
        self._pairs.add(pair)
        try:
            there = asyncio.create_task(self._pump(reader, upstream_writer, is_answer=False))
            back = asyncio.create_task(self._pump(upstream_reader, writer, is_answer=True))
            _, unfinished = await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
            # One direction has ended: what the other one still has is given a moment.
            if unfinished:
                await asyncio.wait(unfinished, timeout=0.2)
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
        finally:
            self._pairs.discard(pair)
            for each in pair:
                each.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if not self._flows.is_set():
                    await self._flows.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if is_answer and self.swallows:
                    continue
                writer.write(data)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
