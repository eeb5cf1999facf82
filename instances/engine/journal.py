"""What instances leave besides their history: the lines that their code wrote."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from instances.engine.json_texts import error_fields, storable
from instances.engine.operations import Activation, Operation
from instances.engine.runners import RunnerLink
from instances.engine.store import LogRow

if TYPE_CHECKING:
    from instances.engine.core import Engine

LOG_ROWS_WAITING = 5_000


class Journal:
    """Kept in memory until the next flush, so that no event waits for it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.lines: list[LogRow] = []
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

    def flush(self) -> None:
        """Keep the lines that came. Each flush is later than the one before, whatever the clock
        says: who reads on from the last line that they saw must not miss one."""
        if not self.lines:
            return
        earliest_ms = self._flushed_ms + 1
        rows = [
            row._replace(created_at_ms=max(row.created_at_ms, earliest_ms)) for row in self.lines
        ]
        self.lines = []
        self._flushed_ms = max(row.created_at_ms for row in rows)
        self.engine.store.log(rows)
