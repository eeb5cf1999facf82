"""Ends of runners: what was in flight is computed again, and the operation that kills is found.

Steps run in order, but answers are written in groups, so with several requests in flight nobody can
tell which one killed a runner. Those become suspects and run one at a time: the one that kills a
runner alone is the culprit and fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from instances.engine.errors import MachineOverLimit
from instances.engine.operations import Activation, Operation
from instances.engine.runners import Question, RunnerDied, RunnerLink, RunnerProcess
from instances.engine.store import LogRow

if TYPE_CHECKING:
    from instances.engine.core import Engine

LIMIT_MESSAGES = {
    "memory": "the machine used more memory than a runner has",
    "cpu": "the machine did not answer in time (an endless loop?)",
    "flood": "the machine wrote more output than is allowed",
}


class Crashes:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def on_exit(self, process: RunnerProcess, reason: str) -> None:
        engine = self.engine
        link = engine.links.pop(process, None)
        if link is None:
            return
        link.alive = False
        waiting = list(link.waiting.values())
        link.waiting.clear()
        in_flight = [request for request in waiting if isinstance(request, Operation)]
        culprit = _culprit(in_flight, reason)
        for operation in in_flight:
            operation.tries += 1
            operation.suspect = True
        if culprit is not None:
            culprit.activation.sent.remove(culprit)
            message = LIMIT_MESSAGES.get(reason, f"the machine's runner ended ({reason})")
            self._log_killed(culprit, message)
            engine.refuse(culprit, MachineOverLimit(message))
        for activation in list(link.activations.values()):
            engine.close(activation)
        for request in waiting:
            if isinstance(request, Question):
                request.answer(request, RunnerDied(reason))

    def is_held_up(self, activation: Activation, operation: Operation) -> bool:
        """While a runner has suspects it works on them, and on what stands before them, alone."""
        link = activation.link
        if not link.suspects:
            return False
        if link.waiting:
            return True
        return not operation.suspect and not any(o.suspect for o in activation.queue)

    def go_on(self, link: RunnerLink) -> None:
        """Something was answered, committed or dropped: the next may go, or everything."""
        link.quarantined = link.suspects > 0
        for activation in list(link.activations.values()):
            self.engine.send_queued(activation)

    def _log_killed(self, operation: Operation, message: str) -> None:
        activation = operation.activation
        self.engine.journal.lines.append(
            LogRow(
                activation.version_id,
                activation.row_id,
                activation.key[1],
                "error",
                f"{message}\nevent: {operation.event[:2000]}",
                self.engine.clock.now_ms(),
            )
        )


def _culprit(in_flight: list[Operation], reason: str) -> Operation | None:
    """The operation that certainly killed its runner, if that can be told."""
    suspects = [operation for operation in in_flight if operation.suspect]
    if len(suspects) == 1:
        return suspects[0]
    # Alone in a runner that was killed for breaking a limit. In one that was killed from outside
    # it may be innocent, and is tried again first.
    if len(in_flight) == 1 and reason in LIMIT_MESSAGES:
        return in_flight[0]
    return None
