"""Deliberate bugs: each takes one rule out of the real program. The simulation must find them all.

A mutant is a context manager that patches a method, a constant or a statement of the program for as
long as it is entered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from instances.engine import core, loading, membership, postgres_store, steps
from instances.engine.core import Engine
from instances.engine.elsewhere import Elsewhere
from instances.engine.errors import EngineError, OutcomeUnknown, Unavailable
from instances.engine.forwarding import Forwarder
from instances.engine.messages import Messages, Target
from instances.engine.operations import (
    SETTLED,
    Activation,
    Code,
    Delivery,
    DeliveryKind,
    Kind,
    Operation,
    Outcome,
    state_body,
)
from instances.engine.plan import Plan
from instances.engine.postgres_store import PostgresStore
from instances.engine.timers import Timers
from instances.engine.upgrades import Upgrades
from tests.instances.engine.simulation import runners

Mutant = Callable[[], contextlib.AbstractContextManager[None]]
MUTANTS: dict[str, Mutant] = {}


def _mutant(function: Callable[[], Iterator[None]]) -> Mutant:
    mutant = contextlib.contextmanager(function)
    MUTANTS[function.__name__] = mutant
    return mutant


@contextlib.contextmanager
def _without(statements: dict[str, str], names: str, condition: str) -> Iterator[None]:
    """Take a condition out of some of the real SQL."""
    changed = {}
    for name in names.split():
        assert condition in statements[name], f"{name} has no {condition!r}"
        changed[name] = statements[name].replace(condition, "")
    with patch.dict(statements, changed):
        yield


def _method(owner: Any, name: str, method: Any) -> contextlib.AbstractContextManager[Any]:
    assert hasattr(owner, name)
    return patch.object(owner, name, method)


# ---------------------------------------------------------------------- the commit


@_mutant
def no_seq_check() -> Iterator[None]:
    with _without(postgres_store.COMMITTING, "batch", "AND t.seq = x.base"):
        yield


@_mutant
def pause_ignored() -> Iterator[None]:
    with _without(postgres_store.COMMITTING, "batch", "AND t.status = 0"):
        yield


@_mutant
def refusals_not_confirmed() -> Iterator[None]:
    """What was computed on a cached state is told without asking whether it is the latest."""
    add = Plan.add

    def forgetful(self: Plan, operation: Operation) -> None:
        self.must_confirm = operation.delivery is not None
        add(self, operation)

    with _method(Plan, "add", forgetful):
        yield


@_mutant
def consumed_deliveries_not_checked() -> Iterator[None]:
    """A timer that was cancelled or fired elsewhere fires again."""
    with _without(
        postgres_store.COMMITTING, "batch", "AND t.id NOT IN (SELECT row_id FROM lacking)"
    ):
        yield


@_mutant
def gone_taken_for_success() -> Iterator[None]:
    commit_alone = PostgresStore._commit_alone

    async def gullible(self: PostgresStore, operation: Operation, *rest: Any) -> Outcome:
        outcome = await commit_alone(self, operation, *rest)
        return Outcome.COMMITTED if outcome is Outcome.GONE else outcome

    with _method(PostgresStore, "_commit_alone", gullible):
        yield


@_mutant
def chain_goes_on_after_a_failure() -> Iterator[None]:
    with _method(postgres_store, "_kill", lambda operation: None):
        yield


@_mutant
def ambiguous_taken_for_failure() -> Iterator[None]:
    void = PostgresStore._void

    def pessimist(self: PostgresStore, batch: list[Operation], outcome: Outcome) -> Any:
        return void(self, batch, Outcome.FAILED)

    with _method(PostgresStore, "_void", pessimist), _method(postgres_store, "AMBIGUOUS_S", 0.0):
        yield


@_mutant
def ambiguous_taken_for_success() -> Iterator[None]:
    void = PostgresStore._void

    def optimist(self: PostgresStore, batch: list[Operation], outcome: Outcome) -> Any:
        if outcome is Outcome.AMBIGUOUS:
            return [(operation, Outcome.COMMITTED) for operation in batch]
        return void(self, batch, outcome)

    with _method(PostgresStore, "_void", optimist), _method(postgres_store, "AMBIGUOUS_S", 0.0):
        yield


@_mutant
def own_commit_taken_for_conflict() -> Iterator[None]:
    """A batch that is sent again is not recognised in the history."""
    reason = PostgresStore._reason

    async def forgetful(
        self: PostgresStore, operation: Operation, refused: Exception | None
    ) -> Outcome:
        outcome = await reason(self, operation, refused)
        return Outcome.CONFLICT if outcome is Outcome.COMMITTED else outcome

    with _method(PostgresStore, "_reason", forgetful):
        yield


@_mutant
def cancel_not_in_commit() -> Iterator[None]:
    add_effects = Plan._add_effects

    def forgetful(self: Plan, operation: Operation) -> None:
        operation.cancels = None
        add_effects(self, operation)

    with _method(Plan, "_add_effects", forgetful):
        yield


@_mutant
def latest_timer_taken_by_id() -> Iterator[None]:
    """Ids are given out in blocks: the highest is not the latest where several servers write."""
    text = postgres_store.COMMITTING["batch"] + " -- max(e.id)"
    with patch.dict(postgres_store.COMMITTING, {"batch": text}):
        yield


@_mutant
def request_key_checked_nowhere() -> Iterator[None]:
    """Neither before the step nor in its commit."""
    add = Plan.add

    def keyless(self: Plan, operation: Operation) -> None:
        operation.request_key = None
        add(self, operation)

    look_up = lambda self, row_id, key, done: done(False)  # noqa: E731
    with _method(Plan, "add", keyless), _method(PostgresStore, "find_request_key", look_up):
        yield


# ---------------------------------------------------------------------- answers and effects


@_mutant
def answers_before_commit() -> Iterator[None]:
    on_answer = Engine._on_answer

    def hasty(
        self: Engine, link: Any, operation: Operation, fields: list[str], now_ms: int, ready: Any
    ) -> None:
        on_answer(self, link, operation, fields, now_ms, ready)
        if operation in ready and operation.code == Code.CHANGED:
            body = state_body(operation.ts, operation.state, operation.public)
            operation.answer(body)

    with _method(Engine, "_on_answer", hasty):
        yield


@_mutant
def effects_before_commit() -> Iterator[None]:
    on_answer = Engine._on_answer

    def hasty(
        self: Engine, link: Any, operation: Operation, fields: list[str], now_ms: int, ready: Any
    ) -> None:
        on_answer(self, link, operation, fields, now_ms, ready)
        if operation in ready and operation.code == Code.CHANGED_WITH_EFFECTS:
            self._acknowledge(operation.activation)

    with _method(Engine, "_on_answer", hasty):
        yield


@_mutant
def gate_opened_with_steps_uncommitted() -> Iterator[None]:
    def hasty(self: Engine, activation: Activation) -> None:
        if activation.wants_acknowledgement:
            self._acknowledge(activation)

    with _method(Engine, "_acknowledge_if_wanted", hasty):
        yield


@_mutant
def lost_services_not_reported() -> Iterator[None]:
    enqueue = Engine.enqueue

    def forgetful(self: Engine, activation: Activation, operation: Operation) -> None:
        if operation.kind is Kind.LOST_SERVICE:
            activation.children = SETTLED
        else:
            enqueue(self, activation, operation)

    with _method(Engine, "enqueue", forgetful):
        yield


@_mutant
def events_overtake_lost_services() -> Iterator[None]:
    """The queue lets what came first go first, whatever it is."""
    may_send = Engine._may_send

    def impatient(self: Engine, activation: Activation, operation: Operation) -> bool:
        return operation.kind is not Kind.LOST_SERVICE and may_send(self, activation, operation)

    with _method(Engine, "_may_send", impatient):
        yield


@_mutant
def owner_ignored() -> Iterator[None]:
    """Whoever gets an event processes it, though services run elsewhere."""
    with _method(Elsewhere, "leave_to_owner", _nothing):
        yield


@_mutant
def fencing_ignored() -> Iterator[None]:
    """A server whose lease has ended goes on as if it had it, and never joins anew."""
    fence = _method(membership.Membership, "fence", _nothing)
    with fence, _method(runners, "WATCHDOG_S", 1e9):
        yield


# ---------------------------------------------------------------------- timers


@_mutant
def claims_never_end() -> Iterator[None]:
    """What a killed server had claimed is never delivered."""
    text = postgres_store.HOUSEKEEPING["claim"].replace(
        "claim_until <= ", "0 = claim_until AND 0 < "
    )
    with patch.dict(postgres_store.HOUSEKEEPING, {"claim": text}):
        yield


@_mutant
def timers_not_spaced() -> Iterator[None]:
    with _method(steps, "_spaced_out", lambda activation, due_at_ms, now_ms: due_at_ms):
        yield


@_mutant
def timers_fire_when_claimed() -> Iterator[None]:
    add = Timers.add

    def hasty(self: Timers, deliveries: Any) -> None:
        deliveries = list(deliveries)
        for delivery in deliveries:
            delivery.due_at_ms = self.clock.now_ms()
        add(self, deliveries)

    with _method(Timers, "add", hasty):
        yield


@_mutant
def trouble_counts_as_attempt() -> Iterator[None]:
    counts = _method(Unavailable, "counts_as_attempt", True)
    with counts, _method(postgres_store, "ATTEMPTS_MAX", 1):
        yield


# ---------------------------------------------------------------------- messages


@_mutant
def read_again_before_a_failure_is_written() -> Iterator[None]:
    """M2: what has just failed may be found as if nothing had been."""
    refused = Messages.refused

    def hasty(self: Messages, delivery: Delivery, error: EngineError) -> None:
        refused(self, delivery, error)
        self.ended(delivery)

    with _method(Messages, "refused", hasty):
        yield


@_mutant
def spawns_not_delivered_alone() -> Iterator[None]:
    """M3: what is sent to a new instance does not wait until there is one."""
    go_on = Messages._go_on

    def all_at_once(self: Messages, target: Target) -> None:
        target.busy = True
        while target.waiting and not target.void:
            delivery = target.waiting.popleft()
            target.in_flight.add(delivery.id)
            self._begin(target, delivery)
        go_on(self, target)

    with _method(Messages, "_go_on", all_at_once):
        yield


@_mutant
def trouble_lets_others_pass() -> Iterator[None]:
    """M1: what fails through the site's own trouble does not hold up what was sent later."""
    with _method(Messages, "_trouble", Messages.ended):
        yield


