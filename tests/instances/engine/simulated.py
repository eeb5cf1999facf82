"""A world for the engine's core: virtual time, a store in memory and runners that are data.

All delays come from one seeded generator, so a run is repeated exactly by its seed. The simulated
machine counts; its events are:

  {"type": "inc"}            context.n + 1
  {"type": "noop"}           nothing
  {"type": "throw"}          throws while computing
  {"type": "deny"}           refused by allowWrite
  {"type": "act"}            n + 1 and a custom action after the commit
  {"type": "call"}           n + 1 and starts a service that ends by itself
  {"type": "hang-service"}   n + 1 and starts a service that never ends
  {"type": "after"}          n + 1 and sets a timer that sends inc
  {"type": "cancel"}         cancels that timer, n + 1
  {"type": "again"}          n + 1 and sets a timer for itself at once
  {"type": "to-self"}        n + 1 and sends itself the same event after the commit
  {"type": "kill"}           kills the runner each time
  {"type": "tell", "to": s, "event": e}   n + 1 and sends e to instance s; also "delay" and "id"
  {"type": "spawn", "as": s, "context": c}   n + 1 and creates instance s, known as "kid"
  {"type": "finish"}         n + 1 and comes to its end

What it got from other instances is in its context: {"heard": [[sender, event, …], …]}.

All its versions are the same. What migrations do is up to `SimulatedRunners.migrate`.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections.abc import Callable, Iterable
from typing import Any

from instances.engine.core import Engine
from instances.engine.errors import InstancePaused, Unavailable
from instances.engine.holding import HELD_MS, Resume
from instances.engine.messages import not_created
from instances.engine.operations import (
    SETTLED,
    Delivery,
    Kind,
    MessageRow,
    Operation,
    Outcome,
    Upgrade,
)
from instances.engine.store import DONE, InstanceRow, LogRow, MigrationRow, NoteRow
from instances.engine.timers import Timers

MESSAGES = {
    "L": "mount",
    "C": "create",
    "S": "event",
    "T": "timer",
    "N": "child_end",
    "V": "inbox",
    "O": "lost",
    "X": "describe",
    "U": "upgrade",
    "K": "committed",
    "D": "drop",
}


# Events that the machine refuses or does nothing about, also from other instances.
UNHEARD = ("noop", "throw", "deny", "kill")


class World:
    """Virtual time and everything that happens in it."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.time_ms = 1_700_000_000_000.0
        self._queue: list[tuple[float, int, Handle]] = []
        self._count = itertools.count()

    def call_in(self, delay_ms: float, callback: Callable[..., Any], *args: Any) -> Handle:
        handle = Handle(callback, args)
        heapq.heappush(self._queue, (self.time_ms + delay_ms, next(self._count), handle))
        return handle

    def run(self, for_ms: float = 300_000) -> None:
        """Let everything happen that happens within that time."""
        end_ms = self.time_ms + for_ms
        while self._queue and self._queue[0][0] <= end_ms:
            self.time_ms, _, handle = heapq.heappop(self._queue)
            if not handle.cancelled:
                handle.callback(*handle.args)
        self.time_ms = end_ms

    # The engine's clock.
    def now_ms(self) -> int:
        return int(self.time_ms)

    def monotonic(self) -> float:
        return self.time_ms / 1000

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Handle:
        return self.call_in(max(when * 1000 - self.time_ms, 0), callback, *args)


class Handle:
    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.callback, self.args, self.cancelled = callback, args, False

    def cancel(self) -> None:
        self.cancelled = True


