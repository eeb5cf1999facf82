"""Places and counts follow the instances, whatever happens."""

import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.databases import Database, Postgres, Sqlite
from instances import places
from instances.models import Instance, Place, PlaceCount, PlaceKeeper
from machines.models import Machine
from tests.conftest import Server, run_manage_py, running_server
from tests.factories import make_instance, make_machine, make_org, make_version

WAIT_S = 60.0
IDLE = '{"state":"idle","tags":[],"done":false}'
BUSY = '{"state":"busy","tags":[],"done":false}'


def counted(machine: Machine) -> dict[tuple[str, int], int]:
    return {
        (state, version_id): instances
        for _, _, state, version_id, instances in places.counts([machine.pk])
    }


@pytest.fixture
def machine(db: None) -> Machine:
    return make_machine(make_org(), with_version=True)


def sweep() -> int:
    return sum(places.sweep())


def test_repair_counts_what_is_there(machine):
    version = make_version(machine, "v")
    made = [
        make_instance(machine, f"i-{n}", state=BUSY if n < 2 else IDLE, version=version)
        for n in range(5)
    ]
    ids = [instance.pk for instance in made]

    assert places.repair(ids) == 5
    assert counted(machine) == {(BUSY, version.pk): 2, (IDLE, version.pk): 3}
    assert places.repair(ids) == 0

    Instance.objects.filter(pk=ids[0]).update(state=IDLE)
    assert places.repair(ids) == 1
    assert counted(machine) == {(BUSY, version.pk): 1, (IDLE, version.pk): 4}


def test_what_is_deleted_is_counted_no_more(machine):
    kept, deleted, purged = (make_instance(machine, name, state=IDLE) for name in "abc")
    ids = [kept.pk, deleted.pk, purged.pk]
    places.repair(ids)
    Instance.objects.filter(pk=deleted.pk).update(status=Instance.Status.DELETED)
    Instance.objects.filter(pk=purged.pk).delete()

    assert places.repair(ids) == 2
    assert counted(machine) == {(IDLE, kept.version_id): 1}
    assert list(Place.objects.values_list("pk", flat=True)) == [kept.pk]


def test_sweep_finds_all_that_is_wrong(machine, monkeypatch):
    monkeypatch.setattr(places, "SWEPT_TOGETHER", 3)
    monkeypatch.setattr(places, "REPAIRED_TOGETHER", 2)
    made = [make_instance(machine, f"i-{n}", state=IDLE) for n in range(10)]
    places.repair([instance.pk for instance in made[:7]])
    Instance.objects.filter(pk=made[2].pk).update(state=BUSY)
    Instance.objects.filter(pk=made[4].pk).delete()

    assert sweep() == 5
    assert sweep() == 0
    version = made[0].version_id
    assert counted(machine) == {(BUSY, version): 1, (IDLE, version): 8}


def test_newest_merges_kinds_in_order(machine):
    made = [make_instance(machine, f"i-{n}", state=BUSY if n % 3 else IDLE) for n in range(9)]
    ids = [instance.pk for instance in made]
    places.repair(ids)
    kinds = [(state_id, version) for _, state_id, _, version, _ in places.counts([machine.pk])]

    assert places.newest(kinds, 4, after=None) == ids[:-5:-1]
    assert places.newest(kinds, 4, after=ids[5]) == ids[4:0:-1]
    assert places.newest(kinds, 3, after=ids[1], oldest_first=True) == ids[2:5]
    assert places.newest([], 3, after=None) == []


def test_counts_are_exact_unless_a_keeper_is_lost(machine):
    assert places.are_exact()
    places.begin("one", "a-node-that-never-was")
    places.begin("one", "a-node-that-never-was")
    assert PlaceKeeper.objects.count() == 1

    assert places.lose_dead("two") == ["one"]
    assert not places.are_exact()
    places.begin("one", "another")
    assert not places.are_exact()

    places.swept(["one"])
    assert places.are_exact()
    places.begin("one", "another")
    places.end("one")
    assert not PlaceKeeper.objects.exists()


