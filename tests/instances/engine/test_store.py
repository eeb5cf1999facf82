"""The store on both databases: what is committed, what is refused, and why."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connections

from instances.engine.errors import InstancePaused
from instances.engine.lock import EngineLock, EngineLocked
from instances.engine.operations import (
    Activation,
    Creation,
    Delivery,
    DeliveryKind,
    Kind,
    MessageRow,
    Operation,
    Outcome,
    Rename,
    TimerRow,
    Upgrade,
)
from instances.engine.postgres_store import PostgresStore
from instances.engine.runners import RunnerLink
from instances.engine.sqlite_store import SqliteStore
from instances.engine.store import InstanceRow, LogRow, MigrationRow, NoteRow, Store
from statebacked_site.databases import postgres_database, sqlite_database
from tests.servers import new_postgres_database

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
    xstate_major = 5
    retiring = False
    waiting: Any = None

    def send(self, line: bytes) -> None:
        raise AssertionError(line)

    def kill(self, reason: str) -> None:
        raise AssertionError(reason)


ORG = """INSERT INTO authz_org (id, public_id, name, allow_anonymous_access, created_at)
 VALUES (7, 'org_x', 'Org', true, '2026-01-01')"""
MACHINE = "INSERT INTO machines_machine (id, slug, created_at, org_id) VALUES (1, 'order', %s, 7)"
VERSION = """INSERT INTO machines_machineversion (id, public_id, client_info, xstate_major,
 created_at, machine_id) VALUES (1, 'ver_x', '', 5, '2026-01-01', 1)"""
VERSION_2 = VERSION.replace("(1, 'ver_x'", "(2, 'ver_y'")
FIRST_ROWS = (ORG, MACHINE.replace("%s", "'2026-01-01'"), VERSION, VERSION_2)


commit_ids = itertools.count(4_000)

Database = Any  # SqliteDatabase or PostgresDatabase


def migrated(database: dict[str, Any], django_db_blocker: Any) -> None:
    """Run the schema migrations in a database."""
    connections.databases["schema"] = {**connections.databases["default"], **database}
    try:
        with django_db_blocker.unblock():
            call_command("migrate", database="schema", verbosity=0)
            connections["schema"].close()
    finally:
        del connections.databases["schema"]
        del connections["schema"]


class SqliteDatabase:
    """A file with the schema as the migrations make it, new for each test."""

    def __init__(self, directory: Path, schema: str) -> None:
        self.path = directory / "db.sqlite3"
        with sqlite3.connect(self.path) as db:
            db.executescript(schema)
            for sql in FIRST_ROWS:
                db.execute(sql)
        db.close()

    def rows(self, sql: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            return db.execute(sql).fetchall()

    def execute(self, sql: str) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            db.execute(sql)

    def store(self, node: str, loop: Loop) -> Store:
        store = SqliteStore(str(self.path), node, post=loop.post, on_commit=loop.on_commit)
        store.start()
        return store


class PostgresDatabase:
    """A database of the server that all tests share, emptied for each of them."""

    def __init__(self, url: str) -> None:
        self.url = url
        with psycopg.connect(url) as db:
            db.execute(
                "TRUNCATE instance, transition, delivery, dead_letter, log_entry, unheeded_event,"
                " authz_org, machines_machine, machines_machineversion CASCADE"
            )
            for sql in FIRST_ROWS:
                db.execute(sql)

    def rows(self, sql: str) -> list[Any]:
        with psycopg.connect(self.url) as db:
            return db.execute(sql.replace("%", "%%")).fetchall()

    def execute(self, sql: str) -> None:
        with psycopg.connect(self.url) as db:
            db.execute(sql)

    def store(self, node: str, loop: Loop) -> Store:
        return StoreOnItsLoop(self.url, node, loop)


class StoreOnItsLoop:
    """A PostgresStore on an event loop in a thread of its own, called as if it were here."""

    def __init__(self, url: str, node: str, loop: Loop) -> None:
        self._test = loop
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._store = PostgresStore(
            url, node, on_commit=lambda outcomes: loop.post(loop.on_commit, outcomes)
        )
        self._run(self._store.start())

    has_other_writers = True

    def stop(self) -> None:
        try:
            self._run(self._store.stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> None:
            here = [self._here(arg) if callable(arg) else arg for arg in args]
            self._loop.call_soon_threadsafe(lambda: getattr(self._store, name)(*here))

        return call

    def _here(self, done: Any) -> Any:
        return lambda answer: self._test.post(done, answer)


@pytest.fixture(scope="module")
def sqlite_schema(tmp_path_factory, django_db_blocker) -> str:
    path = tmp_path_factory.mktemp("schema") / "schema.sqlite3"
    migrated(sqlite_database(path, "OFF"), django_db_blocker)
    with contextlib.closing(sqlite3.connect(path)) as db:
        return "\n".join(db.iterdump())


@pytest.fixture(scope="session")
def postgres_database_url(postgres, django_db_blocker) -> str:
    """A database with the schema as the migrations make it."""
    url = new_postgres_database(postgres, "store")
    database = postgres_database(url, 2)
    del database["OPTIONS"]["pool"]
    migrated(database, django_db_blocker)
    return url


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path: Path) -> SqliteDatabase | PostgresDatabase:
    if request.param == "sqlite":
        return SqliteDatabase(tmp_path, request.getfixturevalue("sqlite_schema"))
    return PostgresDatabase(request.getfixturevalue("postgres_database_url"))


@pytest.fixture
def open_store(database: Database) -> Iterator[Callable[[str, Loop], Any]]:
    """Opens a store of this database, as an engine of that name."""
    opened: list[Any] = []

    def open_one(node: str, loop: Loop) -> Any:
        opened.append(database.store(node, loop))
        return opened[-1]

    yield open_one
    for store in opened:
        store.stop()


@pytest.fixture
def store(open_store, loop: Loop) -> Any:
    return open_store("node-1", loop)


@pytest.fixture
def rows(database: Database) -> Callable[[str], list[Any]]:
    return database.rows


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
        "commit_id": next(commit_ids),
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


def done_with(store: Any, loop: Loop) -> None:
    """Wait until the store has done what it was asked so far, besides steps."""
    answers: list[Any] = []
    store.set_status(0, 1, answers.append)
    while not answers:
        loop.next()


def test_created_instance_has_row_and_history(store, rows, created):
    assert rows("SELECT org_id, machine_id, slug, seq, context FROM instance") == [
        (7, 1, "order-1", 1, '{"n":1}')
    ]
    assert rows("SELECT seq, kind, auth_context FROM transition") == [(1, 0, '{"sub":"u"}')]


def test_name_that_is_taken_exists(store, rows, loop, created):
    store.put([step(activation(), Kind.INIT)])

    assert loop.outcomes_of(1) == [Outcome.EXISTS]
    assert rows("SELECT count(*) FROM transition") == [(1,)]


def test_chain_of_steps_is_one_update_and_a_history_row_each(store, rows, loop, created):
    store.put([step(created) for _ in range(3)])

    assert loop.outcomes_of(3) == [Outcome.COMMITTED] * 3
    assert rows("SELECT seq, context FROM instance") == [(4, '{"n":4}')]
    assert rows("SELECT seq FROM transition ORDER BY seq") == [(1,), (2,), (3,), (4,)]


def test_stale_step_conflicts_and_takes_what_was_computed_on_it_along(store, rows, loop, created):
    stale = activation(row_id=created.row_id, seq=5)
    other = activation((1, "order-2"))
    store.put([step(stale), step(other, Kind.INIT), step(stale)])

    assert loop.outcomes_of(3) == [Outcome.CONFLICT, Outcome.COMMITTED, Outcome.CONFLICT]
    assert stale.dead
    assert rows("SELECT slug, seq FROM instance ORDER BY slug") == [
        ("order-1", 1),
        ("order-2", 1),
    ]


def test_step_behind_a_failed_one_is_void_even_if_its_number_fits_by_then(
    store, rows, loop, created
):
    slow = activation(row_id=created.row_id, seq=1)
    behind = [step(slow), step(slow)]
    store.put([step(created)])
    store.put(behind)

    outcomes = loop.outcomes_of(3)

    assert outcomes == [Outcome.COMMITTED, Outcome.CONFLICT, Outcome.CONFLICT]
    assert rows("SELECT seq FROM instance") == [(2,)]


def test_paused_instance_takes_no_step(store, rows, loop, created):
    store.set_status(created.row_id, 1, lambda found: loop.outcomes.append((None, found)))
    assert loop.outcomes_of(1) == [True]
    store.put([step(created)])

    assert loop.outcomes_of(1) == [Outcome.PAUSED]
    assert rows("SELECT seq FROM instance") == [(1,)]


def test_deleted_instance_frees_its_name_and_leaves_nothing(store, rows, loop, created):
    store.put([step(created, timers=[timer("t", 99_999)])])
    loop.outcomes_of(1)
    store.delete(created.row_id, lambda found: loop.outcomes.append((None, found)))
    assert loop.outcomes_of(1) == [True]
    store.put([step(created), step(activation(), Kind.INIT)])

    assert loop.outcomes_of(2) == [Outcome.DELETED, Outcome.COMMITTED]
    assert rows("SELECT count(*) FROM delivery") == [(0,)]


def test_request_key_is_in_the_history_once(store, rows, loop, created):
    twice = [step(created), step(created)]
    for operation in twice:
        operation.request_key = "k"
    store.put(twice)

    assert loop.outcomes_of(2) == [Outcome.COMMITTED, Outcome.DUPLICATE]
    answers: list[Any] = []
    store.find_request_key(created.row_id, "k", answers.append)
    store.find_request_key(created.row_id, "other", answers.append)
    while len(answers) < 2:
        loop.next()
    assert answers == [True, False]
    assert rows("SELECT seq FROM instance") == [(2,)]


def test_timer_is_written_with_its_step_and_consumed_with_another(store, rows, loop, created):
    store.put([step(created, timers=[timer("t", 1_500), timer("u", 90_000, n=1)])])
    loop.outcomes_of(1)
    assert rows("SELECT send_id, due_at, claim_until > 0 FROM delivery ORDER BY id") == [
        ("t", 1_500, 1),
        ("u", 90_000, 0),
    ]

    (id_,) = rows("SELECT id FROM delivery WHERE send_id='t'")[0]
    fired = step(created, Kind.TIMER)
    fired.delivery = Delivery(id_, 0, KEY, '{"type":"due"}', 1_500, 0, 1)
    store.put([fired])

    assert loop.outcomes_of(1) == [Outcome.COMMITTED]
    assert rows("SELECT send_id FROM delivery") == [("u",)]
    assert rows("SELECT caused_by FROM transition WHERE seq=3") == [(id_,)]


def test_cancelled_timer_is_gone_when_it_comes(store, rows, loop, created):
    store.put([step(created, timers=[timer("t", 1_500)])])
    loop.outcomes_of(1)
    (id_,) = rows("SELECT id FROM delivery")[0]
    cancel = step(created, cancels=["t"])
    fired = step(created, Kind.TIMER)
    fired.delivery = Delivery(id_, 0, KEY, '{"type":"due"}', 1_500, 0, 1)
    store.put([cancel])
    store.put([fired])

    assert loop.outcomes_of(2) == [Outcome.COMMITTED, Outcome.GONE]
    assert cancel.cancelled_ids == [id_]
    assert rows("SELECT seq FROM instance") == [(3,)]


def test_timer_set_and_cancelled_in_one_batch_never_exists(store, rows, loop, created):
    store.put([step(created, timers=[timer("t", 1_500)]), step(created, cancels=["t"])])

    assert loop.outcomes_of(2) == [Outcome.COMMITTED] * 2
    assert rows("SELECT count(*) FROM delivery") == [(0,)]


def test_cancel_takes_the_latest_timer_of_that_id(store, rows, loop, created):
    store.put([step(created, timers=[timer("t", 10_000)])])
    store.put([step(created, timers=[timer("t", 20_000)])])
    store.put([step(created, cancels=["t"])])

    loop.outcomes_of(3)

    assert rows("SELECT due_at FROM delivery") == [(10_000,)]


def test_due_deliveries_are_claimed_in_order_and_once(store, rows, loop, created):
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


def test_fifth_failure_makes_a_dead_letter(store, rows, loop, created):
    store.put([step(created, timers=[timer("t", 90_000)])])
    loop.outcomes_of(1)
    (id_,) = rows("SELECT id FROM delivery")[0]
    for attempts in range(5):
        assert rows("SELECT attempts FROM delivery") == [(attempts,)]
        store.fail(Delivery(id_, 0, KEY, "", 90_000, attempts, 1), "machine-error: no")
        done_with(store, loop)

    assert rows("SELECT count(*) FROM delivery") == [(0,)]
    assert rows("SELECT id, attempts, reason FROM dead_letter") == [(id_, 5, "machine-error: no")]


def test_claims_end_with_the_process(database, store, open_store, loop, created):
    if not isinstance(database, SqliteDatabase):
        pytest.skip("on Postgres a claim ends by time: other nodes go on")
    store.put([step(created, timers=[timer("t", 1_001)])])
    loop.outcomes_of(1)
    claimed: list[list[Delivery]] = []

    again = open_store("node-2", loop)
    again.claim_due(1_000_000, 10, claimed.append)
    loop.next()

    assert len(claimed[0]) == 1
    assert claimed[0][0].claims == 2


def test_postponed_delivery_counts_neither_claim_nor_attempt(store, rows, loop, created):
    store.put([step(created, timers=[timer("t", 30_000)])])
    loop.outcomes_of(1)
    claimed: list[list[Delivery]] = []
    store.claim_due(1_000_000, 10, claimed.append)
    loop.next()

    store.postpone(claimed[0][0].id, 40_000)
    done_with(store, loop)

    assert rows("SELECT due_at, claim_until, claims, attempts FROM delivery") == [(40_000, 0, 0, 0)]


def test_ids_are_never_given_twice(store, open_store, rows, loop, created):
    first = created.row_id
    store.delete(first, lambda found: loop.outcomes.append((None, found)))
    loop.outcomes_of(1)
    while rows("SELECT id FROM instance"):
        done_with(store, loop)
    again = open_store("node-2", loop)

    made = activation()
    again.put([step(made, Kind.INIT)])

    assert loop.outcomes_of(1) == [Outcome.COMMITTED]
    assert made.row_id > first


def test_refusal_computed_on_a_state_that_has_passed_conflicts(database, store, loop, created):
    if not store.has_other_writers:
        pytest.skip("nobody else writes")
    stale = activation(row_id=created.row_id, seq=1)
    refusal = step(stale, code=2)
    refusal.seq = stale.tail_seq = 1
    fresh = step(activation(row_id=created.row_id, seq=1), code=2)
    fresh.seq = 1
    store.put([fresh])
    assert loop.outcomes_of(1) == [Outcome.COMMITTED]

    store.put([step(created)])
    loop.outcomes_of(1)
    store.put([refusal])

    assert loop.outcomes_of(1) == [Outcome.CONFLICT]


def test_two_activations_of_a_chain_and_a_refusal_in_one_batch(store, rows, loop, created):
    other = activation((1, "order-2"))
    store.put([step(other, Kind.INIT)])
    loop.outcomes_of(1)
    chain = [step(created, timers=[timer("t", 90_000)]), step(created, cancels=["t"])]
    refusal = step(other, code=2)
    refusal.seq = other.tail_seq = 1
    store.put([chain[0], refusal, chain[1], step(other)])

    assert loop.outcomes_of(4) == [Outcome.COMMITTED] * 4
    assert rows("SELECT slug, seq FROM instance ORDER BY slug") == [("order-1", 3), ("order-2", 2)]
    assert rows("SELECT count(*) FROM delivery") == [(0,)]


def message(slug: str, due_at_ms: int, n: int = 0, **fields: Any) -> MessageRow:
    fields = {"kind": DeliveryKind.MESSAGE, "machine": "order", **fields}
    kind, machine = fields.pop("kind"), fields.pop("machine")
    return MessageRow(n, kind, machine, slug, '{"type":"hi"}', due_at_ms, **fields)


def due(store: Any, loop: Loop, key: tuple[int, str], limit: int = 100) -> list[Delivery]:
    found: list[list[Delivery]] = []
    store.find_due(key, 10_000, limit, found.append)
    while not found:
        loop.next()
    return found[0]


def delivered(activation: Activation, delivery: Delivery, kind: Kind = Kind.MESSAGE) -> Operation:
    operation = step(activation, kind)
    operation.delivery = delivery
    return operation


def test_message_is_addressed_within_the_senders_org(store, rows, loop, created):
    sent = [message("b", 1_500), message("b", 1_500, 1, machine="elsewhere")]
    store.put([step(created, messages=sent)])
    loop.outcomes_of(1)

    assert [m.key for m in sent] == [(1, "b"), (0, "b")]
    sender = '{"stateBackedSender":{"machineName":"order","machineInstanceName":"order-1"}}'
    assert rows("SELECT org_id, kind, auth_context, send_id FROM delivery ORDER BY id") == [
        (7, 1, sender, None),
        (7, 1, sender, None),
    ]
    assert rows("SELECT target_machine FROM delivery WHERE target_machine_id=0") == [("elsewhere",)]


def test_machine_that_comes_later_is_found_by_its_name(store, rows, loop, created):
    store.put([step(created, messages=[message("b", 1_500, machine="order")])])
    loop.outcomes_of(1)
    [delivery] = due(store, loop, (1, "b"))
    found: list[int | None] = []

    store.find_machine(delivery.id, found.append)
    while not found:
        loop.next()

    assert found == [None]  # it is addressed already


def test_what_is_due_comes_in_the_order_in_which_each_sender_sent_it(store, loop, created):
    other = activation((1, "order-2"))
    store.put([step(other, Kind.INIT)])
    store.put(
        [
            step(created, messages=[message("b", 2_000, 1), message("b", 2_000, 0)]),
            step(other, messages=[message("b", 1_900)]),
            step(created, messages=[message("b", 2_000), message("b", 20_000, 1)]),
            step(created, timers=[timer("t", 1_500)]),
        ]
    )
    loop.outcomes_of(5)

    found = due(store, loop, (1, "b"))

    assert [d.due_at_ms for d in found] == [1_900, 2_000, 2_000, 2_000]
    assert [d.source_id for d in found] == [other.row_id, *[created.row_id] * 3]
    assert found[1].id > found[2].id  # by their place in the step
    assert [d.id for d in due(store, loop, (1, "b"), 2)] == [d.id for d in found[:2]]


def test_what_is_due_for_a_paused_instance_is_held_all_together(store, rows, loop, created):
    target = activation((1, "b"))
    store.put([step(target, Kind.INIT), step(created, messages=[message("b", 1_500)])])
    loop.outcomes_of(2)
    changed: list[bool | None] = []
    store.set_status(target.row_id, 1, changed.append)
    while not changed:
        loop.next()
    store.put([step(created, messages=[message("b", 1_600), message("b", 1_600, 1)])])
    loop.outcomes_of(1)

    found: list[Any] = []
    store.find_due((1, "b"), 10_000, 100, found.append)
    while not found:
        loop.next()

    assert isinstance(found[0], InstancePaused)
    deadline = time.monotonic() + 10
    while rows("SELECT count(*) FROM delivery WHERE due_at < 10000") != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    store.set_status(target.row_id, 0, changed.append)
    while len(changed) < 2:
        loop.next()
    assert [d.due_at_ms for d in due(store, loop, (1, "b"))] == [1_500, 1_600, 1_600]


def test_message_is_cancelled_while_a_step_that_would_consume_it_fails(store, rows, loop, created):
    target = activation((1, "b"))
    sent = step(created, messages=[message("b", 1_500, send_id="m")])
    store.put([step(target, Kind.INIT), sent])
    loop.outcomes_of(2)
    [delivery] = due(store, loop, (1, "b"))
    stale = activation((1, "b"), target.row_id, 1)
    store.put([step(target)])
    loop.outcomes_of(1)

    store.put([delivered(stale, delivery), step(created, cancels=["m"])])

    assert loop.outcomes_of(2)[1] == Outcome.COMMITTED
    assert rows("SELECT count(*) FROM delivery") == [(0,)]


def test_message_is_consumed_once(store, rows, loop, created):
    target = activation((1, "b"))
    store.put([step(target, Kind.INIT), step(created, messages=[message("b", 1_500)])])
    loop.outcomes_of(2)
    [delivery] = due(store, loop, (1, "b"))

    store.put([delivered(target, delivery), delivered(target, delivery)])

    assert loop.outcomes_of(2) == [Outcome.COMMITTED, Outcome.GONE]
    assert rows("SELECT kind, caused_by FROM transition WHERE seq=2 AND caused_by IS NOT NULL") == [
        (3, delivery.id)
    ]
    assert rows("SELECT count(*) FROM delivery") == [(0,)]


def test_delayed_message_is_cancelled_by_its_id(store, rows, loop, created):
    store.put([step(created, messages=[message("b", 90_000, send_id="m")])])
    store.put([step(created, cancels=["m"])])
    store.put([step(created, messages=[message("b", 90_000, send_id="m")])])
    store.put([step(created, cancels=["m"])])

    loop.outcomes_of(4)

    assert rows("SELECT count(*) FROM delivery") == [(0,)]


def spawned(store: Any, loop: Loop, parent: Activation, slug: str) -> Delivery:
    spawn = message(slug, 1_500, kind=DeliveryKind.SPAWN)
    spawn.event = '{"type":"statebacked.spawn","id":"kid"}'
    store.put([step(parent, messages=[spawn])])
    loop.outcomes_of(1)
    [delivery] = due(store, loop, (1, slug))
    return delivery


def child_of(parent: Activation, delivery: Delivery) -> tuple[Activation, Operation]:
    child = activation(delivery.key)
    operation = delivered(child, delivery, Kind.INIT)
    operation.creation = Creation(1, "{}", "", parent.row_id, "kid")
    return child, operation


def test_spawn_is_consumed_by_the_creation_and_happens_once(store, rows, loop, created):
    delivery = spawned(store, loop, created, "kid-1")
    child, creation = child_of(created, delivery)
    store.put([creation])
    assert loop.outcomes_of(1) == [Outcome.COMMITTED]
    assert rows("SELECT parent_id, parent_child FROM instance WHERE slug='kid-1'") == [
        (created.row_id, "kid")
    ]

    store.delete(child.row_id, lambda found: loop.outcomes.append((None, found)))
    assert loop.outcomes_of(1) == [True]
    _, again = child_of(created, delivery)
    store.put([again])

    assert loop.outcomes_of(1) == [Outcome.GONE]
    assert rows("SELECT count(*) FROM instance WHERE slug='kid-1'") == [(0,)]
    # The parent hears that its child was deleted.
    [told] = due_of_kind(rows, 3)
    assert told == ("order-1", '{"type":"statebacked.child-error","id":"kid",')


def due_of_kind(rows: Any, kind: int) -> list[tuple[str, str]]:
    query = f"SELECT target_slug, substr(event, 1, 45) FROM delivery WHERE kind={kind}"
    return [tuple(row) for row in rows(query)]


def test_spawn_on_a_taken_name_exists_and_stays_to_be_done(store, rows, loop, created):
    delivery = spawned(store, loop, created, "taken")
    store.put([step(activation((1, "taken")), Kind.INIT)])
    loop.outcomes_of(1)
    _, creation = child_of(created, delivery)
    store.put([creation])

    assert loop.outcomes_of(1) == [Outcome.EXISTS]
    assert rows("SELECT count(*) FROM delivery WHERE kind=2") == [(1,)]


def test_parent_hears_of_a_spawn_that_failed_for_good(store, rows, loop, created):
    delivery = spawned(store, loop, created, "kid-1")
    delivery.attempts = 4
    # As if four attempts had failed.
    for attempts in range(5):
        store.fail(
            Delivery(delivery.id, 2, delivery.key, delivery.event, 0, attempts, 1),
            "no such machine",
        )
        done_with(store, loop)

    assert rows("SELECT kind, reason FROM dead_letter") == [(2, "no such machine")]
    [(slug, _)] = due_of_kind(rows, 3)
    assert slug == "order-1"
    assert rows("SELECT count(*) FROM delivery WHERE event LIKE '%ChildNotCreated%'") == [(1,)]


def test_end_of_a_child_goes_to_its_parents_row(store, rows, loop, created):
    delivery = spawned(store, loop, created, "kid-1")
    child, creation = child_of(created, delivery)
    store.put([creation])
    loop.outcomes_of(1)
    end = message("", 1_500, kind=DeliveryKind.CHILD_DONE, machine="", parent_id=created.row_id)
    orphaned = message("", 1_500, kind=DeliveryKind.CHILD_DONE, machine="", parent_id=99_999)
    store.put([step(child, messages=[end]), step(child, messages=[orphaned])])

    assert loop.outcomes_of(2) == [Outcome.COMMITTED] * 2
    assert (end.key, orphaned.key) == (KEY, None)
    assert rows("SELECT target_slug FROM delivery WHERE kind=3") == [("order-1",)]


def test_versions_are_found_by_name_or_as_the_current_one(store, loop, created):
    found: list[int | None] = []
    for version in ("ver_x", "", "ver_other"):
        store.find_version(1, version, found.append)
        while len(found) < ("ver_x", "", "ver_other").index(version) + 1:
            loop.next()

    assert found == [1, None, None]


def test_what_a_deleted_instance_has_sent_is_delivered_still(store, rows, loop, created):
    store.put([step(created, messages=[message("b", 1_500)], timers=[timer("t", 90_000, 1)])])
    loop.outcomes_of(1)

    store.delete(created.row_id, lambda found: loop.outcomes.append((None, found)))
    loop.outcomes_of(1)

    assert rows("SELECT target_slug FROM delivery") == [("b",)]


def test_one_bad_value_fails_alone(store, rows, loop, created):
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


def test_logs_are_kept_with_org_and_machine(store, rows, loop):
    store.log(
        [LogRow(1, None, "order-1", "info", "hello", 5), LogRow(99, None, "", "info", "?", 5)]
    )
    done_with(store, loop)

    assert rows("SELECT org_id, machine_id, message FROM log_entry") == [(7, 1, "hello")]


def test_notes_are_kept_and_go_with_their_instance(store, rows, loop, created):
    row_id, other = created.row_id, created.row_id + 1
    store.note([
        NoteRow(row_id, 1, 1, 0, '{"type":"\x00pay"}', '{"sub":"ü"}', 2, 5),
        NoteRow(other, 1, 1, 1, "{}", "", 0, 6),
    ])  # fmt: skip
    done_with(store, loop)
    kept = rows("SELECT seq, kind, outcome, auth_context, more, created_at FROM unheeded_event")

    store.delete(row_id, lambda found: loop.outcomes.append((None, found)))
    assert loop.outcomes_of(1) == [True]
    while rows("SELECT id FROM instance"):
        done_with(store, loop)

    assert kept == [(1, 1, 0, '{"sub":"ü"}', 2, 5), (1, 1, 1, "", 0, 6)]
    assert rows("SELECT instance_id FROM unheeded_event") == [(other,)]


# --- upgrades


def desire(database: Database, version_id: int | None, row_id: int) -> None:
    value = "NULL" if version_id is None else version_id
    database.execute(f"UPDATE instance SET desired_version_id={value} WHERE id={row_id}")


class NoReply:
    def done(self) -> bool:
        return True

    def set_result(self, body: Any, /) -> None:
        raise AssertionError(body)

    set_exception = set_result


def upgrade(row_id: int | None, seq: int, to: int = 2, **fields: Any) -> Operation:
    """An answered upgrade, of an activation of its own."""
    made = Activation("2", KEY, row_id, to, RunnerLink(Process()))
    made.seq = made.tail_seq = seq
    answered = step(made)
    event = '{"type":"statebacked.upgrade"}'
    operation = Upgrade(KEY, event, NoReply(), migrations="[1]", description="{}", before="{}")
    names = ("code", "state", "extra", "context", "public", "children", "effects", "report")
    for name in (*names, "duration_us", "ts", "created_at_ms", "commit_id", "seq", "activation"):
        setattr(operation, name, getattr(answered, name))
    for name, value in fields.items():
        setattr(operation, name, value)
    return operation


def refusal(activation: Activation, code: int = 2) -> Operation:
    operation = step(activation, code=code)
    operation.seq = activation.tail_seq = activation.tail_seq - 1
    return operation


def test_event_that_finds_it_settled_conflicts_while_another_version_is_desired(
    database, store, rows, loop, created
):
    desire(database, 2, created.row_id)
    store.put([step(created), step(created)])

    assert loop.outcomes_of(2) == [Outcome.CONFLICT] * 2
    assert rows("SELECT seq, version_id, desired_version_id FROM instance") == [(1, 1, 2)]


def test_event_with_effects_conflicts_alike_and_leaves_nothing(
    database, store, rows, loop, created
):
    desire(database, 2, created.row_id)
    other = activation((1, "order-2"))
    timed = step(created, Kind.TIMER, timers=[timer("t", 90_000)], messages=[message("b", 1_500)])
    store.put([timed, step(other, Kind.INIT)])

    assert loop.outcomes_of(2) == [Outcome.CONFLICT, Outcome.COMMITTED]
    assert rows("SELECT count(*) FROM delivery") == [(0,)]
    assert rows("SELECT count(*) FROM transition") == [(2,)]


def test_instance_settles_on_its_old_version_with_events_and_services(
    database, store, rows, loop, created
):
    services = '[{"id":"s","src":"s"}]'
    created.children = services
    store.put([step(created, children=services, deadline_ms=9_000)])
    loop.outcomes_of(1)
    desire(database, 2, created.row_id)
    for one in (
        step(created, children=services, deadline_ms=9_000),
        step(created, Kind.SERVICE, children=services, deadline_ms=9_000),
        refusal(created),
        step(created, Kind.LOST_SERVICE),
    ):
        store.put([one])

    assert loop.outcomes_of(4) == [Outcome.COMMITTED] * 4
    created.children = "[]"
    store.put([step(created)])
    assert loop.outcomes_of(1) == [Outcome.CONFLICT]
    assert rows("SELECT seq, version_id FROM instance") == [(5, 1)]


def test_what_it_sends_to_itself_passes_and_events_behind_it_do_not(
    database, store, rows, loop, created
):
    desire(database, 2, created.row_id)
    store.put([step(created, Kind.SERVICE), step(created), step(created, Kind.SERVICE)])

    assert loop.outcomes_of(3) == [Outcome.COMMITTED, Outcome.CONFLICT, Outcome.CONFLICT]
    store.put([step(activation(row_id=created.row_id, seq=2), Kind.SERVICE)])
    assert loop.outcomes_of(1) == [Outcome.COMMITTED]
    timed = step(
        activation(row_id=created.row_id, seq=3), Kind.SERVICE, timers=[timer("t", 90_000)]
    )
    store.put([timed])
    assert loop.outcomes_of(1) == [Outcome.COMMITTED]
    assert rows("SELECT seq FROM instance") == [(4,)]


def test_refusal_conflicts_while_another_version_is_desired(database, store, loop, created):
    if not store.has_other_writers:
        pytest.skip("nobody else writes")
    desire(database, 2, created.row_id)
    store.put([refusal(created)])
    assert loop.outcomes_of(1) == [Outcome.CONFLICT]

    inner = refusal(activation(row_id=created.row_id, seq=1), 1)
    inner.kind = Kind.SERVICE
    store.put([inner])
    assert loop.outcomes_of(1) == [Outcome.COMMITTED]

    done = STATE.replace("false", "true")
    database.execute(f"UPDATE instance SET state='{done}'")
    store.put([refusal(activation(row_id=created.row_id, seq=1), 1)])
    assert loop.outcomes_of(1) == [Outcome.COMMITTED]


def test_upgrade_sets_the_version_and_is_no_longer_desired(database, store, rows, loop, created):
    desire(database, 2, created.row_id)
    one = upgrade(created.row_id, 1)
    store.put([one])
    assert loop.outcomes_of(1) == [Outcome.COMMITTED]
    store.put([step(one.activation)])
    assert loop.outcomes_of(1) == [Outcome.COMMITTED]

    assert rows("SELECT seq, version_id, desired_version_id, context FROM instance") == [
        (3, 2, None, '{"n":3}')
    ]
    assert rows("SELECT seq, kind, version_id FROM transition ORDER BY seq") == [
        (1, 0, 1),
        (2, 6, 2),
        (3, 1, 2),
    ]


@pytest.mark.parametrize("desired", [None, 1, 3])
def test_upgrade_to_a_version_that_is_not_desired_conflicts(
    database, store, rows, loop, created, desired
):
    desire(database, desired, created.row_id)
    timers = [Rename(0, "t", "t2", "{}")]
    other = activation((1, "order-2"))
    store.put([upgrade(created.row_id, 1, renames=timers), step(other, Kind.INIT)])

    assert loop.outcomes_of(2) == [Outcome.CONFLICT, Outcome.COMMITTED]
    assert rows("SELECT seq, version_id, desired_version_id FROM instance ORDER BY id") == [
        (1, 1, desired),
        (1, 1, None),
    ]


def test_two_upgrades_of_one_state_and_one_takes_place(database, store, rows, loop, created):
    desire(database, 2, created.row_id)
    store.put([upgrade(created.row_id, 1), upgrade(created.row_id, 1)])

    assert loop.outcomes_of(2) == [Outcome.COMMITTED, Outcome.CONFLICT]
    assert rows("SELECT count(*) FROM transition") == [(2,)]


def test_upgrade_of_a_paused_instance_finds_it_paused(database, store, rows, loop, created):
    desire(database, 2, created.row_id)
    store.set_status(created.row_id, 1, lambda found: loop.outcomes.append((None, found)))
    loop.outcomes_of(1)
    store.put([upgrade(created.row_id, 1)])

    assert loop.outcomes_of(1) == [Outcome.PAUSED]
    assert rows("SELECT version_id, desired_version_id FROM instance") == [(1, 2)]


def test_kept_timers_get_new_rows_with_all_that_they_were(database, store, rows, loop, created):
    timers = [timer("t", 1_900), timer("u", 90_000, 1), timer("v", 80_000, 2), timer("w", 1_800, 3)]
    timers[0].hops = 5
    store.put([step(created, timers=timers, messages=[message("b", 90_000, 4, send_id="t")])])
    loop.outcomes_of(1)
    database.execute("UPDATE delivery SET attempts=3, last_error='no' WHERE send_id='u'")
    desire(database, 2, created.row_id)
    renames = [
        Rename(0, "t", "u", '{"type":"t"}'),  # they swap their names
        Rename(1, "u", "t", '{"type":"u"}'),
        Rename(2, "nothing", "else", "{}"),
    ]
    started = [timer("v", 70_000, 3)]
    one = upgrade(created.row_id, 2, renames=renames, cancels=["v"], timers=started)
    old = dict(rows("SELECT due_at, id FROM delivery WHERE kind=0"))
    store.put([one])
    assert loop.outcomes_of(1) == [Outcome.COMMITTED]

    assert rows(
        "SELECT send_id, due_at, event, kind, attempts, coalesce(last_error, ''), hops, claims,"
        " source_seq, source_n FROM delivery ORDER BY due_at, kind"
    ) == [
        ("w", 1_800, '{"type":"due"}', 0, 0, "", 0, 1, 2, 3),
        ("u", 1_900, '{"type":"t"}', 0, 0, "", 5, 1, 3, 0),
        ("v", 70_000, '{"type":"due"}', 0, 0, "", 0, 0, 3, 3),
        ("t", 90_000, '{"type":"u"}', 0, 3, "no", 0, 0, 3, 1),
        ("t", 90_000, '{"type":"hi"}', 1, 0, "", 0, 0, 2, 4),
    ]
    assert one.cancelled_ids is not None
    assert sorted(one.cancelled_ids) == sorted(old[due_at] for due_at in (1_900, 90_000, 80_000))
    found = [(rename.due_at_ms, rename.attempts, rename.hops) for rename in renames]
    assert found == [(1_900, 0, 5), (90_000, 3, 0), (None, 0, 0)]
    assert [(r.delivery_id,) for r in renames[:1]] == rows(
        "SELECT id FROM delivery WHERE send_id='u'"
    )


def test_timer_under_its_old_id_is_gone_once_it_was_renamed(database, store, rows, loop, created):
    store.put([step(created, timers=[timer("t", 1_500)])])
    loop.outcomes_of(1)
    (id_,) = rows("SELECT id FROM delivery")[0]
    desire(database, 2, created.row_id)
    one = upgrade(created.row_id, 2, renames=[Rename(0, "t", "t", '{"type":"new"}')])
    store.put([one])
    fired = step(one.activation, Kind.TIMER)
    fired.delivery = Delivery(id_, 0, KEY, '{"type":"due"}', 1_500, 0, 1)
    store.put([fired])

    assert loop.outcomes_of(2) == [Outcome.COMMITTED, Outcome.GONE]
    assert rows("SELECT event FROM delivery") == [('{"type":"new"}',)]


def test_row_says_which_version_is_desired(database, store, loop, created):
    found: list[InstanceRow] = []
    store.read(KEY, found.append)
    while not found:
        loop.next()
    desire(database, 2, created.row_id)
    store.read(KEY, found.append)
    while len(found) < 2:
        loop.next()

    assert [row.desired_version_id for row in found] == [None, 2]


def test_migrations_are_those_of_the_machine(database, store, loop):
    columns = "(id, public_id, created_at, machine_id, from_version_id, to_version_id)"
    database.execute(
        f"INSERT INTO machines_machineversionmigration {columns}"
        " VALUES (5, 'mig_a', '2026-01-01', 1, 1, 2), (6, 'mig_b', '2026-01-01', 1, 2, 1)"
    )
    found: list[list[MigrationRow]] = []
    for machine_id in (1, 2):
        store.find_migrations(machine_id, found.append)
        while len(found) < machine_id:
            loop.next()

    assert sorted(found[0]) == [(5, 1, 2, "ver_x", "ver_y"), (6, 2, 1, "ver_y", "ver_x")]
    assert found[1] == []


def test_second_engine_on_one_database_is_refused(tmp_path):
    lock = EngineLock(tmp_path / "db.sqlite3")
    lock.acquire()

    with pytest.raises(EngineLocked, match="in use"):
        EngineLock(tmp_path / "db.sqlite3").acquire()

    lock.release()
    again = EngineLock(tmp_path / "db.sqlite3")
    again.acquire()
    again.release()
