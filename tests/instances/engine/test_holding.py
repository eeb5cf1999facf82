"""A pause holds what its instance is to get, on both databases and in the engine."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from instances.engine import postgres_sql
from instances.engine.holding import HELD_MS, Resume
from instances.engine.operations import Delivery, Outcome
from tests.acceptance.polling import eventually
from tests.instances.engine.simulated import Answer, Site
from tests.instances.engine.test_store import (
    SqliteDatabase,
    created,
    database,
    done_with,
    loop,
    open_store,
    postgres_database_url,
    rows,
    sqlite_schema,
    step,
    store,
    timer,
)

__all__ = [
    "created",
    "database",
    "loop",
    "open_store",
    "postgres_database_url",
    "rows",
    "sqlite_schema",
    "store",
]
RUNNING, PAUSED = 0, 1
DUE = "SELECT send_id, due_at FROM delivery ORDER BY due_at, id"


@pytest.fixture
def put_status(store, loop, created) -> Any:
    def put(status: int, timers: Resume = Resume.ORIGINAL) -> bool:
        answers: list[Any] = []
        store.set_status(created.row_id, status, answers.append, timers)
        while not answers:
            loop.next()
        return bool(answers[0])

    return put


def set_timers(store: Any, loop: Any, created: Any, **due_at_ms: int) -> None:
    timers = [timer(name, at, n) for n, (name, at) in enumerate(due_at_ms.items())]
    store.put([step(created, timers=timers)])
    assert loop.outcomes_of(1) == [Outcome.COMMITTED]


def claimed(store: Any, loop: Any) -> list[Delivery]:
    answers: list[Any] = []
    store.claim_due(now_ms() + 1_000, 100, answers.append)
    while not answers:
        loop.next()
    found: list[Delivery] = answers[0]
    return found


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_pause_holds_timers_and_keeps_their_time(store, loop, rows, created, put_status):
    set_timers(store, loop, created, due=5_000, later=6_000)

    put_status(PAUSED)

    assert rows(DUE) == [("due", 5_000 + HELD_MS), ("later", 6_000 + HELD_MS)]
    assert claimed(store, loop) == []
    [(paused_at,)] = rows("SELECT paused_at FROM instance")
    assert abs(paused_at - now_ms()) < 60_000
    put_status(PAUSED)
    assert rows("SELECT paused_at FROM instance") == [(paused_at,)]
    assert rows(DUE) == [("due", 5_000 + HELD_MS), ("later", 6_000 + HELD_MS)]


def test_timers_fire_at_their_original_time(store, loop, rows, created, put_status):
    set_timers(store, loop, created, due=5_000, later=6_000)
    put_status(PAUSED)
    put_status(RUNNING)

    assert rows(DUE) == [("due", 5_000), ("later", 6_000)]
    assert rows("SELECT status, paused_at FROM instance") == [(RUNNING, None)]
    assert [(d.send_id, d.attempts, d.claims) for d in claimed(store, loop)] == [
        ("due", 0, 1),
        ("later", 0, 1),
    ]


def test_timers_keep_the_time_that_they_had_left(store, loop, rows, created, put_status, database):
    later = now_ms() + 600_000
    set_timers(store, loop, created, soon=later, later=later + 5)
    put_status(PAUSED)
    database.execute("UPDATE instance SET paused_at = paused_at - 100000")

    put_status(RUNNING, Resume.KEEP_REMAINING)

    (_, soon), (_, last) = rows(DUE)
    assert 100_000 <= soon - later < 160_000
    assert last - soon == 5


def test_timers_fire_now_in_order(store, loop, rows, created, put_status):
    later = now_ms() + 600_000
    set_timers(store, loop, created, last=later + 5, overdue=5_000, soon=later)
    put_status(PAUSED)

    put_status(RUNNING, Resume.FIRE_NOW)

    assert [name for name, _ in rows(DUE)] == ["overdue", "soon", "last"]
    assert [d.send_id for d in claimed(store, loop)] == ["overdue", "soon", "last"]
    assert rows("SELECT min(due_at) FROM delivery") == [(5_000,)]


@pytest.mark.parametrize("resume", [Resume.KEEP_REMAINING, Resume.FIRE_NOW])
def test_messages_keep_their_time(store, loop, rows, created, put_status, database, resume):
    later = now_ms() + 600_000
    set_timers(store, loop, created, message=later)
    database.execute("UPDATE delivery SET kind = 1")
    put_status(PAUSED)
    database.execute("UPDATE instance SET paused_at = paused_at - 100000")

    put_status(RUNNING, resume)

    assert rows(DUE) == [("message", later)]


def test_running_instance_is_not_resumed_again(store, loop, rows, created, put_status):
    later = now_ms() + 600_000
    set_timers(store, loop, created, later=later)

    assert put_status(RUNNING, Resume.FIRE_NOW)

    assert rows(DUE) == [("later", later)]


def test_what_was_on_its_way_is_held(store, loop, rows, created, put_status, database):
    set_timers(store, loop, created, due=5_000)
    (delivery,) = claimed(store, loop)
    put_status(PAUSED)
    database.execute("UPDATE delivery SET due_at = 5000")  # as one that came after the pause
    store.hold(delivery.id)
    put_status(PAUSED)

    assert rows("SELECT due_at, claims, claim_until FROM delivery") == [(5_000 + HELD_MS, 0, 0)]


def test_all_that_waits_for_a_paused_instance_is_held_with_the_first(
    store, loop, rows, created, put_status, database
):
    set_timers(store, loop, created, first=5_000, second=6_000, later=now_ms() + 600_000)
    first, *_ = claimed(store, loop)
    put_status(PAUSED)
    database.execute(f"UPDATE delivery SET due_at = due_at - {HELD_MS}")  # as sent after the pause
    store.hold(first.id)
    done_with(store, loop)

    assert rows(f"SELECT count(*) FROM delivery WHERE due_at < {HELD_MS} OR claims > 0") == [(0,)]
    assert [name for name, _ in rows(DUE)] == ["first", "second", "later"]


def test_hold_that_comes_after_the_resume_gives_back(store, loop, rows, created, put_status):
    set_timers(store, loop, created, due=5_000)
    (delivery,) = claimed(store, loop)
    put_status(PAUSED)
    put_status(RUNNING)
    store.hold(delivery.id)

    assert [d.send_id for d in claimed(store, loop)] == ["due"]


def test_failure_on_the_way_leaves_held_what_is_held(store, loop, rows, created, put_status):
    set_timers(store, loop, created, due=5_000)
    (delivery,) = claimed(store, loop)
    put_status(PAUSED)
    store.fail(delivery, "machine-error: Error: x")
    store.postpone(delivery.id, 7_000)
    delivery.attempts = 4
    store.fail(delivery, "machine-error: Error: x")
    put_status(PAUSED)

    assert rows(DUE) == [("due", 5_000 + HELD_MS)]
    assert rows("SELECT count(*) FROM dead_letter") == [(0,)]


@pytest.mark.parametrize("first", ["hold", "resume"])
def test_hold_and_resume_at_the_same_time_leave_nothing_held(
    store, loop, rows, created, put_status, database, first
):
    """Whichever comes second waits for the first one, and sees what it has done."""
    if isinstance(database, SqliteDatabase):
        pytest.skip("there is one writer")
    set_timers(store, loop, created, due=5_000)
    (delivery,) = claimed(store, loop)
    put_status(PAUSED)
    database.execute("UPDATE delivery SET due_at = 5000")  # as one that came after the pause
    statements = {
        "hold": postgres_sql.HOLD.replace("$1", str(delivery.id)),
        "resume": postgres_sql.RESUME.replace("$1", str(created.row_id)).replace("$2", "0"),
    }
    second = statements["resume" if first == "hold" else "hold"]

    with ThreadPoolExecutor(1) as thread, psycopg.connect(database.url) as transaction:
        transaction.execute(statements[first])
        waiting = thread.submit(database.execute, second)
        eventually(
            lambda: database.rows(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database()"
            ),
            what="the second one waits",
        )
        transaction.commit()
        waiting.result(20)

    assert rows("SELECT due_at, claim_until FROM delivery") == [(5_000, 0)]
    assert rows("SELECT status FROM instance") == [(RUNNING,)]


# --- the engine


@pytest.fixture
def site() -> Site:
    return Site()


def put(site: Any, status: int, timers: Resume = Resume.ORIGINAL) -> None:
    site.engine.set_status((1, "a"), site.row()["id"], status, Answer(site.world), timers)
    site.world.run(100)


def test_long_pause_costs_no_attempt_and_no_claim(site):
    site.created()
    site.send("after", ms=5_000)
    site.world.run(100)
    put(site, PAUSED)
    holds: list[int] = []
    hold = site.store.hold

    def counting(delivery_id: int) -> None:
        holds.append(delivery_id)
        hold(delivery_id)

    site.store.hold = counting

    site.world.run(3_600_000)
    (row,) = site.store.deliveries.values()
    assert (row["attempts"], site.store.dead_letters) == (0, [])
    assert len(holds) <= 1
    put(site, RUNNING)
    site.world.run(5_000)

    assert site.store.deliveries == {}
    assert site.n() == 2


def test_delivery_to_a_paused_instance_is_held_until_it_resumes(site):
    site.created()
    put(site, PAUSED)
    site.store.deliveries[99] = {
        "source": 5,
        "key": (1, "a"),
        "send_id": "x",
        "event": json.dumps({"type": "inc"}),
        "due_at_ms": site.world.now_ms(),
        "attempts": 0,
        "claimed": False,
    }
    site.world.run(600_000)
    held = dict(site.store.deliveries[99])
    put(site, RUNNING)
    site.world.run(5_000)

    assert (held["due_at_ms"] >= HELD_MS, held["attempts"], held["claimed"]) == (True, 0, False)
    assert site.store.deliveries == {}
    assert site.n() == 1
