"""The checker's part about instances and each other: messages, spawns, ends of children, gold."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from instances.engine.messages import child_event
from instances.engine.operations import DeliveryKind, Kind
from tests.instances.engine.simulation import machine
from tests.instances.engine.simulation.clock import START_MS
from tests.instances.engine.simulation.database import DELETED, Delivered, Instance, Transition
from tests.instances.engine.simulation.machine import Json, Step

if TYPE_CHECKING:
    from tests.instances.engine.simulation.checker import Checker, Place

ATTEMPTS = 5
PROMPT_S = 1.5  # from its time until it is delivered, when all is well
LONG_DELAY_MS = 1_000  # what comes later than this begins a new chain of messages

KINDS = {
    "send": DeliveryKind.MESSAGE,
    "spawn": DeliveryKind.SPAWN,
    "done": DeliveryKind.CHILD_DONE,
    "rename": DeliveryKind.TIMER,
}


class Mail:
    def __init__(self, checker: Checker) -> None:
        self.checker = checker
        self.database = checker.database
        self.say = checker._say
        diary = checker.life.world.diary
        self.deaths = [at for at, what, *_ in diary if what == "runner died"]
        # Attempts that the machine refused, by event and process.
        self.refusals: dict[str, Counter[int]] = defaultdict(Counter)
        for _, what, *details in diary:
            if what == "refused":
                process, _, event = details
                self.refusals[event][process] += 1

    # ------------------------------------------------------------------ while a history is replayed

    def begin(self, t: Transition) -> Step:
        """The first step of an instance, from what its creator gave."""
        book = self.database.books.get(t.values["caused_by"] or 0)
        if book is None:
            return machine.begin({"uid": json.loads(t.values["context"])["uid"]})
        given = json.loads(book.values["event"])["context"]
        sender = json.loads(book.values["auth_context"])["stateBackedSender"]
        return machine.begin(given, json.dumps(sender))

    def has_parent(self, row_id: int, at: float) -> bool:
        """Whether the parent of an instance was there at that time."""
        parent = self.database.instances.get(self.database.instances[row_id].values["parent_id"])
        return parent is not None and at < _death_of(parent)

    def check_written(self, name: str, effect: Json, book: Delivered) -> None:
        """What a step has declared is what the delivery says."""
        values, event = book.values, json.loads(book.values["event"])
        kind = KINDS.get(effect["t"], DeliveryKind.MESSAGE if "to" in effect else 0)
        is_own = effect["t"] == "rename"  # its `to` is a name
        address = None if is_own else effect.get("to", effect.get("src"))
        is_right = values["kind"] == kind
        if address is not None:
            names = address["machineName"], address["machineInstanceName"]
            is_right &= (values["target_machine"], values["target_slug"]) == names
        if kind == DeliveryKind.SPAWN:
            is_right &= (event["id"], event["context"]) == (effect["id"], effect["input"])
        elif kind == DeliveryKind.CHILD_DONE:
            is_right &= event["output"] == effect["output"]
        else:
            is_right &= event == effect["event"]
        if not is_right:
            self.say(f"I7 {name}: {effect} became {values}")

    def check_step(self, name: str, t: Transition, book: Delivered) -> None:
        """A step by something that another instance has sent."""
        instance = self.database.instances[t.values["instance_id"]]
        values = book.values
        target = values["target_machine_id"], values["target_slug"]
        if target != (instance.values["machine_id"], instance.slug):
            self.say(f"{name}: step {t.seq} by what was sent to {target}")
        expected = json.loads(values["event"])
        if values["kind"] == DeliveryKind.SPAWN:
            parent = values["source_id"], expected["id"]
            if t.values["kind"] != Kind.INIT:
                self.say(f"{name}: step {t.seq} by a spawn")
            elif (instance.values["parent_id"], instance.values["parent_child"]) != parent:
                self.say(f"{name}: it has another parent than {parent}")
        elif t.values["kind"] != Kind.MESSAGE:
            self.say(f"{name}: step {t.seq} of kind {t.values['kind']} by a message")
        else:
            if values["kind"] == DeliveryKind.CHILD_DONE:
                expected = json.loads(child_event(5, values["event"]))
            if json.loads(t.values["event"]) != expected:
                self.say(f"{name}: step {t.seq} by another event than was sent")
        sender = self.database.instances.get(values["source_id"])
        if sender is not None:
            names = {"machineName": sender.machine, "machineInstanceName": sender.slug}
            if json.loads(t.values["auth_context"]) != {"stateBackedSender": names}:
                self.say(f"{name}: step {t.seq} names another sender than {names}")

    def check_hops(
        self, name: str, t: Transition, step: Step, books: dict[Place, Delivered], hops: int
    ) -> None:
        """Each message counts those that led to it, the latest of which has `hops`."""
        allowed = {hops + 1}
        if t.values["kind"] in (Kind.SERVICE, Kind.LOST_SERVICE, Kind.UPGRADE):
            allowed.add(1)  # what came before the instance was loaded is forgotten
        for n, effect in enumerate(step.effects):
            book = books.get((t.seq, n))
            if book is not None and effect["t"] != "rename":
                is_late = effect.get("delay", 0) >= LONG_DELAY_MS
                if book.values["hops"] not in ({0} if is_late else allowed):
                    self.say(f"{name}: {book.values['hops']} hops in step {t.seq}, not {allowed}")

    # ------------------------------------------------------------------ when all are replayed

    def check(self) -> None:
        if not self.checker.has_clock_steps:
            for row_id, instance in self.database.instances.items():
                self._check_order(f"instance {instance.slug} ({row_id})", instance)
            self._check_promptness()
        for id_, book in self.database.books.items():
            self._check_failures(id_, book)
        self._check_children()
        self._check_gold()

    def _check_order(self, name: str, instance: Instance) -> None:
        """What one sender has sent at once arrives in that order, if it did not fail before."""
        latest: dict[int, tuple[Place, int]] = {}
        for t in instance.history:
            book = self.database.books.get(t.values["caused_by"] or 0)
            if book is None or t.values["kind"] == Kind.TIMER or self._has_failed(book, t):
                continue
            values = book.values
            if values["send_id"] is not None or values["source_seq"] is None:
                continue
            place = values["source_seq"], values["source_n"]
            before, seq = latest.get(values["source_id"], ((0, 0), 0))
            if place < before:
                self.say(f"{name}: step {t.seq} was sent ({place}) before that of {seq} ({before})")
            latest[values["source_id"]] = place, t.seq

    def _has_uncounted(self, id_: int) -> bool:
        """Whether a server wanted to count an attempt and does not know whether it could."""
        begun, answered = self.database.fails_begun, self.database.fails_answered
        return any(begun[key] > answered[key] for key in list(begun) if key[0] == id_)

    def _has_failed(self, book: Delivered, t: Transition) -> bool:
        """Whether an attempt has failed, or may have without being counted before this step.

        A server that has written what became of it must not have it any more.
        """
        process, _ = t.activation
        refusals = self.refusals[book.values["event"]]
        key = book.values["id"], process, 0
        begun = max(self.database.fails_begun[key], refusals[process])
        is_unknown = begun > self.database.fails_answered[key]
        has_failed = bool(book.failures) or book.failed_held
        return has_failed or is_unknown or any(other != process for other in refusals)

    def _check_promptness(self) -> None:
        """When nothing is broken any more, whatever is sent arrives soon."""
        calm_from, end = self.checker.life.calm_from, self.checker.end
        for id_, book in self.database.books.items():
            due = max(book.created_at, (book.planned_ms - START_MS) / 1000)
            if book.created_at < calm_from or book.failures or not book.values["kind"]:
                continue
            if (book.ended_at or end) - due > PROMPT_S:
                self.say(f"I8 delivery {id_}: took {(book.ended_at or end) - due:.3f} s")

    # ------------------------------------------------------------------ failed attempts

    def _check_failures(self, id_: int, book: Delivered) -> None:
        """P6: five attempts, and each failed through the message itself, or its target."""
        if book.end == "dead" and len(book.failures) != ATTEMPTS:
            self.say(f"P6 delivery {id_}: a dead letter after {len(book.failures)} attempts")
        since = book.created_at
        for at, error in book.failures:
            if not self._is_fair(book, since, at, error):
                self.say(
                    f"P6 delivery {id_}: its attempt at {at:.3f} failed without reason: {error}"
                )
            since = at

    def _is_fair(self, book: Delivered, since: float, at: float, error: str) -> bool:
        event = json.loads(book.values["event"])
        is_spawn = book.values["kind"] == DeliveryKind.SPAWN
        what = event["context"].get("start") if is_spawn else event["type"]
        code, _, text = error.partition(": ")
        if code == "machine-error":
            return bool(what == "throw")
        if code == "rejected-by-machine-authorizer":
            return what == "deny" or (what == "if-even" and self._was_odd(book, since, at))
        if code == "machine-limit":
            return what == "kill" or any(since <= death <= at for death in self.deaths)
        if code == "invalid-parameter":
            return is_spawn and "machineVersionId" in event
        if code == "context-too-large":
            return bool(what == "big")
        if code == "migration-failed":
            return any(self.checker.upgrades.may_fail(i, since, at) for i in self._targets(book))
        lives = self._lives(book)
        if code == "conflict":
            return is_spawn and any(born <= at and died >= since for born, died in lives)
        if code != "not-found":
            return False
        if "machine" in text:
            return book.values["target_machine"] not in self.database.machines_at(since)
        if any(born <= since and died >= at for born, died in lives):
            return False
        return self.checker.has_clock_steps or not self._waits_for_spawn(book, at)

    def _was_odd(self, book: Delivered, since: float, at: float) -> bool:
        for instance in self._targets(book):
            ends = [t.at for t in instance.history[1:]] + [_death_of(instance)]
            for t, until in zip(instance.history, ends, strict=True):
                if t.at <= at and until >= since:
                    if json.loads(t.values["context"])["public"]["n"] % 2:
                        return True
        return False

    def _targets(self, book: Delivered) -> list[Instance]:
        values = book.values
        key = values["target_machine_id"], values["target_slug"]
        return [
            instance
            for instance in self.database.instances.values()
            if (instance.values["machine_id"], instance.slug) == key
        ]

    def _lives(self, book: Delivered) -> list[tuple[float, float]]:
        return [(one.history[0].at, _death_of(one)) for one in self._targets(book)]

    def _waits_for_spawn(self, book: Delivered, at: float) -> bool:
        """Whether it had to wait for its target, which its own sender was about to create."""
        values = book.values
        if values["source_seq"] is None:
            return False
        place = values["source_seq"], values["source_n"]
        for other, before in self.checker.books[values["source_id"]].items():
            if (
                other < place
                and before.values["kind"] == DeliveryKind.SPAWN
                and before.values["target_slug"] == values["target_slug"]
                and before.values["target_machine"] == values["target_machine"]
                and (before.ended_at or at) >= at
                and not any(failed <= at for failed, _ in before.failures)
                and not self._has_uncounted(before.values["id"])
            ):
                return True
        return False

    # ------------------------------------------------------------------ children

    def _check_children(self) -> None:
        """Of each child that ended, was deleted or never came, its parent hears exactly once."""
        books = self.database.books
        told: Counter[tuple[int, str]] = Counter()  # what was written, by parent and child
        heard: Counter[tuple[int, str]] = Counter()
        spawned: Counter[int] = Counter()
        made: dict[int, Instance] = {}
        for instance in self.database.instances.values():
            cause = instance.history[0].values["caused_by"]
            if cause is not None:
                made[cause] = instance
                spawned[cause] += 1
        for id_, book in books.items():
            if book.values["kind"] == DeliveryKind.CHILD_DONE:
                child = json.loads(book.values["event"])["id"]
                parent_id = self._parent_told(book)
                told[parent_id, child] += 1
                heard[parent_id, child] += id_ in self.checker.steps_by
        for id_, book in books.items():
            if book.values["kind"] != DeliveryKind.SPAWN:
                continue
            parent_id, child = book.values["source_id"], json.loads(book.values["event"])["id"]
            name = f"child {child} of {parent_id}"
            if spawned[id_] != (book.end == "consumed"):
                self.say(f"{name}: made {spawned[id_]} times by a spawn {book.end or 'pending'}")
            ended_at = self._end_of(book, made.get(id_))
            parent = self.database.instances[parent_id]
            is_due = ended_at is not None and ended_at < _death_of(parent)
            if told.pop((parent_id, child), 0) != is_due:
                self.say(f"{name}: its parent was not told exactly once of its end at {ended_at}")
            if heard[parent_id, child] > 1:
                self.say(f"{name}: its parent has heard of its end more than once")
        if told:
            self.say(f"ends of children that there never were: {told}")

    def _parent_told(self, book: Delivered) -> int:
        """The row of the parent that an end is told to: it was there when that was written."""
        for instance in self._targets(book):
            if instance.history[0].at <= book.created_at <= _death_of(instance):
                return int(instance.values["id"])
        return 0

    def _end_of(self, spawn: Delivered, child: Instance | None) -> float | None:
        """When a child came to its end, was deleted, or was given up."""
        if child is None:
            return spawn.ended_at if spawn.end == "dead" else None
        for t in child.history:
            if t.values["state"].endswith('"done":true}'):
                return t.at
        died = _death_of(child)
        return died if died < float("inf") else None

    # ------------------------------------------------------------------ gold

    def _check_gold(self) -> None:
        """What instances have and what is on its way, or came to nobody, is what they got."""
        balance = 0
        for instance in self.database.instances.values():
            if instance.history[0].values["caused_by"] is None:
                balance += machine.GOLD
            balance -= json.loads(instance.values["context"])["gold"]
        for id_, book in self.database.books.items():
            if id_ not in self.checker.steps_by:
                event = json.loads(book.values["event"])
                balance -= event.get("gold", 0)
                if book.values["kind"] == DeliveryKind.SPAWN:
                    balance -= event["context"]["gold"]
        if balance:
            self.say(f"gold: {balance} of what there was is nowhere")


def _death_of(instance: Instance) -> float:
    return next((at for at, status in instance.statuses if status == DELETED), float("inf"))
