"""What a fault run leaves behind: the operations of its clients, and what was seen and stored.

Times are seconds since the run began, by one monotonic clock. All of it can be written to a
directory and read again, so that a run can be looked at, and checked, later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

INIT, CLIENT, TIMER, MESSAGE, SERVICE, LOST_SERVICE, UPGRADE = range(7)  # of Transition.kind
FROM_OUTSIDE = (CLIENT, TIMER, MESSAGE)

T = TypeVar("T")
Outcome = Literal["ok", "refused", "unknown"]


@dataclass
class Operation:
    """One request of a client. Several with the same `n` are tries of the same event."""

    n: str  # what the event carries; empty for reads
    workload: str
    slug: str
    kind: str  # the event's type, or read, create, pause, resume, upgrade
    node: int  # that it was sent to
    started: float
    ended: float
    outcome: Outcome
    status: int = 0  # 0: no answer
    code: str = ""  # of an error
    request_key: bool = False
    replayed: bool = False
    ts: int = 0  # of the state that the answer shows
    value: str = ""  # of a register, as the answer shows it; of an upgrade, the version


@dataclass(frozen=True)
class Transition:
    instance_id: int
    slug: str
    seq: int
    kind: int
    event: dict[str, Any]
    state: Any
    ts: int
    created_at: int  # ms
    request_key: str | None
    caused_by: int | None  # id of the delivery that it consumed
    xid: int  # of the database's transaction that wrote it
    cancels: int  # how many timers it takes back
    version: str  # that computed it; of an upgrade, the new one

    @property
    def n(self) -> str:
        return str(self.event.get("n", ""))


@dataclass(frozen=True)
class Instance:
    id: int
    slug: str
    seq: int
    ts: int
    status: int
    children: int  # services that run, or were lost and not yet reported
    public: dict[str, Any]
    context_bytes: int
    is_of_its_org: bool


@dataclass(frozen=True)
class Ownership:
    """One commit of an instance: its last step's seq, who made it, and the services after it."""

    instance_id: int
    seq: int
    owner: str
    children: tuple[str, ...]


@dataclass(frozen=True)
class Effect:
    """A request that the outside world got from a machine."""

    n: str
    slug: str
    kind: str  # action or service
    at: float
    ended: float  # when it was answered, or the machine's side had gone
    committed: Literal["before", "unclear", "after", "never"]  # its transition, at that moment


@dataclass(frozen=True)
class DeliveryRow:
    id: int
    fate: Literal["created", "deleted"]
    xid: int
    kind: int
    due_at: int
    send_id: str
    source_id: int


@dataclass(frozen=True)
class Fault:
    at: float
    ended: float
    kind: str
    target: str
    detail: str = ""


@dataclass(frozen=True)
class Recovery:
    """How long it took until an event was accepted after a fault."""

    what: Literal["settled", "unsettled", "runner", "database"]
    fault: str
    at: float
    seconds: float
    disturbed: bool  # by another fault meanwhile: it proves nothing


@dataclass(frozen=True)
class Seen:
    """A state that a subscriber was told: by one connection, in this order."""

    connection: int
    slug: str
    ts: int
    at: float


@dataclass
class Evidence:
    operations: list[Operation] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    ownerships: list[Ownership] = field(default_factory=list)
    deliveries: list[DeliveryRow] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)  # ids of deliveries that are left
    dead: list[int] = field(default_factory=list)  # ids of dead letters
    seen: list[Seen] = field(default_factory=list)
    overdue_ms_max: int = 0  # of the latest delivery that was ever looked at
    accounts: int = 0  # of the bank, and
    deposit: int = 0  # with how much each was opened

    def write(self, directory: Path) -> None:
        """One file of JSON lines for each kind of thing."""
        directory.mkdir(parents=True, exist_ok=True)
        figures: dict[str, int] = {}
        for name, value in vars(self).items():
            if isinstance(value, int):
                figures[name] = value
            else:
                _write_lines(directory / f"{name}.jsonl", value)
        (directory / "figures.json").write_text(json.dumps(figures) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Evidence:
        def rows(name: str, type_: type[T]) -> list[T]:
            return [type_(**row) for row in _read_lines(directory / f"{name}.jsonl")]

        return cls(
            operations=rows("operations", Operation),
            effects=rows("effects", Effect),
            faults=rows("faults", Fault),
            recoveries=rows("recoveries", Recovery),
            transitions=rows("transitions", Transition),
            instances=rows("instances", Instance),
            ownerships=rows("ownerships", Ownership),
            deliveries=rows("deliveries", DeliveryRow),
            pending=_read_lines(directory / "pending.jsonl"),
            dead=_read_lines(directory / "dead.jsonl"),
            seen=rows("seen", Seen),
            **json.loads((directory / "figures.json").read_text()),
        )


def _write_lines(path: Path, values: Iterable[Any]) -> None:
    with path.open("w") as lines:
        for value in values:
            plain = value if isinstance(value, int) else asdict(value)
            lines.write(json.dumps(plain, separators=(",", ":")) + "\n")


def _read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]
