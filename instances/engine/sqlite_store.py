"""The store on SQLite: WAL, `synchronous=FULL`, one writer thread that commits in groups.

The writer takes all that is queued, up to 256 steps, and writes it in one transaction: one UPDATE
row per instance, one INSERT row per step. While a batch is being synced to disk the next one
collects; it never waits to fill a batch. There is no other writer of these tables: an exclusive
lock file beside the database keeps a second engine out (`lock.py`).

What fails in a batch is found by counting rows. Then the batch is rolled back and its steps are
written one by one, each in a savepoint, so that a bad one fails alone.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from instances.engine.errors import InstancePaused
from instances.engine.holding import HELD_MS, PAUSED, Resume
from instances.engine.messages import not_created
from instances.engine.operations import (
    Code,
    Delivery,
    DeliveryKind,
    Kind,
    Operation,
    Outcome,
)
from instances.engine.plan import (
    ATTEMPTS_MAX,
    CHILD_DELETED,
    CLAIMS_MAX,
    DUE_COLUMNS,
    HISTORY_COLUMNS,
    PURGE_ROWS,
    RETRY_AFTER_MS,
    Plan,
    sender_of,
)
from instances.engine.scheduling import SQLITE_ADVANCE, SQLITE_DELIVERY, Firing
from instances.engine.store import InstanceRow, LogRow, MigrationRow, NoteRow, OnCommit

log = logging.getLogger("statebacked.store")

BATCH_STEPS = 256
# A claim ends with the process that holds it: they are cleared at the start.
CLAIM_MS = 86_400_000

# Steps: the desired version stands in the way of events from outside that find it settled.
UPDATE = """UPDATE instance SET seq=?, ts=?, state=?, extra=?, context=?, children=?,
 settle_deadline=? WHERE id=? AND seq=? AND status=0
 AND (desired_version_id IS NULL OR children<>'[]' OR ?<0)"""
UPGRADE = """UPDATE instance SET seq=?, ts=?, state=?, extra=?, context=?, children=?,
 settle_deadline=?, version_id=desired_version_id, desired_version_id=NULL
 WHERE id=? AND seq=? AND status=0 AND desired_version_id=? AND children='[]'"""
INSERT = """INSERT INTO instance (id, org_id, machine_id, slug, version_id, status, seq, ts, state,
 extra, context, children, settle_deadline, created_at, parent_id, parent_child)
 SELECT ?1, org_id, id, ?2, ?3, 0, 1, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?12, ?13
 FROM machines_machine WHERE id=?11
 ON CONFLICT (machine_id, slug) DO NOTHING"""
HISTORY = f"""INSERT INTO transition ({HISTORY_COLUMNS})
 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
CONSUME = "DELETE FROM delivery WHERE id=?"
CANCEL = """DELETE FROM delivery WHERE id=(SELECT max(id) FROM delivery
 WHERE source_id=? AND send_id=?) RETURNING id"""
FIND_RENAMED = """SELECT id, due_at, attempts, hops FROM delivery WHERE id=(SELECT max(id)
 FROM delivery WHERE source_id=? AND send_id=? AND kind=0)"""
RENAME = """INSERT INTO delivery (id, kind, org_id, target_machine_id, target_machine, target_slug,
 source_id, source_seq, source_n, send_id, event, auth_context, hops, due_at, claim_until, claims,
 attempts, last_error, created_at)
 SELECT :id, kind, org_id, target_machine_id, target_machine, target_slug, source_id, :source_seq,
  :source_n, :send_id, :event, auth_context, hops, due_at, :claim_until, :claims, attempts,
  last_error, created_at
 FROM delivery WHERE id=:renamed"""
