"""The smaller parts of an instance's page: its timers, its logs, what deleting it would take."""

from collections.abc import Iterable
from typing import NamedTuple

from instances.models import DeadLetter, Delivery, Instance, LogEntry
from instances.pages.moment import Moment
from instances.pages.stored_events import event_type_of
from instances.pages.timeline import timer_name
from statebacked_site.log_lines import Line, line_of

TIMERS_MAX = 100
LOGS_MAX = 300
MOMENT_LOGS_MAX = 200
COUNTED_MAX = 10_000
# Logs of a step are written while it is computed, which is just before it is dated.
CLOCK_SLACK_MS = 20


class Timer(NamedTuple):
    id: int
    name: str
    event: str
    due_ms: int
    set_by_seq: int | None
    attempts: int
    last_error: str
    is_overdue: bool
    is_held: bool  # its instance is paused


class Stakes(NamedTuple):
    """What would be gone with an instance. Numbers above COUNTED_MAX were counted no further."""

    transitions: int
    timers: int
    services: int


def timers_of(instance: Instance, now_ms: int) -> list[Timer]:
    waiting = Delivery.objects.filter(
        target_machine_id=instance.machine_id, target_slug=instance.slug
    ).order_by("due_at", "id")[:TIMERS_MAX]
    return [
        Timer(
            id=delivery.pk,
            name=timer_name(event_type_of(delivery.event)),
            event=delivery.event,
            due_ms=delivery.planned_at,
            set_by_seq=delivery.source_seq if delivery.source_id == instance.pk else None,
            attempts=delivery.attempts,
            last_error=delivery.last_error or "",
            is_overdue=delivery.due_at < now_ms,
            is_held=delivery.is_held,
        )
        for delivery in waiting
    ]


def timer_count(instance: Instance) -> int:
    return Delivery.objects.filter(
        target_machine_id=instance.machine_id, target_slug=instance.slug
    )[: TIMERS_MAX + 1].count()


def dead_letter_count(instance: Instance) -> int:
    return DeadLetter.objects.filter(
        org_id=instance.org_id,
        target_machine_id=instance.machine_id,
        target_slug=instance.slug,
    )[: TIMERS_MAX + 1].count()


def logs_of(instance: Instance, moment: Moment | None) -> list[Line]:
    """The instance's latest lines, newest last; of a moment, those since its transition began."""
    lines = LogEntry.objects.filter(instance_id=instance.pk)
    if moment is None:
        return _shown(reversed(lines.order_by("-id")[:LOGS_MAX]), instance)
    began = moment.created_ms - int(moment.duration_ms) - CLOCK_SLACK_MS
    lines = lines.filter(created_at__gte=began)
    if moment.next_ms is not None:
        lines = lines.filter(created_at__lt=moment.next_ms)
    return _shown(lines.order_by("id")[:MOMENT_LOGS_MAX], instance)


def _shown(entries: Iterable[LogEntry], instance: Instance) -> list[Line]:
    return [line_of(entry, instance.machine.slug) for entry in entries]


def stakes_of(instance: Instance, services: int) -> Stakes:
    return Stakes(instance.seq, timer_count(instance), services)