@_mutant
def due_times_of_a_sender_go_back() -> Iterator[None]:
    """After a move to a node whose clock is behind."""
    with _method(loading, "CLOCKS_DIFFER_MS", -60_000):
        yield


@_mutant
def messages_read_by_id() -> Iterator[None]:
    """Ids are given out in blocks: the higher one was not sent later where the sender moves."""
    order = "ORDER BY e.due_at, e.source_seq, e.source_n, e.id"
    text = postgres_store.READING["find_due"]
    assert order in text
    changed = text.replace(order, "ORDER BY e.id")
    with patch.dict(postgres_store.READING, {"find_due": changed}):
        yield


@_mutant
def held_messages_overtaken() -> Iterator[None]:
    """What is sent to a paused instance is begun while what was sent before is held."""
    text = postgres_store.READING["find_due"]
    changed = text.replace("SELECT t.status FROM instance t", "SELECT NULL FROM instance t")
    assert changed != text
    with patch.dict(postgres_store.READING, {"find_due": changed}):
        yield


@_mutant
def ends_of_children_not_written() -> Iterator[None]:
    add_effects = Plan._add_effects

    def forgetful(self: Plan, operation: Operation) -> None:
        kept = [m for m in operation.messages or () if m.kind != DeliveryKind.CHILD_DONE]
        operation.messages = kept or None
        add_effects(self, operation)

    with _method(Plan, "_add_effects", forgetful):
        yield