# Rows of plan.DeliveryValues. Own timers go in together; messages one by one, which tells where
# they go.
TIMER = """INSERT INTO delivery (id, kind, target_machine_id, target_machine, target_slug,
 source_id, source_seq, source_n, send_id, event, auth_context, hops, due_at, claim_until, claims,
 created_at, org_id, attempts)
 SELECT :id, 0, id, '', :target_slug, :source_id, :source_seq, :source_n, :send_id, :event, '',
  :hops, :due_at, :claim_until, :claims, :created_at, org_id, 0
 FROM machines_machine WHERE id=:source_machine_id"""
MESSAGE = f"""INSERT INTO delivery (id, kind, target_machine_id, target_machine, target_slug,
 source_id, source_seq, source_n, send_id, event, auth_context, hops, due_at, claim_until, claims,
 created_at, org_id, attempts)
 SELECT :id, :kind, iif(:parent_id, p.machine_id, coalesce(t.id, 0)), :target_machine,
  iif(:parent_id, p.slug, :target_slug), :source_id, :source_seq, :source_n, :send_id, :event,
  {sender_of("m.slug", ":source_slug")}, :hops, :due_at, :claim_until, :claims, :created_at,
  m.org_id, 0
 FROM machines_machine m
 LEFT JOIN machines_machine t ON t.org_id=m.org_id AND t.slug=:target_machine
 LEFT JOIN instance p ON p.id=:parent_id AND p.status<>2
 WHERE m.id=:source_machine_id AND (:kind<>3 OR p.id IS NOT NULL)
 RETURNING target_machine_id, target_slug"""
# What is due for a target besides its own timers: of one sender in the order in which it was sent.
FIND_DUE = f"""SELECT {DUE_COLUMNS}, (SELECT t.status FROM instance t
  WHERE t.machine_id=target_machine_id AND t.slug=target_slug)
 FROM delivery WHERE target_machine_id=? AND target_slug=?
 AND due_at<=? AND kind<>0 ORDER BY due_at, source_seq, source_n, id LIMIT ?"""
FIND_VERSION = """SELECT v.id FROM machines_machine m JOIN machines_machineversion v
 ON v.machine_id=m.id AND CASE WHEN :version='' THEN v.id=m.current_version_id
  ELSE v.public_id=:version END
 WHERE m.id=:machine"""
FIND_MIGRATIONS = """SELECT g.id, g.from_version_id, g.to_version_id, f.public_id, t.public_id
 FROM machines_machineversionmigration g
 JOIN machines_machineversion f ON f.id=g.from_version_id
 JOIN machines_machineversion t ON t.id=g.to_version_id WHERE g.machine_id=?"""
FIND_MACHINE = """UPDATE delivery AS d SET target_machine_id=m.id FROM machines_machine m
 WHERE d.id=? AND d.target_machine_id=0 AND m.org_id=d.org_id AND m.slug=d.target_machine
 RETURNING target_machine_id"""
# The parent of a child hears of its end, or that it will never be: kind 3, with the event given.
TELL_PARENT = f"""INSERT INTO delivery (id, kind, org_id, target_machine_id, target_slug, event,
 auth_context, due_at, claim_until, claims, attempts, created_at)
 SELECT :id, 3, d.org_id, p.machine_id, p.slug, :event,
  {sender_of("d.target_machine", "d.target_slug")}, :now, 0, 0, 0, :now
 FROM delivery d JOIN instance p ON p.id=d.source_id AND p.status<>2
 WHERE d.id=:delivery AND d.kind=2"""
TELL_PARENT_OF_DELETED = f"""INSERT INTO delivery (id, kind, org_id, target_machine_id,
 target_slug, source_id, event, auth_context, due_at, claim_until, claims, attempts, created_at)
 SELECT :id, 3, c.org_id, p.machine_id, p.slug, c.id,
  '{{"type":"statebacked.child-error","id":' || json_quote(c.parent_child) || {CHILD_DELETED},
  {sender_of("m.slug", "c.slug")}, :now, 0, 0, 0, :now
 FROM instance c JOIN machines_machine m ON m.id=c.machine_id
 JOIN instance p ON p.id=c.parent_id AND p.status<>2
 WHERE c.id=:child AND c.status<>2 AND c.state NOT LIKE '%"done":true}}'"""
