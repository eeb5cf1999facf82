"""A connection to Postgres, and the three ways in which a statement can fail."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

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


async def test_another_database_than_before_is_not_used(postgres):
    changes: list[str] = []
    identity = Identity(b"another one", on_change=lambda: changes.append("changed"))
    session = open_session(postgres, identity)

    with pytest.raises(NotConnected, match="another one"):
        await session.run("divide", bigint(1))
    assert changes == ["changed"]


def _terminate_sleepers(url: str) -> None:
    """End the connections that sleep; waits until there is one."""
    sql = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE query LIKE '%pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid()"""
    with psycopg.connect(url, autocommit=True) as database:
        while not database.execute(sql).fetchall():
            pass