class Answer:
    """A reply that remembers what it got, and when."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.body: Any = None
        self.error: Any = None
        self.at_ms: float | None = None
        self.count = 0

    def done(self) -> bool:
        return self.at_ms is not None

    def set_result(self, body: Any) -> None:
        self.body = json.loads(body) if isinstance(body, bytes) else body
        self._arrived()

    def set_exception(self, error: Any) -> None:
        self.error = error
        self._arrived()

    def _arrived(self) -> None:
        self.count += 1
        self.at_ms = self.world.time_ms

    @property
    def n(self) -> int:
        return int(self.body["publicContext"]["n"])


class MemoryStore:
    """The store's promises kept in dictionaries; each batch takes a random time to commit."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.has_other_writers = False
        self.node = "node"
        self.living: set[str] = set()  # nodes whose lease is valid; their ids are their addresses
        self.on_commit: Callable[[list[tuple[Operation, Outcome]]], Any]
        self.rows: dict[tuple[int, str], dict[str, Any]] = {}
        self.history: dict[int, list[dict[str, Any]]] = {}
        self.deliveries: dict[int, dict[str, Any]] = {}
        self.dead_letters: list[dict[str, Any]] = []
        self.logs: list[LogRow] = []
        self.notes: list[NoteRow] = []
        self.migrations: list[MigrationRow] = []
        self.failing = False
        self.ambiguous = False  # commits take place, and nobody hears of it
        self._waiting: list[Operation | Callable[[], None]] = []
        self._busy = False
        self._ids = itertools.count(1)

    def read(
        self, key: tuple[int, str], done: Callable[[InstanceRow | Exception | None], None]
    ) -> None:
        def look() -> None:
            row = self.rows.get(key)
            done(self._instance_row(row) if row else None)

        self.world.call_in(self.world.random.uniform(0, 2), look)

    def _instance_row(self, row: dict[str, Any]) -> InstanceRow:
        family = {k: row[k] for k in ("parent_id", "parent_child", "desired_version_id")}
        values = InstanceRow(**{k: row[k] for k in InstanceRow._fields[:9]}, **family)
        if not self.has_other_writers:
            return values
        owner = row["owner"]
        return values._replace(
            owner=owner,
            settle_deadline=row["settle_deadline"],
            owner_address=owner if owner in self.living else None,
        )

    def find_request_key(
        self, instance_id: int, request_key: str, done: Callable[[bool | Exception], None]
    ) -> None:
        def look() -> None:
            done(self._has_request_key(instance_id, request_key))

        self.world.call_in(self.world.random.uniform(0, 2), look)

    def _has_request_key(self, instance_id: int, request_key: str) -> bool:
        history = self.history.get(instance_id, [])
        return any(t["request_key"] == request_key for t in history)

    def find_due(
        self,
        key: tuple[int, str],
        now_ms: int,
        limit: int,
        done: Callable[[list[Delivery] | Exception], None],
    ) -> None:
        def look() -> None:
            due = [
                (d["due_at_ms"], d["seq"], d["n"], id_)
                for id_, d in self.deliveries.items()
                if d["key"] == key and d.get("kind") and d["due_at_ms"] <= now_ms
            ]
            row = self.rows.get(key)
            if due and row is not None and row["status"] == 1:
                for *_, id_ in due:
                    self.hold(id_)
                done(InstancePaused(f"{key[1]} is paused"))
            else:
                done([self._delivery(id_) for *_, id_ in sorted(due)[:limit]])

        self.world.call_in(self.world.random.uniform(0, 2), look)

    def find_machine(
        self, delivery_id: int, done: Callable[[int | Exception | None], None]
    ) -> None:
        self._task(lambda: None, done)

    def find_version(
        self, machine_id: int, version: str, done: Callable[[int | Exception | None], None]
    ) -> None:
        self._task(lambda: None if version else 1, done)

    def find_migrations(
        self, machine_id: int, done: Callable[[list[MigrationRow] | Exception], None]
    ) -> None:
        self.world.call_in(self.world.random.uniform(0, 2), lambda: done(self.migrations))

    def _delivery(self, id_: int) -> Delivery:
        d: dict[str, Any] = {"kind": 0, "send_id": None, "auth": "", "hops": 0, "source": None}
        d |= self.deliveries[id_]
        return Delivery(
            id_,
            d["kind"],
            d["key"],
            d["event"],
            d["due_at_ms"],
            d["attempts"],
            1,
            d["send_id"],
            d["auth"],
            d["hops"],
            d["source"],
        )

    def has_due(self, before_ms: int, now_ms: int) -> bool:
        return any(
            d["due_at_ms"] <= before_ms and not d["claimed"] for d in self.deliveries.values()
        )

    def is_stalled(self) -> bool:
        return False

    def put(self, operations: list[Operation]) -> None:
        self._waiting += operations
        self._next()

    def _next(self) -> None:
        if not self._busy and self._waiting:
            self._busy = True
            self.world.call_in(self.world.random.uniform(0.1, 3), self._commit)

    def _commit(self) -> None:
        batch, self._waiting = self._waiting, []
        outcomes = []
        tasks = []
        for item in batch:
            if isinstance(item, Operation):
                outcomes.append((item, self._commit_one(item)))
            else:
                tasks.append(item)
        self._busy = False
        for task in tasks:
            task()
        if outcomes:
            self.on_commit(outcomes)
        self._next()

    def _commit_one(self, operation: Operation) -> Outcome:
        activation = operation.activation
        if activation.dead:
            return Outcome.CONFLICT
        outcome = self._try_commit(operation)
        if outcome is not Outcome.COMMITTED:
            activation.dead = True
        return outcome

    def _try_commit(self, operation: Operation) -> Outcome:
        activation = operation.activation
        changes = operation.code in (0, 5)
        if self.failing:
            return Outcome.FAILED
        delivery = operation.delivery
        if delivery is not None and operation.code in (0, 1, 5):
            if delivery.id not in self.deliveries:
                return Outcome.GONE
        if not changes:
            row = self.rows.get(operation.key)
            if self.has_other_writers and row is not None:
                is_done = row["state"].endswith(DONE)
                if row["seq"] != operation.seq or (not is_done and self._is_barred(operation, row)):
                    return Outcome.CONFLICT
            if delivery is not None and operation.code == 1:
                del self.deliveries[delivery.id]
            return Outcome.COMMITTED
        row = self.rows.get(operation.key)
        if operation.kind is Kind.INIT:
            if row is not None:
                return Outcome.EXISTS
            activation.row_id = next(self._ids)
            creation = operation.creation
            row = self.rows[operation.key] = {
                "parent_id": creation.parent_id if creation else None,
                "parent_child": creation.child_id if creation else None,
                "id": activation.row_id,
                "version_id": activation.version_id,
                "desired_version_id": None,
                "status": 0,
            }
            self.history[activation.row_id] = []
        elif row is None or row["id"] != activation.row_id:
            return Outcome.DELETED
        elif row["status"] == 1:
            return Outcome.PAUSED
        elif row["seq"] != operation.seq - 1 or self._is_barred(operation, row):
            return Outcome.CONFLICT
        assert activation.row_id is not None
        history = self.history[activation.row_id]
        if operation.request_key and self._has_request_key(
            activation.row_id, operation.request_key
        ):
            return Outcome.DUPLICATE
        if delivery is not None:
            del self.deliveries[delivery.id]
        row.update(
            seq=operation.seq,
            ts=operation.ts,
            state=operation.state,
            extra=operation.extra,
            context=operation.context,
            children=operation.children,
            settle_deadline=operation.deadline_ms,
            owner=self.node,
        )
        history.append(
            {
                "seq": operation.seq,
                "kind": operation.kind,
                "event": operation.event,
                "ts": operation.ts,
                "request_key": operation.request_key,
                "commit_id": operation.commit_id,
                "version_id": activation.version_id,
            }
        )
        if isinstance(operation, Upgrade):
            row.update(version_id=activation.version_id, desired_version_id=None)
        self._write_effects(operation, activation.row_id)
        return Outcome.AMBIGUOUS if self.ambiguous else Outcome.COMMITTED

    def _is_barred(self, operation: Operation, row: dict[str, Any]) -> bool:
        """By the version that is desired."""
        desired_id = row["desired_version_id"]
        if operation.kind is Kind.UPGRADE:
            is_wanted = operation.activation.version_id == desired_id
            return operation.code == 0 and not (is_wanted and row["children"] == SETTLED)
        return operation.is_external and desired_id is not None and row["children"] == SETTLED

    def _write_effects(self, operation: Operation, row_id: int) -> None:
        operation.cancelled_ids = []
        for send_id in operation.cancels or ():
            found = [
                id_
                for id_, d in self.deliveries.items()
                if d["source"] == row_id and d["send_id"] == send_id
            ]
            if found:
                operation.cancelled_ids.append(max(found))
                del self.deliveries[max(found)]
        if isinstance(operation, Upgrade):
            self._rename(operation, row_id)
        for timer in operation.timers or ():
            timer.delivery_id = next(self._ids)
            self.deliveries[timer.delivery_id] = {
                "source": row_id,
                "key": operation.key,
                "kind": 0,
                "seq": operation.seq,
                "n": timer.n,
                "auth": "",
                "hops": timer.hops,
                "send_id": timer.send_id,
                "event": timer.event,
                "due_at_ms": timer.due_at_ms,
                "attempts": 0,
                "claimed": timer.due_at_ms < operation.created_at_ms + 1_000,
            }
        for message in operation.messages or ():
            message.key = self._target_of(message)
            if message.key is None:
                continue
            message.delivery_id = next(self._ids)
            sender = {"machineName": "counter", "machineInstanceName": operation.key[1]}
            self.deliveries[message.delivery_id] = {
                "source": row_id,
                "key": message.key,
                "kind": message.kind,
                "seq": operation.seq,
                "n": message.n,
                "auth": json.dumps({"stateBackedSender": sender}),
                "hops": message.hops,
                "send_id": message.send_id,
                "event": message.event,
                "due_at_ms": message.due_at_ms,
                "attempts": 0,
                "claimed": message.due_at_ms < operation.created_at_ms + 1_000,
            }

    def _rename(self, operation: Upgrade, row_id: int) -> None:
        assert operation.cancelled_ids is not None
        found = []
        for rename in operation.renames:
            ids = [
                id_
                for id_, d in self.deliveries.items()
                if d["source"] == row_id and d["send_id"] == rename.send_id and not d["kind"]
            ]
            if ids:
                found.append((rename, max(ids)))
        for rename, id_ in found:
            timer = self.deliveries.pop(id_)
            operation.cancelled_ids.append(id_)
            rename.delivery_id = next(self._ids)
            rename.due_at_ms, rename.attempts = timer["due_at_ms"], timer["attempts"]
            self.deliveries[rename.delivery_id] = {
                **timer,
                "seq": operation.seq,
                "n": rename.n,
                "send_id": rename.to,
                "event": rename.event,
                "claimed": timer["due_at_ms"] < operation.created_at_ms + 1_000,
            }

    def _target_of(self, message: MessageRow) -> tuple[int, str] | None:
        if message.parent_id:
            keys = (key for key, row in self.rows.items() if row["id"] == message.parent_id)
            return next(keys, None)
        return (1 if message.machine == "counter" else 0, message.slug)

    def _task(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self._waiting.append(lambda: done(work()))
        self._next()

    def set_status(
        self,
        instance_id: int,
        status: int,
        done: Callable[[bool | None], None],
        timers: Resume = Resume.ORIGINAL,
    ) -> None:
        def work() -> bool:
            for key, row in self.rows.items():
                if row["id"] == instance_id:
                    row["status"] = status
                    for d in self.deliveries.values():
                        if d["key"] == key and status == 1 and d["due_at_ms"] < HELD_MS:
                            d["due_at_ms"] += HELD_MS
                        elif d["key"] == key and status == 0 and d["due_at_ms"] >= HELD_MS:
                            d.update(claimed=False, due_at_ms=d["due_at_ms"] - HELD_MS)
                    return True
            return False

        self._task(work, done)

    def delete(self, instance_id: int, done: Callable[[bool | None], None]) -> None:
        def work() -> bool:
            for key, row in list(self.rows.items()):
                if row["id"] == instance_id:
                    del self.rows[key]
                    self.deliveries = {i: d for i, d in self.deliveries.items() if d["key"] != key}
                    return True
            return False

        self._task(work, done)

    def release(self, instance_id: int, seq: int) -> None:
        def work() -> None:
            for row in self.rows.values():
                if row["id"] == instance_id and row["seq"] == seq:
                    row["settle_deadline"] = None

        self._task(work, lambda result: None)

    def claim_due(self, before_ms: int, limit: int, done: Callable[[list[Delivery]], None]) -> None:
        def work() -> list[Delivery]:
            due = sorted(
                (d["due_at_ms"], id_)
                for id_, d in self.deliveries.items()
                if d["due_at_ms"] <= before_ms and not d["claimed"]
            )[:limit]
            claimed = []
            for _, id_ in due:
                self.deliveries[id_]["claimed"] = True
                claimed.append(self._delivery(id_))
            return claimed

        self._task(work, done)

    def renew_claims(self, delivery_ids: Iterable[int]) -> None:
        pass

    def postpone(self, delivery_id: int, due_at_ms: int) -> None:
        row = self.deliveries.get(delivery_id)
        if row is not None and row["due_at_ms"] < HELD_MS:
            row.update(claimed=False, due_at_ms=due_at_ms)

    def hold(self, delivery_id: int) -> None:
        row = self.deliveries.get(delivery_id)
        if row is not None and row["due_at_ms"] < HELD_MS:
            target = self.rows.get(row["key"])
            is_paused = target is not None and target["status"] == 1
            row.update(claimed=False, due_at_ms=row["due_at_ms"] + HELD_MS * is_paused)

    def fail(self, delivery: Delivery, error: str, done: Callable[[], None] = lambda: None) -> None:
        self._task(lambda: self._fail(delivery, error), lambda result: done())

    def _fail(self, delivery: Delivery, error: str) -> None:
        row = self.deliveries.get(delivery.id)
        if row is None or row["attempts"] != delivery.attempts:
            return
        row["attempts"] += 1
        if row["attempts"] >= 5:
            del self.deliveries[delivery.id]
            self.dead_letters.append({**row, "reason": error})
            parents = [k for k, r in self.rows.items() if r["id"] == row["source"]]
            if event := not_created(delivery, error) if parents else "":
                told = {"key": parents[0], "kind": 3, "event": event, "source": None, "attempts": 0}
                due = {"due_at_ms": self.world.now_ms(), "claimed": False, "seq": 0}
                self.deliveries[next(self._ids)] = {**row, **told, **due}
        elif row["due_at_ms"] < HELD_MS:
            row.update(claimed=False, due_at_ms=self.world.now_ms() + 30_000)

    def log(self, rows: list[LogRow]) -> None:
        self.logs += rows

    def note(self, rows: list[NoteRow]) -> None:
        self.notes += rows


class SimulatedRunner:
    """Speaks the runner protocol (docs/runner-protocol.md) for the counting machine."""

    def __init__(self, world: World, runners: SimulatedRunners, version_id: int) -> None:
        self.world, self.runners, self.version_id = world, runners, version_id
        self.retiring = False
        self.xstate_major = 5
        self.waiting: Callable[[], bool] = lambda: False
        self.alive = True
        self.live: dict[str, dict[str, Any]] = {}
        self._free_at_ms = 0.0
        self._out: list[bytes] = []

    # what the engine calls
    def send(self, line: bytes) -> None:
        self._free_at_ms = max(self._free_at_ms, self.world.time_ms)
        self._free_at_ms += self.world.random.uniform(0.05, 1)
        self.world.call_in(self._free_at_ms - self.world.time_ms, self._take, line)

    def kill(self, reason: str) -> None:
        if self.alive:
            self.alive = False
            self.runners.died(self, reason)

    # the program
    def _take(self, line: bytes) -> None:
        if not self.alive:
            return
        fields = line.decode().rstrip("\n").split("\t")
        getattr(self, "_on_" + MESSAGES[fields[0]])(*fields[1:])

    def _say(self, *fields: str) -> None:
        line = "\t".join(fields).encode()
        self.world.call_in(0.05, self._deliver, line)

    def _deliver(self, line: bytes) -> None:
        if self.alive:
            self.runners.engine.on_lines(self, [line])

    def _on_mount(
        self, aid: str, slug: str, state: str, extra: str, context: str, children: str
    ) -> None:
        self.live[aid] = {
            "context": json.loads(context),
            "children": json.loads(children),
            "held": None,
            "inbox": {},
            "is_done": state.endswith(DONE),
        }

    def _on_create(
        self, aid: str, rid: str, slug: str, context: str, auth: str, parent: str
    ) -> None:
        given = json.loads(context)
        self.live[aid] = {
            "context": {"public": {"n": 0}, **given},
            "children": [],
            "held": None,
            "inbox": {},
            "is_done": False,
        }
        if given.get("start") == "deny":
            self._say(rid, "2", "", "", "", "", "", "", "", "1")
            return
        self._step(aid, rid, {"type": given.get("start", "init")}, changed=True)

    def _on_event(self, aid: str, rid: str, event: str, auth: str) -> None:
        def step() -> None:
            told = json.loads(event)
            sender = json.loads(auth).get("stateBackedSender")
            if sender is not None and told["type"] not in UNHEARD:
                heard = [sender["machineInstanceName"], told]
                live = self.live[aid]["context"]
                live["heard"] = [*live.get("heard", []), heard]
            self._event(aid, rid, told)

        self._held_or(aid, step, rid)

    def _on_child_end(self, aid: str, rid: str, event: str, child: str, auth: str) -> None:
        self._on_event(aid, rid, event, auth)

    def _on_timer(self, aid: str, rid: str, event: str) -> None:
        self._held_or(aid, lambda: self._event(aid, rid, json.loads(event)), rid)

    def _on_inbox(self, aid: str, rid: str, n: str) -> None:
        def step() -> None:
            event = self.live[aid]["inbox"].pop(n)
            live = self.live[aid]
            live["children"] = [c for c in live["children"] if c["id"] != event.get("child")]
            self._step(aid, rid, {"type": "to-self" if "again" in event else "inc"})

        self._held_or(aid, step, rid)

    def _on_lost(self, aid: str, rid: str, child: str) -> None:
        def step() -> None:
            live = self.live[aid]
            live["children"] = [c for c in live["children"] if c["id"] != json.loads(child)]
            live["context"]["lost"] = live["context"].get("lost", 0) + 1
            self._step(aid, rid, {"type": "lost"}, changed=True)

        self._held_or(aid, step, rid)

    def _held_or(self, aid: str, step: Callable[[], None], rid: str) -> None:
        live = self.live.get(aid)
        if live is None:
            self._say(rid, "4", "", "", "", "", "", "", "", "0")
        elif live["held"] is not None:
            live["held"].append(step)
        else:
            step()

    def _event(self, aid: str, rid: str, event: dict[str, Any]) -> None:
        kind = event["type"]
        live = self.live[aid]
        if kind == "kill":
            self.kill("cpu")
        elif kind == "deny":
            self._say(rid, "2", "", "", "", "", "", "", "", "1")
        elif kind == "throw":
            error = json.dumps({"name": "Error", "message": "no", "stack": "at x"})
            self._say(rid, "3", error, "", "", "", "", "", "", "1")
        elif kind == "noop":
            self._say(rid, "1", self._state(live), "", "", self._public(live), "", "", "", "1")
        else:
            self._step(aid, rid, event)

    def _state(self, live: dict[str, Any]) -> str:
        return f'{{"state":"counting","tags":[],"done":{json.dumps(live["is_done"])}}}'

    def _public(self, live: dict[str, Any]) -> str:
        return json.dumps(live["context"]["public"])

    def _step(self, aid: str, rid: str, event: dict[str, Any], changed: bool = False) -> None:
        live = self.live[aid]
        kind = event["type"]
        if not changed:
            live["context"]["public"]["n"] += 1
        effects = ""
        after: list[Callable[[], None]] = []
        if kind == "after":
            timer = {"t": "timer", "id": "t", "delay": event.get("ms", 500)}
            effects = json.dumps([{**timer, "event": {"type": event.get("then", "inc")}}])
        elif kind == "again":
            timer = {"t": "timer", "id": "again", "delay": 0, "event": {"type": "again"}}
            effects = json.dumps([timer])
        elif kind == "cancel":
            effects = json.dumps([{"t": "cancel", "id": "t"}])
        elif kind == "tell":
            to = {
                "machineName": event.get("machine", "counter"),
                "machineInstanceName": event["to"],
            }
            sent = [{"t": "send", "to": to, "event": event["event"]}] * event.get("times", 1)
            if "delay" in event:
                timed = {"t": "timer", "id": event.get("id", "m"), "delay": event["delay"]}
                sent = [{**timed, "to": to, "event": event["event"]}]
            effects = json.dumps(sent)
        elif kind == "pong":
            left = event["left"] - 1
            to = {"machineName": "counter", "machineInstanceName": event["from"]}
            told = {"type": "pong", "from": event["to"], "to": event["from"], "left": left}
            effects = json.dumps([{"t": "send", "to": to, "event": told}]) if left else ""
        elif kind == "spawn":
            src = {"machineName": "counter", "machineInstanceName": event["as"]}
            spawn = {"t": "spawn", "id": "kid", "src": src, "input": event.get("context", {})}
            greeting = {"t": "send", "to": src, "event": {"type": "inc"}}
            effects = json.dumps([spawn, greeting])
        elif kind == "finish":
            live["is_done"] = True
            effects = json.dumps([{"t": "done", "output": {"n": live["context"]["public"]["n"]}}])
        elif kind == "act":
            after.append(lambda: self.runners.effects.append((aid, "act")))
        elif kind == "to-self":
            after.append(lambda: self._send_to_self(aid))
        elif kind in ("call", "hang-service"):
            child = f"{kind}-{self.runners.next_service()}"
            live["children"] = [*live["children"], {"id": child, "src": kind}]
            after.append(lambda: self._start_service(aid, child, kind))
        if "big" in event:
            live["context"]["big"] = "x" * event["big"]
        code = "5" if after else "0"
        if after:
            live["held"] = []
            live["after"] = after
        self._say(
            rid,
            code,
            self._state(live),
            "",
            json.dumps(live["context"]),
            self._public(live),
            json.dumps(live["children"]).replace(" ", "") if live["children"] else "[]",
            effects,
            "",
            "7",
        )

    def _send_to_self(self, aid: str) -> None:
        n = str(self.runners.next_service())
        self.live[aid]["inbox"][n] = {"again": True}
        self._say("E", aid, n, "", '{"type":"to-self"}')

    def _start_service(self, aid: str, child: str, kind: str) -> None:
        self.runners.started.append(child)
        if kind == "call":
            self.world.call_in(self.world.random.uniform(1, 50), self._end_service, aid, child)

    def _end_service(self, aid: str, child: str) -> None:
        live = self.live.get(aid)
        if self.alive and live is not None:
            n = str(self.runners.next_service())
            live["inbox"][n] = {"child": child}
            self._say("E", aid, n, json.dumps(child), '{"type":"done.invoke"}')

    def _on_committed(self, aid: str) -> None:
        live = self.live.get(aid)
        if live is None:
            return
        for effect in live.pop("after", ()):
            effect()
        self._say("K", aid, str(len(live["children"])))
        held, live["held"] = live["held"] or [], None
        for i, step in enumerate(held):
            if live["held"] is not None:
                live["held"] += held[i:]
                break
            step()

    def _on_describe(self, aid: str, rid: str) -> None:
        self.runners.asked.append(("X", self.version_id))
        if self.runners.kills_describer():
            self.kill("cpu")
        elif aid in self.live:
            self._say(rid, "0", '{"leaves":[["counting"]]}')
        else:
            self._say(rid, "4")

    def _on_upgrade(
        self, aid: str, rid: str, slug: str, path: str, description: str, context: str
    ) -> None:
        self.runners.asked.append(("U", self.version_id))
        assert json.loads(description) == {"leaves": [["counting"]]}
        try:
            upgraded, effects = self.runners.migrate(json.loads(path), json.loads(context))
        except Kills:
            self.kill("cpu")
            return
        except Throws as error:
            told = json.dumps({"name": "Error", "message": str(error)})
            self._say(rid, "3", told, "", "", "", "", "", "", "1")
            return
        live = self.live[aid] = {
            "context": upgraded,
            "children": [],
            "held": None,
            "inbox": {},
            "is_done": False,
        }
        self._say(
            rid,
            "0",
            self._state(live),
            "",
            json.dumps(upgraded),
            self._public(live),
            "[]",
            json.dumps(effects) if effects else "",
            "",
            "7",
        )

    def _on_drop(self, aid: str) -> None:
        self.live.pop(aid, None)


class Throws(Exception):
    """What a migration may raise."""


class Kills(Exception):
    """A migration that does not end."""


def migrate(path: list[int], context: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """What migrations do if nothing else is said: context and effects afterwards."""
    return {**context, "upgrades": [*context.get("upgrades", ()), *path]}, []


class SimulatedRunners:
    def __init__(self, world: World) -> None:
        self.migrate = migrate
        self.kills_describer: Callable[[], bool] = lambda: False
        self.asked: list[tuple[str, int]] = []  # X or U, and the version
        self.world = world
        self.engine: Engine
        self.current: dict[int, SimulatedRunner] = {}
        self.effects: list[tuple[str, str]] = []
        self.started: list[str] = []
        self.deaths = 0
        self._services = itertools.count(1)

    def next_service(self) -> int:
        return next(self._services)

    def acquire(self, version_id: int, ready: Callable[..., None]) -> None:
        runner = self.current.get(version_id)
        if runner is not None:
            ready(runner, None)
            return

        def started() -> None:
            runner = self.current.get(version_id)
            if runner is None:
                runner = SimulatedRunner(self.world, self, version_id)
                self.current[version_id] = runner
            ready(runner, None)

        self.world.call_in(self.world.random.uniform(5, 30), started)

    def acquire_upgrader(
        self, version_id: int, migration_ids: tuple[int, ...], ready: Callable[..., None]
    ) -> None:
        delay_ms = self.world.random.uniform(1, 20)  # their code is read and loaded
        self.world.call_in(delay_ms, self.acquire, version_id, ready)

    def release(self, runner: Any) -> None:
        runner.kill("released")

    def died(self, runner: SimulatedRunner, reason: str) -> None:
        self.deaths += 1
        if self.current.get(runner.version_id) is runner:
            del self.current[runner.version_id]
        self.world.call_in(1, self.engine.on_exit, runner, reason)


class Site:
    """An engine with everything around it simulated."""

    def __init__(
        self, seed: int = 0, *, settle_limit_ms: int = 90_000, world: World | None = None
    ) -> None:
        self.world = world or World(seed)
        self.store = MemoryStore(self.world)
        self.settle_limit_ms = settle_limit_ms
        self.start()

    def start(self) -> None:
        """A new process on the same database."""
        self.runners = SimulatedRunners(self.world)
        self.timers = Timers(self.store, self.world, lambda d: self.engine.deliver(d))
        self.engine = Engine(
            self.store,
            self.runners,
            self.world,
            settle_limit_ms=self.settle_limit_ms,
            on_timers=self.timers.add,
            on_cancelled=self.timers.forget,
            on_delivered=self.timers.delivered,
        )
        self.runners.engine = self.engine
        self.store.on_commit = self.engine.on_commit
        for delivery in self.store.deliveries.values():
            delivery["claimed"] = False
        self.timers.start()

    def create(self, slug: str = "a", key: str | None = None, **context: Any) -> Answer:
        answer = Answer(self.world)
        self.engine.create((1, slug), 1, json.dumps(context), '{"sub":"u"}', answer, key)
        return answer

    def send(self, type_: str, slug: str = "a", key: str | None = None, **event: Any) -> Answer:
        answer = Answer(self.world)
        body = json.dumps({"type": type_, **event})
        self.engine.send((1, slug), body, '{"sub":"u"}', answer, key)
        return answer

    def created(self, slug: str = "a", **context: Any) -> Answer:
        answer = self.create(slug, **context)
        self.world.run(1_000)
        assert answer.body is not None, answer.error
        return answer

    def add_migration(self, from_version: int, to_version: int) -> None:
        id_ = len(self.store.migrations) + 1
        names = f"ver_{from_version}", f"ver_{to_version}"
        self.store.migrations.append(MigrationRow(id_, from_version, to_version, *names))

    def desire(self, version: int | None, slug: str = "a", *, tells: bool = True) -> None:
        """Set the desired version; without `tells` as if on another node, without news."""
        self.row(slug)["desired_version_id"] = version
        if tells:
            self.engine.reload((1, slug))

    def row(self, slug: str = "a") -> dict[str, Any]:
        return self.store.rows[1, slug]

    def history(self, slug: str = "a") -> list[dict[str, Any]]:
        return self.store.history[self.row(slug)["id"]]

    def n(self, slug: str = "a") -> int:
        return int(json.loads(self.row(slug)["context"])["public"]["n"])


class Cluster:
    """Some nodes on one database: what one commits, the others find."""

    def __init__(self, seed: int = 0, count: int = 2) -> None:
        self.world = World(seed)
        self.nodes = [Site(world=self.world) for _ in range(count)]
        first = self.nodes[0].store
        self.living = {f"node-{number}" for number in range(count)}
        for number, site in enumerate(self.nodes):
            store = site.store
            store.has_other_writers = True
            store.node = f"node-{number}"
            store.living = self.living
            store.rows, store.history = first.rows, first.history
            store.deliveries, store._ids = first.deliveries, first._ids
            store.migrations = first.migrations
            site.start()
            site.engine.elsewhere.forward = self._forward_from(site)

    def _forward_from(self, sender: Site) -> Callable[[Operation, str], None]:
        def forward(operation: Operation, address: str) -> None:
            def arrive() -> None:
                if address not in self.living:
                    error = Unavailable("the node can't be reached")
                    sender.engine.forwarding_failed(operation, error)
                    return
                receiver = next(site for site in self.nodes if site.store.node == address)
                if receiver.engine.elsewhere.is_to_move(operation.key):
                    sender.engine.elsewhere.take_over(operation.key)
                receiver.engine.take_forwarded(
                    Operation(
                        operation.kind,
                        operation.key,
                        operation.event,
                        operation.auth,
                        _Returned(self.world, sender, operation),
                        request_key=operation.request_key,
                        delivery=operation.delivery,
                    )
                )

            self.world.call_in(self.world.random.uniform(0.2, 3), arrive)

        return forward

    def kill(self, number: int) -> None:
        """The process ends with all that it knows; its lease ends a while later."""
        dead = self.nodes[number]
        dead.store.on_commit = lambda outcomes: None
        dead.engine.suspend()
        dead.engine.store = MemoryStore(self.world)
        for runner in list(dead.engine.links):
            runner.kill("killed")
        self.world.call_in(10_000, self.living.discard, f"node-{number}")


class _Returned:
    """The way of an answer back to the node that forwarded the operation."""

    def __init__(self, world: World, sender: Site, operation: Operation) -> None:
        self.world, self.sender, self.operation = world, sender, operation
        self._is_done = False

    def done(self) -> bool:
        return self._is_done

    def set_result(self, body: Any) -> None:
        self._is_done = True
        self.world.call_in(1, self.sender.engine.forwarded, self.operation, body)

    def set_exception(self, error: Any) -> None:
        self._is_done = True
        self.world.call_in(1, self.sender.engine.forwarding_failed, self.operation, error)
