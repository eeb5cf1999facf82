"""What has to be done once in a while, by any node: safe to do twice, and at the same time.

Rows of nodes that died a day ago go, as do logs and notes of events past their retention; timers
and messages that are long overdue are told in the log, since it means that no node does its work.
"""

from __future__ import annotations

import logging

from instances.lookups import in_thread
from instances.models import Delivery, LogEntry, Node, UnheededEvent

log = logging.getLogger("statebacked.engine")

EVERY_S = 60.0
OVERDUE_MS = 60_000  # how late a delivery may be until it is told
OVERDUE_COUNTED_MAX = 1_000
NODE_KEPT_MS = 86_400_000
LOG_ROWS_TOGETHER = 1_000  # removed in one transaction
LOG_ROWS_MAX = 100_000  # removed in one go; the next one continues


def keep_house(now_ms: int, log_retention_ms: int) -> None:
    """Uses the database; `now_ms` is its time."""
    Node.objects.filter(lease_until__lt=now_ms - NODE_KEPT_MS).delete()
    for table in (LogEntry, UnheededEvent):
        remove_old(table, now_ms - log_retention_ms)
    overdue = count_overdue(now_ms)
    if overdue:
        at_least = "at least " if overdue == OVERDUE_COUNTED_MAX else ""
        log.error("%s%s deliveries are overdue by more than a minute", at_least, overdue)


keep_house_in_thread = in_thread(keep_house)


def count_overdue(now_ms: int) -> int:
    """Deliveries that should have been processed a minute ago; counted up to a bound."""
    late = Delivery.objects.filter(due_at__lt=now_ms - OVERDUE_MS)
    return len(late.values_list("id")[:OVERDUE_COUNTED_MAX])


def remove_old(table: type[LogEntry | UnheededEvent], before_ms: int) -> int:
    """Remove the oldest rows, from the first to the first that is kept; how many."""
    removed = 0
    while removed < LOG_ROWS_MAX:
        # In the order of their ids, which is that of time to within seconds: no index is needed.
        oldest = table.objects.order_by("id").values_list("id", "created_at")
        rows = list(oldest[:LOG_ROWS_TOGETHER] if removed else oldest[:1])
        old = [row_id for row_id, created_at in rows if created_at < before_ms]
        if not old:
            break
        table.objects.filter(id__lte=old[-1], created_at__lt=before_ms).delete()
        removed += len(old)
    return removed
