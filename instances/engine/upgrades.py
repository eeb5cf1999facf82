"""Upgrades: a settled instance gets the version that is desired for it, just before its next event.

1. A runner of its present version describes its state in words that no version has of its own.
2. The migrations that lead to the desired version are looked up: the shortest way.
3. A runner of that version that knows their code computes the upgraded state, as a step.
4. The step is committed, if the version is still the desired one, and its activation becomes the
   live one.

The events that have caused it wait among those that wait for the row (`loading.py`), and only this
row: nothing else is kept anywhere. Whatever comes in between, they are loaded anew, and what was
computed is void. A crash leaves either the old version or the new one, and no event is lost.

U1  An event is refused for a migration that fails only if it waited already when the row was asked
    for: later ones have a row of their own read, where another version may be desired.
U2  Nobody else mounts an instance while its upgrade is under way here.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from instances.engine.errors import (
    EngineError,
    InstancePaused,
    MachineOverLimit,
    MachineThrew,
    MigrationFailed,
    OutcomeUnknown,
    Unavailable,
    unavailable,
)
from instances.engine.json_texts import error_fields
from instances.engine.operations import (
    SETTLED,
    Activation,
    Code,
    Delivery,
    DeliveryKind,
    Kind,
    Operation,
    Upgrade,
)
from instances.engine.plan import LOCAL_TIMER_MS
from instances.engine.runners import RunnerLink, RunnerProcess
from instances.engine.store import InstanceRow, LogRow, MigrationRow
from machines.migration_paths import shortest_path

if TYPE_CHECKING:
    from instances.engine.core import Engine

log = logging.getLogger("statebacked.engine")

Key = tuple[int, str]


def is_to_upgrade(row: InstanceRow) -> bool:
    """Whether the next event of this instance has to wait for an upgrade.

    One whose services ran ends with its lost services first; one that is done changes no more.
    """
    return row.desired_version_id is not None and row.children == SETTLED and not row.is_done()


class _Attempt:
    """An upgrade under way; the reply of its step, too."""

    def __init__(
        self, upgrades: Upgrades, key: Key, row: InstanceRow, asked: set[Operation]
    ) -> None:
        self.upgrades = upgrades
        self.key = key
        self.row = row
        self.asked = asked  # what waited when the row was asked for
        self.operation: Upgrade
        self._is_done = False

    @property
    def desired_version_id(self) -> int:
        assert self.row.desired_version_id is not None
        return self.row.desired_version_id

    def done(self) -> bool:
        return self._is_done

    def set_result(self, body: Any, /) -> None:
        self._is_done = True
        self.upgrades.committed(self)

    def set_exception(self, exception: Any, /) -> None:
        self._is_done = True
        self.upgrades.failed(self, exception)


class Upgrades:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._suspects: set[Key] = set()  # whose upgrades were under way when a runner died

    # ------------------------------------------------------------------ the way to a step

    def begin(self, key: Key, row: InstanceRow, asked: set[Operation]) -> None:
        """Upgrade an instance of which only the row is there, and that something waits for."""
        attempt = _Attempt(self, key, row, asked)
        aid = self.engine.take_activation_id()

        def question(rid: str) -> list[str]:
            mounted = f"{key[1]}\t{row.state}\t{row.extra}\t{row.context}\t{row.children}"
            return [f"L\t{aid}\t{mounted}\n", f"X\t{aid}\t{rid}\n"]

        def answered(link: RunnerLink | None, answer: list[str] | EngineError) -> None:
            if link is not None and link.alive:
                link.send(f"D\t{aid}\n".encode())
            if isinstance(answer, EngineError):
                self.failed(attempt, answer)
            else:
                self._described(attempt, answer)

        self.engine.ask(row.version_id, question, answered)

    def _described(self, attempt: _Attempt, answer: list[str]) -> None:
        code = int(answer[1])
        if code == Code.THREW:
            name, message, _ = error_fields(answer[2])
            self._log(attempt, f"its state can't be described: {name}: {message}")
            self.failed(attempt, MigrationFailed(f"{name}: {message}"))
        elif code == Code.CHANGED:
            description = answer[2]
            self.engine.store.find_migrations(
                attempt.key[0], lambda found: self._found(attempt, description, found)
            )
        else:
            self._anew(attempt)  # the runner was replaced in between

    def _found(
        self, attempt: _Attempt, description: str, found: list[MigrationRow] | Exception
    ) -> None:
        if isinstance(found, Exception):
            log.error("the migrations of machine %s can't be read: %s", attempt.key[0], found)
            self.failed(attempt, Unavailable("the database does not answer"))
            return
        row, desired_id = attempt.row, attempt.desired_version_id
        path = shortest_path((migration[:3] for migration in found), row.version_id, desired_id)
        if not path:
            names = {m.from_version_id: m.from_version for m in found}
            names.update((m.to_version_id, m.to_version) for m in found)
            versions = [
                names.get(version_id, "a version that no migration is for")
                for version_id in (row.version_id, desired_id)
            ]
            message = f"no migrations lead from {versions[0]} to {versions[1]}"
            self._log(attempt, message)
            self.failed(attempt, MigrationFailed(message))
            return
        by_id = {migration.id: migration for migration in found}
        event = {
            "type": "statebacked.upgrade",
            "from": by_id[path[0]].from_version,
            "to": by_id[path[-1]].to_version,
        }
        attempt.operation = Upgrade(
            attempt.key,
            json.dumps(event, separators=(",", ":")),
            attempt,
            migrations=json.dumps(path, separators=(",", ":")),
            description=description,
            before=row.context,
        )
        attempt.operation.suspect = attempt.key in self._suspects
        self.engine.runners.acquire_upgrader(
            desired_id,
            tuple(path),
            lambda process, error: self._ready(attempt, process, error),
        )

    def _ready(
        self, attempt: _Attempt, process: RunnerProcess | None, error: Exception | None
    ) -> None:
        if process is None:
            self.failed(attempt, unavailable(error))
            return
        engine, row = self.engine, attempt.row
        link = engine.link_to(process)
        activation = engine.mount(attempt.key, row.id, attempt.desired_version_id, link)
        engine.loading.go_on_from(activation, row)
        engine.enqueue(activation, attempt.operation)

    # ------------------------------------------------------------------ how it ends

    def committed(self, attempt: _Attempt) -> None:
        """The instance is on its new version: what has waited is processed there."""
        engine, operation = self.engine, attempt.operation
        activation = operation.activation
        self._suspects.discard(attempt.key)
        self._schedule(activation, operation)
        waiting = engine.loading.waiting.pop(attempt.key)
        mounted = engine.activations.get(attempt.key)
        if mounted is not None and mounted.row_id != activation.row_id:
            # It was deleted meanwhile, and there is another instance of that name.
            engine.restart(activation)
            activation = mounted
        else:
            engine.activations[attempt.key] = activation
            if mounted is not None:  # the word of its creation came after its row was read
                engine.restart(mounted)
        gone = set(operation.cancelled_ids or ())
        for one in waiting:
            if one.kind is Kind.TIMER and one.delivery is not None and one.delivery.id in gone:
                one.answer(b"{}")  # to the node that forwarded it
                engine.delivered(one)
            else:
                engine.enqueue(activation, one)

    def _schedule(self, activation: Activation, operation: Upgrade) -> None:
        """Timers that go on under other names and are due soon: nobody else will claim them."""
        soon_ms = self.engine.clock.now_ms() + LOCAL_TIMER_MS
        due = [
            Delivery(
                rename.delivery_id,
                DeliveryKind.TIMER,
                activation.key,
                rename.event,
                rename.due_at_ms,
                rename.attempts,
                1,
                rename.to,
                hops=rename.hops,
            )
            for rename in operation.renames
            if rename.due_at_ms is not None and rename.due_at_ms < soon_ms
        ]
        if due:
            self.engine.on_timers(due)

    def failed(self, attempt: _Attempt, error: EngineError) -> None:
        """Nothing has changed, or nobody knows; what has waited was certainly not processed."""
        if isinstance(error, OutcomeUnknown):
            self._anew(attempt)
            return
        self._suspects.discard(attempt.key)
        if not isinstance(error, MachineThrew | MachineOverLimit) and error.counts_as_attempt:
            error = MigrationFailed(str(error))  # what it asks for is too much
        engine = self.engine
        waiting = engine.loading.waiting.pop(attempt.key)
        for operation in waiting:
            if operation not in attempt.asked:
                engine.try_again(operation)  # U1
                continue
            if isinstance(error, InstancePaused):
                engine.journal.paused(attempt.row.id, attempt.row.seq, operation)
            self._refuse(attempt, operation, error)

    def _refuse(self, attempt: _Attempt, operation: Operation, error: EngineError) -> None:
        """Unless it was applied long ago: a request that is sent again gets what it got then."""
        if operation.request_key is None:
            self.engine.refuse(operation, error)
        else:
            self.engine.request_keys.refuse_unless_replayed(attempt.row.id, operation, error)

    def again(self, operation: Operation) -> None:
        """Its step was not committed: the instance has moved, or a runner died."""
        assert isinstance(operation, Upgrade)
        assert isinstance(operation.reply, _Attempt)
        if operation.suspect:
            self._suspects.add(operation.key)
        self._anew(operation.reply)

    def _anew(self, attempt: _Attempt) -> None:
        """Begin with reading the row, for all that has waited."""
        waiting = self.engine.loading.waiting.pop(attempt.key)
        for operation in waiting:
            operation.tries += operation in attempt.asked
            self.engine.try_again(operation)

    def _log(self, attempt: _Attempt, message: str) -> None:
        self.engine.journal.lines.append(
            LogRow(
                attempt.row.version_id,
                attempt.row.id,
                attempt.key[1],
                "error",
                f"upgrade failed: {message}",
                self.engine.clock.now_ms(),
            )
        )
