"""The database that the simulated servers share: tables in memory, one method for each statement.

A statement takes place at one moment, as a whole. What a batch does follows its Plan and means what
the SQL of `postgres_sql.py` means; the conditions that safety rests on are looked for in that text,
so that a statement which has lost one behaves like it. Everything that happens to rows is kept for
the checker, with the moment at which it happened.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from instances.engine import membership
from instances.engine.holding import HELD_MS, Resume, planned_ms
from instances.engine.operations import DeliveryKind
from instances.engine.plan import DUE_COLUMNS, HISTORY_COLUMNS, INSTANCE_COLUMNS, Plan
from instances.engine.postgres_sql import LEASE_FAR_MS
from tests.instances.engine.simulation import versions
from tests.instances.engine.simulation.clock import START_MS, World

Row = tuple[bytes | None, ...]
Key = tuple[int, str]

HISTORY = [name.strip() for name in HISTORY_COLUMNS.split(",")]
INSTANCE = [name.strip() for name in INSTANCE_COLUMNS.split(",")]
DUE = [name.strip() for name in DUE_COLUMNS.split(",")]

MACHINE, VERSION = 1, 1
MACHINE_NAME = "counter"
LATE, LATE_NAME = 2, "late"  # a machine that there is not from the beginning

RUNNING, PAUSED, DELETED = 0, 1, 2


@dataclass(slots=True)
class Transition:
    """A row of the history, and what the checker wants to know besides."""

    values: dict[str, Any]
    at: float
    node: str
    activation: tuple[int, str]  # that computed it: number of its process, and its id there
    children: str

    @property
    def seq(self) -> int:
        return int(self.values["seq"])


@dataclass(slots=True)
class Desire:
    """Somebody has set the desired version of an instance."""

    at: float
    version: int | None
    acknowledged_at: float = float("inf")


@dataclass(slots=True)
class Instance:
    values: dict[str, Any]
    history: list[Transition] = field(default_factory=list)
    # (seconds, status): when it was paused, resumed, deleted.
    statuses: list[tuple[float, int]] = field(default_factory=list)
    slug: str = ""  # that it was made under
    machine: str = ""
    desires: list[Desire] = field(default_factory=list)


@dataclass(slots=True)
class Delivered:
    """What became of a delivery, from its creation on."""

    values: dict[str, Any]
    created_at: float
    planned_ms: int  # its due time at first
    ended_at: float | None = None
    end: str = ""  # consumed, cancelled, dead or deleted
    consumer: int = 0  # the row of the instance that consumed it
    failures: list[tuple[float, str]] = field(default_factory=list)  # attempts that counted
    failed_held: bool = False  # one was to be counted when a pause held it already, and was not


class Refusal(Exception):
    """The database answers with an error."""


class Database:
    def __init__(self, world: World) -> None:
        self.world = world
        self.offset_ms = 0.0  # what was done to its clock
        self.identity = b"1/00000001"
        self.is_full = False
        self.lingering: list[Any] = []  # statements that nobody hears any more
        self.instances: dict[int, Instance] = {}
        self.names: dict[Key, int] = {}
        self.keys: set[tuple[int, str]] = set()  # request keys: (instance, key)
        self.deliveries: dict[int, dict[str, Any]] = {}
        self.books: dict[int, Delivered] = {}  # of all deliveries that there ever were
        self.nodes: dict[str, list[Any]] = {}  # id: [address, lease until]
        # Attempts that a server wanted to be counted, and of which it knows that they were, or came
        # too late: by delivery, process and the attempts before.
        self.fails_begun: Counter[tuple[int, int, int]] = Counter()
        self.fails_answered: Counter[tuple[int, int, int]] = Counter()
        self.machines = {MACHINE_NAME: MACHINE}
        self.late_from = float("inf")
        self.on_spawned: Callable[[str], None] = lambda slug: None
        self._next_id = {"instance": 1, "delivery": 1}

    def publish_late(self) -> None:
        """From now on there is another machine."""
        self.machines[LATE_NAME] = LATE
        self.late_from = self.world.time

    def machines_at(self, at: float) -> set[str]:
        return {name for name in self.machines if name != LATE_NAME or at >= self.late_from}

    def now_ms(self) -> int:
        return int(START_MS + self.world.time * 1000 + self.offset_ms)

    def run(self, statement: str, text: str, parameters: tuple[Any, ...]) -> list[Row]:
        """Raises Refusal."""
        method = getattr(self, f"_do_{statement}", None)
        assert method is not None, f"the simulated database does not know {statement}"
        rows: list[Row] = method(text, *parameters)
        return rows

    # ------------------------------------------------------------------ batches of steps

    def _do_batch(self, text: str, batch: Plan) -> list[Row]:
        """See `postgres_sql.BATCH`."""
        if self.is_full:
            raise Refusal("no space left on device")
        checks_seq = "t.seq = x.base" in text
        checks_status = "t.status = 0" in text
        checks_deliveries = "t.id NOT IN (SELECT row_id FROM lacking)" in text
        bars_steps = "x.version <> 0 OR t.desired_version_id IS NULL" in text
        bars_refusals = "x.is_inner <> 0 OR t.desired_version_id IS NULL" in text
        bars_upgrades = "t.desired_version_id = x.version" in text
        bars_unsettled = "t.desired_version_id = x.version AND t.children = '[]'" in text
        existing = {id_ for _, id_ in batch.consumed if id_ in self.deliveries}
        lacking: set[Any] = set()
        if checks_deliveries:
            lacking = {a.row_id for a, id_ in batch.consumed if id_ not in existing}
        moved = []
        for activation, (last, base) in batch.updates.items():
            instance = self.instances.get(activation.row_id or 0)
            if instance is None or activation.row_id in lacking:
                continue
            values = instance.values
            if checks_seq and values["seq"] != base:
                continue
            if checks_status and values["status"] != RUNNING:
                continue
            desired, is_settled = values["desired_version_id"], values["children"] == "[]"
            version = batch.wanted_version(activation)
            if bars_steps and version == 0 and desired is not None and is_settled:
                continue
            if bars_upgrades and version > 0 and desired != version:
                continue
            if bars_unsettled and version > 0 and not is_settled:
                continue
            self._check_keys(batch, activation.row_id)
            moved.append((instance, activation, last))
        made = []
        given = set()  # names
        activations = {activation.row_id: activation for activation in batch.made}
        checks_spawns = "NOT IN (SELECT row_id FROM lacking)\n ORDER BY" in text
        for row in batch.inserts:
            key = row[INSTANCE.index("machine_id")], row[INSTANCE.index("slug")]
            is_lacking = row[0] in lacking and checks_spawns
            if not is_lacking and key not in self.names and key not in given:
                given.add(key)
                made.append((row, activations[row[0]]))
        done = {}
        for activation, seq in batch.confirms.items():
            if activation in batch.updates:
                continue
            instance = self.instances.get(activation.row_id or 0)
            if instance is None or activation.row_id in lacking:
                continue
            values = instance.values
            is_barred = (
                bars_refusals
                and activation not in batch.inner
                and values["desired_version_id"] is not None
                and values["children"] == "[]"
                and not values["state"].endswith('"done":true}')
            )
            if values["seq"] == seq and values["status"] == RUNNING and not is_barred:
                done[activation.row_id] = activation
        # From here on nothing is refused any more.
        for instance, activation, last in moved:
            done[activation.row_id] = activation
            instance.values.update(
                seq=last.seq,
                ts=last.ts,
                state=last.state,
                extra=last.extra,
                context=last.context,
                children=last.children,
                settle_deadline=last.deadline_ms,
                owner=batch.node,
            )
            if activation in batch.upgrades:
                instance.values["version_id"] = activation.version_id
                if "desired_version_id = CASE" in text:
                    instance.values["desired_version_id"] = None
        for row, activation in made:
            values = dict(zip(INSTANCE, row, strict=True))
            values.update(status=RUNNING, seq=1, owner=batch.node, desired_version_id=None)
            done[values["id"]] = activation
            machine = self._machine_name(values["machine_id"])
            self.instances[values["id"]] = Instance(values, slug=values["slug"], machine=machine)
            self.names[values["machine_id"], values["slug"]] = values["id"]
            if values["parent_id"]:
                self.on_spawned(values["slug"])
        self._add_history(batch, done)
        used = set()
        for activation, id_ in batch.consumed:
            if activation.row_id in done and id_ in existing:
                used.add(id_)
                self.books[id_].consumer = activation.row_id or 0
                self._end_delivery(id_, "consumed")
        cancelled = self._cancel(text, batch, done, used if "FROM used" in text else existing)
        cancelled += self._rename(text, batch, done)
        written = self._add_deliveries(batch, done)
        return [(b"0", _bytes(id_), None, None) for id_ in done] + cancelled + written

    _do_batch_with_upgrades = _do_batch

    def _check_keys(self, batch: Plan, row_id: int | None) -> None:
        column = HISTORY.index("request_key")
        new: set[str] = set()
        for row in batch.history:
            key = row[column]
            if row[0] == row_id and key is not None:
                if key in new or (row_id, key) in self.keys:
                    raise Refusal("duplicate key value violates unique constraint")
                new.add(key)

    def _add_history(self, batch: Plan, done: dict[Any, Any]) -> None:
        world = self.world
        children = {
            op.commit_id: op.children for op, _ in batch.outcomes if hasattr(op, "children")
        }
        for row in batch.history:
            values = dict(zip(HISTORY, row, strict=True))
            id_ = values["instance_id"]
            if id_ not in done:
                continue
            transition = Transition(
                values,
                world.time,
                batch.node,
                (done[id_].link.process.pool.node.process.number, done[id_].aid),
                children[values["commit_id"]],
            )
            instance = self.instances[id_]
            instance.history.append(transition)
            if values["request_key"]:
                self.keys.add((id_, values["request_key"]))
            world.note(
                "commit", batch.node, instance.slug, id_, values["seq"], int(values["kind"]),
                values["event"],
            )  # fmt: skip

    def _cancel(
        self, text: str, batch: Plan, done: dict[Any, Any], consumed: set[int]
    ) -> list[Row]:
        found: list[Row] = []
        for operation, send_id in batch.cancels:
            row_id = operation.activation.row_id
            if row_id not in done:
                continue
            found_here = [
                (delivery["source_seq"], delivery["source_n"], id_)
                for id_, delivery in self.deliveries.items()
                if delivery["source_id"] == row_id
                and delivery["send_id"] == send_id
                and id_ not in consumed
            ]
            if found_here:
                latest = max(found_here)[2]
                if "max(e.id)" in text:
                    latest = max(id_ for _, _, id_ in found_here)
                self._end_delivery(latest, "cancelled")
                found.append((b"1", _bytes(row_id), _bytes(latest), send_id.encode()))
        return found

    def _rename(self, text: str, batch: Plan, done: dict[Any, Any]) -> list[Row]:
        """Timers that go on under other names: all are found before any is changed."""
        found = []
        for operation, rename in batch.renames:
            row_id = operation.activation.row_id
            places = [
                (d["source_seq"], d["source_n"], id_)
                for id_, d in self.deliveries.items()
                if (d["source_id"], d["send_id"], d["kind"]) == (row_id, rename.send_id, 0)
            ]
            if row_id in done and places:
                found.append((operation, rename, max(places)[2]))
        rows: list[Row] = []
        for operation, rename, id_ in found:
            values, book = dict(self.deliveries[id_]), self.books[id_]
            self._end_delivery(id_, "renamed")
            if "d.hops, d.due_at," not in text:
                values["due_at"] = operation.created_at_ms
            claim_until, claims = batch.claim(operation, values["due_at"])
            values.update(
                id=rename.delivery_id,
                source_seq=operation.seq,
                source_n=rename.n,
                send_id=rename.to,
                event=rename.event,
                claim_until=claim_until,
                claims=claims,
            )
            self.deliveries[rename.delivery_id] = values
            self.books[rename.delivery_id] = Delivered(
                values, book.created_at, values["due_at"], failures=list(book.failures)
            )
            numbers = f"{values['attempts']} {values['hops']}".encode()
            row = _bytes(operation.activation.row_id)
            rows.append((b"1", row, _bytes(id_), rename.send_id.encode()))
            rows.append((b"3", _bytes(values["due_at"]), _bytes(values["id"]), numbers))
        return rows

    def _add_deliveries(self, batch: Plan, done: dict[Any, Any]) -> list[Row]:
        """Resolve what is sent by name; the rows that tell where it goes."""
        written: list[Row] = []
        for row in batch.deliveries.values():
            if row.source_id not in done:
                continue
            values = row._asdict()
            machine_id, slug = self._machine_id(row.target_machine), row.target_slug
            if row.parent_id:
                parent = self._live(row.parent_id)
                if parent is None and row.kind == DeliveryKind.CHILD_DONE:
                    continue
                assert parent is not None
                machine_id, slug = parent.values["machine_id"], parent.values["slug"]
            elif row.kind == DeliveryKind.CHILD_DONE:
                continue
            values.update(target_machine_id=machine_id, target_slug=slug)
            sender = self._sender(self._machine_name(row.source_machine_id), row.source_slug)
            values["auth_context"] = sender if row.kind else ""
            self._add_delivery(values)
            if row.kind:
                written.append((b"2", _bytes(machine_id), _bytes(row.id), slug.encode()))
        return written

    def _add_delivery(self, values: dict[str, Any]) -> None:
        values["attempts"] = 0
        self.deliveries[values["id"]] = values
        self.books[values["id"]] = Delivered(values, self.world.time, values["due_at"])

    def _machine_id(self, name: str) -> int:
        return self.machines.get(name or MACHINE_NAME, 0)

    def _machine_name(self, id_: int) -> str:
        return LATE_NAME if id_ == LATE else MACHINE_NAME

    def _sender(self, machine: str, slug: str) -> str:
        sender = {"machineName": machine, "machineInstanceName": slug}
        return json.dumps({"stateBackedSender": sender}, separators=(",", ":"))

    def _tell_parent(
        self, parent_id: int | None, sender: str, source: int | None, event: str
    ) -> None:
        """A child was deleted, or can't be created."""
        parent = self._live(parent_id or 0)
        if parent is None:
            return
        id_ = self._next_id["delivery"]
        self._next_id["delivery"] += 1
        self._add_delivery(
            {
                "id": id_,
                "kind": DeliveryKind.CHILD_DONE.value,
                "target_machine_id": parent.values["machine_id"],
                "target_slug": parent.values["slug"],
                "source_id": source,
                "source_seq": None,
                "source_n": None,
                "send_id": None,
                "event": event,
                "auth_context": sender,
                "hops": 0,
                "due_at": self.now_ms(),
                "claim_until": 0,
                "claims": 0,
            }
        )

    def _end_delivery(self, id_: int, how: str) -> None:
        del self.deliveries[id_]
        book = self.books[id_]
        book.ended_at, book.end = self.world.time, how

    def _do_reason(
        self, text: str, row_id: int, seq: int, key: bytes, delivery_id: int
    ) -> list[Row]:
        instance = self.instances.get(row_id)
        commit_id = None
        if instance is not None:
            for transition in reversed(instance.history):
                if transition.seq == seq:
                    commit_id = _bytes(transition.values["commit_id"])
        return [
            (
                commit_id,
                _bytes(instance.values["status"]) if instance is not None else None,
                _bool((row_id, key.decode()) in self.keys),
                _bool(delivery_id in self.deliveries),
            )
        ]

    def _do_outrun(
        self, text: str, ns: list[int], ids: list[int], bases: list[int], commit_ids: list[int]
    ) -> list[Row]:
        found: list[Row] = []
        for n, id_, base, commit_id in zip(ns, ids, bases, commit_ids, strict=True):
            instance = self.instances.get(id_)
            if instance is None or instance.values["status"] or instance.values["seq"] <= base:
                continue
            after = [t for t in instance.history if t.seq == base + 1]
            if not after or after[0].values["commit_id"] != commit_id:
                found.append((_bytes(n),))
        return found

    # ------------------------------------------------------------------ reads, ids

    def _do_instance_ids(self, text: str, count: int) -> list[Row]:
        return self._ids("instance", count)

    def _do_delivery_ids(self, text: str, count: int) -> list[Row]:
        return self._ids("delivery", count)

    def _ids(self, table: str, count: int) -> list[Row]:
        first = self._next_id[table]
        self._next_id[table] += count
        return [(b"%d" % id_,) for id_ in range(first, first + count)]

    def _do_read(
        self, text: str, ns: list[int], machine_ids: list[int], slugs: list[str]
    ) -> list[Row]:
        rows: list[Row] = []
        for n, machine_id, slug in zip(ns, machine_ids, slugs, strict=True):
            id_ = self.names.get((machine_id, slug))
            if id_ is None:
                continue
            v = self.instances[id_].values
            rows.append(
                (
                    _bytes(n),
                    _bytes(id_),
                    _bytes(v["version_id"]),
                    _bytes(v["status"]),
                    _bytes(v["seq"]),
                    _bytes(v["ts"]),
                    v["state"].encode(),
                    v["extra"].encode(),
                    v["context"].encode(),
                    v["children"].encode(),
                    v["owner"].encode() if v["owner"] else None,
                    _bytes(v["settle_deadline"]) if v["settle_deadline"] else None,
                    self._address(v["owner"]),
                    _bytes(v["parent_id"]) if v["parent_id"] else None,
                    v["parent_child"].encode() if v["parent_id"] else None,
                    _bytes(v["desired_version_id"]) if v["desired_version_id"] else None,
                )
            )
        return rows

    def _address(self, node: str | None) -> bytes | None:
        """Of a node whose lease is valid."""
        row = self.nodes.get(node or "")
        if row is None or not self.now_ms() < row[1] <= self.now_ms() + LEASE_FAR_MS:
            return None
        return bytes(row[0], "ascii")

    def _do_find_request_key(self, text: str, row_id: int, key: bytes) -> list[Row]:
        return [(b"1",)] if (row_id, key.decode()) in self.keys else []

    # ------------------------------------------------------------------ other changes

    def _live(self, row_id: int) -> Instance | None:
        instance = self.instances.get(row_id)
        return instance if instance is not None and instance.values["status"] != DELETED else None

    def _do_deleted(self, text: str) -> list[Row]:
        return []  # histories of what was deleted stay for the checker

    def _do_purge(self, text: str, row_id: int, limit: int) -> list[Row]:
        return [(b"0",)]

    def _do_purge_logs(self, text: str, row_id: int) -> list[Row]:
        return []

    def _do_purge_notes(self, text: str, row_id: int) -> list[Row]:
        return []

    def _do_purge_instance(self, text: str, row_id: int) -> list[Row]:
        return []

    def _do_log(self, text: str, *columns: Any) -> list[Row]:
        return []

    def _do_note(self, text: str, *columns: Any) -> list[Row]:
        return []

    def _do_pause(self, text: str, row_id: int) -> list[Row]:
        instance = self._live(row_id)
        if instance is None:
            return []
        if instance.values["status"] == RUNNING:
            instance.values["paused_at"] = self.now_ms()
        self._set_status(instance, row_id, PAUSED)
        for delivery in self._deliveries_to(instance):
            if delivery["due_at"] < HELD_MS:
                delivery["due_at"] += HELD_MS
        return [(_bytes(row_id),)]

    def _do_resume(self, text: str, row_id: int, timers: int) -> list[Row]:
        instance = self._live(row_id)
        if instance is None:
            return []
        was_paused = instance.values["status"] == PAUSED
        self._set_status(instance, row_id, RUNNING)
        if was_paused:
            now_ms = self.now_ms()
            waiting = sorted(self._deliveries_to(instance), key=lambda d: (d["due_at"], d["id"]))
            for n, delivery in enumerate(waiting):
                if delivery["due_at"] >= HELD_MS:
                    delivery["claim_until"] = 0
                due_ms = planned_ms(delivery["due_at"])
                if delivery["kind"] == 0 and timers == Resume.KEEP_REMAINING:
                    due_ms += max(now_ms - instance.values["paused_at"], 0)
                elif delivery["kind"] == 0 and timers == Resume.FIRE_NOW:
                    due_ms = min(due_ms, now_ms + n + 1)
                delivery["due_at"] = due_ms
        return [(_bytes(row_id),)]

    def _set_status(self, instance: Instance, row_id: int, status: int) -> None:
        instance.values["status"] = status
        instance.statuses.append((self.world.time, status))
        self.world.note("status", row_id, status)

    def _deliveries_to(self, instance: Instance) -> list[dict[str, Any]]:
        key = (instance.values["machine_id"], instance.values["slug"])
        return [
            d for d in self.deliveries.values() if (d["target_machine_id"], d["target_slug"]) == key
        ]

    def _do_hold(self, text: str, id_: int) -> list[Row]:
        delivery = self.deliveries.get(id_)
        if delivery is None:
            return []
        target = self.names.get((delivery["target_machine_id"], delivery["target_slug"]))
        if target is not None and self.instances[target].values["status"] == PAUSED:
            for other in self._deliveries_to(self.instances[target]):
                if other["due_at"] < HELD_MS:
                    other.update(due_at=other["due_at"] + HELD_MS, claim_until=0, claims=0)
        elif delivery["due_at"] < HELD_MS and delivery["claims"] > 0:
            delivery.update(claim_until=0, claims=delivery["claims"] - 1)
        return []

    def _do_delete(self, text: str, row_id: int) -> list[Row]:
        instance = self._live(row_id)
        if instance is None:
            return []
        values = instance.values
        key = (values["machine_id"], values["slug"])
        del self.names[key]
        values.update(
            status=DELETED,
            seq=values["seq"] + 1,
            slug=f"{values['slug']}~{row_id}",
            settle_deadline=None,
            owner=None,
        )
        instance.statuses.append((self.world.time, DELETED))
        if not values["state"].endswith('"done":true}'):
            event = f'{{"type":"statebacked.child-error","id":{json.dumps(values["parent_child"])}'
            event += ',"error":{"name":"ChildDeleted","message":"the instance was deleted"}}'
            sender = self._sender(self._machine_name(key[0]), key[1])
            self._tell_parent(values["parent_id"], sender, row_id, event)
        self.names[key[0], values["slug"]] = row_id
        for id_, delivery in list(self.deliveries.items()):
            if (delivery["target_machine_id"], delivery["target_slug"]) == key:
                self._end_delivery(id_, "deleted")
        self.world.note("status", row_id, DELETED)
        return [(_bytes(row_id),)]

    def _do_release(self, text: str, row_id: int, seq: int) -> list[Row]:
        instance = self._live(row_id)
        if instance is not None and (
            instance.values["seq"] == seq or "seq = $2::bigint" not in text
        ):
            instance.values.update(settle_deadline=None, owner=None)
            self.world.note("released", row_id, seq)
        return []

    # ------------------------------------------------------------------ deliveries

    def _do_claim(self, text: str, before_ms: int, limit: int, claim_ms: int) -> list[Row]:
        now_ms = self.now_ms()
        claims_end = "claim_until <= " in text
        due = sorted(
            (d["due_at"], d["id"])
            for d in self.deliveries.values()
            if d["due_at"] <= before_ms and d["claim_until"] <= (now_ms if claims_end else 0)
        )
        rows: list[Row] = []
        for _, id_ in due[:limit]:
            d = self.deliveries[id_]
            d["claim_until"] = now_ms + claim_ms
            d["claims"] += 1
            rows.append(self._delivery_row(d))
        return rows

    def _delivery_row(self, d: dict[str, Any]) -> Row:
        return tuple(_cell(d[name]) for name in DUE)

    def _do_claimed(self, text: str, ids: list[int], within_ms: int) -> list[Row]:
        now_ms = self.now_ms()
        found = (self.deliveries[id_] for id_ in ids if id_ in self.deliveries)
        return [
            self._delivery_row(d)
            for d in found
            if d["claim_until"] > now_ms and d["due_at"] <= now_ms + within_ms
        ]

    def _do_find_due(
        self,
        text: str,
        ns: list[int],
        machine_ids: list[int],
        slugs: list[str],
        times_ms: list[int],
        limit: int,
    ) -> list[Row]:
        rows: list[Row] = []
        for n, machine_id, slug, now_ms in zip(ns, machine_ids, slugs, times_ms, strict=True):
            due = [
                d
                for d in self.deliveries.values()
                if d["target_slug"] == slug
                and d["target_machine_id"] == machine_id
                and d["due_at"] <= now_ms
                and d["kind"]
            ]
            due.sort(key=_in_order if "e.due_at, e.source_seq" in text else _by_id)
            id_ = self.names.get((machine_id, slug))
            status = None
            if id_ is not None and "SELECT t.status FROM instance t" in text:
                status = _bytes(self.instances[id_].values["status"])
            rows += [(_bytes(n), *self._delivery_row(d), status) for d in due[:limit]]
        return rows

    def _do_find_machine(self, text: str, id_: int) -> list[Row]:
        delivery = self.deliveries.get(id_)
        if delivery is None or delivery["target_machine_id"]:
            return []
        machine_id = self._machine_id(delivery["target_machine"])
        if machine_id:
            delivery["target_machine_id"] = machine_id
        return [(_bytes(machine_id),)] if machine_id else []

    def _do_find_version(self, text: str, machine_id: int, version: bytes) -> list[Row]:
        is_there = machine_id in self.machines.values() and not version
        return [(_bytes(VERSION),)] if is_there else []

    def _do_find_migrations(self, text: str, machine_id: int) -> list[Row]:
        return [
            (
                *map(_bytes, migration),
                versions.name_of(migration[1]).encode(),
                versions.name_of(migration[2]).encode(),
            )
            for migration in versions.MIGRATIONS
            if machine_id == MACHINE
        ]

    def desire(self, row_id: int, version: int | None) -> Desire | None:
        """Set the desired version of an instance; None if it is gone."""
        instance = self._live(row_id)
        if instance is None:
            return None
        if version == instance.values["version_id"]:
            version = None
        instance.values["desired_version_id"] = version
        desire = Desire(self.world.time, version)
        instance.desires.append(desire)
        self.world.note("desired", row_id, version)
        return desire

    def _do_renew_claims(self, text: str, ids: list[int], claim_ms: int) -> list[Row]:
        until_ms = self.now_ms() + claim_ms
        for id_ in ids:
            if id_ in self.deliveries:
                self.deliveries[id_]["claim_until"] = until_ms
        return []

    def _do_postpone(self, text: str, id_: int, due_at_ms: int) -> list[Row]:
        delivery = self.deliveries.get(id_)
        if delivery is not None and delivery["due_at"] < HELD_MS:
            delivery.update(claim_until=0, claims=delivery["claims"] - 1, due_at=due_at_ms)
        return []

    def _is_at_attempt(self, id_: int, attempts: int) -> bool:
        d = self.deliveries.get(id_)
        if d is None or d["attempts"] != attempts:
            return False
        is_held = d["due_at"] >= HELD_MS
        self.books[id_].failed_held |= is_held
        return not is_held

    def _do_fail(
        self, text: str, id_: int, attempts: int, error: bytes, retry_ms: int
    ) -> list[Row]:
        if self._is_at_attempt(id_, attempts):
            self.deliveries[id_].update(
                attempts=attempts + 1, claim_until=0, due_at=self.now_ms() + retry_ms
            )
            self.books[id_].failures.append((self.world.time, error.decode()))
            self.world.note("attempt failed", id_, attempts + 1, error.decode())
        return []

    def _do_bury(
        self, text: str, id_: int, attempts: int, attempts_after: int, reason: bytes, told: bytes
    ) -> list[Row]:
        if self._is_at_attempt(id_, attempts):
            d = self.deliveries[id_]
            d["attempts"] = attempts_after
            if d["kind"] == DeliveryKind.SPAWN and told:
                sender = self._sender(d["target_machine"], d["target_slug"])
                self._tell_parent(d["source_id"], sender, None, told.decode())
            self.books[id_].failures.append((self.world.time, reason.decode()))
            self._end_delivery(id_, "dead")
            self.world.note("dead letter", id_, reason.decode())
        return []

    # ------------------------------------------------------------------ nodes

    def _do_join(self, text: str, node: bytes, address: bytes, role: bytes) -> list[Row]:
        self.nodes[node.decode()] = [address.decode(), self.now_ms() + membership._LEASE_MS]
        self.world.note("joined", node.decode(), address.decode())
        return [(_bytes(self.now_ms()), b"f")]

    def _do_renew(self, text: str, node: bytes) -> list[Row]:
        row = self.nodes.get(node.decode())
        now_ms = self.now_ms()
        if row is None or (row[1] <= now_ms and "lease_until > " in text):
            return []
        row[1] = now_ms + membership._LEASE_MS
        return [(_bytes(now_ms), b"f")]

    def _do_leave(self, text: str, node: bytes) -> list[Row]:
        self.nodes.pop(node.decode(), None)
        return []

    def _do_sweep(self, text: str, age_ms: int) -> list[Row]:
        return []


def _in_order(d: dict[str, Any]) -> tuple[Any, ...]:
    last = float("inf")  # as NULL is
    seq = last if d["source_seq"] is None else d["source_seq"]
    return d["due_at"], seq, last if d["source_n"] is None else d["source_n"], d["id"]


def _by_id(d: dict[str, Any]) -> int:
    id_: int = d["id"]
    return id_


def _bytes(number: Any) -> bytes:
    return b"%d" % number


def _cell(value: Any) -> bytes | None:
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else _bytes(value)


def _bool(value: bool) -> bytes:
    return b"t" if value else b"f"
