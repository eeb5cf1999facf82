"""Whether a life kept every promise (engine.md calls them I1 to I13 and P1 to P9).

What clients were told, what runners did and what the database holds must tell one story. Each
check returns sentences, each about one broken promise.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator

from instances.engine.holding import HELD_MS
from instances.engine.operations import DeliveryKind, Kind
from tests.instances.engine.simulation import machine, versions
from tests.instances.engine.simulation.clock import START_MS
from tests.instances.engine.simulation.database import (
    DELETED,
    PAUSED,
    Delivered,
    Instance,
    Transition,
)
from tests.instances.engine.simulation.life import Client, Life, Request
from tests.instances.engine.simulation.machine import Json
from tests.instances.engine.simulation.mail import Mail
from tests.instances.engine.simulation.upgrades import Upgrades

EXTERNAL = (Kind.CLIENT, Kind.TIMER, Kind.MESSAGE)
OVERDUE_MS = 1_500
EARLY_MS = 1_450  # what is put off by a second, and what servers' clocks may differ
SELF_MADE_A_SECOND = 230
SELF_MADE_BY_A_STEP = 100  # more, where the clock that paces them goes forward by up to a second

Activation = tuple[int, str]
Uid = int | str
Place = tuple[int, int]  # of an effect: seq of its step, position among the step's effects


class Checker:
    def __init__(self, life: Life) -> None:
        self.life = life
        self.database = life.database
        self.end = life.world.time
        self.has_clock_steps = life.faults.has_clock_steps
        self.problems: list[str] = []
        # By the number of the client in the event: (instance, transition).
        self.steps_of: dict[int, list[tuple[int, Transition]]] = defaultdict(list)
        self.by_uid: dict[Uid, Instance] = {}
        self.uid_of: dict[int, Uid] = {}
        self.started: dict[tuple[Uid, str], Activation] = {}  # services: (uid, child)
        self.left_at: dict[tuple[Uid, str], float] = {}  # services: when a step had them no more
        self.steps_by: dict[int, tuple[int, Transition]] = {}  # by delivery id: (instance, step)
        # What each instance has written: by its row, and then by (seq, n).
        self.books: dict[int, dict[Place, Delivered]] = defaultdict(dict)
        for book in self.database.books.values():
            if book.values["source_seq"] is not None:
                place = (book.values["source_seq"], book.values["source_n"])
                self.books[book.values["source_id"]][place] = book
        self.mail = Mail(self)
        self.upgrades = Upgrades(self)

    def check(self) -> list[str]:
        for failure in self.life.world.failures:
            self._say(f"nobody caught {failure}")
        self._note_instances()
        self._check_effects()
        for row_id, instance in self.database.instances.items():
            self._check_history(row_id, instance)
        self._check_deliveries()
        self.mail.check()
        for client in self.life.clients:
            self._check_client(client)
        if not self.has_clock_steps:
            self._check_overlaps()
        return self.problems

    def _say(self, problem: str) -> None:
        self.problems.append(problem)

    def _note_instances(self) -> None:
        for row_id, instance in self.database.instances.items():
            for transition in instance.history:
                event = json.loads(transition.values["event"])
                if transition.values["kind"] == Kind.CLIENT:
                    self.steps_of[event["id"]].append((row_id, transition))
                elif transition.values["kind"] == Kind.INIT:
                    uid = json.loads(transition.values["context"])["uid"]
                    if uid in self.by_uid:
                        self._say(f"I2 instance {uid} was made twice")
                    self.by_uid[uid] = instance
                    self.uid_of[row_id] = uid
                    if transition.values["caused_by"] is None:
                        self.steps_of[uid].append((row_id, transition))

    # ------------------------------------------------------------------ effects

    def _check_effects(self) -> None:
        """I4: each effect has its transition, committed before, by the same server; none twice."""
        seen = set()
        for at, what, *details in self.life.world.diary:
            if what not in ("effect", "started"):
                continue
            process, aid, uid, k, name = details
            effect = f"effect {name} of step {k} of instance {uid}"
            if (uid, k, name) in seen:
                self._say(f"I4 {effect} happened twice")
            seen.add((uid, k, name))
            instance = self.by_uid.get(uid)
            found = [t for t in instance.history if t.seq == k] if instance else []
            if not found or found[0].at > at:
                self._say(f"I4 {effect} happened before its commit, at {at:.3f}")
            elif found[0].activation != (process, aid):
                self._say(f"I4 {effect} happened elsewhere than its commit")
            if what == "started":
                self.started[uid, name] = (process, aid)

    def _check_overlaps(self) -> None:
        """I9: services of one instance never run in two activations at a time."""
        running: dict[Uid, dict[str, Activation]] = defaultdict(dict)
        for at, what, *details in self.life.world.diary:
            if what == "started":
                process, aid, uid, _, name = details
                for other, activation in running[uid].items():
                    # One that a committed step has stopped may not have heard of it yet: its
                    # server may stand still.
                    is_stopped = self.left_at.get((uid, other), at) < at
                    if activation != (process, aid) and not is_stopped:
                        self._say(f"I9 services {other} and {name} of {uid} overlap at {at:.3f}")
                running[uid][name] = (process, aid)
            elif what == "ended":
                running[details[2]].pop(details[4], None)

    # ------------------------------------------------------------------ one history

    def _check_history(self, row_id: int, instance: Instance) -> None:
        name = f"instance {instance.slug} ({row_id})"
        history = instance.history
        if [t.seq for t in history] != list(range(1, len(history) + 1)):
            self._say(f"I1 {name}: seqs {[t.seq for t in history]}")
            return
        is_deleted = instance.values["status"] == DELETED
        if instance.values["seq"] != len(history) + is_deleted:
            self._say(f"I1 {name}: seq {instance.values['seq']} of {len(history)} transitions")
        for one, two in itertools.pairwise(history):
            if two.values["ts"] <= one.values["ts"]:
                self._say(f"I3 {name}: ts does not grow at {two.seq}")
        keys = [t.values["request_key"] for t in history if t.values["request_key"]]
        if len(keys) != len(set(keys)):
            self._say(f"I2 {name}: a request key was applied twice")
        for start, end in _not_running(instance):
            for t in history:
                if start < t.at < end:
                    self._say(f"I11 {name}: step {t.seq} while it was paused or deleted")
        self.upgrades.check_end(name, instance)
        self._replay(name, row_id, history)
        if not self.has_clock_steps:
            self._check_pace(name, history)

    def _replay(self, name: str, row_id: int, history: list[Transition]) -> None:
        """Compute the history again: each step starts from all that came before it."""
        context: Json = {}
        children: list[Json] = []
        waiting: dict[str, list[Place]] = defaultdict(list)  # what can be cancelled, by send id
        books = self.books[row_id]
        expected: dict[Place, Json] = {}
        hops = 0
        for before, t in zip([None, *history], history, strict=False):
            self.upgrades.check_version(name, self.database.instances[row_id], t, before)
            if t.values["kind"] in EXTERNAL and children:
                self._check_not_lost(name, row_id, t, children)
            step = self._step(t, context, children, before)
            if step.code not in (machine.CHANGED, machine.CHANGED_WITH_EFFECTS):
                self._say(f"P1 {name}: step {t.seq} could not happen on the state before it")
                return
            for child in children:
                if child not in step.children and t.values["kind"] != Kind.LOST_SERVICE:
                    self.left_at[self.uid_of[row_id], child["id"]] = t.at
            context, children = step.context, step.children
            if context != json.loads(t.values["context"]) or children != json.loads(t.children):
                self._say(f"P1 {name}: step {t.seq} was not computed on the state before it")
                return
            delivery_id = t.values["caused_by"]
            if t.values["kind"] in EXTERNAL:
                hops = 0
            if delivery_id is not None:
                self._replay_delivery(name, row_id, t, waiting)
                if delivery_id in self.database.books:
                    hops = self.database.books[delivery_id].values["hops"]
            self._replay_effects(name, t, step, waiting, expected, books)
            if step.effects:
                self.mail.check_hops(name, t, step, books, hops)
        for place, effect in expected.items():
            if place in books:
                self.mail.check_written(name, effect, books[place])
            elif effect["t"] != "done" or self.mail.has_parent(row_id, history[place[0] - 1].at):
                self._say(f"I7 {name}: the {effect['t']} of step {place} was never written")
        for place, book in books.items():
            if book.end == "" and place not in expected:
                self._say(f"I7 {name}: the delivery of step {place} should have ended")

    def _step(
        self, t: Transition, context: Json, children: list[Json], before: Transition | None
    ) -> machine.Step:
        """The step of a transition, computed anew."""
        if t.values["kind"] == Kind.UPGRADE and before is not None:
            return self.upgrades.step(t, context, before.values["version_id"])
        return versions.signed(self._plain_step(t, context, children), t.values["version_id"])

    def _plain_step(self, t: Transition, context: Json, children: list[Json]) -> machine.Step:
        event = json.loads(t.values["event"])
        kind = t.values["kind"]
        if kind == Kind.INIT:
            return self.mail.begin(t)
        if kind == Kind.LOST_SERVICE:
            return machine.lose_service(context, children, event["service"])
        if kind == Kind.SERVICE and "child" in event:
            return machine.end_service(context, children, event)
        auth = t.values["auth_context"]
        if kind == Kind.MESSAGE and "actorId" in event:
            return machine.hear(context, children, event, event["actorId"], auth)
        asks = kind in (Kind.CLIENT, Kind.MESSAGE)
        version = t.values["version_id"]
        return machine.take(
            context, children, event, asks=asks, auth=auth if asks else "", version=version
        )

    def _check_not_lost(self, name: str, row_id: int, t: Transition, children: list[Json]) -> None:
        for child in children:
            if self.started.get((self.uid_of[row_id], child["id"])) != t.activation:
                self._say(f"I6 {name}: step {t.seq} before the error event of {child['id']}")

    def _replay_delivery(
        self, name: str, row_id: int, t: Transition, waiting: dict[str, list[Place]]
    ) -> None:
        """A step that consumed a delivery."""
        delivery_id = t.values["caused_by"]
        if delivery_id in self.steps_by:
            self._say(f"I7 {name}: delivery {delivery_id} was consumed twice")
        self.steps_by[delivery_id] = row_id, t
        book = self.database.books.get(delivery_id)
        if book is None:
            self._say(f"I7 {name}: step {t.seq} by a delivery that nothing has made")
        elif t.values["kind"] == Kind.TIMER:
            place = (book.values["source_seq"], book.values["source_n"])
            if place not in waiting[book.values["send_id"]]:
                self._say(f"I7 {name}: step {t.seq} by a timer that was cancelled or fired before")
            else:
                waiting[book.values["send_id"]].remove(place)
        else:
            self.mail.check_step(name, t, book)

    def _replay_effects(
        self,
        name: str,
        t: Transition,
        step: machine.Step,
        waiting: dict[str, list[Place]],
        expected: dict[Place, Json],
        books: dict[Place, Delivered],
    ) -> None:
        """What a step has written and cancelled."""
        cause = self.database.books.get(t.values["caused_by"] or 0)
        fired = cause.values["send_id"] if cause is not None else None
        for n, effect in enumerate(step.effects):
            if effect["t"] == "rename":
                if self.upgrades.check_renamed(name, t, n, effect, waiting, books):
                    expected[t.seq, n] = effect
            elif effect["t"] != "cancel":
                expected[t.seq, n] = effect
                if effect["t"] == "timer":
                    waiting[effect["id"]].append((t.seq, n))
            elif effect["id"] != fired:
                cancelled = self._cancel_latest(name, t, waiting[effect["id"]], books)
                if cancelled is not None:
                    del expected[cancelled]

    def _cancel_latest(
        self,
        name: str,
        t: Transition,
        waiting: list[Place],
        books: dict[Place, Delivered],
    ) -> Place | None:
        """A step cancels the latest timer that still waits: others are consumed, dead or gone."""
        for place in reversed(waiting):
            book = books.get(place)
            if book is not None and book.ended_at is not None:
                if book.ended_at < t.at:
                    continue
                if book.end == "consumed" and book.ended_at == t.at:
                    is_ours = book.consumer == t.values["instance_id"]
                    if not is_ours or json.loads(book.values["event"])["type"] == "noop":
                        continue  # in the same batch, before this step
            if book is not None and book.end not in ("cancelled", "deleted"):
                self._say(f"I7 {name}: step {t.seq} did not cancel the timer of {place}")
            # Without a row: it was set and cancelled in one batch.
            waiting.remove(place)
            return place
        return None

    def _check_pace(self, name: str, history: list[Transition]) -> None:
        """A machine that wakes itself without end is slowed down."""
        times: dict[Activation, list[float]] = defaultdict(list)
        for t in history:
            if t.values["event"].startswith('{"type":"again"'):
                times[t.activation].append(t.at)
        most = SELF_MADE_A_SECOND + SELF_MADE_BY_A_STEP * self.has_clock_steps
        for steps in times.values():
            for n, at in enumerate(steps[most:]):
                if at - steps[n] < 1:
                    self._say(f"{name}: {most} steps made by itself in a second")
                    return

    # ------------------------------------------------------------------ deliveries

    def _check_deliveries(self) -> None:
        """I7, I8: each delivery is pending, consumed once, cancelled or dead; none is overdue."""
        now_ms = self.database.now_ms()
        for id_, book in self.database.books.items():
            values = book.values
            event = json.loads(values["event"])
            name = f"delivery {id_} ({event['type']}, of step {values['source_seq']})"
            row_id, step = self.steps_by.get(id_, (0, None))
            if step is not None and book.end != "consumed":
                self._say(f"I7 {name}: ended as {book.end or 'pending'}, with step {step.seq}")
            elif step is None and book.end == "consumed" and not self._changes_nothing(book):
                self._say(f"I7 {name}: was consumed without a step")
            if step is not None and (step.at != book.ended_at or row_id != book.consumer):
                self._say(f"I7 {name}: was consumed by another commit than that of its step")
            if step is not None and not self.has_clock_steps:
                early_ms = values["due_at"] - (START_MS + step.at * 1000)
                # One that was put off while another server had it may still come at its first time.
                last = id_, step.activation[0], len(book.failures) - 1
                has_failed_here = self.database.fails_answered[last]
                if early_ms > EARLY_MS and (has_failed_here or not book.failures):
                    self._say(f"{name}: fired {early_ms:.0f} ms too early")
            if book.end == "" and values["due_at"] < min(now_ms - OVERDUE_MS, HELD_MS):
                self._say(f"I8 {name}: overdue by {now_ms - values['due_at']} ms")

    def _changes_nothing(self, book: Delivered) -> bool:
        """Whether a delivery that was consumed without a transition had nothing to change."""
        event, auth = json.loads(book.values["event"]), book.values["auth_context"]
        history = self.database.instances[book.consumer].history
        before = [t for t in history if t.at < (book.ended_at or 0)]
        for t in [*before[-1:], *(t for t in history if t.at == book.ended_at)]:
            context, children = json.loads(t.values["context"]), json.loads(t.children)
            if book.values["kind"] == DeliveryKind.CHILD_DONE:
                step = machine.hear(context, children, event, event["id"], auth)
            else:
                asks = book.values["kind"] != DeliveryKind.TIMER
                step = _try(context, children, event, asks=asks)
            if step.code == machine.UNCHANGED:
                return True
        return False

    # ------------------------------------------------------------------ what clients were told

    def _check_client(self, client: Client) -> None:
        steps = self.steps_of.get(client.number, [])
        name = f"client {client.number} ({client.what} {client.slug})"
        # A request key belongs to an instance: another one of that name knows nothing of it.
        if len(steps) > len({row_id for row_id, _ in steps}):
            self._say(f"I2 {name}: applied {len(steps)} times")
        outcomes = {_told(request) for request in client.requests}
        errors = [str(request.error) for request in client.requests]
        if steps and not outcomes & {"ok", "unknown"}:
            self._say(f"P9 {name}: applied, and told {errors}")
        for request in client.requests:
            self._check_request(f"{name}, asked at {request.sent_at:.3f}", client, request, steps)
        if steps and not client.requests:
            self._say(f"I2 {name}: applied without being asked")

    def _check_request(
        self, name: str, client: Client, request: Request, steps: list[tuple[int, Transition]]
    ) -> None:
        if request.answers != 1:
            self._say(f"{name}: {request.answers} answers")
            return
        if client.what in ("pause", "resume", "delete", "desire"):
            return
        self.upgrades.check_request(name, client, request)
        if request.outcome == "ok":
            self._check_ok(name, client, request, steps)
        elif request.outcome == "error":
            self._check_error(name, client, request)

    def _check_ok(
        self, name: str, client: Client, request: Request, steps: list[tuple[int, Transition]]
    ) -> None:
        answered_at = request.answered_at or 0
        seqs: dict[int, int] = {}  # of its step, by instance
        if steps:
            first_sent = min(other.sent_at for other in client.requests)
            seqs = {id_: t.seq for id_, t in steps if first_sent <= t.at <= answered_at}
        # What changed nothing may do something later, when it is sent again to another instance.
        if not seqs and not any(
            self._take(client, t).code == machine.UNCHANGED for t in self._states(request)
        ):
            if steps:
                self._say(f"I2 {name}: answered before its commit at {steps[0][1].at:.3f}")
            else:
                self._say(f"I2 {name}: acknowledged, and not in the history")
        # By such a clock a living server can be taken for dead: it answers with what it knows. And
        # one that lost the database gives a repeated request the answer of the first one.
        is_lenient = self.has_clock_steps or request.is_replayed
        states = self._history(request) if is_lenient else self._states(request)
        if not any(
            t.values["ts"] == request.body["ts"]
            and json.loads(t.values["context"])["public"] == request.body["publicContext"]
            and t.seq >= seqs.get(t.values["instance_id"], 1)
            for t in states
        ):
            self._say(f"P8 {name}: answered with a state that was not there meanwhile")

    def _check_error(self, name: str, client: Client, request: Request) -> None:
        error = request.error
        kind = type(error).__name__
        is_fair = True
        if kind == "RejectedByAuthorizer":
            is_fair = any(
                self._take(client, t).code == machine.DENIED for t in self._states(request)
            )
        elif kind == "MachineThrew":
            is_fair = client.what == "throw"
        elif kind == "ContextTooLarge":
            is_fair = client.what == "big"
        elif kind == "MigrationFailed":
            is_fair = any(
                self.upgrades.may_fail(instance, request.sent_at, request.answered_at or 0)
                for instance in self._instances(client)
            )
        elif kind == "InstancePaused":
            is_fair = any(
                self._overlaps(request, start, end)
                for instance in self._instances(client)
                for start, end in _not_running(instance, PAUSED)
            )
        elif kind in ("InstanceNotFound", "InstanceDeleted"):
            is_fair = not any(
                born <= request.sent_at and died >= (request.answered_at or 0)
                for born, died in map(_lifetime, self._instances(client))
            )
        elif kind == "InstanceExists":
            is_fair = any(
                self._overlaps(request, born, died)
                for born, died in map(_lifetime, self._instances(client))
            )
        elif kind not in ("Unavailable", "OutcomeUnknown", "MachineOverLimit", "MailboxFull"):
            is_fair = False
        if not is_fair:
            self._say(f"P9 {name}: {error.status} {error}, without a reason")

    def _take(self, client: Client, t: Transition) -> machine.Step:
        event = {"type": client.what, "id": client.number, **client.event}
        context = json.loads(t.values["context"])
        return _try(context, json.loads(t.children), event, asks=True)

    def _instances(self, client: Client) -> Iterator[Instance]:
        for one in self.database.instances.values():
            if one.slug == client.slug and one.values["machine_id"] == client.machine_id:
                yield one

    def _history(self, request: Request) -> Iterator[Transition]:
        for instance in self._instances(request.client):
            yield from instance.history

    def _states(self, request: Request) -> Iterator[Transition]:
        """What was the latest at some moment between the request and its answer."""
        for instance in self._instances(request.client):
            history = instance.history
            for n, t in enumerate(history):
                until = history[n + 1].at if n + 1 < len(history) else self.end
                if self._overlaps(request, t.at, until):
                    yield t

    def _overlaps(self, request: Request, start: float, end: float) -> bool:
        return start <= (request.answered_at or self.end) and end >= request.sent_at


def _try(context: Json, children: list[Json], event: Json, *, asks: bool) -> machine.Step:
    """Which step an event would have led to; what kills its runner leads to none."""
    try:
        return machine.take(context, children, event, asks=asks)
    except machine.Kill:
        return machine.Step(machine.THREW)


def _told(request: Request) -> str:
    if request.outcome == "cut" or (request.outcome == "error" and request.error.status == 504):
        return "unknown"
    return request.outcome


def _lifetime(instance: Instance) -> tuple[float, float]:
    deaths = [at for at, status in instance.statuses if status == DELETED]
    return instance.history[0].at, deaths[0] if deaths else float("inf")


def _not_running(instance: Instance, *kinds: int) -> Iterator[tuple[float, float]]:
    """When it was paused and deleted: (from, to)."""
    since, was = 0.0, 0
    for at, status in [*instance.statuses, (float("inf"), -1)]:
        if was != status:
            if was and (not kinds or was in kinds):
                yield since, at
            since, was = at, status


def problems_of(life: Life) -> list[str]:
    return Checker(life).check()
