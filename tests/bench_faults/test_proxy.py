"""What the proxy of a fault run does to a connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from bench.faults.proxy import Proxy

PATIENCE_S = 20.0


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server that says what it was told."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionResetError):
            while data := await reader.read(1000):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def proxy(echo) -> AsyncIterator[Proxy]:
    proxy = Proxy(echo)
    await proxy.start()
    yield proxy
    await proxy.stop()


async def say(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"hello")
    return reader, writer


async def heard(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        return await reader.readexactly(5)


async def test_passes_everything_on(proxy):
    reader, writer = await say(proxy)

    assert await heard(reader) == b"hello"
    writer.close()


async def test_cut_resets_the_connection_and_takes_new_ones(proxy):
    reader, writer = await say(proxy)
    await heard(reader)

    proxy.cut()

    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await heard(reader)
    writer.close()
    reader, writer = await say(proxy)
    assert await heard(reader) == b"hello"
    writer.close()


async def test_stall_holds_back_what_flows_later(proxy):
    proxy.stall()
    reader, writer = await say(proxy)
    hearing = asyncio.create_task(heard(reader))
    await asyncio.wait({hearing}, timeout=0.1)
    assert not hearing.done()

    proxy.heal()

    assert await hearing == b"hello"
    writer.close()


async def test_swallows_answers_and_refuses_connections(proxy):
    proxy.swallows = True
    reader, writer = await say(proxy)
    hearing = asyncio.create_task(heard(reader))
    await asyncio.wait({hearing}, timeout=0.1)
    assert not hearing.done()
    proxy.cut()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await hearing
    writer.close()

    proxy.refuses = True
    reader, writer = await say(proxy)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await heard(reader)
    writer.close()