def test_states_that_differ_only_far_behind_are_told_apart(machine):
    long = [f'{{"state":"{"x" * 5000}{end}","tags":[],"done":false}}' for end in ("one", "two")]
    made = [make_instance(machine, f"i-{n}", state=text) for n, text in enumerate(long)]

    places.repair([instance.pk for instance in made])

    assert sorted(state for state, _ in counted(machine)) == sorted(long)
    assert PlaceCount.objects.count() == 2


# --- A random workload on real servers that are killed ------------------------------------------

MACHINE = """
import { createMachine } from "npm:xstate@5";
export const allowRead = () => true;
export const allowWrite = () => true;
const to = (target) => ({ on: { red: "red", green: "green", blue: "blue", end: "ended" } });
export default createMachine({
  initial: "red", context: { public: {} },
  states: { red: to(), green: to(), blue: to(), ended: { type: "final" } },
});
"""
INSTANCES = 60
WORKERS = 6


class Workload:
    """Clients that create, send, pause and delete at random until they are told to stop."""

    def __init__(self, server: Server, life: int) -> None:
        self.server = server
        # Of its own: what the next life finds of this one, only a sweep can put right.
        self.prefix = f"life-{life}-"
        self.done = 0
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{life} {n}"),))
            for n in range(WORKERS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        until(lambda: self.done >= count)

    def _run(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            slug = f"{self.prefix}{chance.randrange(INSTANCES)}"
            match chance.randrange(20):
                case 0:
                    self._call("DELETE", f"machines/walk/i/{slug}")
                case 1:
                    body = f'{{"status":"{chance.choice(["paused", "running"])}"}}'
                    self._call("PUT", f"machines/walk/i/{slug}/status", body)
                case 2 | 3 | 4:
                    self._call("POST", "machines/walk", f'{{"slug":"{slug}"}}')
                case _:
                    event = chance.choice(["red", "green", "blue", "end"])
                    body = f'{{"event":"{event}"}}'
                    self._call("POST", f"machines/walk/i/{slug}/events", body)

    def _call(self, method: str, path: str, body: str | None = None) -> None:
        request = urllib.request.Request(
            f"{self.server.api_url}/{path}",
            body.encode() if body is not None else None,
            {**self.server.headers, "content-type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
                answer.read()
            self.done += 1
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            self._stop.wait(0.05)  # the server was killed


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up, "it has not come true"
        time.sleep(0.05)


def truth(database: Database) -> Counter[tuple[str, int]]:
    rows = database.rows("SELECT state, version_id FROM instance WHERE status <> 2")
    return Counter((state, version) for state, version in rows)


def kept(database: Database) -> Counter[tuple[str, int]]:
    query = """SELECT s.text, c.version_id, c.instances FROM place_count c
               JOIN known_state s ON s.id = c.state_id WHERE c.instances <> 0"""
    return Counter({(text, version): n for text, version, n in database.rows(query)})


def is_settled(database: Database) -> bool:
    """Whether nobody owes anything, and the counts are right."""
    lost = database.rows("SELECT 1 FROM place_keeper WHERE is_lost")
    return not lost and kept(database) == truth(database)


def test_counts_are_exact_after_random_work_and_a_kill(tmp_path: Path) -> None:
    """A server's first life ends by `kill -9` in the middle of the work; the second one settles."""
    source = tmp_path / "walk.mjs"
    source.write_text(MACHINE)
    data_dir = tmp_path / "data"
    node = running_server(data_dir)
    url = node.environment.get("DATABASE_URL")
    database: Database = Postgres(url, tmp_path) if url else Sqlite(data_dir)
    with node as server:
        run_manage_py("deploy", str(source), "--data", str(data_dir), env=node.environment)
        workload = Workload(server, life=1)
        workload.wait_for(150)
        server.process.kill()
        workload.stop()
    with running_server(data_dir) as server:
        workload = Workload(server, life=2)
        workload.wait_for(50)
        workload.stop()
        assert truth(database).total() > 10
        until(lambda: is_settled(database))
    # It has stopped as it should: it owes nothing, and the next start need not look at all.
    assert not database.rows("SELECT 1 FROM place_keeper")
    assert kept(database) == truth(database)