READ = """SELECT id, version_id, status, seq, ts, state, extra, context, children, NULL, NULL, NULL,
 parent_id, parent_child, desired_version_id FROM instance WHERE machine_id=? AND slug=?"""
CLAIM = f"""UPDATE delivery SET claim_until=?, claims=claims+1 WHERE id IN (
 SELECT id FROM delivery WHERE due_at<=? AND claim_until<=? ORDER BY due_at, id LIMIT ?)
 RETURNING {DUE_COLUMNS}"""
PAUSE = """UPDATE instance SET status=1, paused_at=coalesce(paused_at, :now)
 WHERE id=:id AND status<>2"""
RESUME = "UPDATE instance SET status=0, paused_at=NULL WHERE id=:id AND status<>2"
HOLD_ALL = f"""UPDATE delivery SET due_at=due_at+{HELD_MS} WHERE due_at<{HELD_MS}
 AND (target_machine_id, target_slug)=
   (SELECT machine_id, slug FROM instance WHERE id=:id AND status=0)"""
# The planned time of `d`, held or not.
PLANNED = f"(d.due_at - iif(d.due_at>={HELD_MS}, {HELD_MS}, 0))"
RELEASE_HELD = f"""UPDATE delivery AS d SET
 claim_until=iif(d.due_at>={HELD_MS}, 0, d.claim_until),
 due_at=CASE WHEN d.kind<>0 OR :timers={Resume.ORIGINAL} THEN {PLANNED}
   WHEN :timers={Resume.KEEP_REMAINING} THEN {PLANNED} + max(:now - coalesce(x.since, :now), 0)
   ELSE min({PLANNED}, :now + x.n) END
 FROM (SELECT e.id, t.paused_at AS since, row_number() OVER (ORDER BY e.due_at, e.id) AS n
   FROM instance t JOIN delivery e ON e.target_machine_id=t.machine_id AND e.target_slug=t.slug
   WHERE t.id=:id AND t.status=1) AS x
 WHERE d.id=x.id"""
HOLD = f"""UPDATE delivery SET due_at=due_at+{HELD_MS}, claim_until=0, claims=0
 WHERE due_at<{HELD_MS} AND (target_machine_id, target_slug)=
   (SELECT t.machine_id, t.slug FROM delivery d
    JOIN instance t ON t.machine_id=d.target_machine_id AND t.slug=d.target_slug
    WHERE d.id=? AND t.status=1)"""
GIVE_BACK = f"""UPDATE delivery SET claim_until=0, claims=claims-1
 WHERE id=? AND due_at<{HELD_MS} AND claims>0"""
DEAD_LETTER_COLUMNS = """id, kind, org_id, target_machine_id, target_machine, target_slug,
 source_id, source_seq, source_n, send_id, event, auth_context, hops, due_at, claim_until, claims,
 attempts, last_error, created_at"""

# What writing can raise: the database's errors, and values that it can't take.
WRITE_ERRORS = (sqlite3.Error, OverflowError, UnicodeEncodeError)

Task = Callable[[], None]


