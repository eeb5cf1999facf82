"""Two servers on one Postgres and one Redis: what happens on one is known on the other at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets

from bench.site import sign_token
from tests.conftest import run_manage_py
from tests.instances.engine.test_nodes import Cluster, Node
from tests.servers import Redis, new_postgres_database, running_redis

WAIT_S = 40.0
RESYNC_S = 11.0  # within which everybody has the newest state, whatever became of Redis
LATE_S = 8.0  # what takes longer was not told: it ended by itself, after 10 s

MACHINE = """
import { createMachine, assign, fromPromise } from "npm:xstate@5";
export const allowRead = () => true;
export const allowWrite = () => true;
const count = assign({ public: ({ context }) => ({ ...context.public, n: context.public.n + 1 }) });
const grow = assign({
  public: ({ context }) => ({ n: context.public.n + 1, text: "x".repeat(50000) }),
});
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export default createMachine({
  initial: "idle",
  context: { public: { n: 0, version: VERSION } },
  on: { count: { actions: count }, grow: { actions: grow } },
  states: {
    idle: { on: { hang: "hanging" } },
    hanging: { invoke: { src: fromPromise(() => sleep(60000)), onError: "failed" } },
    failed: {},
  },
});
"""


class Two:
    """Two web nodes."""

    def __init__(self, cluster: Cluster, redis: Redis) -> None:
        self.cluster = cluster
        self.redis = redis
        self.first = cluster.start()
        self.deploy(1)
        self.second = cluster.start()

    def deploy(self, version: int) -> None:
        """As the machine `shared`, by way of the first node."""
        path = self.cluster.directory / "shared.mjs"
        path.write_text(MACHINE.replace("VERSION", str(version)))
        first = self.cluster.started[0]
        run_manage_py("deploy", str(path), "--data", str(first.data_dir), env=first.environment)

    @asynccontextmanager
    async def subscription(self, slug: str) -> AsyncIterator[Any]:
        """A subscriber at the second node, which has had the first state; gives the next `n`."""
        token, org = self.second.server.access_token, self.second.server.org_id
        address = self.second.server.api_url.replace("http", "ws")
        subscribe = {
            "type": "subscribe-to-instance",
            "requestId": "r",
            "machineName": "shared",
            "machineInstanceName": slug,
        }
        url = f"{address}/rt?token={token}&x-statebacked-org-id={org}"
        async with websockets.connect(url, max_size=None) as socket:

            async def until(n: int) -> None:
                async with asyncio.timeout(WAIT_S):
                    while json.loads(await socket.recv()).get("publicContext", {}).get("n") != n:
                        pass

            await socket.send(json.dumps(subscribe))
            await until(0)
            yield until


@pytest.fixture(scope="module")
def two(postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    directory = tmp_path_factory.mktemp("fan_out")
    with running_redis(directory / "redis") as redis:
        url = new_postgres_database(postgres, "fan_out")
        cluster = Cluster(directory, url, REDIS_URL=redis.url)
        try:
            yield Two(cluster, redis)
        finally:
            cluster.stop()


async def test_subscriber_is_told_at_once_of_what_another_node_commits(two):
    two.first.create("watched")
    async with two.subscription("watched") as until:
        started = time.monotonic()
        for n in range(1, 21):
            event = "grow" if n == 10 else "count"  # too large to be sent by Redis from then on
            await asyncio.to_thread(two.first.send, "watched", event)
            await until(n)

    # Without Redis each would take half a second, and with Redis that were deaf, ten.
    assert time.monotonic() - started < 20 * 0.4


async def test_subscriber_has_the_newest_state_in_time_though_redis_is_killed_and_flushed(two):
    two.first.create("unheard")
    async with two.subscription("unheard") as until:
        two.redis.stop()
        try:
            await asyncio.to_thread(two.first.send, "unheard", "count")
            started = time.monotonic()
            await until(1)
            assert time.monotonic() - started < RESYNC_S
        finally:
            two.redis.start()
        # The new server knows of nothing: they find each other again.
        for n in range(2, 5):
            started = time.monotonic()
            await asyncio.to_thread(two.first.send, "unheard", "count")
            await until(n)
            assert time.monotonic() - started < RESYNC_S


def test_pause_stops_services_of_another_node_at_once(two):
    two.first.create("paused")
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(two.second.send, "paused", "hang")
        two.first.wait_for("paused", "hanging")
        started = time.monotonic()
        two.first.call("PUT", "machines/shared/i/paused/status", {"status": "paused"})
        hanging.result()

    assert time.monotonic() - started < LATE_S
    assert two.cluster.rows("SELECT 1 FROM instance WHERE owner IS NOT NULL AND status = 1") == []


def test_new_version_is_the_current_one_on_the_other_node_at_once(two):
    two.second.create("before")
    two.deploy(2)

    def version_of(slug: str) -> int:
        two.second.create(slug)
        _, state = two.second.call("GET", f"machines/shared/i/{slug}")
        return int(state["publicContext"]["version"])

    started, n = time.monotonic(), 0
    while version_of(f"after-{n}") != 2:
        n += 1
        time.sleep(0.05)
    assert time.monotonic() - started < LATE_S


def test_deleted_key_is_refused_by_the_other_node_at_once(two):
    _, key = two.first.call("POST", "keys", {"name": "short-lived", "use": "production"})
    token = sign_token(key["id"], key["key"], {"sub": "somebody"})
    somebody = Node(two.second.server)
    somebody.headers = {"authorization": f"Bearer {token}"}
    two.first.create("guarded")
    assert somebody.send("guarded", "count")[0] == 200

    two.first.call("DELETE", f"keys/{key['id']}")

    started = time.monotonic()
    while somebody.send("guarded", "count")[0] == 200:
        time.sleep(0.05)
    assert time.monotonic() - started < LATE_S
