"""What instances leave besides their history: the lines that their code wrote, and notes of events
that led to no transition.
"""

from __future__ import annotations

import json
import logging
from enum import IntEnum
from typing import TYPE_CHECKING

from instances.engine.json_texts import error_fields, storable
from instances.engine.operations import Activation, Code, Kind, Operation
from instances.engine.runners import RunnerLink
from instances.engine.store import LogRow, NoteRow

if TYPE_CHECKING:
    from instances.engine.core import Engine

log = logging.getLogger("statebacked.engine")

LOG_ROWS_WAITING = 5_000
NOTES_WAITING = 100  # of one process between two flushes; the rest is only counted
NOTES_OF_INSTANCE = 20  # among them
NOTED_CHARS = 2_000  # of an event


class Unheeded(IntEnum):
    """Why an event led to no transition. The numbers are those of `UnheededEvent.Outcome`."""

    IGNORED = 0
    DENIED = 1
    PAUSED = 2


_OF_CODE: dict[int, Unheeded] = {Code.UNCHANGED: Unheeded.IGNORED, Code.DENIED: Unheeded.DENIED}


class Journal:
    """Kept in memory until the next flush, so that no event waits for it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.lines: list[LogRow] = []
        self._notes: dict[int, list[NoteRow]] = {}  # by the instance's id
        self._note_count = 0
        self._notes_dropped = 0
        self._flushed_ms = 0  # of the latest line that was given to the store

    def on_log(self, link: RunnerLink, fields: list[str], now_ms: int) -> None:
        _, aid, level, arguments = fields
        activation = link.activations.get(aid)
        if len(self.lines) >= LOG_ROWS_WAITING or (activation is None and aid):
            return
        message = storable(" ".join(str(part) for part in json.loads(arguments)))
        self.lines.append(
            LogRow(
                link.process.version_id,
                activation.row_id if activation else None,
                activation.key[1] if activation else "",
                level[:8],
                message,
                now_ms,
            )
        )

    def thrown(self, activation: Activation, operation: Operation, what: str) -> None:
        name, message, stack = error_fields(operation.state)
        self.lines.append(
            LogRow(
                activation.version_id,
                activation.row_id,
                activation.key[1],
                "error",
                f"{what}: {stack or f'{name}: {message}'}\nevent: {operation.event[:2000]}",
                self.engine.clock.now_ms(),
            )
        )

    def unheeded(self, activation: Activation, operation: Operation) -> None:
        """The runner has answered that an event changes nothing, or is not allowed."""
        outcome = _OF_CODE.get(operation.code)
        if outcome is not None and operation.is_external and activation.row_id is not None:
            self.note(activation.row_id, activation.seq, operation, outcome)

    def paused(self, row_id: int | None, seq: int, operation: Operation) -> None:
        """An event was refused because the instance is paused. Deliveries are not: they wait."""
        if operation.kind is Kind.CLIENT and row_id is not None:
            self.note(row_id, seq, operation, Unheeded.PAUSED)

    def note(self, row_id: int, seq: int, operation: Operation, outcome: Unheeded) -> None:
        """An event came to an instance at `seq` and led to no transition."""
        notes = self._notes.get(row_id)
        if notes and len(notes) >= NOTES_OF_INSTANCE:
            notes[-1] = notes[-1]._replace(more=notes[-1].more + 1)
            return
        if self._note_count >= NOTES_WAITING:
            self._notes_dropped += 1
            return
        self._note_count += 1
        row = NoteRow(
            row_id,
            seq,
            operation.kind,
            outcome,
            operation.event[:NOTED_CHARS],
            operation.auth,
            0,
            self.engine.clock.now_ms(),
        )
        self._notes.setdefault(row_id, []).append(row)

    def flush(self) -> None:
        """Keep what came since the last flush."""
        if self.lines:
            self._flush_lines()
        if self._notes:
            self._flush_notes()

    def _flush_lines(self) -> None:
        """Keep the lines that came. Each flush is later than the one before, whatever the clock
        says: who reads on from the last line that they saw must not miss one."""
        earliest_ms = self._flushed_ms + 1
        rows = [
            row._replace(created_at_ms=max(row.created_at_ms, earliest_ms)) for row in self.lines
        ]
        self.lines = []
        self._flushed_ms = max(row.created_at_ms for row in rows)
        self.engine.store.log(rows)

    def _flush_notes(self) -> None:
        rows = [row for notes in self._notes.values() for row in notes]
        if self._notes_dropped:
            log.info("%s events that did nothing were not noted", self._notes_dropped)
        self._notes = {}
        self._note_count = self._notes_dropped = 0
        self.engine.store.note(rows)
