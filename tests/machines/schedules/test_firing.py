"""A run of a schedule is written once, whoever comes first, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from instances.engine.scheduling import Firing
from tests.instances.engine.test_store import (
    database,
    loop,
    open_store,
    postgres_database_url,
    rows,
    sqlite_schema,
    store,
)

__all__ = [
    "database",
    "loop",
    "open_store",
    "postgres_database_url",
    "rows",
    "sqlite_schema",
    "store",
]

SCHEDULE = """INSERT INTO schedule (id, public_id, cron, time_zone, action, slug, payload, next_run,
 last_problem, created_at, machine_id)
 VALUES (3, 'sch_x', '* * * * *', 'UTC', 'send', 'order-1', '{}', 60000, '', '2026-01-01', 1)"""
DELIVERIES = """SELECT kind, org_id, target_machine_id, target_slug, source_id, event, auth_context,
 due_at, claims FROM delivery"""
FIRING = Firing(
    schedule_id=3,
    expected_ms=60_000,
    next_run_ms=120_000,
    planned_ms=60_000,
    problem="",
    kind=1,
    org_id=7,
    machine_id=1,
    slug="order-1",
    event='{"type":"remind"}',
    auth='{"stateBackedSchedule":{"id":"sch_x"}}',
    now_ms=60_700,
)


@pytest.fixture
def fire(database, store, loop) -> Any:
    """Fire, and wait until it is written."""
    database.execute("DELETE FROM schedule")
    database.execute(SCHEDULE)

    def fire_and_wait(firing: Firing) -> None:
        store.fire_schedule(firing)
        answers: list[Any] = []
        store.set_status(0, 1, answers.append)
        while not answers:
            loop.next()

    return fire_and_wait


def test_run_moves_the_schedule_on_and_writes_a_delivery(fire, rows):
    fire(FIRING)

    assert rows("SELECT next_run, last_run, last_problem FROM schedule") == [(120_000, 60_000, "")]
    assert rows(DELIVERIES) == [
        (1, 7, 1, "order-1", None, FIRING.event, FIRING.auth, 60_700, 0),
    ]


def test_second_node_writes_nothing(fire, rows):
    fire(FIRING)
    fire(FIRING)

    assert rows("SELECT count(*) FROM delivery") == [(1,)]


def test_paused_or_changed_schedule_is_not_run(database, fire, rows):
    database.execute("UPDATE schedule SET next_run = NULL")
    fire(FIRING)
    database.execute("UPDATE schedule SET next_run = 60001")
    fire(FIRING)

    assert rows("SELECT count(*) FROM delivery") == [(0,)]
    assert rows("SELECT next_run FROM schedule") == [(60_001,)]


def test_run_that_can_do_nothing_says_why(fire, rows):
    fire(FIRING._replace(problem="order-1 exists already", next_run_ms=None))

    assert rows("SELECT next_run, last_problem FROM schedule") == [(None, "order-1 exists already")]
    assert rows("SELECT count(*) FROM delivery") == [(0,)]


def test_ids_of_deliveries_are_the_stores_own(fire, rows):
    fire(FIRING)
    fire(FIRING._replace(expected_ms=120_000, next_run_ms=180_000))

    [(first,), (second,)] = rows("SELECT id FROM delivery ORDER BY id")
    assert second > first > 0
