"""The store on Postgres: several processes may write, and only `seq` decides who wins.

Three connections on the engine's loop, each with one job, so that none waits for another's locks:
the committer writes batches of steps, one statement each; the reader collects point reads; the
housekeeper does everything else in turn. While a batch is under way the next one collects.

What fails in a batch is found by the ids that come back. Steps of an instance that failed are done
again one by one, which tells why. When the connection ends before the answer, the same batch is
sent again: whichever of the two attempts comes second finds the instance moved, and the commit id
in the history says by whom. A batch that stays unanswered is AMBIGUOUS, never a failure.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import struct
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from instances.engine import postgres_sql as sql
from instances.engine import scheduling
from instances.engine.errors import InstancePaused
from instances.engine.holding import PAUSED, Resume
from instances.engine.messages import not_created
from instances.engine.operations import (
    SETTLED,
    Activation,
    Code,
    Delivery,
    Kind,
    Operation,
    Outcome,
)
from instances.engine.plan import ATTEMPTS_MAX, CLAIMS_MAX, PURGE_ROWS, RETRY_AFTER_MS, Plan
from instances.engine.postgres_session import (
    ConnectionCut,
    DatabaseError,
    Identity,
    NotConnected,
    Parameter,
    Refused,
    Row,
    Session,
    bigint,
    bigints,
    conninfo_for_sessions,
    texts,
)
from instances.engine.pump import HORIZON_MS
from instances.engine.scheduling import Firing
from instances.engine.store import InstanceRow, LogRow, MigrationRow, NoteRow, OnCommit
from statebacked_site.postgres_text import storable

log = logging.getLogger("statebacked.store")

BATCH_STEPS = 256
READS_TOGETHER = 256
TASKS_WAITING = 10_000
# A claim is renewed while its node lives; another node takes it over when it ends.
CLAIM_MS = 15_000
IDS_TAKEN_TOGETHER = 4_000  # twice what one step can need (`core.EFFECTS_PER_STEP`), and more
OUTAGE_S = 2.0  # how long work waits for a connection before it is refused
AMBIGUOUS_S = 5.0  # how long an unanswered batch is asked about
TRY_AGAIN_S = 0.05
STALLED_S = 0.3  # without an answer to a batch: other nodes had better do what they can

# What one bad value in a batch can raise; the others must not suffer from it.
BAD_VALUES = (Refused, UnicodeEncodeError, struct.error, IndexError)

Task = Callable[[], Coroutine[Any, Any, None]]


class PostgresStore:
    """See `store.Store`. Used on the engine's loop only, also by its own tasks."""

    has_other_writers = True

    def __init__(
        self,
        conninfo: str,
        node: str,
        *,
        on_commit: OnCommit,
        on_replaced: Callable[[], None] = lambda: None,
    ) -> None:
        self.node = node
        self.on_commit = on_commit
        self.batches = 0
        self.steps = 0
        self.identity = Identity(on_change=on_replaced)
        limits = conninfo_for_sessions(conninfo)
        self._committer = Session("committer", limits, COMMITTING, self.identity)
        self._reader = Session("reader", limits, READING, self.identity)
        self._housekeeper = Session("housekeeper", limits, HOUSEKEEPING, self.identity)
        self._steps: deque[Operation] = deque()
        self._reads: deque[tuple[tuple[int, str], Callable[..., None]]] = deque()
        self._due_reads: deque[tuple[tuple[int, str], int, int, Callable[..., None]]] = deque()
        self._key_reads: deque[tuple[int, str, Callable[..., None]]] = deque()
        self._tasks: deque[Task] = deque()
        self._wake = {name: asyncio.Event() for name in ("commit", "read", "task")}
        self._instance_ids: deque[int] = deque()
        self._delivery_ids: deque[int] = deque()
        self._stopping = False
        self._committing_since: float | None = None  # monotonic: a batch is with the database
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Raises DatabaseError if the database can't be used."""
        # Whoever is called back must not be able to end the tasks here.
        self._post = asyncio.get_running_loop().call_soon
        await self._take_ids()
        await self._reader.run("find_request_key", bigint(0), b"")
        deleted = await self._housekeeper.run("deleted")
        for (instance_id,) in deleted:
            self._purge(_int(instance_id))
        self._loops = [
            asyncio.create_task(work)
            for work in (self._run_commits(), self._run_reads(), self._run_tasks())
        ]

    def disconnect(self) -> None:
        """Make new connections: those that there are may lead to a server that was replaced."""
        for session in (self._committer, self._reader, self._housekeeper):
            session.disconnect()

    async def stop(self) -> None:
        """Write what is queued and end the connections."""
        self._stopping = True
        for event in self._wake.values():
            event.set()
        await asyncio.gather(*self._loops)
        for session in (self._committer, self._reader, self._housekeeper):
            session.close()

    # ------------------------------------------------------------------ reads

    def read(
        self, key: tuple[int, str], done: Callable[[InstanceRow | Exception | None], None]
    ) -> None:
        self._reads.append((key, done))
        self._wake["read"].set()

    def find_due(
        self,
        key: tuple[int, str],
        now_ms: int,
        limit: int,
        done: Callable[[list[Delivery] | Exception], None],
    ) -> None:
        self._due_reads.append((key, now_ms, limit, done))
        self._wake["read"].set()

    def find_machine(
        self, delivery_id: int, done: Callable[[int | Exception | None], None]
    ) -> None:
        self._task(lambda: self._find_id(done, "find_machine", bigint(delivery_id)))

    def find_version(
        self, machine_id: int, version: str, done: Callable[[int | Exception | None], None]
    ) -> None:
        self._task(
            lambda: self._find_id(
                done, "find_version", bigint(machine_id), storable(version).encode()
            )
        )

    async def _find_id(
        self, done: Callable[..., None], statement: str, *parameters: Parameter
    ) -> None:
        try:
            rows = await self._ask(self._housekeeper, statement, *parameters)
        except DatabaseError as error:
            self._post(done, error)
        else:
            self._post(done, _int(rows[0][0]) if rows else None)

    def find_migrations(
        self, machine_id: int, done: Callable[[list[MigrationRow] | Exception], None]
    ) -> None:
        async def work() -> None:
            try:
                rows = await self._ask(self._housekeeper, "find_migrations", bigint(machine_id))
            except DatabaseError as error:
                self._post(done, error)
            else:
                self._post(done, [_migration(row) for row in rows])

        self._task(work)

    def find_request_key(
        self, instance_id: int, request_key: str, done: Callable[[bool | Exception], None]
    ) -> None:
        self._key_reads.append((instance_id, request_key, done))
        self._wake["read"].set()

    def has_due(self, before_ms: int, now_ms: int) -> bool:
        return True  # claiming asks the same question

    async def _run_reads(self) -> None:
        wake = self._wake["read"]
        while not self._stopping:
            await wake.wait()
            wake.clear()
            while self._reads:
                count = min(len(self._reads), READS_TOGETHER)
                await self._read([self._reads.popleft() for _ in range(count)])
            while self._due_reads:
                count = min(len(self._due_reads), READS_TOGETHER)
                await self._find_due([self._due_reads.popleft() for _ in range(count)])
            while self._key_reads:
                await self._find_key(*self._key_reads.popleft())

    async def _read(self, reads: list[tuple[tuple[int, str], Callable[..., None]]]) -> None:
        try:
            rows = await self._ask(
                self._reader,
                "read",
                bigints(range(len(reads))),
                bigints([machine_id for (machine_id, _), _ in reads]),
                texts([storable(slug) for (_, slug), _ in reads]),
            )
        except (DatabaseError, UnicodeEncodeError) as error:
            for _, done in reads:
                self._post(done, error)
            return
        found = {_int(row[0]): row for row in rows}
        for n, (_, done) in enumerate(reads):
            row = found.get(n)
            self._post(done, _instance_row(row) if row is not None else None)

    async def _find_due(
        self, reads: list[tuple[tuple[int, str], int, int, Callable[..., None]]]
    ) -> None:
        try:
            rows = await self._ask(
                self._reader,
                "find_due",
                bigints(range(len(reads))),
                bigints([machine_id for (machine_id, _), *_ in reads]),
                texts([slug for (_, slug), *_ in reads]),
                bigints([now_ms for _, now_ms, *_ in reads]),
                bigint(max(limit for _, _, limit, _ in reads)),
            )
        except DatabaseError as error:
            for *_, done in reads:
                self._post(done, error)
            return
        found: list[list[Delivery]] = [[] for _ in reads]
        paused: set[int] = set()
        for n, *columns, status in rows:
            found[_int(n)].append(_delivery(tuple(columns)))
            if status is not None and _int(status) == PAUSED:
                paused.add(_int(n))
        for place, (deliveries, (key, *_, done)) in enumerate(zip(found, reads, strict=True)):
            if place in paused:
                self.hold(deliveries[0].id)
                self._post(done, InstancePaused(f"{key[1]} is paused"))
            else:
                self._post(done, deliveries)

    async def _find_key(self, instance_id: int, key: str, done: Callable[..., None]) -> None:
        try:
            rows = await self._ask(
                self._reader, "find_request_key", bigint(instance_id), key.encode()
            )
        except DatabaseError as error:
            self._post(done, error)
        else:
            self._post(done, bool(rows))

    async def _ask(self, session: Session, statement: str, *parameters: Parameter) -> list[Row]:
        """Run what may run twice; waits a moment for a connection. Raises DatabaseError."""
        give_up = _now() + OUTAGE_S
        while True:
            try:
                return await session.run(statement, *parameters)
            except (ConnectionCut, NotConnected):
                if _now() >= give_up or self._stopping:
                    raise
            await asyncio.sleep(TRY_AGAIN_S)

    # ------------------------------------------------------------------ commits

    def put(self, operations: list[Operation]) -> None:
        self._steps += operations
        self._wake["commit"].set()

    async def _run_commits(self) -> None:
        wake = self._wake["commit"]
        while not (self._stopping and not self._steps):
            await wake.wait()
            wake.clear()
            while self._steps:
                # What has come to this process already goes along: a batch costs more than a turn.
                await asyncio.sleep(0)
                count = min(len(self._steps), BATCH_STEPS)
                batch = [self._steps.popleft() for _ in range(count)]
                self._committing_since = _now()
                outcomes = await self._commit(batch)
                self._committing_since = None
                self._post(self.on_commit, outcomes)

    def is_stalled(self) -> bool:
        """Whether the database has let a batch wait for longer than it should."""
        since = self._committing_since
        return since is not None and _now() - since > STALLED_S

    async def _commit(self, batch: list[Operation]) -> list[tuple[Operation, Outcome]]:
        plan = Plan(self, self.node, CLAIM_MS, must_confirm=True)
        try:
            await self._take_ids()
            for operation in batch:
                plan.add(operation)
            failed = await self._write(plan)
        except NotConnected:
            return self._void(batch, Outcome.FAILED)
        except ConnectionCut:
            return self._void(batch, Outcome.AMBIGUOUS)
        except BAD_VALUES:
            if not plan.was_cut:
                return await self._commit_one_by_one(batch)
            failed = plan.parts()
        if not failed:
            return plan.outcomes
        try:
            if plan.was_cut:
                failed -= await self._find_ours(plan, failed)
        except (DatabaseError, *BAD_VALUES):
            return self._void(batch, Outcome.AMBIGUOUS)
        return await self._commit_failed(plan, failed)

    def _void(self, batch: list[Operation], outcome: Outcome) -> list[tuple[Operation, Outcome]]:
        """Nothing of this batch may be believed."""
        outcomes = []
        killed = set()
        for operation in batch:
            activation = operation.activation
            if not activation.dead:
                killed.add(activation)
                _kill(operation)
                # A refusal writes nothing: that it failed is certain.
                known = outcome if _changes(operation) else Outcome.FAILED
                outcomes.append((operation, known))
            elif activation in killed and outcome is Outcome.AMBIGUOUS and _changes(operation):
                outcomes.append((operation, outcome))  # where the one before it is, it is too
            else:
                outcomes.append((operation, Outcome.CONFLICT))
        return outcomes

    async def _find_ours(self, plan: Plan, failed: set[Activation]) -> set[Activation]:
        """Of the instances that were not found as expected, those that the attempt that was cut
        has moved. What one does takes place as a whole, so their last step speaks for all, also for
        those that wrote nothing: these would find the instance moved, and void what was committed.
        """
        ours = set()
        for activation, (last, _) in plan.updates.items():
            if activation in failed and await self._reason(last, None) is Outcome.COMMITTED:
                ours.add(activation)
        return ours

    async def _commit_failed(
        self, plan: Plan, failed: set[Activation]
    ) -> list[tuple[Operation, Outcome]]:
        """Find out why, in the order of the batch, for those of which nothing took place."""
        again = [operation for operation, _ in plan.outcomes if operation.activation in failed]
        for operation in await self._outrun(again):
            _kill(operation)
        answers = iter(await self._commit_one_by_one(again, was_cut=plan.was_cut))
        return [
            next(answers) if operation.activation in failed else (operation, outcome)
            for operation, outcome in plan.outcomes
        ]

    async def _outrun(self, operations: list[Operation]) -> list[Operation]:
        """The first steps of instances that another node was faster with: one question for all.

        Where the reason may be another one, or there is no answer, they are asked for one by one.
        """
        first: dict[Activation, Operation] = {}
        for operation in operations:
            if not operation.activation.dead:
                first.setdefault(operation.activation, operation)
        plain = [
            operation
            for operation in first.values()
            if operation.kind is not Kind.INIT
            and operation.delivery is None
            and operation.request_key is None
            and operation.activation.row_id is not None
        ]
        if not plain:
            return []
        changes = [_changes(operation) for operation in plain]
        try:
            rows = await self._ask(
                self._committer,
                "outrun",
                bigints(range(len(plain))),
                bigints([operation.activation.row_id or 0 for operation in plain]),
                bigints([o.seq - is_new for o, is_new in zip(plain, changes, strict=True)]),
                bigints(
                    [o.commit_id if is_new else 0 for o, is_new in zip(plain, changes, strict=True)]
                ),
            )
        except DatabaseError:
            return []
        return [plain[_int(n)] for (n,) in rows]

    async def _commit_one_by_one(
        self, batch: list[Operation], *, was_cut: bool = False
    ) -> list[tuple[Operation, Outcome]]:
        """`was_cut`: an attempt at the whole ended without an answer, and may have taken place."""
        outcomes: list[tuple[Operation, Outcome]] = []
        for n, operation in enumerate(batch):
            outcome = Outcome.CONFLICT
            if not operation.activation.dead:
                try:
                    outcome = await self._commit_alone(operation, was_cut)
                except NotConnected:
                    return outcomes + self._void(
                        batch[n:], Outcome.AMBIGUOUS if was_cut else Outcome.FAILED
                    )
                except ConnectionCut:
                    return outcomes + self._void(batch[n:], Outcome.AMBIGUOUS)
                if outcome is not Outcome.COMMITTED:
                    # Whatever was computed behind it is void, even if the sequence number fits
                    # by the time that it is tried: another node may have raised it.
                    _kill(operation)
            outcomes.append((operation, outcome))
        return outcomes

    async def _commit_alone(self, operation: Operation, was_cut: bool) -> Outcome:
        plan = Plan(self, self.node, CLAIM_MS, must_confirm=True)
        plan.was_cut = was_cut
        refused: Exception | None = None
        try:
            await self._take_ids()
            plan.add(operation)
            if not await self._write(plan):
                return Outcome.COMMITTED
        except BAD_VALUES as error:
            refused = error
        try:
            return await self._reason(operation, refused)
        except NotConnected as error:
            if plan.was_cut:
                raise ConnectionCut(str(error)) from error
            raise
        except BAD_VALUES:
            is_known = not (plan.was_cut and _changes(operation))
            return Outcome.FAILED if is_known else Outcome.AMBIGUOUS

    async def _write(self, plan: Plan) -> set[Activation]:
        """Write a plan; the activations of which nothing took place. Raises DatabaseError.

        NotConnected says that nothing took place, ConnectionCut that nobody knows.
        """
        parts = plan.parts()
        if not parts:
            return set()
        if not plan.in_any_order or plan.has_clashes():
            return parts
        statement, parameters = _parameters(plan)
        self.batches += 1
        self.steps += len(plan.history)
        rows = await self._run_until_known(plan, statement, parameters)
        if statement == "steps":
            done = {_int(row[0]) for row in rows}
        else:
            done = {_int(row[1]) for row in rows if row[0] == b"0"}
            _note_cancelled(plan, rows)
            _note_written(plan, rows)
            _note_renamed(plan, rows)
        return {part for part in parts if part.row_id not in done}

    async def _run_until_known(
        self, plan: Plan, statement: str, parameters: list[bytes]
    ) -> list[Row]:
        """Run a batch; where its first attempt was cut, run it again until one is answered."""
        started = _now()
        while True:
            try:
                return await self._committer.run(statement, *parameters)
            except ConnectionCut:
                plan.was_cut = True
                if _now() - started >= AMBIGUOUS_S:
                    raise
            except NotConnected as error:
                if plan.was_cut:
                    if _now() - started >= AMBIGUOUS_S:
                        raise ConnectionCut(str(error)) from error
                elif _now() - started >= OUTAGE_S or self._stopping:
                    raise
            await asyncio.sleep(TRY_AGAIN_S)

    async def _reason(self, operation: Operation, refused: Exception | None) -> Outcome:
        """Why a step did not take place, or that an earlier attempt of ours did."""
        row_id, delivery = operation.activation.row_id or 0, operation.delivery
        (commit_id, status, has_key, has_delivery), *_ = await self._ask(
            self._committer,
            "reason",
            bigint(row_id),
            bigint(operation.seq),
            (operation.request_key or "").encode(),
            bigint(delivery.id if delivery is not None else 0),
        )
        if _changes(operation) and commit_id is not None and _int(commit_id) == operation.commit_id:
            return Outcome.COMMITTED
        if operation.kind is Kind.INIT:
            if delivery is not None and has_delivery == b"f":
                return Outcome.GONE
            return Outcome.EXISTS if refused is None else Outcome.FAILED
        if status is None or _int(status) == 2:
            return Outcome.DELETED
        if _int(status) == 1:
            return Outcome.PAUSED
        if operation.request_key is not None and has_key == b"t":
            return Outcome.DUPLICATE
        if delivery is not None and has_delivery == b"f":
            return Outcome.GONE
        if refused is not None:
            log.error("the database refused a step: %s", refused)
            return Outcome.FAILED
        return Outcome.CONFLICT

    # ------------------------------------------------------------------ ids

    async def _take_ids(self) -> None:
        """See to it that there are enough for any step. Raises NotConnected or Refused."""
        for ids, statement in (
            (self._instance_ids, "instance_ids"),
            (self._delivery_ids, "delivery_ids"),
        ):
            if len(ids) < IDS_TAKEN_TOGETHER // 2:
                try:
                    rows = await self._ask(self._committer, statement, bigint(IDS_TAKEN_TOGETHER))
                except ConnectionCut as error:
                    raise NotConnected(str(error)) from error  # nothing was lost but numbers
                ids.extend(_int(row[0]) for row in rows)

    def take_instance_id(self) -> int:
        return self._instance_ids.popleft()

    def take_delivery_id(self) -> int:
        return self._delivery_ids.popleft()

    # ------------------------------------------------------------------ other changes

    async def find_moved(
        self, positions: list[tuple[tuple[int, str], int]]
    ) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
        """Of (instance, seq): which have gone further, and which are gone. Raises DatabaseError."""
        rows = await self._in_turn(
            "moved",
            bigints(range(len(positions))),
            bigints([machine_id for (machine_id, _), _ in positions]),
            texts([slug for (_, slug), _ in positions]),
            bigints([seq for _, seq in positions]),
        )
        there = {_int(n): moved == b"t" for n, moved in rows}
        moved = [key for n, (key, _) in enumerate(positions) if there.get(n)]
        gone = [key for n, (key, _) in enumerate(positions) if n not in there]
        return moved, gone

    def set_status(
        self,
        instance_id: int,
        status: int,
        done: Callable[[bool | None], None],
        timers: Resume = Resume.ORIGINAL,
    ) -> None:
        if status == 1:
            self._change("pause", bigint(instance_id), done=done)
        else:
            self._change("resume", bigint(instance_id), bigint(timers), done=done)

    def delete(self, instance_id: int, done: Callable[[bool | None], None]) -> None:
        def deleted(found: bool | None) -> None:
            if found:
                self._purge(instance_id)
            done(found)

        self._change("delete", bigint(instance_id), done=deleted)

    def release(self, instance_id: int, seq: int) -> None:
        self._change("release", bigint(instance_id), bigint(seq))

    def claim_due(self, before_ms: int, limit: int, done: Callable[[list[Delivery]], None]) -> None:
        async def work() -> None:
            claimed: list[Delivery] = []
            try:
                rows = await self._housekeeper.run(
                    "claim", bigint(before_ms), bigint(limit), bigint(CLAIM_MS)
                )
                for row in rows:
                    delivery = _delivery(row)
                    if delivery.claims > CLAIMS_MAX:
                        await self._bury(delivery, "crash-loop: its nodes ended each time")
                    else:
                        claimed.append(delivery)
            except DatabaseError as error:
                log.warning("deliveries can't be claimed: %s", error)
            claimed.sort(key=lambda delivery: (delivery.due_at_ms, delivery.id))
            self._post(done, claimed)

        self._task(work)

    async def claimed(self, delivery_ids: list[int]) -> list[Delivery]:
        """Those of these deliveries that are claimed and due, in order. Raises DatabaseError."""
        rows = await self._in_turn("claimed", bigints(delivery_ids), bigint(2 * HORIZON_MS))
        deliveries = [_delivery(row) for row in rows]
        return sorted(deliveries, key=lambda delivery: (delivery.due_at_ms, delivery.id))

    def unclaim(self, delivery_ids: Iterable[int]) -> None:
        """Give deliveries back that were claimed and not begun."""
        ids = sorted(delivery_ids)
        if ids:
            self._change("unclaim", bigints(ids))

    def renew_claims(self, delivery_ids: Iterable[int]) -> None:
        ids = sorted(delivery_ids)
        if ids:
            self._change("renew_claims", bigints(ids), bigint(CLAIM_MS))

    def postpone(self, delivery_id: int, due_at_ms: int) -> None:
        self._change("postpone", bigint(delivery_id), bigint(due_at_ms))

    def hold(self, delivery_id: int) -> None:
        self._change("hold", bigint(delivery_id))

    def fail(self, delivery: Delivery, error: str, done: Callable[[], None] = lambda: None) -> None:
        async def work() -> None:
            attempts = delivery.attempts + 1
            try:
                if attempts >= ATTEMPTS_MAX:
                    await self._bury(delivery, error, attempts)
                else:
                    await self._housekeeper.run(
                        "fail",
                        bigint(delivery.id),
                        bigint(delivery.attempts),
                        _printable(error),
                        bigint(RETRY_AFTER_MS),
                    )
            except DatabaseError as failure:
                log.warning("an attempt was not counted: %s", failure)  # its claim ends by itself
            self._post(done)

        self._task(work)

    async def _bury(self, delivery: Delivery, reason: str, attempts: int | None = None) -> None:
        """Turn a delivery into a dead letter. Raises DatabaseError."""
        await self._housekeeper.run(
            "bury",
            bigint(delivery.id),
            bigint(delivery.attempts),
            bigint(delivery.attempts if attempts is None else attempts),
            _printable(reason),
            not_created(delivery, _printable(reason).decode()).encode(),
        )

    def fire_schedule(self, firing: Firing) -> None:
        self._change(
            "fire_schedule",
            bigint(firing.schedule_id),
            bigint(firing.expected_ms),
            bigint(firing.next_run_ms or 0),
            bigint(firing.planned_ms),
            firing.problem.encode(),
            bigint(firing.kind),
            bigint(firing.org_id),
            bigint(firing.machine_id),
            firing.slug.encode(),
            firing.event.encode(),
            firing.auth.encode(),
            bigint(firing.now_ms),
        )

    def log(self, rows: list[LogRow]) -> None:
        columns = list(zip(*rows, strict=True))
        version_ids, instance_ids, slugs, levels, messages, times = columns
        self._change(
            "log",
            bigints(version_ids),
            bigints([instance_id or 0 for instance_id in instance_ids]),
            texts(slugs),
            texts(levels),
            texts([_printable(message).decode() for message in messages]),
            bigints(times),
        )

    def note(self, rows: list[NoteRow]) -> None:
        ids, seqs, kinds, outcomes, events, auths, more, times = zip(*rows, strict=True)
        self._change(
            "note",
            bigints(ids),
            bigints(seqs),
            bigints(kinds),
            bigints(outcomes),
            texts([_printable(event).decode() for event in events]),
            texts([_printable(auth).decode() for auth in auths]),
            bigints(more),
            bigints(times),
        )

    def _purge(self, instance_id: int) -> None:
        """Remove the history of a deleted instance in pieces, between other work."""

        async def work() -> None:
            row_id = bigint(instance_id)
            try:
                (removed,), *_ = await self._housekeeper.run("purge", row_id, bigint(PURGE_ROWS))
                if _int(removed) == 0:
                    await self._housekeeper.run("purge_logs", row_id)
                    await self._housekeeper.run("purge_notes", row_id)
                    await self._housekeeper.run("purge_instance", row_id)
                    return
            except DatabaseError:
                return  # the next start goes on with it
            self._task(work)

        self._task(work)

    async def _in_turn(self, statement: str, *parameters: Parameter) -> list[Row]:
        """What the housekeeper's statement returns. Raises DatabaseError."""
        answer: asyncio.Future[list[Row]] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            try:
                rows = await self._housekeeper.run(statement, *parameters)
            except DatabaseError as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(rows)

        self._task(work)
        return await answer

    def _change(
        self,
        statement: str,
        *parameters: Parameter,
        done: Callable[[bool | None], None] = lambda found: None,
    ) -> None:
        """Run a statement in turn; `done` gets whether it returned a row, or None if it failed."""

        async def work() -> None:
            try:
                found: bool | None = bool(
                    await self._ask(self._housekeeper, statement, *parameters)
                )
            except DatabaseError as error:
                log.error("a write failed (%s): %s", statement, error)
                found = None
            self._post(done, found)

        self._task(work)

    def _task(self, work: Task) -> None:
        self._tasks.append(work)
        self._wake["task"].set()

    async def _run_tasks(self) -> None:
        wake = self._wake["task"]
        while not (self._stopping and not self._tasks):
            await wake.wait()
            wake.clear()
            while self._tasks:
                await self._tasks.popleft()()