class SqliteStore:
    """See `store.Store`. Made on the engine's loop; `post` calls back on it from any thread."""

    has_other_writers = False

    def __init__(
        self,
        path: str,
        node: str,
        *,
        post: Callable[..., Any],
        on_commit: OnCommit,
        synchronous: str = "FULL",
    ) -> None:
        self.path = path
        self.node = node
        self.post = post
        self.on_commit = on_commit
        self.synchronous = synchronous
        self.batches = 0
        self.steps = 0
        self._queue: queue.SimpleQueue[list[Operation] | Task | None] = queue.SimpleQueue()
        self._version_owners: dict[int, tuple[int, int] | None] = {}

    def start(self) -> None:
        self.reader = self._connect()
        self.db = self._connect()
        self.db.execute("UPDATE delivery SET claim_until=0 WHERE claim_until<>0")
        self._next_instance_id = self._next_id("instance")
        self._next_delivery_id = max(self._next_id("delivery"), self._next_id("dead_letter"))
        for (instance_id,) in self.db.execute("SELECT id FROM instance WHERE status=2").fetchall():
            self._queue.put(partial(self._purge, instance_id))
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued and end the writer."""
        self._queue.put(None)
        self._thread.join()
        self.reader.close()
        self.db.close()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA busy_timeout=5000; PRAGMA cache_size=-65536;"
            "PRAGMA mmap_size=268435456; PRAGMA wal_autocheckpoint=4000;"
            f"PRAGMA synchronous={self.synchronous};"
        )
        return db

    def _next_id(self, table: str) -> int:
        """One more than any id that was ever given, also to rows that are deleted by now."""
        (highest,) = self.db.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()
        row = self.db.execute("SELECT seq FROM sqlite_sequence WHERE name=?", (table,)).fetchone()
        return int(max(highest, row[0] if row else 0)) + 1

    # ------------------------------------------------------------------ reads, on the loop

    def read(
        self, key: tuple[int, str], done: Callable[[InstanceRow | Exception | None], None]
    ) -> None:
        # A point read takes less time than a hop to a thread.
        try:
            row = self.reader.execute(READ, key).fetchone()
        except sqlite3.Error as error:
            done(error)
            return
        done(InstanceRow._make(row) if row is not None else None)

    def find_request_key(
        self, instance_id: int, request_key: str, done: Callable[[bool | Exception], None]
    ) -> None:
        sql = "SELECT 1 FROM transition WHERE instance_id=? AND request_key=?"
        try:
            row = self.reader.execute(sql, (instance_id, request_key)).fetchone()
        except sqlite3.Error as error:
            done(error)
            return
        done(row is not None)

    def find_due(
        self,
        key: tuple[int, str],
        now_ms: int,
        limit: int,
        done: Callable[[list[Delivery] | Exception], None],
    ) -> None:
        try:
            rows = self.reader.execute(FIND_DUE, (*key, now_ms, limit)).fetchall()
        except sqlite3.Error as error:
            done(error)
            return
        if rows and rows[0][-1] == PAUSED:
            self.hold(rows[0][0])
            done(InstancePaused(f"{key[1]} is paused"))
        else:
            done([_delivery(row[:-1]) for row in rows])

    def find_version(
        self, machine_id: int, version: str, done: Callable[[int | Exception | None], None]
    ) -> None:
        values = {"machine": machine_id, "version": version}
        try:
            row = self.reader.execute(FIND_VERSION, values).fetchone()
        except (sqlite3.Error, UnicodeEncodeError) as error:
            done(error)
            return
        done(row[0] if row is not None else None)

    def find_migrations(
        self, machine_id: int, done: Callable[[list[MigrationRow] | Exception], None]
    ) -> None:
        try:
            rows = self.reader.execute(FIND_MIGRATIONS, (machine_id,)).fetchall()
        except sqlite3.Error as error:
            done(error)
            return
        done([MigrationRow._make(row) for row in rows])

    def has_due(self, before_ms: int, now_ms: int) -> bool:
        sql = "SELECT 1 FROM delivery WHERE due_at<=? AND claim_until<=? LIMIT 1"
        return self.reader.execute(sql, (before_ms, now_ms)).fetchone() is not None

    # ------------------------------------------------------------------ writes, queued

    def is_stalled(self) -> bool:
        return False  # no other node could do it instead

    def put(self, operations: list[Operation]) -> None:
        self._queue.put(operations)

    def find_machine(
        self, delivery_id: int, done: Callable[[int | Exception | None], None]
    ) -> None:
        def work() -> int | None:
            row = self.db.execute(FIND_MACHINE, (delivery_id,)).fetchone()
            return row[0] if row is not None else None

        self._task(work, done, failed=sqlite3.OperationalError("the database refused it"))

    def set_status(
        self,
        instance_id: int,
        status: int,
        done: Callable[[bool | None], None],
        timers: Resume = Resume.ORIGINAL,
    ) -> None:
        def work() -> bool:
            values = {"id": instance_id, "timers": timers, "now": time.time_ns() // 1_000_000}
            self.db.execute("BEGIN IMMEDIATE")
            # The deliveries first: they ask whether and since when the instance is paused.
            self.db.execute(HOLD_ALL if status == 1 else RELEASE_HELD, values)
            found = self.db.execute(PAUSE if status == 1 else RESUME, values).rowcount == 1
            self.db.execute("COMMIT")
            return found

        self._task(work, done, failed=None)

    def delete(self, instance_id: int, done: Callable[[bool | None], None]) -> None:
        def work() -> bool:
            self.db.execute("BEGIN IMMEDIATE")
            values = {"id": self.take_delivery_id(), "child": instance_id, "now": _now_ms()}
            self.db.execute(TELL_PARENT_OF_DELETED, values)
            found = self.db.execute(
                "UPDATE instance SET status=2, seq=seq+1, slug=slug||'~'||id,"
                " settle_deadline=NULL WHERE id=? AND status<>2 RETURNING machine_id,"
                " substr(slug, 1, length(slug)-length('~'||id))",
                (instance_id,),
            ).fetchone()
            if found is not None:
                self.db.execute(
                    "DELETE FROM delivery WHERE target_machine_id=? AND target_slug=?", found
                )
            self.db.execute("COMMIT")
            if found is not None:
                self._queue.put(partial(self._purge, instance_id))
            return found is not None

        self._task(work, done, failed=None)

    def release(self, instance_id: int, seq: int) -> None:
        sql = "UPDATE instance SET settle_deadline=NULL WHERE id=? AND seq=?"
        self._task(lambda: self.db.execute(sql, (instance_id, seq)).rowcount)

    def claim_due(self, before_ms: int, limit: int, done: Callable[[list[Delivery]], None]) -> None:
        now_ms = time.time_ns() // 1_000_000

        def work() -> list[Delivery]:
            rows = self.db.execute(CLAIM, (now_ms + CLAIM_MS, before_ms, now_ms, limit)).fetchall()
            claimed = []
            for row in rows:
                delivery = _delivery(row)
                if delivery.claims > CLAIMS_MAX:
                    self._bury(
                        delivery, "crash-loop: the server ended each time that it was delivered"
                    )
                else:
                    claimed.append(delivery)
            claimed.sort(key=lambda delivery: (delivery.due_at_ms, delivery.id))
            return claimed

        self._task(work, done, failed=[])

    def renew_claims(self, delivery_ids: Iterable[int]) -> None:
        """Nothing to do: claims last as long as the process."""

    def postpone(self, delivery_id: int, due_at_ms: int) -> None:
        # Not the delivery's fault: the claim does not count towards CLAIMS_MAX.
        sql = "UPDATE delivery SET claim_until=0, claims=claims-1, due_at=? WHERE id=? AND due_at<?"
        self._task(lambda: self.db.execute(sql, (due_at_ms, delivery_id, HELD_MS)).rowcount)

    def hold(self, delivery_id: int) -> None:
        def work() -> None:
            if self.db.execute(HOLD, (delivery_id,)).rowcount == 0:
                self.db.execute(GIVE_BACK, (delivery_id,))

        self._task(work)

    def fail(self, delivery: Delivery, error: str, done: Callable[[], None] = lambda: None) -> None:
        def work() -> None:
            if delivery.attempts + 1 >= ATTEMPTS_MAX:
                counted = self.db.execute(
                    "UPDATE delivery SET attempts=?, last_error=?"
                    " WHERE id=? AND attempts=? AND due_at<?",
                    (delivery.attempts + 1, error, delivery.id, delivery.attempts, HELD_MS),
                )
                if counted.rowcount:
                    self._bury(delivery, error)
            else:
                self.db.execute(
                    "UPDATE delivery SET attempts=?, last_error=?, claim_until=0, due_at=?"
                    " WHERE id=? AND attempts=? AND due_at<?",
                    (
                        delivery.attempts + 1,
                        error,
                        time.time_ns() // 1_000_000 + RETRY_AFTER_MS,
                        delivery.id,
                        delivery.attempts,
                        HELD_MS,
                    ),
                )

        self._task(work, lambda result: done())

    def fire_schedule(self, firing: Firing) -> None:
        def work() -> None:
            values = {**firing._asdict(), "id": self.take_delivery_id()}
            self.db.execute("BEGIN IMMEDIATE")
            if self.db.execute(SQLITE_ADVANCE, values).rowcount == 1 and not firing.problem:
                self.db.execute(SQLITE_DELIVERY, values)
            self.db.execute("COMMIT")

        self._task(work)

    def log(self, rows: list[LogRow]) -> None:
        def work() -> None:
            values = []
            for row in rows:
                owner = self._owner_of(row.version_id)
                if owner is not None:
                    org_id, machine_id = owner
                    values.append((org_id, machine_id, *row))
            self.db.executemany(
                "INSERT INTO log_entry (org_id, machine_id, version_id, instance_id,"
                " instance_slug, level, message, created_at) VALUES (?,?,?,?,?,?,?,?)",
                values,
            )

        self._task(work)

    def note(self, rows: list[NoteRow]) -> None:
        def work() -> None:
            self.db.executemany(
                "INSERT INTO unheeded_event (instance_id, seq, kind, outcome, event, auth_context,"
                " more, created_at) VALUES (?,?,?,?,?,?,?,?)",
                rows,
            )

        self._task(work)

    def _task(
        self,
        work: Callable[[], Any],
        done: Callable[[Any], None] = lambda result: None,
        failed: Any = None,
    ) -> None:
        """Do `work` on the writer thread; `done` gets what it returns, or `failed`."""

        def task() -> None:
            try:
                result = work()
            except WRITE_ERRORS as error:
                log.error("a write failed: %s", error)
                self._roll_back()
                result = failed
            self.post(done, result)

        self._queue.put(task)

    # ------------------------------------------------------------------ the writer thread

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            if not isinstance(item, list):
                item()
                continue
            batch = item
            after: list[Operation] | Task | None = []
            try:
                while len(batch) < BATCH_STEPS:
                    after = self._queue.get_nowait()
                    if not isinstance(after, list):
                        break
                    batch = batch + after
            except queue.Empty:
                pass
            self.post(self.on_commit, self._commit(batch))
            if after is None:
                return
            if not isinstance(after, list):
                after()

    def _commit(self, batch: list[Operation]) -> list[tuple[Operation, Outcome]]:
        plan = Plan(self, self.node, CLAIM_MS)
        for operation in batch:
            plan.add(operation)
        if plan.history or plan.consumed:
            self.batches += 1
            self.steps += len(plan.history)
            try:
                self.db.execute("BEGIN IMMEDIATE")
                if not self._write(plan):
                    self.db.execute("ROLLBACK")
                    return self._commit_one_by_one(batch)
                self.db.execute("COMMIT")
            except WRITE_ERRORS:
                self._roll_back()
                return self._commit_one_by_one(batch)
        return plan.outcomes

    def _write(self, plan: Plan) -> bool:
        """Write all rows into the open transaction; False if one did not find what it needs."""
        if not plan.in_any_order:
            return False
        db = self.db
        if plan.inserts:
            if db.executemany(INSERT, plan.inserts).rowcount != len(plan.inserts):
                return False
        if plan.updates:
            values = [
                (
                    last.seq,
                    last.ts,
                    last.state,
                    last.extra,
                    last.context,
                    last.children,
                    last.deadline_ms,
                    activation.row_id,
                    base,
                    plan.wanted_version(activation),
                )
                for activation, (last, base) in plan.updates.items()
            ]
            if plan.upgrades:
                # They set other columns; the order of rows of one instance is kept.
                for activation, row in zip(plan.updates, values, strict=True):
                    sql = UPGRADE if activation in plan.upgrades else UPDATE
                    if db.execute(sql, row).rowcount != 1:
                        return False
            elif db.executemany(UPDATE, values).rowcount != len(values):
                return False
        if plan.consumed:
            ids = [(delivery_id,) for _, delivery_id in plan.consumed]
            if db.executemany(CONSUME, ids).rowcount != len(ids):
                return False
        for operation, send_id in plan.cancels:
            row = db.execute(CANCEL, (operation.activation.row_id, send_id)).fetchone()
            if row is not None:
                if operation.cancelled_ids is None:
                    operation.cancelled_ids = []
                operation.cancelled_ids.append(row[0])
        if plan.renames:
            self._rename(plan)
        timers = [v._asdict() for v in plan.deliveries.values() if v.kind == DeliveryKind.TIMER]
        if timers:
            db.executemany(TIMER, timers)
        for id_, message in plan.messages.items():
            message.key = db.execute(MESSAGE, plan.deliveries[id_]._asdict()).fetchone()
        if plan.history:
            db.executemany(HISTORY, plan.history)
        return True

    def _rename(self, plan: Plan) -> None:
        """Put new rows in the place of timers. All are found first: they may swap their names."""
        found = []
        for operation, rename in plan.renames:
            key = (operation.activation.row_id, rename.send_id)
            row = self.db.execute(FIND_RENAMED, key).fetchone()
            if row is not None:
                found.append((operation, rename, *row))
        for operation, rename, id_, due_at_ms, attempts, hops in found:
            rename.due_at_ms, rename.attempts, rename.hops = due_at_ms, attempts, hops
            claim_until, claims = plan.claim(operation, due_at_ms)
            values = {
                "id": rename.delivery_id,
                "source_seq": operation.seq,
                "source_n": rename.n,
                "send_id": rename.to,
                "event": rename.event,
                "claim_until": claim_until,
                "claims": claims,
                "renamed": id_,
            }
            self.db.execute(RENAME, values)
            self.db.execute(CONSUME, (id_,))
            operation.cancelled_ids = [*(operation.cancelled_ids or ()), id_]

    def _commit_one_by_one(self, batch: list[Operation]) -> list[tuple[Operation, Outcome]]:
        outcomes = []
        for operation in batch:
            activation = operation.activation
            outcome = Outcome.CONFLICT
            if not activation.dead:
                outcome = self._commit_alone(operation)
                if outcome is not Outcome.COMMITTED:
                    # Whatever was computed behind it is void, even if the sequence number fits
                    # by the time that it is tried: another node may have raised it.
                    activation.dead = True
                    if operation.kind is Kind.INIT:
                        activation.row_id = None
            outcomes.append((operation, outcome))
        return outcomes

    def _commit_alone(self, operation: Operation) -> Outcome:
        plan = Plan(self, self.node, CLAIM_MS)
        plan.add(operation)
        try:
            self.db.execute("BEGIN IMMEDIATE")
            if self._write(plan):
                self.db.execute("COMMIT")
                return Outcome.COMMITTED
            self.db.execute("ROLLBACK")
        except sqlite3.IntegrityError:
            self._roll_back()
        except WRITE_ERRORS:
            self._roll_back()
            return self._after_failure(operation)
        return self._reason(operation)

    def _after_failure(self, operation: Operation) -> Outcome:
        """The database failed, perhaps in COMMIT: look whether the step is there."""
        try:
            return Outcome.COMMITTED if self._is_ours(operation) else Outcome.FAILED
        except sqlite3.Error:
            return Outcome.AMBIGUOUS

    def _is_ours(self, operation: Operation) -> bool:
        if operation.code not in (Code.CHANGED, Code.CHANGED_WITH_EFFECTS):
            return False
        sql = "SELECT commit_id FROM transition WHERE instance_id=? AND seq=?"
        row = self.db.execute(sql, (operation.activation.row_id, operation.seq)).fetchone()
        return row is not None and row[0] == operation.commit_id

    def _reason(self, operation: Operation) -> Outcome:
        """Why a step found no row to change."""
        if operation.kind is Kind.INIT:
            return Outcome.GONE if self._is_gone(operation.delivery) else Outcome.EXISTS
        row_id = operation.activation.row_id
        row = self.db.execute("SELECT status FROM instance WHERE id=?", (row_id,)).fetchone()
        if row is None or row[0] == 2:
            return Outcome.DELETED
        if row[0] == 1:
            return Outcome.PAUSED
        if operation.request_key is not None:
            sql = "SELECT 1 FROM transition WHERE instance_id=? AND request_key=?"
            if self.db.execute(sql, (row_id, operation.request_key)).fetchone():
                return Outcome.DUPLICATE
        return Outcome.GONE if self._is_gone(operation.delivery) else Outcome.CONFLICT

    def _is_gone(self, delivery: Delivery | None) -> bool:
        if delivery is None:
            return False
        sql = "SELECT 1 FROM delivery WHERE id=?"
        return self.db.execute(sql, (delivery.id,)).fetchone() is None

    def _roll_back(self) -> None:
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")

    def _bury(self, delivery: Delivery, reason: str) -> None:
        """Turn a delivery into a dead letter."""
        now_ms, event = _now_ms(), not_created(delivery, reason)
        self.db.execute("BEGIN IMMEDIATE")
        if event:
            values = {"event": event, "delivery": delivery.id, "now": now_ms}
            self.db.execute(TELL_PARENT, {**values, "id": self.take_delivery_id()})
        self.db.execute(
            f"INSERT INTO dead_letter ({DEAD_LETTER_COLUMNS}, died_at, reason)"
            f" SELECT {DEAD_LETTER_COLUMNS}, ?, ? FROM delivery WHERE id=?",
            (now_ms, reason, delivery.id),
        )
        self.db.execute(CONSUME, (delivery.id,))
        self.db.execute("COMMIT")

    def _purge(self, instance_id: int) -> None:
        """Remove the history of a deleted instance in pieces, between other writes."""
        try:
            removed = self.db.execute(
                "DELETE FROM transition WHERE rowid IN"
                " (SELECT rowid FROM transition WHERE instance_id=? LIMIT ?)",
                (instance_id, PURGE_ROWS),
            ).rowcount
            if removed == 0:
                self.db.execute("DELETE FROM log_entry WHERE instance_id=?", (instance_id,))
                self.db.execute("DELETE FROM unheeded_event WHERE instance_id=?", (instance_id,))
                self.db.execute("DELETE FROM instance WHERE id=? AND status=2", (instance_id,))
                return
        except sqlite3.Error:
            self._roll_back()
            return  # the next start goes on with it
        self._queue.put(partial(self._purge, instance_id))

    def _owner_of(self, version_id: int) -> tuple[int, int] | None:
        """(org id, machine id) of a version."""
        if version_id not in self._version_owners:
            self._version_owners[version_id] = self.db.execute(
                "SELECT m.org_id, m.id FROM machines_machineversion v"
                " JOIN machines_machine m ON m.id=v.machine_id WHERE v.id=?",
                (version_id,),
            ).fetchone()
        return self._version_owners[version_id]

    def take_instance_id(self) -> int:
        self._next_instance_id += 1
        return self._next_instance_id - 1

    def take_delivery_id(self) -> int:
        self._next_delivery_id += 1
        return self._next_delivery_id - 1


def _delivery(row: tuple[Any, ...]) -> Delivery:
    id_, kind, machine_id, slug, *rest = row
    return Delivery(id_, kind, (machine_id, slug), *rest)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
