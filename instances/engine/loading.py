"""Instances that are not in a runner: their rows are read and mounted, with what waits for them."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from instances.engine.errors import (
    EngineError,
    InstanceNotFound,
    InstancePaused,
    MailboxFull,
    Unavailable,
    unavailable,
)
from instances.engine.json_texts import public_of
from instances.engine.mailbox import MAILBOX_EVENTS
from instances.engine.operations import SETTLED, Kind, Operation
from instances.engine.runners import RunnerProcess
from instances.engine.store import InstanceRow

if TYPE_CHECKING:
    from instances.engine.core import Engine

log = logging.getLogger("statebacked.engine")

CLOCKS_DIFFER_MS = 1_000  # at most, those of two nodes
NO_LEASE = "this node can't reach the database"


class Loading:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.waiting: dict[tuple[int, str], list[Operation]] = {}
        # How many of them were there when the row was asked for: only of these it can tell that
        # there is no such instance, or that it is paused. Others may have come after that changed.
        self._asked: dict[tuple[int, str], int] = {}

    def load(self, operation: Operation) -> None:
        """Read the row and mount it; single flight, so one load never makes two activations."""
        if self.engine.draining and operation.delivery is None:
            self.engine.refuse(operation, Unavailable("the server is shutting down"))
            return
        if self.engine.suspended:
            self.engine.refuse(operation, Unavailable(NO_LEASE))
            return
        if self.engine.elsewhere.homes and self.engine.elsewhere.send_home(operation):
            return
        waiting = self.waiting.get(operation.key)
        if waiting is not None:
            if len(waiting) >= MAILBOX_EVENTS:
                self.engine.refuse(operation, MailboxFull("too many events wait for this instance"))
            else:
                waiting.append(operation)
            return
        key = operation.key
        self.waiting[key] = [operation]
        self._asked[key] = 1
        self.engine.store.read(key, lambda row: self._on_row(key, row))

    def _on_row(self, key: tuple[int, str], row: InstanceRow | None | Exception) -> None:
        asked = self._asked.pop(key)
        if isinstance(row, InstanceRow) and row.owner_address is not None and row.status == 0:
            self.engine.elsewhere.leave_to_owner(key, row, row.owner_address)
            if key not in self.waiting:
                return
        if isinstance(row, InstanceRow) and row.status == 0:
            self.engine.runners.acquire(
                row.version_id, lambda process, error: self._mount_row(key, row, process, error)
            )
            return
        if row is None:
            error: EngineError = InstanceNotFound(f"there is no instance {key[1]}")
        elif isinstance(row, Exception):
            log.error("could not read instance %s: %s", key, row)
            error = Unavailable("the database does not answer")
        elif row.status == 1:
            error = InstancePaused(f"{key[1]} is paused")
        else:
            error = InstanceNotFound(f"there is no instance {key[1]}")
        operations = self.waiting.pop(key)
        if isinstance(row, Exception):
            asked = len(operations)
        for operation in operations[:asked]:
            if isinstance(row, InstanceRow) and row.status == 1:
                self.engine.journal.paused(row.id, row.seq, operation)
            self.engine.refuse(operation, error)
        self._load_anew(key, operations[asked:])

    def _load_anew(self, key: tuple[int, str], operations: list[Operation]) -> None:
        messages = self.engine.messages
        for operation in operations:
            if operation.delivery is not None and messages.is_void(operation):
                messages.ended(operation.delivery)
            else:
                self.engine.submit(operation)
        if key in self._asked:
            self._asked[key] = len(self.waiting[key])

    def _mount_row(
        self,
        key: tuple[int, str],
        row: InstanceRow,
        process: RunnerProcess | None,
        error: Exception | None,
    ) -> None:
        operations = self.waiting.pop(key)
        current = self.engine.activations.get(key)
        if current is not None:  # it was created here meanwhile
            for operation in operations:
                self.engine.enqueue(current, operation)
            return
        if process is None:
            for operation in operations:
                self.engine.refuse(operation, unavailable(error))
            return
        link = self.engine.link_to(process)
        activation = self.engine.mount(key, row.id, row.version_id, link)
        activation.seq = activation.tail_seq = row.seq
        activation.ts = activation.tail_ts = row.ts
        activation.state, activation.extra = row.state, row.extra
        activation.context, activation.children = row.context, row.children
        activation.public = public_of(row.context)
        if row.parent_id is not None:
            activation.parent = row.parent_id, row.parent_child or ""
        # The node of an earlier step may have a faster clock: what it sent then must stay first.
        activation.sent_ms = min(row.ts, self.engine.clock.now_ms() + CLOCKS_DIFFER_MS)
        activation.deadline_ms = self.engine.clock.now_ms() + self.engine.settle_limit_ms
        self.engine.activations[key] = activation
        link.weight += activation.weight()
        line = (
            f"L\t{activation.aid}\t{key[1]}\t{row.state}\t{row.extra}\t{row.context}"
            f"\t{row.children}\n"
        )
        link.send(line.encode())
        if row.children != SETTLED:
            # An earlier activation ended with these services alive. The children stay in the
            # activation until their error events are committed, so events take turns behind them.
            for child in json.loads(row.children):
                lost = json.dumps(child["id"])
                event = f'{{"type":"statebacked.lost-service","service":{lost}}}'
                self.engine.enqueue(
                    activation, Operation(Kind.LOST_SERVICE, key, event, "", child=lost)
                )
        for operation in operations:
            self.engine.enqueue(activation, operation)