COMMITTING = {
    "steps": sql.STEPS,
    "batch": sql.BATCH,
    "batch_with_upgrades": sql.BATCH_WITH_UPGRADES,
    "reason": sql.REASON,
    "outrun": sql.OUTRUN,
    "instance_ids": sql.INSTANCE_IDS,
    "delivery_ids": sql.DELIVERY_IDS,
}
READING = {
    "read": sql.READ,
    "find_due": sql.FIND_DUE,
    "find_request_key": sql.FIND_REQUEST_KEY,
}
HOUSEKEEPING = {
    "deleted": sql.DELETED,
    "moved": sql.MOVED,
    "find_machine": sql.FIND_MACHINE,
    "find_version": sql.FIND_VERSION,
    "find_migrations": sql.FIND_MIGRATIONS,
    "pause": sql.PAUSE,
    "resume": sql.RESUME,
    "hold": sql.HOLD,
    "delete": sql.DELETE,
    "purge": sql.PURGE,
    "purge_logs": sql.PURGE_LOGS,
    "purge_notes": sql.PURGE_NOTES,
    "purge_instance": sql.PURGE_INSTANCE,
    "release": sql.RELEASE,
    "claim": sql.CLAIM,
    "claimed": sql.CLAIMED,
    "unclaim": sql.UNCLAIM,
    "renew_claims": sql.RENEW_CLAIMS,
    "postpone": sql.POSTPONE,
    "fail": sql.FAIL,
    "bury": sql.BURY,
    "log": sql.LOG,
    "note": sql.NOTE,
    "fire_schedule": scheduling.POSTGRES,
}


