"""Brings messages, spawns and ends of children to their instances, those of one sender in order.

What is to be delivered are rows; here is only who is being served. Whatever wakes a target (a
commit, the pump, another node), all that is due for it is read in order and delivered in order, and
while that lasts it is not read again. So it does not matter who has claimed which row.

M1  A failed message waits half a minute and lets the others pass. What fails through the site's own
    trouble does not: then nothing more is delivered to that target until it is read anew.
M2  A row is read again only when what became of it is written.
M3  A spawn is delivered alone: what is sent to the new instance waits behind it.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from instances.engine.errors import (
    EngineError,
    InstancePaused,
    InvalidSpawn,
    MachineNotFound,
)
from instances.engine.operations import Creation, Delivery, DeliveryKind, Kind, Operation
from statebacked_site.identifiers import SLUG

if TYPE_CHECKING:
    from instances.engine.core import Engine

log = logging.getLogger("statebacked.engine")

READ_ROWS = 100  # of one target at once
TROUBLE_S = 1.0  # how long a target waits after trouble of the site's own

Key = tuple[int, str]


class Target:
    """An instance, or a name for which there is none, that something is being delivered to."""

    __slots__ = (
        "again",
        "busy",
        "claimed",
        "due_ms",
        "forwarded",
        "has_more",
        "in_flight",
        "key",
        "left",
        "void",
        "waiting",
    )

    def __init__(self, key: Key) -> None:
        self.key = key
        self.waiting: deque[Delivery] = deque()  # read, not yet begun
        self.in_flight: set[int] = set()
        self.claimed: dict[int, Delivery] = {}  # whose claims are renewed until they have ended
        self.due_ms = 0  # what woke it is due, whatever this node's clock says
        self.busy = False  # being read, or it waits after trouble, or is about to begin something
        self.again = False  # something has come since it was read
        self.has_more = False  # than was read at once
        self.void = False  # nothing of what was read may begin any more
        self.left = False  # its instance lives on another node, which was told
        self.forwarded = False  # another node has told this one


class Messages:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.targets: dict[Key, Target] = {}

    def wake(
        self,
        key: Key,
        delivery: Delivery | None = None,
        *,
        due_ms: int = 0,
        forwarded: bool = False,
    ) -> None:
        """Deliver what is due for this target; `delivery` is a row of it that was claimed.

        `due_ms` is the due time of what another node, or an earlier moment of this one, has found
        due: by the clock of this node that time may be still to come.
        """
        if self.engine.draining:
            if delivery is not None:
                self.engine.on_delivered(delivery)
            return  # it will be delivered by whoever looks for it next
        target = self.targets.get(key)
        if target is None:
            target = self.targets[key] = Target(key)
        if delivery is not None:
            target.claimed[delivery.id] = delivery
            due_ms = delivery.due_at_ms
        target.due_ms = max(target.due_ms, due_ms)
        target.forwarded = target.forwarded or forwarded
        if target.busy or target.in_flight:
            target.again = True
        else:
            self._read(target)

    def is_void(self, operation: Operation) -> bool:
        """Whether it must not be tried again: something before it was not delivered."""
        target = self.targets.get(operation.key)
        return operation.kind is Kind.MESSAGE and target is not None and target.void

    # ------------------------------------------------------------------ reading

    def _read(self, target: Target) -> None:
        target.busy = True
        target.again = target.void = target.left = False
        engine = self.engine
        engine.store.find_due(
            target.key,
            max(engine.clock.now_ms(), target.due_ms),
            READ_ROWS,
            lambda rows: self._found(target, rows),
        )

    def _found(self, target: Target, rows: list[Delivery] | Exception) -> None:
        if isinstance(rows, Exception):
            if not isinstance(rows, InstancePaused):
                log.warning("what is due for %s can't be read: %s", target.key, rows)
            self._pause(target)
            return
        target.has_more = len(rows) == READ_ROWS
        target.waiting.extend(rows)
        self._go_on(target)

    def _pause(self, target: Target) -> None:
        clock = self.engine.clock
        clock.call_at(clock.monotonic() + TROUBLE_S, self._read_again, target)

    def _read_again(self, target: Target) -> None:
        target.forwarded = False  # whoever has told this node may have been wrong
        self._read(target)

    # ------------------------------------------------------------------ delivering

    def _go_on(self, target: Target) -> None:
        """Begin what may begin; when all that was read has ended, read again or be done."""
        target.busy = True
        waiting = target.waiting
        while waiting and not target.void and not self.engine.draining:
            is_alone = waiting[0].kind == DeliveryKind.SPAWN
            if is_alone and target.in_flight:
                break
            delivery = waiting.popleft()
            target.in_flight.add(delivery.id)
            self._begin(target, delivery)
            if is_alone:
                break
        target.busy = False
        if target.in_flight:
            return
        if waiting and not target.void and not self.engine.draining:
            self._go_on(target)
            return
        waiting.clear()
        if self.engine.draining:
            target.again = target.void = target.has_more = False
        if target.void and not target.left:
            target.busy = True
            self._pause(target)
        elif target.again or (target.has_more and not target.left):
            self._read(target)
        else:
            del self.targets[target.key]
            for delivery in target.claimed.values():
                self.engine.on_delivered(delivery)

    def _begin(self, target: Target, delivery: Delivery) -> None:
        if delivery.key[0] == 0:
            self._find_machine(delivery)
        elif delivery.kind == DeliveryKind.SPAWN:
            self._spawn(delivery)
        else:
            child = ""
            event = delivery.event
            if delivery.kind == DeliveryKind.CHILD_DONE:
                child = json.dumps(json.loads(event).get("id", ""))
            self.engine.submit(
                Operation(
                    Kind.MESSAGE, delivery.key, event, delivery.auth, delivery=delivery, child=child
                )
            )

    def _find_machine(self, delivery: Delivery) -> None:
        """There was no machine of that name when it was sent: perhaps there is by now."""

        def found(machine_id: int | Exception | None) -> None:
            if isinstance(machine_id, Exception):
                self._trouble(delivery)
            elif machine_id is None:
                self.refused(delivery, MachineNotFound("there is no machine of that name"))
            else:
                self.ended(delivery)
                self.wake((machine_id, delivery.key[1]), due_ms=delivery.due_at_ms)

        self.engine.store.find_machine(delivery.id, found)

    def _spawn(self, delivery: Delivery) -> None:
        machine_id, slug = delivery.key
        try:
            event = json.loads(delivery.event)
            # None for what no instance has sent but a schedule: the new instance has no parent.
            sender = json.loads(delivery.auth).get("stateBackedSender")
            version = str(event.get("machineVersionId") or "")
            context = json.dumps(event.get("context", {}), separators=(",", ":"))
            child_id = str(event["id"])
        except (ValueError, KeyError, TypeError, AttributeError):
            self.refused(delivery, InvalidSpawn("its event does not say what to create"))
            return
        if not SLUG.match(slug):
            self.refused(delivery, InvalidSpawn("this can be no name of an instance"))
            return
        parent = ""
        if sender is not None:
            reference = {"type": "statebacked.instance", "id": PARENT_ID, **sender}
            parent = json.dumps(reference, separators=(",", ":"))

        def found(version_id: int | Exception | None) -> None:
            if isinstance(version_id, Exception):
                self._trouble(delivery)
            elif version_id is None:
                what = f"version {version:.50}" if version else "current version"
                self.refused(delivery, InvalidSpawn(f"the machine has no {what}"))
            else:
                creation = Creation(version_id, context, parent, delivery.source_id, child_id)
                self.engine.spawn(delivery, creation)

        self.engine.store.find_version(machine_id, version, found)

    # ------------------------------------------------------------------ ends

    def ended(self, delivery: Delivery) -> None:
        """It was consumed, is gone, or is left to somebody else."""
        target = self.targets.get(delivery.key)
        if target is None or delivery.id not in target.in_flight:
            return
        target.in_flight.discard(delivery.id)
        claimed = target.claimed.pop(delivery.id, None)
        if claimed is not None:
            self.engine.on_delivered(claimed)
        if not target.busy:
            self._go_on(target)

    def refused(self, delivery: Delivery, error: EngineError) -> None:
        """It was not applied: a failed attempt, or trouble of the site's own."""
        store = self.engine.store
        if error.counts_as_attempt:
            text = f"{error.code}: {error}"[:2000]
            store.fail(delivery, text, lambda: self.ended(delivery))  # M2
            return
        if isinstance(error, InstancePaused):
            store.hold(delivery.id)
        self._trouble(delivery)

    def _trouble(self, delivery: Delivery) -> None:
        target = self.targets.get(delivery.key)
        if target is not None:
            target.void = True
        self.ended(delivery)

    def leave(self, operation: Operation, address: str) -> None:
        """Its instance lives on another node: have that one look for what is due."""
        assert operation.delivery is not None
        target = self.targets.get(operation.key)
        if target is not None and not target.left:
            target.void = True
            forward = self.engine.elsewhere.forward
            # One hop at most: who was told by another node looks again before it tells a third.
            if forward is not None and not target.forwarded:
                target.left = True
                # If it does not arrive, the claims end and somebody else wakes the target.
                due_ms = str(operation.delivery.due_at_ms)
                forward(Operation(Kind.MESSAGE, operation.key, due_ms, ""), address)
        self.ended(operation.delivery)


# By which a child knows its parent: no other actor can have this id.
PARENT_ID = "#_parent"


def not_created(delivery: Delivery, reason: str) -> str:
    """What the parent is told of a spawn that has failed for good, as JSON; empty for all else."""
    if delivery.kind != DeliveryKind.SPAWN:
        return ""
    try:
        id_ = str(json.loads(delivery.event)["id"])
    except (ValueError, KeyError, TypeError):
        return ""  # somebody has edited it
    error = {"name": "ChildNotCreated", "message": reason}
    return json.dumps({"type": "statebacked.child-error", "id": id_, "error": error})


def child_event(major: int, event: str) -> str:
    """The event that XState gives a parent for the end of a child, as JSON."""
    told: dict[str, Any] = json.loads(event)
    id_ = told.get("id", "")
    is_error = told["type"] == "statebacked.child-error"
    data = told.get("error" if is_error else "output")
    if major == 4:
        type_ = f"error.platform.{id_}" if is_error else f"done.invoke.{id_}"
        made = {"type": type_, "data": data}
    else:
        type_ = f"xstate.{'error' if is_error else 'done'}.actor.{id_}"
        made = {"type": type_, "error" if is_error else "output": data, "actorId": id_}
    return json.dumps(made, separators=(",", ":"))
