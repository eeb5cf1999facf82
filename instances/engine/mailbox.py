"""How much may wait for one instance."""

from __future__ import annotations

from collections import deque

from instances.engine.operations import Operation

MAILBOX_EVENTS = 1_000
MAILBOX_BYTES = 8_000_000


def is_mailbox_full(queue: deque[Operation], operation: Operation) -> bool:
    if len(queue) >= MAILBOX_EVENTS:
        return True
    # Small events can't pass the bound in bytes before the one in number.
    if len(operation.event) * MAILBOX_EVENTS < MAILBOX_BYTES:
        return False
    return sum(len(waiting.event) for waiting in queue) > MAILBOX_BYTES