# ---------------------------------------------------------------------- a plan as parameters


def _parameters(plan: Plan) -> tuple[str, list[bytes]]:
    """The statement that a plan needs, and its parameters."""
    # Rows are locked and inserted in the order of their keys, whatever the batch's own order.
    updates = sorted(plan.updates.items(), key=lambda item: item[0].row_id or 0)
    lasts = [last for _, (last, _) in updates]
    parameters = [
        bigints([activation.row_id or 0 for activation, _ in updates]),
        bigints([base for _, (_, base) in updates]),
        bigints([last.seq for last in lasts]),
        bigints([last.ts for last in lasts]),
        texts([last.state for last in lasts]),
        texts([last.extra for last in lasts]),
        texts([last.context for last in lasts]),
    ]
    # An update proves all that its instance's other steps were computed on.
    confirms = {a: seq for a, seq in plan.confirms.items() if a not in plan.updates}
    history = _columns(plan.history, "iiiittttttiitiii")
    has_effects = confirms or plan.inserts or plan.consumed or plan.cancels or plan.deliveries
    # What an instance sends to itself must not be stopped by a desired version.
    are_plain = not plan.inner or all(
        activation.children != SETTLED for activation in plan.inner if activation in plan.updates
    )
    if not has_effects and are_plain and all(last.deadline_ms is None for last in lasts):
        return "steps", [*parameters, *history, plan.node.encode()]
    parameters += [
        texts([last.children for last in lasts]),
        bigints([last.deadline_ms or 0 for last in lasts]),
        bigints([plan.wanted_version(activation) for activation, _ in updates]),
        *history,
        *_columns(plan.inserts, "itiittttiiiit"),
        bigints([activation.row_id or 0 for activation in confirms]),
        bigints(list(confirms.values())),
        bigints([activation in plan.inner for activation in confirms]),
        bigints([activation.row_id or 0 for activation, _ in plan.consumed]),
        bigints([delivery_id for _, delivery_id in plan.consumed]),
        *_columns(list(plan.deliveries.values()), "iittiiiittiiiiiit"),
        bigints([operation.activation.row_id or 0 for operation, _ in plan.cancels]),
        texts([send_id for _, send_id in plan.cancels]),
        plan.node.encode(),
    ]
    if not plan.upgrades:
        return "batch", parameters
    renames = [
        (
            operation.activation.row_id,
            rename.send_id,
            rename.delivery_id,
            rename.to,
            rename.event,
            operation.seq,
            rename.n,
            operation.created_at_ms,
        )
        for operation, rename in plan.renames
    ]
    return "batch_with_upgrades", [
        *parameters,
        *_columns(renames, "itittiii"),
        bigint(plan.claim_ms),
    ]


