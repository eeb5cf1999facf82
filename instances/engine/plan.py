"""The rows that a batch of steps becomes, for either database.

A batch is one transaction: one row of `instance` per activation, one of `transition` per step, and
the deliveries that they create, consume and cancel. What a step does to the work of an earlier step
of the same batch is settled here, so that a database may write the kinds of rows in any order.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from instances.engine.operations import (
    Activation,
    Code,
    DeliveryKind,
    Kind,
    MessageRow,
    Operation,
    Outcome,
    Rename,
    Upgrade,
)

PURGE_ROWS = 5_000  # history rows of a deleted instance that one transaction removes
ATTEMPTS_MAX = 5  # of a delivery; then it is a dead letter
RETRY_AFTER_MS = 30_000
CLAIMS_MAX = 20  # ends of an engine that a delivery may see before it is suspected
LOCAL_TIMER_MS = 1_000  # timers due sooner are scheduled without asking the database again

# Answers by which a delivery is done: refused and thrown ones are failed attempts instead.
CONSUMING = (Code.CHANGED, Code.UNCHANGED, Code.CHANGED_WITH_EFFECTS)

INSTANCE_COLUMNS = """id, slug, version_id, ts, state, extra, context, children, settle_deadline,
 created_at, machine_id, parent_id, parent_child"""
HISTORY_COLUMNS = """instance_id, seq, commit_id, kind, event, state, context, effects, report,
 auth_context, duration_us, version_id, request_key, caused_by, ts, created_at"""
# What delivering a row needs, in the order of `operations.Delivery`.
DUE_COLUMNS = """id, kind, target_machine_id, target_slug, event, due_at, attempts, claims, send_id,
 auth_context, hops, source_id"""


# The rest of the event by which a parent hears that its child was deleted, in SQL.
CHILD_DELETED = """',"error":{"name":"ChildDeleted","message":"the instance was deleted"}}'"""


def sender_of(machine: str, slug: str) -> str:
    """SQL for the authContext of what an instance sends, from SQL for its names.

    Names of machines and instances need no escapes in JSON.
    """
    return (
        f"""'{{"stateBackedSender":{{"machineName":"' || {machine}"""
        f""" || '","machineInstanceName":"' || {slug} || '"}}}}'"""
    )


class Ids(Protocol):
    """Ids that no other process gives."""

    def take_instance_id(self) -> int: ...
    def take_delivery_id(self) -> int: ...


class DeliveryValues(NamedTuple):
    """A row of `delivery` before its names are resolved."""

    id: int
    kind: int
    target_machine: str  # slug; empty: the sender's own machine
    target_slug: str
    parent_id: int  # the target's row instead, or 0
    source_id: int
    source_seq: int
    source_n: int
    send_id: str | None
    event: str
    hops: int
    due_at: int
    claim_until: int
    claims: int
    created_at: int
    source_machine_id: int
    source_slug: str


class Plan:
    """The rows of one transaction, as tuples in the order of the columns named above."""

    def __init__(self, ids: Ids, node: str, claim_ms: int, *, must_confirm: bool = False) -> None:
        self.ids = ids
        self.node = node
        self.claim_ms = claim_ms
        self.must_confirm = must_confirm
        self.outcomes: list[tuple[Operation, Outcome]] = []
        self.inserts: list[tuple[Any, ...]] = []
        self.made: set[Activation] = set()  # that an insert is for
        # By activation: the values of its last step, and the seq that the row must have now.
        self.updates: dict[Activation, tuple[Operation, int]] = {}
        self.history: list[tuple[Any, ...]] = []
        self.consumed: list[tuple[Activation, int]] = []  # delivery ids
        # What committed nothing was computed on a state that must still be the latest: its seq.
        self.confirms: dict[Activation, int] = {}
        # Those of which no step is an event from outside: they may go on where another version is
        # desired.
        self.inner: set[Activation] = set()
        self.upgrades: set[Activation] = set()  # those that get another version
        self.renames: list[tuple[Upgrade, Rename]] = []
        self.cancels: list[tuple[Operation, str]] = []
        self.cancelling: set[Activation] = set()
        # What is to be delivered, by delivery id: the columns of `DeliveryValues`.
        self.deliveries: dict[int, DeliveryValues] = {}
        self.messages: dict[int, MessageRow] = {}  # those of them that are for other instances
        self.pending: dict[tuple[int, str], list[int]] = {}  # their ids by row and send id
        self.was_cut = False  # an attempt to write it ended without an answer
        self.in_any_order = True  # whether the kinds of rows may be written one after the other

    def add(self, operation: Operation) -> None:
        activation = operation.activation
        if activation.dead:
            self.outcomes.append((operation, Outcome.CONFLICT))
            return
        self.outcomes.append((operation, Outcome.COMMITTED))
        if operation.kind > Kind.MESSAGE:
            if activation not in self.updates and activation not in self.confirms:
                self.inner.add(activation)
        elif self.inner:
            self.inner.discard(activation)
        code = operation.code
        delivery = operation.delivery
        if delivery is not None and code in CONSUMING:
            self.consumed.append((activation, delivery.id))
            # Rows are consumed before any is cancelled. A step before this one may be about to
            # cancel the very delivery: only their order tells.
            if activation in self.cancelling:
                self.in_any_order = False
        if code != Code.CHANGED and code != Code.CHANGED_WITH_EFFECTS:
            if self.must_confirm and activation.row_id is not None and activation not in self.made:
                self.confirms[activation] = operation.seq
            return
        if operation.kind is Kind.INIT:
            self._add_insert(operation)
        else:
            known = self.updates.get(activation)
            base = operation.seq - 1 if known is None else known[1]
            self.updates[activation] = (operation, base)
        self.history.append(
            (
                activation.row_id,
                operation.seq,
                operation.commit_id,
                operation.kind.value,
                operation.event,
                operation.state,
                operation.context,
                operation.effects,
                operation.report,
                operation.auth,
                operation.duration_us,
                activation.version_id,
                operation.request_key,
                delivery.id if delivery is not None else None,
                operation.ts,
                operation.created_at_ms,
            )
        )
        if operation.cancels or operation.timers or operation.messages:
            self._add_effects(operation)
        if isinstance(operation, Upgrade):
            self.upgrades.add(activation)
            for rename in operation.renames:
                rename.due_at_ms = None
                operation.cancelled_ids = None
                if not rename.delivery_id:
                    rename.delivery_id = self.ids.take_delivery_id()
                self.renames.append((operation, rename))
                self.cancelling.add(activation)

    def _add_insert(self, operation: Operation) -> None:
        activation = operation.activation
        if activation.row_id is None:
            activation.row_id = self.ids.take_instance_id()
        machine_id, slug = operation.key
        creation = operation.creation
        self.made.add(activation)
        self.inserts.append(
            (
                activation.row_id,
                slug,
                activation.version_id,
                operation.ts,
                operation.state,
                operation.extra,
                operation.context,
                operation.children,
                operation.deadline_ms,
                operation.created_at_ms,
                machine_id,
                creation.parent_id if creation is not None else None,
                creation.child_id if creation is not None else None,
            )
        )

    def _add_effects(self, operation: Operation) -> None:
        row_id = operation.activation.row_id
        assert row_id is not None
        machine_id, slug = operation.key
        operation.cancelled_ids = None
        for send_id in operation.cancels or ():
            # A timer that an earlier step of this transaction sets is not in the table yet.
            waiting = self.pending.get((row_id, send_id))
            if waiting:
                id_ = waiting.pop()
                del self.deliveries[id_]
                self.messages.pop(id_, None)
            else:
                self.cancels.append((operation, send_id))
                self.cancelling.add(operation.activation)
        for timer in operation.timers or ():
            if not timer.delivery_id:  # else an earlier attempt may have written it
                timer.delivery_id = self.ids.take_delivery_id()
            id_ = timer.delivery_id
            self.pending.setdefault((row_id, timer.send_id), []).append(id_)
            self.deliveries[id_] = DeliveryValues(
                id_,
                DeliveryKind.TIMER.value,
                "",
                slug,
                0,
                row_id,
                operation.seq,
                timer.n,
                timer.send_id,
                timer.event,
                timer.hops,
                timer.due_at_ms,
                *self.claim(operation, timer.due_at_ms),
                operation.created_at_ms,
                machine_id,
                slug,
            )
        for message in operation.messages or ():
            if not message.delivery_id:
                message.delivery_id = self.ids.take_delivery_id()
            id_ = message.delivery_id
            message.key = None
            if message.send_id is not None:
                self.pending.setdefault((row_id, message.send_id), []).append(id_)
            self.messages[id_] = message
            self.deliveries[id_] = DeliveryValues(
                id_,
                message.kind.value,
                message.machine,
                message.slug,
                message.parent_id,
                row_id,
                operation.seq,
                message.n,
                message.send_id,
                message.event,
                message.hops,
                message.due_at_ms,
                *self.claim(operation, message.due_at_ms),
                operation.created_at_ms,
                machine_id,
                slug,
            )

    def wanted_version(self, activation: Activation) -> int:
        """What the row's desired version must be: this one; none (0), unless its services run;
        or anything (-1)."""
        if activation in self.upgrades:
            return activation.version_id
        return -1 if activation in self.inner else 0

    def claim(self, operation: Operation, due_at_ms: int) -> tuple[int, int]:
        """Until when it is claimed, and how often: what is due soon is run without asking again."""
        if due_at_ms < operation.created_at_ms + LOCAL_TIMER_MS:
            return operation.created_at_ms + self.claim_ms, 1
        return 0, 0

    def parts(self) -> set[Activation]:
        """Those whose steps take place each as a whole, or not at all."""
        return {*self.updates, *self.confirms, *self.made}

    def has_clashes(self) -> bool:
        """Whether a part depends on another one, where one statement sees a single snapshot."""
        activations = self.parts()
        consumed = {delivery_id for _, delivery_id in self.consumed}
        cancelled = {(operation.activation, send_id) for operation, send_id in self.cancels}
        return (
            # An activation that ends and the one that follows it.
            len({activation.row_id for activation in activations}) != len(activations)
            or len(consumed) != len(self.consumed)
            or len(cancelled) != len(self.cancels)
            or not self.made.isdisjoint(self.updates)
        )
