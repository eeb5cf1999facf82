"""The store on a real SQLite file: what is committed, what is refused, and why."""

import queue
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from instances.engine.lock import EngineLock, EngineLocked
from instances.engine.operations import Activation, Delivery, Kind, Operation, Outcome, TimerRow
from instances.engine.runners import RunnerLink
from instances.engine.sqlite_store import SqliteStore
from instances.engine.store import LogRow

KEY = (1, "order-1")
STATE = '{"state":"on","tags":[],"done":false}'


class Loop:
    """Takes the calls that the store posts, and runs them when a test asks."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Any] = queue.Queue()
        self.outcomes: list[tuple[Operation, Outcome]] = []

    def post(self, callback: Any, *args: Any) -> None:
        self.calls.put((callback, args))

    def on_commit(self, outcomes: list[tuple[Operation, Outcome]]) -> None:
        self.outcomes += outcomes

    def next(self) -> None:
        callback, args = self.calls.get(timeout=10)
        callback(*args)

    def outcomes_of(self, count: int) -> list[Outcome]:
        """The next `count` outcomes."""
        while len(self.outcomes) < count:
            self.next()
        taken, self.outcomes = self.outcomes[:count], self.outcomes[count:]
        return [outcome for _, outcome in taken]


class Process:
    version_id = 1
    retiring = False
    waiting: Any = None

    def send(self, line: bytes) -> None:
        raise AssertionError(line)

    def kill(self, reason: str) -> None:
        raise AssertionError(reason)


@pytest.fixture(scope="module")
def schema(tmp_path_factory, django_db_blocker) -> str:
    """The schema as the migrations make it, as SQL."""
    path = tmp_path_factory.mktemp("schema") / "schema.sqlite3"
    connections.databases["schema"] = {**connections.databases["default"], "NAME": path}
    try:
        with django_db_blocker.unblock():
            call_command("migrate", database="schema", verbosity=0)
            connections["schema"].close()
    finally:
        del connections.databases["schema"]
    with sqlite3.connect(path) as db:
        return "\n".join(db.iterdump())


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def store(tmp_path: Path, schema: str, loop: Loop) -> Iterator[SqliteStore]:
    path = tmp_path / "db.sqlite3"
    db = sqlite3.connect(path)
    db.executescript(schema)
    db.execute(
        "INSERT INTO authz_org (id, public_id, name, allow_anonymous_access, created_at)"
        " VALUES (7, 'org_x', 'Org', 1, '2026-01-01')"
    )
    db.execute(
        "INSERT INTO machines_machine (id, slug, created_at, org_id)"
        " VALUES (1, 'order', '2026-01-01', 7)"
    )
    db.execute(
        "INSERT INTO machines_machineversion (id, public_id, client_info, xstate_major,"
        " created_at, machine_id) VALUES (1, 'ver_x', '', 5, '2026-01-01', 1)"
    )
    db.commit()
    db.close()
    store = SqliteStore(str(path), "node-1", post=loop.post, on_commit=loop.on_commit)
    store.start()
    yield store
    store.stop()


def step(activation: Activation, kind: Kind = Kind.CLIENT, **fields: Any) -> Operation:
    """An answered step, ready to be committed."""
    operation = Operation(kind, activation.key, '{"type":"x"}', '{"sub":"u"}')
    operation.activation = activation
    activation.tail_seq += 1
    operation.seq = activation.tail_seq
    values = {
        "code": 0,
        "state": STATE,
        "extra": "",
        "context": f'{{"n":{operation.seq}}}',
        "public": "",
        "children": "[]",
        "effects": "",
        "report": "",
        "duration_us": 5,
        "ts": 1_000 + operation.seq,
        "created_at_ms": 1_000,
        "commit_id": 4_000 + operation.seq,
        **fields,
    }
    for name, value in values.items():
        setattr(operation, name, value)
    return operation


def timer(send_id: str, due_at_ms: int, n: int = 0) -> TimerRow:
    return TimerRow(n, send_id, '{"type":"due"}', due_at_ms)


def activation(key: tuple[int, str] = KEY, row_id: int | None = None, seq: int = 0) -> Activation:
    made = Activation("1", key, row_id, 1, RunnerLink(Process()))
    made.seq = made.tail_seq = seq
    return made


@pytest.fixture
def created(store: SqliteStore, loop: Loop) -> Activation:
    made = activation()
    store.put([step(made, Kind.INIT)])
    assert loop.outcomes_of(1) == [Outcome.COMMITTED]
    return made


def rows(store: SqliteStore, sql: str) -> list[Any]:
    return store.reader.execute(sql).fetchall()


def test_created_instance_has_row_and_history(store, created):
    assert rows(store, "SELECT org_id, machine_id, slug, seq, context FROM instance") == [
        (7, 1, "order-1", 1, '{"n":1}')
    ]
    assert rows(store, "SELECT seq, kind, auth_context FROM transition") == [(1, 0, '{"sub":"u"}')]


def test_name_that_is_taken_exists(store, loop, created):
    store.put([step(activation(), Kind.INIT)])

    assert loop.outcomes_of(1) == [Outcome.EXISTS]
    assert rows(store, "SELECT count(*) FROM transition") == [(1,)]


def test_chain_of_steps_is_one_update_and_a_history_row_each(store, loop, created):
    store.put([step(created) for _ in range(3)])

    assert loop.outcomes_of(3) == [Outcome.COMMITTED] * 3
    assert rows(store, "SELECT seq, context FROM instance") == [(4, '{"n":4}')]
    assert rows(store, "SELECT seq FROM transition ORDER BY seq") == [(1,), (2,), (3,), (4,)]


def test_stale_step_conflicts_and_takes_what_was_computed_on_it_along(store, loop, created):
    stale = activation(row_id=created.row_id, seq=5)
    other = activation((1, "order-2"))
    store.put([step(stale), step(other, Kind.INIT), step(stale)])

    assert loop.outcomes_of(3) == [Outcome.CONFLICT, Outcome.COMMITTED, Outcome.CONFLICT]
    assert stale.dead
    assert rows(store, "SELECT slug, seq FROM instance ORDER BY slug") == [
        ("order-1", 1),
        ("order-2", 1),
    ]


def test_step_behind_a_failed_one_is_void_even_if_its_number_fits_by_then(store, loop, created):
    slow = activation(row_id=created.row_id, seq=1)
    behind = [step(slow), step(slow)]
    store.put([step(created)])
    store.put(behind)

    outcomes = loop.outcomes_of(3)

    assert outcomes == [Outcome.COMMITTED, Outcome.CONFLICT, Outcome.CONFLICT]
    assert rows(store, "SELECT seq FROM instance") == [(2,)]


def test_paused_instance_takes_no_step(store, loop, created):
    store.set_status(created.row_id, 1, lambda found: loop.outcomes.append((None, found)))
    store.put([step(created)])

    assert loop.outcomes_of(2) == [True, Outcome.PAUSED]
    assert rows(store, "SELECT seq FROM instance") == [(1,)]


def test_deleted_instance_frees_its_name_and_leaves_nothing(store, loop, created):
    store.put([step(created, timers=[timer("t", 99_999)])])
    loop.outcomes_of(1)
    store.delete(created.row_id, lambda found: loop.outcomes.append((None, found)))
    store.put([step(created), step(activation(), Kind.INIT)])

    assert loop.outcomes_of(3) == [True, Outcome.DELETED, Outcome.COMMITTED]
    assert rows(store, "SELECT count(*) FROM delivery") == [(0,)]


def test_request_key_is_in_the_history_once(store, loop, created):
    twice = [step(created), step(created)]
    for operation in twice:
        operation.request_key = "k"
    store.put(twice)

    assert loop.outcomes_of(2) == [Outcome.COMMITTED, Outcome.DUPLICATE]
    assert store.has_request_key(created.row_id, "k")
    assert rows(store, "SELECT seq FROM instance") == [(2,)]


def test_timer_is_written_with_its_step_and_consumed_with_another(store, loop, created):
    store.put([step(created, timers=[timer("t", 1_500), timer("u", 90_000, n=1)])])
    loop.outcomes_of(1)
    assert rows(store, "SELECT send_id, due_at, claim_until > 0 FROM delivery ORDER BY id") == [
        ("t", 1_500, 1),
        ("u", 90_000, 0),
    ]

    (id_,) = rows(store, "SELECT id FROM delivery WHERE send_id='t'")[0]
    fired = step(created, Kind.TIMER)
    fired.delivery = Delivery(id_, 0, KEY, '{"type":"due"}', 1_500, 0, 1)
    store.put([fired])

    assert loop.outcomes_of(1) == [Outcome.COMMITTED]
    assert rows(store, "SELECT send_id FROM delivery") == [("u",)]
    assert rows(store, "SELECT caused_by FROM transition WHERE seq=3") == [(id_,)]


def test_cancelled_timer_is_gone_when_it_comes(store, loop, created):
    store.put([step(created, timers=[timer("t", 1_500)])])
    loop.outcomes_of(1)
    (id_,) = rows(store, "SELECT id FROM delivery")[0]
    cancel = step(created, cancels=["t"])
    fired = step(created, Kind.TIMER)
    fired.delivery = Delivery(id_, 0, KEY, '{"type":"due"}', 1_500, 0, 1)
    store.put([cancel])
    store.put([fired])

    assert loop.outcomes_of(2) == [Outcome.COMMITTED, Outcome.GONE]
    assert cancel.cancelled_ids == [id_]
    assert rows(store, "SELECT seq FROM instance") == [(3,)]


def test_timer_set_and_cancelled_in_one_batch_never_exists(store, loop, created):
    store.put([step(created, timers=[timer("t", 1_500)]), step(created, cancels=["t"])])

    assert loop.outcomes_of(2) == [Outcome.COMMITTED] * 2
    assert rows(store, "SELECT count(*) FROM delivery") == [(0,)]


def test_cancel_takes_the_latest_timer_of_that_id(store, loop, created):
    store.put([step(created, timers=[timer("t", 10_000)])])
    store.put([step(created, timers=[timer("t", 20_000)])])
    store.put([step(created, cancels=["t"])])

    loop.outcomes_of(3)

    assert rows(store, "SELECT due_at FROM delivery") == [(10_000,)]


def test_due_deliveries_are_claimed_in_order_and_once(store, loop, created):
    due = [30_000, 10_000, 20_000, 9_999_999_999_999]
    timers = [timer(f"t{n}", at, n=n) for n, at in enumerate(due)]
    store.put([step(created, timers=timers)])
    loop.outcomes_of(1)
    claimed: list[list[Delivery]] = []

    store.claim_due(1_000_000, 10, claimed.append)
    loop.next()
    store.claim_due(1_000_000, 10, claimed.append)
    loop.next()

    assert [delivery.due_at_ms for delivery in claimed[0]] == [10_000, 20_000, 30_000]
    assert claimed[1] == []


def test_fifth_failure_makes_a_dead_letter(store, loop, created):
    store.put([step(created, timers=[timer("t", 90_000)])])
    loop.outcomes_of(1)
    (id_,) = rows(store, "SELECT id FROM delivery")[0]
    for attempts in range(5):
        assert rows(store, "SELECT attempts FROM delivery") == [(attempts,)]
        store.fail(Delivery(id_, 0, KEY, "", 90_000, attempts, 1), "machine-error: no")
        loop.next()

    assert rows(store, "SELECT count(*) FROM delivery") == [(0,)]
    assert rows(store, "SELECT id, attempts, reason FROM dead_letter") == [
        (id_, 5, "machine-error: no")
    ]


def test_claims_end_with_the_process(store, loop, created, tmp_path):
    store.put([step(created, timers=[timer("t", 1_001)])])
    loop.outcomes_of(1)
    claimed: list[list[Delivery]] = []

    again = SqliteStore(store.path, "node-2", post=loop.post, on_commit=loop.on_commit)
    again.start()
    again.claim_due(1_000_000, 10, claimed.append)
    loop.next()
    again.stop()

    assert len(claimed[0]) == 1
    assert claimed[0][0].claims == 2


def test_ids_are_never_given_twice(store, loop, created, schema):
    first = created.row_id
    store.delete(first, lambda found: None)
    loop.next()
    store.stop()
    store.start()

    made = activation()
    store.put([step(made, Kind.INIT)])

    assert loop.outcomes_of(1) == [Outcome.COMMITTED]
    assert made.row_id > first


def test_one_bad_value_fails_alone(store, loop, created):
    bad = activation((1, "bad"))
    good = activation((1, "good"))
    store.put(
        [
            step(bad, Kind.INIT, context="\ud800"),
            step(good, Kind.INIT),
            step(created),
        ]
    )

    assert loop.outcomes_of(3) == [Outcome.FAILED, Outcome.COMMITTED, Outcome.COMMITTED]


def test_logs_are_kept_with_org_and_machine(store, loop):
    store.log(
        [LogRow(1, None, "order-1", "info", "hello", 5), LogRow(99, None, "", "info", "?", 5)]
    )
    loop.next()

    assert rows(store, "SELECT org_id, machine_id, message FROM log_entry") == [(7, 1, "hello")]


def test_second_engine_on_one_database_is_refused(tmp_path):
    lock = EngineLock(tmp_path / "db.sqlite3")
    lock.acquire()

    with pytest.raises(EngineLocked, match="in use"):
        EngineLock(tmp_path / "db.sqlite3").acquire()

    lock.release()
    again = EngineLock(tmp_path / "db.sqlite3")
    again.acquire()
    again.release()
