"""Cron lines of five fields in a time zone. Where clocks are set, they behave as Debian's cron:

a run at a time that is skipped comes right after the gap, and one that comes twice happens once.
"""

import re
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from statebacked_site.errors import InvalidParameter

FIELDS = 5  # minute, hour, day of the month, month, day of the week
CRON_CHARS_MAX = 100
ZONE = re.compile(r"^[A-Za-z0-9_+/-]{1,64}\Z")


def checked_cron(text: str) -> str:
    """The line with single blanks; raises InvalidParameter for one that is none or never comes."""
    line = " ".join(text.split())
    if len(line) > CRON_CHARS_MAX or len(line.split(" ")) != FIELDS:
        raise InvalidParameter(
            "cron: has five fields (minute, hour, day of the month, month, day of the week)"
            " such as 0 9 * * 1-5",
            "cron",
        )
    try:
        next(CronSim(line, datetime.now(UTC)))
    except (CronSimError, StopIteration, ValueError) as exc:
        reason = str(exc) or "it never comes"
        raise InvalidParameter(f"cron: {reason}", "cron") from exc
    return line


def checked_zone(name: str) -> ZoneInfo:
    """Raises InvalidParameter for a name that is no time zone's."""
    try:
        if ZONE.match(name):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise InvalidParameter(
        "timeZone: is none of the names such as Europe/Berlin or UTC", "timeZone"
    )


def next_runs(cron: str, zone: ZoneInfo, after_ms: int, count: int = 1) -> list[int]:
    """The next times after a moment, in milliseconds; fewer if there are not so many."""
    return [_ms(run) for run in islice(CronSim(cron, _local(after_ms, zone)), count)]


def next_run(cron: str, zone: ZoneInfo, after_ms: int) -> int | None:
    return next(iter(next_runs(cron, zone, after_ms)), None)


def latest_run(cron: str, zone: ZoneInfo, since_ms: int, now_ms: int) -> int:
    """The latest time up to now; `since_ms`, which is one, if there is none after it."""
    run = next(CronSim(cron, _local(now_ms + 1_000, zone), reverse=True), None)
    return since_ms if run is None else max(since_ms, min(_ms(run), now_ms))


def _local(moment_ms: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(moment_ms // 1_000, zone)


def _ms(run: datetime) -> int:
    return int(run.timestamp()) * 1_000
