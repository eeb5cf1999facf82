"""Numbers and times as pages say them: `2 d`, `3 min ago`, `1,204`, `≈ 88 k`."""

from datetime import UTC, datetime

COUNT_EXACT_MAX = 10_000  # a count beyond is approximate, and costs no look at every row


def duration(ms: int) -> str:
    """The largest whole unit of a duration: `8 s`, `5 min`, `3 h`, `2 d`."""
    seconds = ms // 1000
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h"
    return f"{seconds // 86400} d"


def ago(moment_ms: int, now_ms: int) -> str:
    """`3 min ago`, `in 2 h` or `now`. static/site/js/ago.js says it in the same words."""
    size = duration(abs(moment_ms - now_ms))
    if size == "0 s":
        return "now"
    return f"in {size}" if moment_ms > now_ms else f"{size} ago"


def count(number: int) -> str:
    """`1,204`; what is above COUNT_EXACT_MAX was counted no further and is shown as `10,000+`."""
    if number > COUNT_EXACT_MAX:
        return f"{COUNT_EXACT_MAX:,}+"
    return f"{number:,}"


def milliseconds(moment: datetime | int) -> int:
    """A moment of either kind of column as milliseconds since the epoch."""
    if isinstance(moment, int):
        return moment
    return int(moment.timestamp() * 1000)


def utc(moment: datetime | int) -> datetime:
    if isinstance(moment, datetime):
        return moment.astimezone(UTC)
    return datetime.fromtimestamp(moment / 1000, UTC)
