"""Opening a connection takes a bounded time, and lets the rest of the process run meanwhile."""

import asyncio
import socket
import time
from collections.abc import Iterator

import psycopg
import pytest

from instances.engine import postgres_session
from instances.engine.postgres_opening import CannotOpen, open_connection
from instances.engine.postgres_session import Identity, NotConnected, Session

SECONDS = 1.0


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener.getsockname()[1]


async def test_loop_goes_on_while_a_database_does_not_answer(silent_port, monkeypatch):
    monkeypatch.setattr(postgres_session, "CONNECT_TIMEOUT_S", SECONDS)
    conninfo = f"postgresql://postgres@127.0.0.1:{silent_port}/postgres"
    session = Session("test", conninfo, {}, Identity())

    running = asyncio.create_task(session.run("any"))
    turns = 0
    while not running.done():
        await asyncio.sleep(0.01)
        turns += 1

    with pytest.raises(NotConnected, match="in time"):
        await running
    assert turns > 10  # of about a hundred; with the lock held it would be one or two


def test_network_that_takes_nothing_is_given_up_soon():
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # its queue is full after one: packets of others are dropped
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        url = f"host=127.0.0.1 port={listener.getsockname()[1]} user=postgres"
        started = time.monotonic()

        with pytest.raises(CannotOpen, match="in time"):
            open_connection(url, 60 * SECONDS)

    assert time.monotonic() - started < 5 * SECONDS


def test_second_host_is_asked_when_the_first_is_silent(postgres, silent_port):
    url = (
        f"host=127.0.0.1,127.0.0.1 port={silent_port},{postgres.port} user=postgres dbname=postgres"
    )
    started = time.monotonic()

    pg = open_connection(url, SECONDS)

    assert pg.exec_(b"SELECT 1").get_value(0, 0) == b"1"
    assert time.monotonic() - started >= SECONDS * 0.9
    pg.finish()


def test_name_of_a_host_is_looked_up(postgres):
    pg = open_connection(f"host=localhost port={postgres.port} user=postgres", SECONDS)

    assert pg.host == b"localhost"
    pg.finish()


def test_refusal_is_told(postgres):
    url = f"host=127.0.0.1 port={postgres.port} user=postgres dbname=nothing_there"

    with pytest.raises(CannotOpen, match="nothing_there"):
        open_connection(url, SECONDS)
    with pytest.raises(CannotOpen):
        open_connection("host=127.0.0.1 port=1 user=postgres", SECONDS)
    with pytest.raises(psycopg.ProgrammingError):
        open_connection("nonsense", SECONDS)
