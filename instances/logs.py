"""Reading what customers' code wrote to its console, in pages of time."""

from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from django.db.models import QuerySet

from authz.callers import Caller
from instances.models import LogEntry
from machines.models import Machine, MachineVersion

ENTRIES_MAX = 100
# Lines of one millisecond that are read at most; a machine that writes more loses the rest.
LINES_PER_MS_MAX = 10_000

STDERR_LEVELS = frozenset({"error", "warn"})


class LogQuery(NamedTuple):
    """Which lines to read. Times are milliseconds since the epoch, both inclusive."""

    from_ms: int
    to_ms: int | None = None
    machine: Machine | None = None
    version: MachineVersion | None = None
    instance_slug: str | None = None


class LogLine(NamedTuple):
    timestamp: int
    org_id: str
    machine_name: str
    instance_name: str
    machine_version_id: str
    output_type: str
    log: str


class LogPage(NamedTuple):
    logs: list[LogLine]
    max_timestamp: int  # everything before it was answered: where the next page begins


def read_logs(caller: Caller, query: LogQuery, now_ms: int) -> LogPage:
    """The first lines from `query.from_ms` on.

    Callers read on by time alone, so a page ends between two milliseconds, never within one. Only
    a millisecond with more lines than a page is answered in one piece, the lines of one instance
    and stream joined to one entry.
    """
    rows = _rows(caller, query)
    page = list(rows[: ENTRIES_MAX + 1])
    if len(page) <= ENTRIES_MAX:
        return LogPage(_lines(caller, page), _end_of(query, page, now_ms))
    cut_ms = page[-1].created_at
    whole = [row for row in page if row.created_at < cut_ms]
    if whole:
        return LogPage(_lines(caller, whole), cut_ms)
    crowd = rows.filter(created_at=cut_ms)[:LINES_PER_MS_MAX]
    return LogPage(_joined(_lines(caller, crowd)), cut_ms + 1)


def _rows(caller: Caller, query: LogQuery) -> QuerySet[LogEntry]:
    rows = LogEntry.objects.filter(org_id=caller.org_pk, created_at__gte=query.from_ms)
    if query.to_ms is not None:
        rows = rows.filter(created_at__lte=query.to_ms)
    if query.machine is not None:
        rows = rows.filter(machine_id=query.machine.pk)
    if query.version is not None:
        rows = rows.filter(version_id=query.version.pk)
    if query.instance_slug is not None:
        rows = rows.filter(instance_slug=query.instance_slug)
    return rows.order_by("created_at", "id")


def _end_of(query: LogQuery, page: list[LogEntry], now_ms: int) -> int:
    """Where to read on after the last page there is for now."""
    if not page:
        # Clients wait before they ask again when this is what they asked from.
        return query.from_ms
    if query.to_ms is not None and query.to_ms < now_ms:
        return query.to_ms + 1
    return page[-1].created_at + 1


def _lines(caller: Caller, rows: Iterable[LogEntry]) -> list[LogLine]:
    rows = list(rows)
    machines = Machine.objects.in_bulk({row.machine_id for row in rows})
    versions = MachineVersion.objects.in_bulk({row.version_id for row in rows})
    return [
        LogLine(
            timestamp=row.created_at,
            org_id=caller.org_public_id or "",
            # A machine and its versions may be gone; what they wrote is kept for its time.
            machine_name=machines[row.machine_id].slug if row.machine_id in machines else "",
            instance_name=row.instance_slug,
            machine_version_id=versions[row.version_id].public_id
            if row.version_id in versions
            else "",
            output_type="stderr" if row.level in STDERR_LEVELS else "stdout",
            log=row.message,
        )
        for row in rows
    ]


def _joined(lines: list[LogLine]) -> list[LogLine]:
    """Lines of one moment: one entry for each instance, version and stream."""

    def source(line: LogLine) -> tuple[str, ...]:
        return line.machine_name, line.instance_name, line.machine_version_id, line.output_type

    joined = []
    for _, group in groupby(sorted(lines, key=source), key=source):
        first, *others = group
        joined.append(first._replace(log="\n".join([first.log, *(line.log for line in others)])))
    return joined
