"""A connection to Postgres, and the three ways in which a statement can fail."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from bench.faults.proxy import Proxy
from instances.engine.postgres_session import (
    ConnectionCut,
    Identity,
    NotConnected,
    Refused,
    Session,
    bigint,
    bigints,
    conninfo_for_sessions,
    texts,
)

STATEMENTS = {
    "echo": "SELECT $1::bigint[], $2::text[]",
    "divide": "SELECT 1 / $1::bigint",
    "sleep": "SELECT pg_sleep($1::bigint)",
}


def open_session(postgres, identity: Identity | None = None) -> Session:
    return Session(
        "test", conninfo_for_sessions(postgres.url()), STATEMENTS, identity or Identity()
    )


@pytest.fixture
async def session(postgres) -> AsyncIterator[Session]:
    session = open_session(postgres)
    yield session
    session.close()


async def test_arrays_arrive_as_they_were_sent(session):
    rows = await session.run("echo", bigints([-1, 2**62]), texts(["", 'a"b\\{},', "é€"]))

    assert rows == [(b"{-1,4611686018427387904}", '{"","a\\"b\\\\{},",é€}'.encode())]
    assert await session.run("echo", bigints([]), texts([])) == [(b"{}", b"{}")]


async def test_error_is_refused_and_the_session_goes_on(session):
    with pytest.raises(Refused, match="division by zero"):
        await session.run("divide", bigint(0))

    assert await session.run("divide", bigint(1)) == [(b"1",)]


async def test_statement_whose_connection_ends_may_have_had_its_effect(postgres, session):
    await session.run("divide", bigint(1))
    sleeping = asyncio.create_task(session.run("sleep", bigint(4)))
    await asyncio.to_thread(_terminate_sleepers, postgres.url())

    with pytest.raises(ConnectionCut):
        await sleeping
    assert await session.run("divide", bigint(1)) == [(b"1",)]


async def test_server_that_is_not_there_is_certainly_not_asked(postgres):
    session = Session(
        "test", "host=127.0.0.1 port=1 dbname=x connect_timeout=2", STATEMENTS, Identity()
    )

    with pytest.raises(NotConnected):
        await session.run("divide", bigint(1))


async def test_server_that_is_back_is_used_at_once(postgres):
    proxy = Proxy(postgres.port)
    await proxy.start()
    url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
    session = Session("test", conninfo_for_sessions(url), STATEMENTS, Identity())
    await session.run("divide", bigint(1))
    proxy.refuses = True
    proxy.cut()
    for _ in range(10):
        await _refused(session)

    proxy.heal()

    healed = time.monotonic()
    await _answered(session)
    assert time.monotonic() - healed < 0.5
    session.close()
    await proxy.stop()


async def test_connection_needs_none_of_the_threads_of_the_loop(session):
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy = threading.Event()
    waiting = loop.run_in_executor(None, busy.wait)

    try:
        async with asyncio.timeout(10):
            assert await session.run("divide", bigint(1)) == [(b"1",)]
    finally:
        busy.set()
    await waiting


async def test_another_database_than_before_is_not_used(postgres):
    changes: list[str] = []
    identity = Identity(b"another one", on_change=lambda: changes.append("changed"))
    session = open_session(postgres, identity)

    with pytest.raises(NotConnected, match="another one"):
        await session.run("divide", bigint(1))
    assert changes == ["changed"]


async def _refused(session: Session) -> None:
    """Until one more attempt to connect has failed."""
    failures = session._failures
    while session._failures == failures:
        with contextlib.suppress(NotConnected, ConnectionCut):
            await session.run("divide", bigint(1))
        await asyncio.sleep(0.01)


async def _answered(session: Session) -> None:
    while True:
        try:
            await session.run("divide", bigint(1))
        except NotConnected:
            await asyncio.sleep(0.01)
        else:
            return


def _terminate_sleepers(url: str) -> None:
    """End the connections that sleep; waits until there is one."""
    sql = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE query LIKE '%pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid()"""
    with psycopg.connect(url, autocommit=True) as database:
        while not database.execute(sql).fetchall():
            pass