@_mutant
def spawned_without_its_delivery() -> Iterator[None]:
    """A child comes to be though its spawn was consumed, deleted or given up meanwhile."""
    condition = " WHERE x.id NOT IN (SELECT row_id FROM lacking)\n ORDER BY x.machine_id"
    with _without(postgres_store.COMMITTING, "batch", condition):
        yield


@_mutant
def forwarded_wake_lost() -> Iterator[None]:
    """Nobody tells the node where a target's services run that something is due."""
    leave = Messages.leave

    def silent(self: Messages, operation: Operation, address: str) -> None:
        target = self.targets.get(operation.key)
        if target is not None:
            target.forwarded = True
        leave(self, operation, address)

    with _method(Messages, "leave", silent):
        yield


@_mutant
def wakes_read_by_ones_own_clock() -> Iterator[None]:
    """By a clock that is behind, what another node has sent is not due yet."""
    wake = Messages.wake

    def distrustful(self: Messages, key: Any, delivery: Any = None, **options: Any) -> None:
        options.pop("due_ms", None)
        wake(self, key, delivery, **options)

    with _method(Messages, "wake", distrustful):
        yield


@_mutant
def hops_not_counted() -> Iterator[None]:
    check_step = steps.check_step

    def forgetful(activation: Activation, operation: Operation, *rest: Any) -> Any:
        if operation.delivery is not None:
            operation.delivery.hops = 0
        return check_step(activation, operation, *rest)

    with _method(core, "check_step", forgetful):
        yield


