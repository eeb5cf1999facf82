import logging

import pytest

from instances import housekeeping
from instances.models import Delivery, LogEntry, Node, UnheededEvent

pytestmark = pytest.mark.django_db

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000


def add_log(at_ms: int) -> LogEntry:
    return LogEntry.objects.create(
        org_id=1, machine_id=1, version_id=1, level="info", message="", created_at=at_ms
    )


def test_logs_past_their_retention_are_removed_and_no_others():
    for n in range(2500):
        add_log(NOW_MS - 31 * DAY_MS + n)
    kept = [add_log(NOW_MS - 29 * DAY_MS).pk, add_log(NOW_MS).pk]

    housekeeping.keep_house(NOW_MS, 30 * DAY_MS)

    assert list(LogEntry.objects.order_by("id").values_list("id", flat=True)) == kept


def test_notes_of_events_go_with_the_logs_of_their_time():
    note = {"instance_id": 1, "seq": 1, "kind": 1, "outcome": 0, "event": "{}", "more": 0}
    for at_ms in (NOW_MS - 31 * DAY_MS, NOW_MS):
        UnheededEvent.objects.create(**note, auth_context="", created_at=at_ms)

    housekeeping.keep_house(NOW_MS, 30 * DAY_MS)

    assert [kept.created_at for kept in UnheededEvent.objects.all()] == [NOW_MS]


def test_rows_of_long_dead_nodes_are_removed():
    for name, lease_until in (("dead", NOW_MS - 2 * DAY_MS), ("gone", NOW_MS - 60_000)):
        Node.objects.create(
            id=name, address="", role="all", started_at=NOW_MS, lease_until=lease_until
        )

    housekeeping.keep_house(NOW_MS, DAY_MS)

    assert list(Node.objects.values_list("id", flat=True)) == ["gone"]


def test_deliveries_that_nobody_processes_are_told(caplog):
    for n, due_at in enumerate((NOW_MS - 61_000, NOW_MS - 90_000, NOW_MS - 59_000, NOW_MS + 5)):
        Delivery.objects.create(
            kind=0,
            org_id=1,
            target_machine_id=1,
            target_slug="order-1",
            source_id=1,
            source_seq=1,
            source_n=n,
            event="{}",
            due_at=due_at,
            created_at=NOW_MS - DAY_MS,
        )

    with caplog.at_level(logging.ERROR):
        housekeeping.keep_house(NOW_MS, DAY_MS)

    assert "2 deliveries are overdue" in caplog.text
