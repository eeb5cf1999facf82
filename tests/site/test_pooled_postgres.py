"""Requests and their connections to Postgres while it is away, and as soon as it is back."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from django.db import OperationalError
from django.db.utils import ConnectionHandler

from bench.faults.proxy import Proxy
from statebacked_site.databases import postgres_database
from statebacked_site.errors import OutcomeUnknown, Unavailable, as_domain_error
from statebacked_site.pooled_postgres.pool import NoConnection, Pool
from tests.servers import Postgres, running_postgres

CONNECTIONS = 10
REFUSED_WITHIN_S = 2.5  # two seconds, and what a busy machine takes
BACK_WITHIN_S = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Postgres]:
    """One that tests may stop."""
    directory: Path = tmp_path_factory.mktemp("postgres") / "cluster"
    options = {"max_connections": "14", "superuser_reserved_connections": "0"}
    with running_postgres(directory, **options) as server:
        yield server


class Site:
    """What requests see of the database, each in a thread of its own."""

    def __init__(self, url: str) -> None:
        self._connections = ConnectionHandler({"default": postgres_database(url, CONNECTIONS)})
        self._threads = ThreadPoolExecutor(2 * CONNECTIONS)

    async def request(self, statement: str = "SELECT 7") -> tuple[Exception | None, float]:
        """What it failed with, if it did, and the seconds that it took."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._request, statement)

    async def use_all_connections(self) -> None:
        """Leave as many idle connections as the pool may have."""
        everybody = threading.Barrier(CONNECTIONS)
        loop = asyncio.get_running_loop()
        together = [
            loop.run_in_executor(self._threads, self._request, "SELECT 7", everybody)
            for _ in range(CONNECTIONS)
        ]
        assert [error for error, _ in await asyncio.gather(*together)] == [None] * CONNECTIONS

    def close(self) -> None:
        self._threads.shutdown()
        self._connections["default"].close_pool()  # type: ignore[attr-defined]

    def _request(
        self, statement: str, everybody: threading.Barrier | None = None
    ) -> tuple[Exception | None, float]:
        started = time.monotonic()
        connection = self._connections["default"]
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                if everybody is not None:
                    everybody.wait()
        except OperationalError as error:
            return error, time.monotonic() - started
        finally:
            connection.close()
        return None, time.monotonic() - started


@pytest.fixture
async def proxy(server) -> AsyncIterator[Proxy]:
    proxy = Proxy(server.port)
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
async def site(proxy, django_db_blocker) -> AsyncIterator[Site]:
    with django_db_blocker.unblock():
        site = Site(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres")
        await site.use_all_connections()
        yield site
        site.close()


async def assert_works_at_once(site: Site) -> None:
    error, seconds = await site.request()

    assert error is None
    assert seconds < BACK_WITHIN_S


async def assert_refused_in_time(site: Site) -> None:
    error, seconds = await site.request()

    assert error is not None
    assert isinstance(error.__cause__, NoConnection)
    assert isinstance(as_domain_error(error, is_write=True), Unavailable)
    assert seconds < REFUSED_WITHIN_S


async def test_connections_that_were_cut_are_replaced_at_once(site, proxy):
    proxy.cut()

    await assert_works_at_once(site)
    await site.use_all_connections()


async def test_database_that_stands_still_is_given_up_in_time(site, proxy):
    proxy.stall()
    await asyncio.gather(*(assert_refused_in_time(site) for _ in range(CONNECTIONS + 2)))

    proxy.heal()

    await assert_works_at_once(site)


async def test_answers_that_are_lost_leave_nobody_waiting(site, proxy):
    proxy.swallows = True
    await assert_refused_in_time(site)

    proxy.heal()

    await assert_works_at_once(site)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_database_that_was_stopped_is_used_as_soon_as_it_is_back(site, server, mode):
    await asyncio.to_thread(server.stop, mode)
    try:
        await assert_refused_in_time(site)
    finally:
        await asyncio.to_thread(server.start)

    await assert_works_at_once(site)


async def test_short_outage_is_waited_for(site, proxy):
    proxy.refuses = True
    proxy.cut()
    asyncio.get_running_loop().call_later(0.3, proxy.heal)

    await assert_works_at_once(site)


async def test_connection_that_the_server_has_no_room_for_is_had_when_there_is_some(
    site, server, proxy
):
    proxy.cut()
    held = []
    while True:
        try:
            held.append(await psycopg.AsyncConnection.connect(server.url()))
        except psycopg.OperationalError:
            break
    await assert_refused_in_time(site)

    for connection in held:
        await connection.close()

    await assert_works_at_once(site)


async def test_more_requests_than_connections_take_turns(site):
    answers = await asyncio.gather(*(site.request() for _ in range(5 * CONNECTIONS)))

    assert {error for error, _ in answers} == {None}


async def test_connection_lost_in_the_middle_may_have_had_its_effect(site, server, proxy):
    asking = asyncio.create_task(site.request("SELECT pg_sleep(20)"))
    await asyncio.to_thread(_wait_for_sleeper, server)

    proxy.cut()

    error, _ = await asking
    assert error is not None
    assert isinstance(as_domain_error(error, is_write=True), OutcomeUnknown)
    await assert_works_at_once(site)


def test_connection_in_a_transaction_is_given_to_nobody_else(server):
    pool = small_pool(server)
    first = pool.getconn()
    first.autocommit = False
    first.execute("SELECT 7")

    pool.putconn(first)

    assert first.closed
    second = pool.getconn()
    assert second.autocommit
    pool.putconn(second)
    pool.close()


def test_latest_connection_is_taken_first_and_no_more_than_there_may_be(server):
    pool = small_pool(server)
    first, second = pool.getconn(), pool.getconn()
    with pytest.raises(NoConnection, match="in use"):
        pool.getconn()

    pool.putconn(first)
    pool.putconn(second)

    assert pool.getconn() is second
    pool.close()
    assert first.closed
    pool.putconn(second)
    assert second.closed


def small_pool(server: Postgres) -> Pool:
    address = {"host": "127.0.0.1", "port": server.port, "user": "postgres", "dbname": "postgres"}
    return Pool(address, lambda connection: None, max_size=2, timeout=0.5)


def _wait_for_sleeper(server: Postgres) -> None:
    query = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    with psycopg.connect(server.url(), autocommit=True) as database:
        while not database.execute(query).fetchall():
            pass