def _columns(rows: list[tuple[Any, ...]], types: str) -> list[bytes]:
    """Rows as one array per column; `types` has i or t for each. None becomes 0 or empty."""
    columns: Iterable[Any] = zip(*rows, strict=True) if rows else itertools.repeat((), len(types))
    arrays = []
    for type_, column in zip(types, columns, strict=True):
        if type_ == "i":
            arrays.append(bigints([n or 0 for n in column] if None in column else column))
        else:
            arrays.append(texts([t or "" for t in column] if None in column else column))
    return arrays


def _note_cancelled(plan: Plan, rows: list[Row]) -> None:
    cancelled = {(_int(row[1]), row[3]): _int(row[2]) for row in rows if row[0] == b"1"}
    for operation, send_id in plan.cancels:
        id_ = cancelled.get((operation.activation.row_id or 0, send_id.encode()))
        if id_ is not None:
            operation.cancelled_ids = [*(operation.cancelled_ids or ()), id_]
    for operation, rename in plan.renames:
        id_ = cancelled.get((operation.activation.row_id or 0, rename.send_id.encode()))
        if id_ is not None:
            operation.cancelled_ids = [*(operation.cancelled_ids or ()), id_]


def _note_renamed(plan: Plan, rows: list[Row]) -> None:
    """When the timers that were renamed are due."""
    kept = {_int(row[2]): row for row in rows if row[0] == b"3"}
    for _, rename in plan.renames:
        if rename.delivery_id in kept:
            _, due_at_ms, _, numbers = kept[rename.delivery_id]
            rename.due_at_ms = _int(due_at_ms)
            rename.attempts, rename.hops = map(int, _text(numbers).split())


