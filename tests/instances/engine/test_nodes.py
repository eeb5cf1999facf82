"""Two real servers on one Postgres: the same promises, whichever of them is asked."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import websockets

from bench.usage import process_tree
from tests.conftest import Server, run_manage_py, running_server
from tests.servers import new_postgres_database, running_postgres

WAIT_S = 40.0
LEASE_S = 10.0
LOST_SERVICE = 5  # a value of Transition.kind

MACHINE = """
import { createMachine, assign, fromPromise, sendTo } from "npm:xstate@5";
export const allowRead = () => true;
export const allowWrite = () => true;
const count = assign({
  public: ({ context }) => ({ ...context.public, n: context.public.n + 1 }),
});
const hear = assign({
  public: ({ context: { public: was }, event }) => ({ ...was, heard: [...was.heard, event.n] }),
});
const ref = (name) => ({
  type: "statebacked.instance", id: name, machineName: "shared", machineInstanceName: name,
});
const tell = sendTo(({ event }) => ref(event.to), ({ event }) => ({ type: "hear", n: event.n }));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export default createMachine({
  initial: "idle",
  context: { public: { n: 0, heard: [] } },
  on: { count: { actions: count }, tell: { actions: tell }, hear: { actions: hear } },
  states: {
    idle: { on: { work: "working", hang: "hanging" } },
    working: { invoke: { src: fromPromise(() => sleep(1500)), onDone: "worked" } },
    hanging: { invoke: { src: fromPromise(() => sleep(60000)), onError: "failed" } },
    worked: {},
    failed: {},
  },
});
"""


class Node:
    """A server, as a client of the API sees it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.headers = server.headers

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"{self.server.api_url}/{path}",
            json.dumps(body).encode() if body is not None else None,
            {**self.headers, "content-type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")

    def create(self, slug: str) -> None:
        status, answer = self.call("POST", "machines/shared", {"slug": slug})
        assert status == 200, answer

    def send(self, slug: str, event: Any) -> tuple[int, Any]:
        return self.call("POST", f"machines/shared/i/{slug}/events", {"event": event})

    def until_served(self, slug: str, event: str) -> Any:
        """Send the event until it is not refused for the site's own trouble."""
        give_up = time.monotonic() + LEASE_S + 5
        status, answer = self.send(slug, event)
        while status in (503, 504) and time.monotonic() < give_up:
            time.sleep(0.2)
            status, answer = self.send(slug, event)
        assert status == 200, answer
        return answer

    def wait_for(self, slug: str, state: str) -> Any:
        give_up = time.monotonic() + WAIT_S
        while time.monotonic() < give_up:
            _, answer = self.call("GET", f"machines/shared/i/{slug}")
            if answer["state"] == state:
                return answer
            time.sleep(0.05)
        raise AssertionError(f"{slug} never was {state}")


def runners_of(pid: int) -> list[int]:
    """The processes that a server runs customers' code in."""
    return [child for child in process_tree(pid) if child != pid]


