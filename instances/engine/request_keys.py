"""Requests that may have been sent before: their idempotency keys, looked up and answered."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from instances.engine.errors import EngineError, InstanceDeleted, InstanceExists, Unavailable
from instances.engine.json_texts import public_of
from instances.engine.operations import Activation, Operation, Replayed, state_body
from instances.engine.store import InstanceRow

if TYPE_CHECKING:
    from instances.engine.core import Engine


class RequestKeys:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def look_up(self, activation: Activation, operation: Operation, request_key: str) -> None:
        """Let an operation go on unless its request was sent before."""
        in_progress = itertools.chain(
            activation.queue, activation.sent, activation.uncommitted, activation.waiters
        )
        for first in in_progress:
            if first.request_key == request_key:
                first.repetitions = [*(first.repetitions or ()), operation]
                return

        def found(answer: bool | Exception) -> None:
            if isinstance(answer, Exception):
                operation.refuse(Unavailable("the database does not answer"))
            elif answer:
                self.answer_replayed(operation)
            else:
                # A request with the same key may still come between: the commit finds out.
                operation.must_look_up_key = False
                self.engine.submit(operation)

        assert activation.row_id is not None
        self.engine.store.find_request_key(activation.row_id, request_key, found)

    def answer_replayed(self, operation: Operation) -> None:
        """Its event is in the history already: answer with the state that is committed now."""

        def read(row: InstanceRow | Exception | None) -> None:
            if isinstance(row, InstanceRow):
                operation.answer(Replayed(state_body(row.ts, row.state, public_of(row.context))))
            elif row is None:
                operation.refuse(InstanceDeleted(f"there is no instance {operation.key[1]}"))
            else:
                operation.refuse(Unavailable("the database does not answer"))

        self.engine.store.read(operation.key, read)

    def refuse_unless_replayed(self, row_id: int, operation: Operation, error: EngineError) -> None:
        """Refuse a request that can't be processed now, if its event is not in the history."""

        def found(answer: bool | Exception) -> None:
            if answer is True:
                self.answer_replayed(operation)
            else:
                self.engine.refuse(operation, error)

        assert operation.request_key is not None
        self.engine.store.find_request_key(row_id, operation.request_key, found)

    def refuse_existing(self, operation: Operation) -> None:
        """The name is taken: perhaps by this very request, sent before."""
        error = InstanceExists(f"{operation.key[1]} exists already")
        request_key = operation.request_key
        if request_key is None:
            self.engine.refuse(operation, error)
            return

        def found(answer: bool | Exception) -> None:
            if answer is True:
                self.answer_replayed(operation)
            else:
                operation.refuse(error)

        def read(row: InstanceRow | Exception | None) -> None:
            if isinstance(row, InstanceRow):
                self.engine.store.find_request_key(row.id, request_key, found)
            else:
                operation.refuse(error)

        self.engine.store.read(operation.key, read)
