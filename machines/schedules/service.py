"""Making and changing schedules: for the API and the pages alike."""

import time
from typing import Any

from django.db.models import QuerySet

from authz.callers import Caller
from instances.event_bodies import parse_event
from machines.models import Machine
from machines.schedules.cron import checked_cron, checked_zone, next_run
from machines.schedules.models import Schedule
from machines.schedules.names import checked_template
from statebacked_site.errors import Conflict, InvalidParameter, NotFound
from statebacked_site.identifiers import SLUG
from statebacked_site.json_text import write_json

SCHEDULES_MAX = 100  # of a machine
PAYLOAD_BYTES_MAX = 400_000


def schedules_of(machine: Machine) -> QuerySet[Schedule]:
    return Schedule.objects.filter(machine=machine).select_related("machine")


def get_schedule(machine: Machine, public_id: str) -> Schedule:
    """Raises NotFound."""
    found = schedules_of(machine).filter(public_id=public_id) if SLUG.match(public_id) else None
    schedule = found.first() if found is not None else None
    if schedule is None:
        raise NotFound("The machine has no such schedule")
    return schedule


def create_schedule(caller: Caller, machine: Machine, given: dict[str, Any]) -> Schedule:
    """Raises InvalidParameter, and Conflict where the machine has too many."""
    if schedules_of(machine).count() >= SCHEDULES_MAX:
        raise Conflict(f"A machine has {SCHEDULES_MAX} schedules at most")
    schedule = Schedule(machine=machine, created_by_id=caller.user_id, time_zone="UTC")
    if "cron" not in given:
        raise InvalidParameter("cron: is missing", "cron")
    if "create" not in given and "send" not in given:
        raise InvalidParameter("Say what to do: create or send", "send")
    _take(schedule, given)
    schedule.next_run = None if given.get("paused") else _next(schedule)
    schedule.save()
    return schedule


def change_schedule(schedule: Schedule, given: dict[str, Any]) -> Schedule:
    """Change what is given, and nothing else. Raises InvalidParameter."""
    was_paused = schedule.is_paused
    _take(schedule, given)
    changed = ["cron", "time_zone", "action", "slug", "payload"]
    if given.keys() & {"cron", "time_zone", "paused"}:
        is_paused = given.get("paused", was_paused)
        schedule.next_run = None if is_paused else _next(schedule)
        changed.append("next_run")
    schedule.save(update_fields=changed)
    return schedule


def _take(schedule: Schedule, given: dict[str, Any]) -> None:
    if "create" in given and "send" in given:
        raise InvalidParameter("A schedule either creates or sends", "send")
    if "cron" in given:
        schedule.cron = checked_cron(given["cron"])
    if "time_zone" in given:
        schedule.time_zone = checked_zone(given["time_zone"]).key
    if "create" in given:
        schedule.action = Schedule.Action.CREATE
        schedule.slug = checked_template(given["create"]["slug"])
        schedule.payload = _context_json(given["create"].get("context", {}))
    if "send" in given:
        schedule.action = Schedule.Action.SEND
        schedule.slug = given["send"]["slug"]
        if not SLUG.match(schedule.slug):
            raise InvalidParameter(
                "slug: must be 1 to 128 letters, digits, underscores or dashes", "slug"
            )
        schedule.payload = parse_event(write_json({"event": given["send"]["event"]}))
    if len(schedule.payload.encode()) > PAYLOAD_BYTES_MAX:
        raise InvalidParameter(f"It has more than {PAYLOAD_BYTES_MAX} bytes", "send")


def _context_json(context: Any) -> str:
    if not isinstance(context, dict):
        raise InvalidParameter("context: must be an object", "context")
    return write_json(context).decode()


def _next(schedule: Schedule) -> int | None:
    now_ms = time.time_ns() // 1_000_000
    return next_run(schedule.cron, checked_zone(schedule.time_zone), now_ms)