def is_running(pid: int) -> bool:
    """False also for one that has ended and whose parent has not noticed yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]


class Cluster:
    def __init__(self, directory: Path, url: str, **variables: str) -> None:
        self.directory = directory
        self.url = url
        self.variables = variables
        self.started: list[running_server] = []

    def start(self, number: int | None = None) -> Node:
        number = len(self.started) if number is None else number
        data_dir = self.directory / f"node-{number}"
        server = running_server(
            data_dir,
            DATABASE_URL=self.url,
            STATEBACKED_SECRET_KEY="the same for all nodes" * 2,
            **self.variables,
        )
        node = Node(server.__enter__())
        self.started.append(server)
        return node

    def deploy(self) -> None:
        """Make MACHINE the machine `shared`."""
        path = self.directory / "shared.mjs"
        path.write_text(MACHINE)
        first = self.started[0]
        run_manage_py("deploy", str(path), "--data", str(first.data_dir), env=first.environment)

    def stop(self) -> None:
        for server in self.started:
            if server.process.poll() is None:
                server.__exit__()

    def rows(self, sql: str, *parameters: Any) -> list[Any]:
        with psycopg.connect(self.url) as database:
            return database.execute(sql, parameters).fetchall()

    def kinds(self, slug: str) -> list[int]:
        """The kinds of the transitions of an instance, in order."""
        sql = """SELECT t.kind FROM transition t JOIN instance i ON i.id = t.instance_id
                 WHERE i.slug = %s ORDER BY t.seq"""
        return [kind for (kind,) in self.rows(sql, slug)]


@pytest.fixture(scope="module")
def cluster(postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("nodes"), new_postgres_database(postgres, "nodes"))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> tuple[Node, Node]:
    """Two nodes that live as long as the module."""
    first = cluster.start()
    cluster.deploy()
    return first, cluster.start()


def test_what_both_nodes_acknowledge_is_counted_once(cluster, nodes):
    slugs = ["contended"] * 4 + [f"spread-{n}" for n in range(4)]
    for slug in sorted(set(slugs)):
        nodes[0].create(slug)

    def send_some(node: Node, slug: str) -> tuple[str, list[int]]:
        return slug, [node.send(slug, "count")[0] for _ in range(60)]

    with ThreadPoolExecutor(16) as pool:
        sending = [pool.submit(send_some, node, slug) for slug in slugs for node in nodes]
        answers = [future.result() for future in sending]

    assert {status for _, statuses in answers for status in statuses} <= {200, 503, 504}
    for slug in set(slugs):
        acknowledged = sum(s.count(200) for name, s in answers if name == slug)
        _, state = nodes[1].call("GET", f"machines/shared/i/{slug}")
        assert state["publicContext"]["n"] == acknowledged
        assert len(cluster.kinds(slug)) == acknowledged + 1
    refused = sum(statuses.count(503) for _, statuses in answers)
    assert refused <= 0.05 * 60 * len(answers)


def heard(node: Node, slug: str) -> list[int]:
    _, answer = node.call("GET", f"machines/shared/i/{slug}")
    return list(answer["publicContext"]["heard"])


def wait_until_heard(node: Node, slug: str, expected: list[int]) -> None:
    give_up = time.monotonic() + WAIT_S
    while len(heard(node, slug)) < len(expected) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert heard(node, slug) == expected


def test_messages_of_a_sender_that_moves_between_nodes_stay_in_order(cluster, nodes):
    nodes[0].create("teller")
    nodes[0].create("listener")

    for n in range(60):
        event = {"type": "tell", "to": "listener", "n": n}
        assert nodes[n % 2].send("teller", event)[0] == 200

    wait_until_heard(nodes[1], "listener", list(range(60)))
    assert cluster.rows("SELECT count(*) FROM delivery WHERE target_slug = 'listener'") == [(0,)]


def test_messages_for_an_instance_with_services_go_where_they_run(cluster, nodes):
    nodes[0].create("caller")
    nodes[0].create("worker")
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(nodes[1].send, "worker", "work")
        nodes[0].wait_for("worker", "working")
        for n in range(5):
            event = {"type": "tell", "to": "worker", "n": n}
            assert nodes[0].send("caller", event)[0] == 200
        assert working.result()[1]["state"] == "worked"

    wait_until_heard(nodes[0], "worker", list(range(5)))
    assert LOST_SERVICE not in cluster.kinds("worker")


def test_messages_of_a_killed_node_are_delivered_by_another(cluster, nodes):
    nodes[0].create("witness")
    nodes[0].create("survivor")
    third = cluster.start()
    for n in range(30):
        event = {"type": "tell", "to": "survivor", "n": n}
        assert third.send("witness", event)[0] == 200

    with third.server.process as process:  # which also closes its pipe
        process.kill()

    wait_until_heard(nodes[0], "survivor", list(range(30)))


def test_event_for_an_unsettled_instance_is_processed_where_its_services_run(cluster, nodes):
    first, second = nodes
    first.create("busy")

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(first.send, "busy", "work")
        second.wait_for("busy", "working")
        counted = second.send("busy", "count")

        assert counted[0] == 200
        assert counted[1]["state"] == "worked"  # settled by then
        assert working.result()[0] == 200
    assert counted[1]["publicContext"]["n"] == 1
    assert LOST_SERVICE not in cluster.kinds("busy")


async def test_subscriber_is_told_of_what_another_node_commits(nodes):
    first, second = nodes
    first.create("watched")
    token, org = second.server.access_token, second.server.org_id
    address = second.server.api_url.replace("http", "ws")
    url = f"{address}/rt?token={token}&x-statebacked-org-id={org}"
    subscribe = {
        "type": "subscribe-to-instance",
        "requestId": "r",
        "machineName": "shared",
        "machineInstanceName": "watched",
    }
    async with websockets.connect(url) as socket:
        await socket.send(json.dumps(subscribe))
        counts: list[Any] = []
        await asyncio.to_thread(first.send, "watched", "count")
        async with asyncio.timeout(WAIT_S):
            while counts[-1:] != [2]:
                message = json.loads(await socket.recv())
                counts.append(message.get("publicContext", {}).get("n"))
                if counts[-1] == 1:
                    await asyncio.to_thread(first.send, "watched", "count")

    assert counts[-2:] == [1, 2]


def test_internal_address_wants_a_signature(nodes):
    url = nodes[0].server.url + "/internal/events"
    request = urllib.request.Request(url, b"{}", {"x-statebacked-signature": "1.ab"}, method="POST")

    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        urllib.request.urlopen(request, timeout=WAIT_S)
    refused.value.close()


def test_other_node_goes_on_when_one_has_stopped(cluster, nodes):
    leaving = cluster.start()
    leaving.create("left")
    assert leaving.send("left", "count")[0] == 200

    cluster.started[-1].__exit__()

    assert nodes[0].send("left", "count")[1]["publicContext"]["n"] == 2
    assert cluster.rows("SELECT id FROM node WHERE address = %s", leaving.server.url) == []


def test_services_of_a_killed_node_are_lost_once_its_lease_has_ended(cluster, nodes):
    dying = cluster.start()
    dying.create("orphan")
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(dying.send, "orphan", "hang")
        nodes[0].wait_for("orphan", "hanging")
        process = cluster.started[-1].process
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with pytest.raises((OSError, urllib.error.URLError)):
            hanging.result()

    assert nodes[0].send("orphan", "count")[0] == 503
    answer = nodes[0].until_served("orphan", "count")

    assert (answer["state"], answer["publicContext"]["n"]) == ("failed", 1)
    assert cluster.kinds("orphan").count(LOST_SERVICE) == 1


def test_node_that_stood_still_past_its_lease_begins_anew(cluster, nodes):
    still = cluster.start()
    still.create("frozen")
    process = cluster.started[-1].process
    (before,) = cluster.rows("SELECT id FROM node WHERE address = %s", still.server.url)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(still.send, "frozen", "hang")
        nodes[0].wait_for("frozen", "hanging")
        runners = runners_of(process.pid)
        process.send_signal(signal.SIGSTOP)
        try:
            taken_over = nodes[0].until_served("frozen", "count")
            assert [command_of(pid) for pid in runners if is_running(pid)] == []
        finally:
            process.send_signal(signal.SIGCONT)
        assert taken_over["state"] == "failed"
        assert hanging.result()[0] in (200, 503, 504)

    assert still.until_served("frozen", "count")["publicContext"]["n"] == 2
    assert cluster.kinds("frozen").count(LOST_SERVICE) == 1
    sql = "SELECT id FROM node WHERE address = %s ORDER BY started_at DESC LIMIT 1"
    assert cluster.rows(sql, still.server.url) != [before]


def test_servers_that_start_together_prepare_the_database_once(postgres, tmp_path):
    cluster = Cluster(tmp_path, new_postgres_database(postgres, "together"))
    try:
        with ThreadPoolExecutor(2) as pool:
            nodes = list(pool.map(lambda number: cluster.start(number), range(2)))

        assert nodes[0].server.org_id == nodes[1].server.org_id
        assert cluster.rows("SELECT count(*) FROM authz_org") == [(1,)]
    finally:
        cluster.stop()


def test_restart_of_the_database_loses_nothing_that_was_acknowledged(tmp_path):
    with running_postgres(tmp_path / "cluster") as postgres:
        cluster = Cluster(tmp_path, new_postgres_database(postgres, "outage"))
        try:
            node = cluster.start()
            cluster.deploy()
            slugs = [f"instance-{n}" for n in range(8)]
            for slug in slugs:
                node.create(slug)
            ended = threading.Event()

            def send_until_the_end(slug: str) -> list[int]:
                statuses = []
                while not ended.is_set():
                    statuses.append(node.send(slug, "count")[0])
                return statuses

            with ThreadPoolExecutor(len(slugs)) as pool:
                sending = [pool.submit(send_until_the_end, slug) for slug in slugs]
                for _ in range(2):
                    time.sleep(1)
                    postgres.stop("immediate")
                    postgres.start()
                node.until_served(slugs[0], "unknown")
                ended.set()
                answers = [future.result() for future in sending]

            for slug, statuses in zip(slugs, answers, strict=True):
                assert set(statuses) <= {200, 503, 504}
                _, state = node.call("GET", f"machines/shared/i/{slug}")
                acknowledged, unknown = statuses.count(200), statuses.count(504)
                assert acknowledged <= state["publicContext"]["n"] <= acknowledged + unknown
                assert len(cluster.kinds(slug)) == state["publicContext"]["n"] + 1
        finally:
            cluster.stop()
