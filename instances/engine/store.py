"""The door to the database: one interface, whatever stands behind it.

Implementations: `sqlite_store.SqliteStore`, `postgres_store.PostgresStore`. All callbacks are
called on the engine's loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeVar

from instances.engine.holding import Resume
from instances.engine.operations import Delivery, Operation, Outcome

T = TypeVar("T")


DONE = '"done":true}'  # the end of the state of an instance that changes no more


class InstanceRow(NamedTuple):
    """What the engine reads of an instance; texts are JSON as the runner wrote them."""

    id: int
    version_id: int
    status: int
    seq: int
    ts: int
    state: str
    extra: str
    context: str
    children: str
    # Where there are several nodes: the one of the last commit, its address if its lease is valid,
    # and until when an unsettled instance is given to settle (ms).
    owner: str | None = None
    settle_deadline: int | None = None
    owner_address: str | None = None
    # Who spawned it, and the id by which that one knows it.
    parent_id: int | None = None
    parent_child: str | None = None
    # Before its next event it is to be upgraded to this version.
    desired_version_id: int | None = None

    def is_done(self) -> bool:
        return self.state.endswith(DONE)


class MigrationRow(NamedTuple):
    """A way from one version of a machine to another."""

    id: int
    from_version_id: int
    to_version_id: int
    from_version: str  # public ids
    to_version: str


class LogRow(NamedTuple):
    """A line that customers' code wrote; machine and org follow from the version."""

    version_id: int
    instance_id: int | None
    instance_slug: str
    level: str
    message: str
    created_at_ms: int


class NoteRow(NamedTuple):
    """An event that led to no transition; the fields are those of `models.UnheededEvent`."""

    instance_id: int
    seq: int
    kind: int
    outcome: int
    event: str
    auth: str
    more: int
    created_at_ms: int


class Store(Protocol):
    # A refusal that was computed on a cached state must be confirmed: another process may write.
    has_other_writers: bool
    # The id of this process among them.
    node: str

    def read(
        self, key: tuple[int, str], done: Callable[[InstanceRow | None | Exception], None]
    ) -> None:
        """The committed row of an instance, or None."""

    def find_due(
        self,
        key: tuple[int, str],
        now_ms: int,
        limit: int,
        done: Callable[[list[Delivery] | Exception], None],
    ) -> None:
        """What is due for a target, besides its own timers, in the order in which it was sent.

        InstancePaused if it is paused: then what is due is held. If the target resumed between this
        and the load of its row, what is due now could overtake what had been held before.
        """

    def find_machine(
        self, delivery_id: int, done: Callable[[int | Exception | None], None]
    ) -> None:
        """Look again for the machine that a delivery names, and write its id down; None if it is
        still not there."""

    def find_version(
        self, machine_id: int, version: str, done: Callable[[int | Exception | None], None]
    ) -> None:
        """The id of a version of a machine by its public id; the current one if that is empty."""

    def find_migrations(
        self, machine_id: int, done: Callable[[list[MigrationRow] | Exception], None]
    ) -> None:
        """All migrations between versions of a machine."""

    def find_request_key(
        self, instance_id: int, request_key: str, done: Callable[[bool | Exception], None]
    ) -> None:
        """Whether an event with this idempotency key is in the history."""

    def has_due(self, before_ms: int, now_ms: int) -> bool:
        """Whether it may pay to claim deliveries; cheap."""

    def is_stalled(self) -> bool:
        """Whether steps have waited for the database for longer than they should."""

    def put(self, operations: list[Operation]) -> None:
        """Commit steps, in this order; the outcomes come to `on_commit`, in this order.

        An operation that changed nothing passes through without a write, unless it consumes a
        delivery; with other writers, it is a CONFLICT if its instance has moved. A step whose
        activation is dead, or that follows a failed one, is a CONFLICT; so is an event from outside
        that found the instance settled while another version is desired, and an upgrade to one that
        is not.
        """

    def set_status(
        self,
        instance_id: int,
        status: int,
        done: Callable[[bool | None], None],
        timers: Resume = Resume.ORIGINAL,
    ) -> None:
        """Pause or resume. `done` gets False if the instance is gone, None if the write failed.

        A pause holds all that is to be delivered to the instance; resuming releases it.
        """

    def delete(self, instance_id: int, done: Callable[[bool | None], None]) -> None:
        """Delete an instance, its deliveries and its history; `done` as in `set_status`."""

    def release(self, instance_id: int, seq: int) -> None:
        """The settle limit is over: services are stopped, `children` stay to be reported lost."""

    def claim_due(self, before_ms: int, limit: int, done: Callable[[list[Delivery]], None]) -> None:
        """Claim deliveries due before that time, in order of (due_at, id)."""

    def renew_claims(self, delivery_ids: Iterable[int]) -> None:
        """This process still works on these deliveries: nobody else may claim them."""

    def postpone(self, delivery_id: int, due_at_ms: int) -> None:
        """Give a delivery back without counting an attempt."""

    def hold(self, delivery_id: int) -> None:
        """Give back a delivery whose instance is paused, and hold all that waits for that one.

        Where it has resumed by now, the delivery is only given back.
        """

    def fail(self, delivery: Delivery, error: str, done: Callable[[], None] = lambda: None) -> None:
        """Count a failed attempt; the last one makes it a dead letter, and tells the parent of a
        child that will not be. `done` is called when that is written, or could not be."""

    def log(self, rows: list[LogRow]) -> None:
        """Keep lines that customers' code wrote."""

    def note(self, rows: list[NoteRow]) -> None:
        """Keep notes of events that led to no transition."""


OnCommit = Callable[[list[tuple[Operation, Outcome]]], Any]
