"""A web node and Celery workers on one Postgres and one Redis: timers fire once, whatever dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conftest import run_manage_py, running_server, running_worker
from tests.instances.engine.test_nodes import Node
from tests.servers import Redis, new_postgres_database, running_redis

WAIT_S = 40.0
TIMER = 2  # a value of Transition.kind
LOST_SERVICE = 5

MACHINE = """
import { createMachine, assign, fromPromise } from "npm:xstate@5";
export const allowRead = () => true;
export const allowWrite = () => true;
const count = assign({ public: ({ context }) => ({ ...context.public, n: context.public.n + 1 }) });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export default createMachine({
  initial: "waiting",
  context: ({ input }) => ({ public: { n: 0, ms: 1500, ...input } }),
  on: { count: { actions: count } },
  states: {
    waiting: { after: { in: "rung" } },
    rung: { entry: count, on: { work: "armed", again: "waiting" } },
    armed: { after: { in: "working" } },
    working: { invoke: { src: fromPromise(() => sleep(1500)), onDone: "worked", onError: "lost" } },
    worked: {},
    lost: {},
  },
}, { delays: { in: ({ context }) => context.public.ms } });
"""


class Site:
    """One web node and as many workers as a test wants."""

    def __init__(self, directory: Path, database_url: str, redis: Redis) -> None:
        self.directory = directory
        self.database_url = database_url
        self.redis = redis
        self.variables = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis.url,
            "STATEBACKED_SECRET_KEY": "the same for all nodes" * 2,
        }
        self.data_dir = directory / "web"
        self.web: Node
        self._workers = 0

    def start(self, stack: ExitStack) -> None:
        server = running_server(self.data_dir, "--role", "web", **self.variables)
        self.web = Node(stack.enter_context(server))
        bundle = self.directory / "shared.mjs"
        bundle.write_text(MACHINE)
        run_manage_py("deploy", str(bundle), "--data", str(self.data_dir), env=server.environment)

    def worker(self) -> running_worker:
        """On the data directory of the web node, as on a host that runs both."""
        self._workers += 1
        log = self.directory / f"worker-{self._workers}.log"
        return running_worker(self.data_dir, log, **self.variables)

    def create(self, slugs: list[str], ms: int) -> None:
        def create(slug: str) -> tuple[int, Any]:
            body = {"slug": slug, "context": {"ms": ms}}
            return self.web.call("POST", "machines/shared", body)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(create, slugs))
        assert [answer for status, answer in answers if status != 200] == []

    def rows(self, sql: str, *parameters: Any) -> list[Any]:
        with psycopg.connect(self.database_url) as database:
            return database.execute(sql, parameters).fetchall()

    def fired(self, slugs: list[str]) -> list[int]:
        """How often a timer of each has fired, counted in the history."""
        sql = """SELECT i.slug, count(t.seq) FROM instance i LEFT JOIN transition t
                 ON t.instance_id = i.id AND t.kind = %s WHERE i.slug = ANY (%s) GROUP BY i.slug"""
        found = dict(self.rows(sql, TIMER, slugs))
        return [found[slug] for slug in slugs]

    def until(self, what: Callable[[], bool]) -> None:
        give_up = time.monotonic() + WAIT_S
        while not what():
            assert time.monotonic() < give_up, "it did not come to pass"
            time.sleep(0.05)

    def until_led_by_workers(self, count: int) -> None:
        """Until that many workers live, and the web node has heard of it at its next renewal."""
        sql = "SELECT max(lease_until) FROM node WHERE role = 'web'"
        self.until(lambda: self.roles().count("worker") == count)
        (before,) = self.rows(sql)
        self.until(lambda: self.rows(sql) != [before])

    def roles(self) -> list[str]:
        sql = """SELECT role FROM node WHERE lease_until > extract(epoch FROM now()) * 1000"""
        return [role for (role,) in self.rows(sql)]

    def processed_by(self, slugs: list[str]) -> set[str]:
        """The roles of the nodes that made the latest commits."""
        sql = """SELECT DISTINCT n.role FROM instance i JOIN node n ON n.id = i.owner
                 WHERE i.slug = ANY (%s)"""
        return {role for (role,) in self.rows(sql, slugs)}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def site(postgres, redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    url = new_postgres_database(postgres, "workers")
    site = Site(tmp_path_factory.mktemp("workers"), url, redis)
    with ExitStack() as stack:
        site.start(stack)
        yield site


def test_without_workers_the_web_node_fires_timers_itself(site):
    slugs = [f"alone-{n}" for n in range(5)]

    site.create(slugs, ms=1500)
    site.until(lambda: site.fired(slugs) == [1] * 5)

    assert site.processed_by(slugs) == {"web"}


def test_workers_fire_timers_and_finish_their_services_before_they_stop(site):
    slugs = [f"work-{n}" for n in range(5)]
    with site.worker() as worker:
        site.until_led_by_workers(1)
        site.create(slugs, ms=1500)
        site.until(lambda: site.fired(slugs) == [1] * 5)
        assert site.processed_by(slugs) == {"worker"}
        for slug in slugs:
            site.web.send(slug, "work")
        site.web.wait_for(slugs[0], "working")

        worker.process.terminate()
        assert worker.process.wait(WAIT_S) == 0

    assert [site.web.wait_for(slug, "worked")["state"] for slug in slugs] == ["worked"] * 5
    assert site.rows("SELECT 1 FROM transition WHERE kind = %s", LOST_SERVICE) == []
    assert site.roles() == ["web"]


def test_timers_fire_once_though_a_worker_is_killed_and_the_broker_too(site, redis):
    slugs = [f"storm-{n}" for n in range(60)]
    with site.worker() as first, site.worker() as second:
        site.until_led_by_workers(2)
        site.create(slugs, ms=3000)
        # Within the last second before the timers are due: some are claimed, some are published.
        due = "SELECT min(due_at) - extract(epoch FROM now()) * 1000 FROM delivery"
        site.until(lambda: site.rows(due)[0][0] < 600)
        first.process.kill()
        redis.stop()
        try:
            site.until(lambda: sum(site.fired(slugs)) == 60)
            assert site.fired(slugs) == [1] * 60

            for slug in slugs[:5]:
                assert site.web.send(slug, "again")[0] == 200
            site.until(lambda: site.fired(slugs[:5]) == [2] * 5)
            assert site.processed_by(slugs[:5]) == {"worker"}
            assert "while the broker is down" in second.log.read_text()
        finally:
            redis.start()
        site.until(lambda: "the broker is back" in second.log.read_text())
        for slug in slugs[5:10]:
            assert site.web.send(slug, "again")[0] == 200
        site.until(lambda: site.fired(slugs[5:10]) == [2] * 5)
    assert site.rows("SELECT 1 FROM delivery") == []
