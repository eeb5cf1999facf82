"""What is due, turned into deliveries by whichever node comes first.

Runs that were missed while no node ran are made up for by one, at the latest of their times.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Protocol

from authz.callers import SCHEDULE_CLAIM
from instances.engine.core import Clock
from instances.engine.scheduling import Firing
from instances.lookups import DATABASE_TROUBLE, in_thread
from instances.models import Delivery, Instance
from machines.schedules.cron import checked_zone, latest_run, next_run
from machines.schedules.models import Schedule
from machines.schedules.names import name_at
from statebacked_site.errors import InvalidParameter
from statebacked_site.fields import iso_timestamp
from statebacked_site.json_text import JsonText, write_json

log = logging.getLogger("statebacked.schedules")

EVERY_S = 1.0
TOGETHER = 100


class FiringStore(Protocol):
    def fire_schedule(self, firing: Firing) -> None: ...


class Schedules:
    """Looks once a second for schedules that are due."""

    def __init__(self, store: FiringStore, clock: Clock) -> None:
        self.store = store
        self.clock = clock

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._run())

    def stop(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                firings = await find_due(self.clock.now_ms())
            except DATABASE_TROUBLE as error:
                log.warning("schedules can't be read: %s", error)
                continue
            for firing in firings:
                self.store.fire_schedule(firing)


@in_thread
def find_due(now_ms: int) -> list[Firing]:
    return due(now_ms)


def due(now_ms: int) -> list[Firing]:
    """A run for each schedule that is due; blocks."""
    found = Schedule.objects.filter(next_run__lte=now_ms).select_related("machine")
    return [firing_of(schedule, now_ms) for schedule in found.order_by("next_run")[:TOGETHER]]


def firing_of(schedule: Schedule, now_ms: int) -> Firing:
    expected = schedule.next_run
    assert expected is not None
    try:
        zone = checked_zone(schedule.time_zone)
    except InvalidParameter:  # the system's time zones have changed
        zone = checked_zone("UTC")
    planned = latest_run(schedule.cron, zone, expected, now_ms)
    slug, problem = schedule.slug, ""
    event = schedule.payload
    kind = Delivery.Kind.MESSAGE
    if schedule.action == Schedule.Action.CREATE:
        kind = Delivery.Kind.SPAWN
        slug = name_at(schedule.slug, planned, zone)
        problem = _obstacle(schedule, slug)
        context = JsonText(schedule.payload.encode())
        event = write_json({"type": "statebacked.spawn", "id": slug, "context": context}).decode()
    about = {
        "id": schedule.public_id,
        "machineName": schedule.machine.slug,
        "plannedAt": iso_timestamp(datetime.fromtimestamp(planned / 1_000, UTC)),
    }
    return Firing(
        schedule_id=schedule.pk,
        expected_ms=expected,
        next_run_ms=next_run(schedule.cron, zone, now_ms),
        planned_ms=planned,
        problem=problem,
        kind=kind.value,
        org_id=schedule.machine.org_id,
        machine_id=schedule.machine_id,
        slug=slug,
        event=event,
        auth=write_json({SCHEDULE_CLAIM: about}).decode(),
        now_ms=now_ms,
    )


def _obstacle(schedule: Schedule, slug: str) -> str:
    """Why no instance can be created."""
    if schedule.machine.current_version_id is None:
        return "The machine has no version"
    if Instance.objects.filter(machine_id=schedule.machine_id, slug=slug).exists():
        return f"{slug} exists already"
    return ""
