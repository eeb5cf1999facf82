"""The engine's view of a runner: its activations, and the requests that it owes an answer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from instances.engine.operations import Activation, Operation

# A runner keeps its activations live in a V8 heap of 128 MB; each costs some kilobytes
# besides its JSON.
ACTIVATIONS_PER_RUNNER = 2_000
BYTES_PER_RUNNER = 16_000_000


class RunnerProcess(Protocol):
    """What the engine needs of a sandboxed process (instances/runtime/process.py)."""

    version_id: int
    xstate_major: int  # 4 or 5
    retiring: bool
    waiting: Callable[[], bool]  # set here: whether it owes an answer

    def send(self, line: bytes) -> None: ...
    def kill(self, reason: str) -> None: ...


class Runners(Protocol):
    """Where runners come from (instances/runtime/pool.py)."""

    def acquire(
        self,
        version_id: int,
        ready: Callable[[RunnerProcess | None, Exception | None], None],
    ) -> None: ...

    def acquire_upgrader(
        self,
        version_id: int,
        migration_ids: tuple[int, ...],
        ready: Callable[[RunnerProcess | None, Exception | None], None],
    ) -> None:
        """As `acquire`, for a runner that has been told the code of these migrations, too."""

    def release(self, runner: Any) -> None: ...


class Question:
    """What a runner is asked besides steps: it changes nothing, so it may be asked again."""

    __slots__ = ("answer", "link", "tries")

    def __init__(self, answer: Callable[[Question, list[str] | RunnerDied], None]) -> None:
        self.answer = answer  # gets the fields of the answer
        self.tries = 0
        self.link: RunnerLink | None = None  # that was asked


class RunnerDied(Exception):
    """The runner died before it answered."""


class RunnerLink:
    """One runner process with the engine's books about it."""

    __slots__ = (
        "activations",
        "alive",
        "process",
        "quarantined",
        "retiring",
        "send",
        "suspects",
        "waiting",
        "weight",
    )

    def __init__(self, process: RunnerProcess) -> None:
        self.process = process
        self.send = process.send
        # Requests that it owes an answer, by rid: another runner's requests can't be answered here.
        self.waiting: dict[str, Operation | Question] = {}
        process.waiting = self.owes
        # In order of use, the longest unused first.
        self.activations: OrderedDict[str, Activation] = OrderedDict()
        self.weight = 0  # bytes of JSON in its activations
        # Operations that may have killed an earlier runner: while there are any, this one works on
        # them alone and one at a time, so that its death names the culprit.
        self.suspects = 0
        self.quarantined = False  # there are suspects, or what they held up is not yet sent
        self.alive = True
        self.retiring = False

    def owes(self) -> bool:
        return bool(self.waiting)

    def is_full(self) -> bool:
        return len(self.activations) > ACTIVATIONS_PER_RUNNER or self.weight > BYTES_PER_RUNNER
