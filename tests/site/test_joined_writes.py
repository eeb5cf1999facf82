"""Responses over a real connection, with every write of the server noted."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
import uvicorn
from websockets.asyncio.client import connect

from statebacked_site.joined_writes import HeadHoldingTransport, JoinedWritesProtocol


def answering(*messages):
    """An ASGI application that answers every request by these messages."""

    async def application(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "hello"})
            await receive()
            return
        for message in messages:
            await send(message)

    return application


def start(status=200, **headers):
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def body(content=b"", more=False):
    return {"type": "http.response.body", "body": content, "more_body": more}


@asynccontextmanager
async def serving(application, writes):
    """The address of a server whose writes to the network are added to `writes`."""

    class NotingTransport(asyncio.Transport):
        def __init__(self, transport):
            super().__init__()
            self.transport = transport

        def write(self, data):
            writes.append(bytes(data))
            self.transport.write(data)

        def close(self):
            self.transport.close()

        def is_closing(self):
            return self.transport.is_closing()

        def get_extra_info(self, name, default=None):
            return self.transport.get_extra_info(name, default)

        def pause_reading(self):
            self.transport.pause_reading()

        def resume_reading(self):
            self.transport.resume_reading()

        def set_protocol(self, protocol):
            self.transport.set_protocol(protocol)

    class NotingProtocol(JoinedWritesProtocol):
        def connection_made(self, transport):
            super().connection_made(NotingTransport(transport))

    config = uvicorn.Config(
        application, http=NotingProtocol, ws="websockets-sansio", lifespan="off", log_config=None
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await server.startup(sockets=[listener])
        try:
            yield listener.getsockname()
        finally:
            await server.shutdown(sockets=[listener])


async def exchange(address, *requests):
    """What the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"".join(requests))
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    return answer


GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
LAST_HEAD = b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def test_head_and_body_go_in_one_write():
    writes: list[bytes] = []
    application = answering(start(content_length="2"), body(b"ok"))

    async with serving(application, writes) as address:
        answer = await exchange(address, LAST_GET)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nok")
    assert writes == [answer]


async def test_each_answer_of_a_kept_connection_is_one_write():
    writes: list[bytes] = []
    application = answering(start(content_length="2"), body(b"ok"))

    async with serving(application, writes) as address:
        answer = await exchange(address, GET, GET, LAST_GET)

    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert len(writes) == 3


@pytest.mark.parametrize(
    ("messages", "request_bytes"),
    [
        ((start(content_length="2"), body(b"ok")), LAST_HEAD),
        ((start(204), body()), LAST_GET),
        ((start(304), body()), LAST_GET),
    ],
)
async def test_answer_without_a_body_is_not_held_back(messages, request_bytes):
    async with serving(answering(*messages), []) as address:
        answer = await exchange(address, request_bytes)

    assert answer.startswith(b"HTTP/1.1 ")
    assert answer.endswith(b"\r\n\r\n")


async def test_body_that_looks_like_a_head_arrives_whole():
    chunks = [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200", b"end"]
    length = str(sum(map(len, chunks)))
    messages = [start(content_length=length), *(body(chunk, True) for chunk in chunks), body()]

    async with serving(answering(*messages), []) as address:
        answer = await exchange(address, LAST_GET)

    assert answer.endswith(b"\r\n\r\n" + b"".join(chunks))


async def test_streamed_body_follows_its_head_chunk_by_chunk():
    writes: list[bytes] = []
    application = answering(start(), body(b"one", True), body(b"two", True), body())

    async with serving(application, writes) as address:
        answer = await exchange(address, LAST_GET)

    assert answer.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    assert len(writes) == 3


async def test_client_that_asks_first_may_send_its_body():
    async def application(scope, receive, send):
        message = await receive()
        while message["more_body"]:
            message = await receive()
        await send(start(content_length="2"))
        await send(body(b"ok"))

    async with serving(application, []) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n"
            b"connection: close\r\n\r\n"
        )
        first = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.write(b"body")
        rest = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()

    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert rest.endswith(b"\r\n\r\nok")


async def test_websocket_is_not_touched():
    async with serving(answering(), []) as (host, port), connect(f"ws://{host}:{port}/") as client:
        assert await asyncio.wait_for(client.recv(), 5) == "hello"


def test_closing_sends_what_is_held():
    class Recorder(asyncio.Transport):
        def __init__(self):
            super().__init__()
            self.calls: list[bytes] = []

        def write(self, data):
            self.calls.append(bytes(data))

        def is_closing(self):
            return False

        def close(self):
            self.calls.append(b"closed")

    recorder = Recorder()
    transport = HeadHoldingTransport(recorder)

    transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
    transport.close()

    assert recorder.calls == [b"HTTP/1.1 200 OK\r\n\r\n", b"closed"]