# ---------------------------------------------------------------------- upgrades

IS_BARRED = "(x.version <> 0 OR t.desired_version_id IS NULL OR t.children <> '[]')"
IS_WANTED = "t.desired_version_id = x.version AND "


@_mutant
def desired_version_ignored_by_events() -> Iterator[None]:
    """Who has not heard of it goes on with the version that it knows."""
    with _without(postgres_store.COMMITTING, "batch", f"AND {IS_BARRED}"):
        yield


@_mutant
def desired_version_ignored_by_refusals() -> Iterator[None]:
    condition = "x.is_inner <> 0 OR t.desired_version_id IS NULL OR t.children <> '[]'"
    text = postgres_store.COMMITTING["batch"].replace(condition, "true")
    with patch.dict(postgres_store.COMMITTING, {"batch": text}):
        yield


@_mutant
def news_of_a_desired_version_ignored() -> Iterator[None]:
    """Where nobody else writes, what is refused is told without asking."""
    with _method(Engine, "reload", _nothing):
        yield


@_mutant
def upgraded_to_what_was_desired_before() -> Iterator[None]:
    with _without(postgres_store.COMMITTING, "batch_with_upgrades", IS_WANTED):
        yield


@_mutant
def version_still_desired_after_the_upgrade() -> Iterator[None]:
    text = postgres_store.COMMITTING["batch_with_upgrades"]
    text = text.replace("desired_version_id = CASE", "version_id = CASE")
    with patch.dict(postgres_store.COMMITTING, {"batch_with_upgrades": text}):
        yield


@_mutant
def upgraded_while_services_run() -> Iterator[None]:
    ignores = lambda row: row.desired_version_id is not None  # noqa: E731
    anything = _without(postgres_store.COMMITTING, "batch_with_upgrades", " AND t.children = '[]'")
    with anything, _method(loading, "is_to_upgrade", ignores):
        yield


@_mutant
def renamed_timers_lost() -> Iterator[None]:
    add = Plan.add

    def forgetful(self: Plan, operation: Operation) -> None:
        add(self, operation)
        self.renames.clear()

    with _method(Plan, "add", forgetful):
        yield


@_mutant
def renamed_timers_start_anew() -> Iterator[None]:
    text = postgres_store.COMMITTING["batch_with_upgrades"]
    text = text.replace("d.hops, d.due_at,", "d.hops, r.at,")
    with patch.dict(postgres_store.COMMITTING, {"batch_with_upgrades": text}):
        yield


@_mutant
def events_lost_with_an_upgrade_that_is_void() -> Iterator[None]:
    def forgetful(self: Upgrades, attempt: Any) -> None:
        self.engine.loading.waiting.pop(attempt.key)

    with _method(Upgrades, "_anew", forgetful):
        yield


# ---------------------------------------------------------------------- between servers


@_mutant
def forwarded_twice() -> Iterator[None]:
    """An event without an answer is forwarded again."""
    post = Forwarder._post

    async def stubborn(self: Forwarder, *request: Any) -> None:
        try:
            await post(self, *request)
        except OutcomeUnknown:
            await post(self, *request)

    with _method(Forwarder, "_post", stubborn):
        yield


def _nothing(*_arguments: Any) -> None:
    """In place of something that must be done."""