def _note_written(plan: Plan, rows: list[Row]) -> None:
    """Where the messages go whose targets were found by name."""
    for what, machine_id, delivery_id, slug in rows:
        if what == b"2":
            plan.messages[_int(delivery_id)].key = (_int(machine_id), _text(slug))


def _changes(operation: Operation) -> bool:
    return operation.code in (Code.CHANGED, Code.CHANGED_WITH_EFFECTS)


def _kill(operation: Operation) -> None:
    operation.activation.dead = True
    if operation.kind is Kind.INIT:
        operation.activation.row_id = None


# ---------------------------------------------------------------------- rows that come back


def _int(value: bytes | None) -> int:
    assert value is not None
    return int(value)


def _text(value: bytes | None) -> str:
    return value.decode() if value is not None else ""


def _instance_row(row: Row) -> InstanceRow:
    _, id_, version_id, status, seq, ts, state, extra, context, children, *ownership = row
    owner, deadline, address, parent_id, parent_child, desired_version_id = ownership
    return InstanceRow(
        _int(id_),
        _int(version_id),
        _int(status),
        _int(seq),
        _int(ts),
        _text(state),
        _text(extra),
        _text(context),
        _text(children),
        owner.decode() if owner is not None else None,
        _int(deadline) if deadline is not None else None,
        address.decode() if address is not None else None,
        _int(parent_id) if parent_id is not None else None,
        parent_child.decode() if parent_child is not None else None,
        _int(desired_version_id) if desired_version_id is not None else None,
    )


def _migration(row: Row) -> MigrationRow:
    id_, from_id, to_id, from_version, to_version = row
    return MigrationRow(
        _int(id_), _int(from_id), _int(to_id), _text(from_version), _text(to_version)
    )


def _delivery(row: Row) -> Delivery:
    id_, kind, machine_id, slug, event, due_at, attempts, claims, send_id, auth, hops, source = row
    return Delivery(
        _int(id_),
        _int(kind),
        (_int(machine_id), _text(slug)),
        _text(event),
        _int(due_at),
        _int(attempts),
        _int(claims),
        send_id.decode() if send_id is not None else None,
        _text(auth),
        _int(hops),
        _int(source) if source is not None else None,
    )


def _printable(text: str) -> bytes:
    """Text for people, without what Postgres can't store."""
    return text.replace("\0", "").encode("utf-8", "replace")


def _now() -> float:
    return asyncio.get_running_loop().time()
