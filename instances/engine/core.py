"""The engine: how an event becomes a durable transition. No I/O, no clock, no database of its own.

Store, runners and clock are passed in and call back, so the same code runs in production and under
a simulated clock. Everything here runs on one thread; the store's writer is the only other one, and
it reads `Activation.dead` and the fields of operations that were handed to it.

Invariants kept here (engine.md section 15 has the full list):
  I2  An operation is answered with success only after its commit, and then exactly once.
  I4  Effects are released (`K`) only after the commit of the step that caused them.
  I5  A service event is taken only from the activation that announced it.
  I6  Events from outside wait until each lost service has had its error event.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from instances.engine.crashes import Crashes
from instances.engine.elsewhere import Elsewhere
from instances.engine.errors import (
    ContextTooLarge,
    EngineError,
    InstancePaused,
    MachineOverLimit,
    MachineThrew,
    MailboxFull,
    MigrationFailed,
    NotOwner,
    OutcomeUnknown,
    RejectedByAuthorizer,
    Unavailable,
    unavailable,
)
from instances.engine.holding import Resume
from instances.engine.journal import Journal
from instances.engine.json_texts import error_fields, state_value
from instances.engine.loading import NO_LEASE, Loading
from instances.engine.mailbox import is_mailbox_full
from instances.engine.messages import Messages, child_event
from instances.engine.operations import (
    SETTLED,
    Activation,
    Code,
    Creation,
    Delivery,
    DeliveryKind,
    Kind,
    MessageRow,
    Operation,
    Outcome,
    Reply,
    TimerRow,
    Upgrade,
    state_body,
)
from instances.engine.plan import LOCAL_TIMER_MS
from instances.engine.request_keys import RequestKeys
from instances.engine.runners import Question, RunnerDied, RunnerLink, RunnerProcess, Runners
from instances.engine.steps import SELF_MADE_BURST_MS, ProtocolViolation, check_step
from instances.engine.store import InstanceRow, Store
from instances.engine.upgrades import Upgrades

log = logging.getLogger("statebacked.engine")

CHAIN = 64  # steps of one activation that may be computed before the first is committed
TRIES = 4  # of one operation, after conflicts and lost runners
TRIES_CONTENDED = 12  # where other nodes write, too

INIT_EVENT = '{"type":"xstate.init"}'

# What reading a line can raise that is not as it should be.
MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError)


# Answers to a step that was computed, and changes nothing.
WITHOUT_TRANSITION = (Code.UNCHANGED, Code.DENIED, Code.THREW)


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall clock, milliseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds; never goes back."""

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Any:
        """Call back at that monotonic time; the handle has `cancel()`."""


class Engine:
    """All live activations of this process."""

    def __init__(
        self,
        store: Store,
        runners: Runners,
        clock: Clock,
        *,
        settle_limit_ms: int = 90_000,
        on_timers: Callable[[list[Delivery]], None] = lambda timers: None,
        on_cancelled: Callable[[list[int]], None] = lambda ids: None,
        on_delivered: Callable[[Delivery], None] = lambda delivery: None,
        on_committed: Callable[[Operation], None] | None = None,
        forward: Callable[[Operation, str], None] | None = None,
    ) -> None:
        self.store = store
        self.runners = runners
        self.clock = clock
        self.settle_limit_ms = settle_limit_ms
        self.on_timers = on_timers  # deliveries due soon that a commit has just written
        self.on_cancelled = on_cancelled  # ids of deliveries that a commit has deleted
        self.on_delivered = on_delivered  # a claimed delivery has left the engine, however it ended
        self.on_committed = on_committed  # each committed step, for realtime subscribers
        self.tries = TRIES_CONTENDED if store.has_other_writers else TRIES
        self.elsewhere = Elsewhere(self, forward)
        self.crashes = Crashes(self)
        self.messages = Messages(self)
        self.activations: dict[tuple[int, str], Activation] = {}
        self.loading = Loading(self)
        self.upgrades = Upgrades(self)
        self.request_keys = RequestKeys(self)
        self.journal = Journal(self)
        self.links: dict[RunnerProcess, RunnerLink] = {}
        self.draining = False
        self.suspended = False  # this node's lease may have ended: nothing new is begun
        self._rids = itertools.count(1)
        self._aids = itertools.count(1)
        self._commit_ids = itertools.count(random.getrandbits(62))
        self.commits = 0
        self.conflicts = 0

    # ------------------------------------------------------------------ operations come in

    def send(
        self,
        key: tuple[int, str],
        event: str,
        auth: str,
        reply: Reply,
        request_key: str | None = None,
    ) -> None:
        """A client's event; `reply` gets the body of the answer or an EngineError."""
        operation = Operation(Kind.CLIENT, key, event, auth, reply, request_key=request_key)
        if self.suspended:
            operation.refuse(Unavailable(NO_LEASE))
        else:
            self.submit(operation)

    def deliver(self, delivery: Delivery) -> None:
        """A delivery that was claimed is due. Ends in `on_delivered`."""
        if delivery.kind == DeliveryKind.TIMER:
            self.submit(Operation(Kind.TIMER, delivery.key, delivery.event, "", delivery=delivery))
        else:
            self.messages.wake(delivery.key, delivery)

    def submit(self, operation: Operation) -> None:
        activation = self.activations.get(operation.key)
        if activation is None:
            self.loading.load(operation)
        elif not (
            # While services run here, this is the home.
            activation.is_passing
            and activation.is_settled()
            and self.elsewhere.send_home(operation)
        ):
            self.enqueue(activation, operation)

    def create(
        self,
        key: tuple[int, str],
        version_id: int,
        context: str,
        auth: str,
        reply: Reply,
        request_key: str | None = None,
    ) -> None:
        """Create an instance of a version; the answer is its state once it has settled."""
        creation = Creation(version_id, context)
        self._create(
            Operation(
                Kind.INIT, key, INIT_EVENT, auth, reply, request_key=request_key, creation=creation
            )
        )

    def spawn(self, delivery: Delivery, creation: Creation) -> None:
        """Create the persistent child that a delivery asks for. Ends as the delivery does."""
        key, auth = delivery.key, delivery.auth
        self._create(
            Operation(Kind.INIT, key, INIT_EVENT, auth, delivery=delivery, creation=creation)
        )

    def _create(self, operation: Operation) -> None:
        assert operation.creation is not None
        creation = operation.creation
        version_id = creation.version_id

        def ready(process: RunnerProcess | None, error: Exception | None) -> None:
            if process is None:
                self.refuse(operation, unavailable(error))
            else:
                link = self.link_to(process)
                activation = self.mount(operation.key, None, version_id, link)
                if creation.parent_id is not None:
                    activation.parent = creation.parent_id, creation.child_id or ""
                self.enqueue(activation, operation)

        if self.draining:
            self.refuse(operation, Unavailable("the server is shutting down"))
        elif self.suspended:
            self.refuse(operation, Unavailable(NO_LEASE))
        else:
            self.runners.acquire(version_id, ready)

    def read(
        self, row: InstanceRow, slug: str, auth: str, done: Callable[[int | EngineError], None]
    ) -> None:
        """Ask the version's `allowRead` about a committed row; `done` gets a Code or an error."""

        def question(rid: str) -> list[str]:
            return [f"R\t{rid}\t{slug}\t{state_value(row.state)}\t{row.context}\t{auth}\n"]

        def answered(link: RunnerLink | None, answer: list[str] | EngineError) -> None:
            done(answer if isinstance(answer, EngineError) else int(answer[1]))

        self.ask(row.version_id, question, answered)

    def ask(
        self,
        version_id: int,
        lines: Callable[[str], list[str]],
        done: Callable[[RunnerLink | None, list[str] | EngineError], None],
    ) -> None:
        """Ask a runner of a version something that changes nothing: `lines` makes the question from
        the id of the request. `done` gets the fields of the answer and who gave it, or an error.
        """

        def answered(question: Question, answer: list[str] | RunnerDied) -> None:
            if not isinstance(answer, RunnerDied):
                done(question.link, answer)
            elif question.tries < TRIES:
                ask(question)
            else:
                done(None, MachineOverLimit("the machine's runner did not answer"))

        def ask(question: Question) -> None:
            def ready(process: RunnerProcess | None, error: Exception | None) -> None:
                if process is None:
                    done(None, unavailable(error))
                    return
                link = self.link_to(process)
                question.link = link
                question.tries += 1
                rid = str(next(self._rids))
                link.waiting[rid] = question
                for line in lines(rid):
                    link.send(line.encode())

            self.runners.acquire(version_id, ready)

        ask(Question(answered))

    def take_activation_id(self) -> str:
        return str(next(self._aids))

    # ------------------------------------------------------------------ queue → runner

    def enqueue(self, activation: Activation, operation: Operation) -> None:
        if operation.request_key is not None and operation.must_look_up_key:
            self.request_keys.look_up(activation, operation, operation.request_key)
            return
        queue = activation.queue
        if queue and operation.is_external and is_mailbox_full(queue, operation):
            self.refuse(operation, MailboxFull("too many events wait for this instance"))
            return
        operation.activation = activation
        if operation.suspect:
            activation.link.suspects += 1
            activation.link.quarantined = True
        if queue or activation.closing or not self._may_send(activation, operation):
            queue.append(operation)
        else:
            self._send(activation, operation)

    def _may_send(self, activation: Activation, operation: Operation) -> bool:
        """Only settled activations chain: with live services, steps are taken one at a time."""
        if activation.link.quarantined and self.crashes.is_held_up(activation, operation):
            return False
        in_flight = len(activation.sent) + len(activation.uncommitted)
        if activation.children == SETTLED:
            if activation.outdated and in_flight and operation.is_external:
                return not activation.is_settled()  # else it ends with what is in flight
            return in_flight < CHAIN
        return in_flight == 0 and not activation.acknowledgements

    def send_queued(self, activation: Activation) -> None:
        queue = activation.queue
        while queue and not activation.closing and self._may_send(activation, queue[0]):
            self._send(activation, queue.popleft())

    def _send(self, activation: Activation, operation: Operation) -> None:
        link = activation.link
        operation.rid = rid = str(next(self._rids))
        link.waiting[rid] = operation
        activation.sent.append(operation)
        aid = activation.aid
        kind = operation.kind
        if kind is Kind.CLIENT:
            line = f"S\t{aid}\t{rid}\t{operation.event}\t{operation.auth}\n"
            link.activations.move_to_end(aid)
        elif kind is Kind.TIMER:
            line = f"T\t{aid}\t{rid}\t{operation.event}\n"
        elif kind is Kind.MESSAGE:
            line = self._message_line(aid, operation)
        elif kind is Kind.SERVICE:
            line = f"V\t{aid}\t{rid}\t{operation.inbox_n}\n"
        elif kind is Kind.INIT:
            assert operation.creation is not None
            _, context, parent, *_ = operation.creation
            slug = operation.key[1]
            line = f"C\t{aid}\t{rid}\t{slug}\t{context}\t{operation.auth}\t{parent}\n"
        elif isinstance(operation, Upgrade):
            line = (
                f"U\t{aid}\t{rid}\t{operation.key[1]}\t{operation.migrations}"
                f"\t{operation.description}\t{operation.before}\n"
            )
        else:
            assert kind is Kind.LOST_SERVICE, kind
            line = f"O\t{aid}\t{rid}\t{operation.child}\n"
        link.send(line.encode())

    def _message_line(self, aid: str, operation: Operation) -> str:
        delivery = operation.delivery
        assert delivery is not None
        rid, auth = operation.rid, operation.auth
        if delivery.kind != DeliveryKind.CHILD_DONE:
            return f"S\t{aid}\t{rid}\t{operation.event}\t{auth}\n"
        major = operation.activation.link.process.xstate_major
        operation.event = child_event(major, delivery.event)
        return f"N\t{aid}\t{rid}\t{operation.event}\t{operation.child}\t{auth}\n"

    # ------------------------------------------------------------------ other nodes

    def take_forwarded(self, operation: Operation) -> None:
        """Process what another node sends; it goes no further from here."""
        operation.forwarded = True
        if operation.kind is Kind.MESSAGE:
            due_ms = int(operation.event or 0)
            self.messages.wake(operation.key, due_ms=due_ms, forwarded=True)
            operation.answer(b"{}")
        else:
            self.submit(operation)

    def forwarded(self, operation: Operation, body: bytes) -> None:
        """The other node has processed it."""
        operation.answer(body)
        self.delivered(operation)

    def forwarding_failed(self, operation: Operation, error: EngineError) -> None:
        """The other node refused it, or could not be asked."""
        self.elsewhere.forwarding_failed(operation, error)

    def suspend(self) -> None:
        """Begin nothing more until `resume`; what is being computed may still commit."""
        self.suspended = True

    def resume(self) -> None:
        self.suspended = False

    def end_all(self) -> None:
        """Another node may have taken over: end what runs, at once."""
        self.suspended = True
        self.elsewhere.homes.clear()
        for process in list(self.links):
            process.kill("fenced")

    def mount(
        self, key: tuple[int, str], row_id: int | None, version_id: int, link: RunnerLink
    ) -> Activation:
        activation = Activation(self.take_activation_id(), key, row_id, version_id, link)
        link.activations[activation.aid] = activation
        if link.is_full():
            self._evict(link)
        return activation

    def _evict(self, link: RunnerLink) -> None:
        """Drop the longest unused idle activations; all of them can be loaded again."""
        for activation in list(itertools.islice(link.activations.values(), 64)):
            if not link.is_full():
                return
            if activation.is_idle() and activation.row_id is not None:
                self._forget(activation)

    def link_to(self, process: RunnerProcess) -> RunnerLink:
        link = self.links.get(process)
        if link is None:
            link = self.links[process] = RunnerLink(process)
        return link

    # ------------------------------------------------------------------ the runner speaks

    def on_lines(self, process: RunnerProcess, lines: Iterable[bytes]) -> None:
        """Lines of a runner, as many as came in one read. Anything may stand in them."""
        link = self.links.get(process)
        if link is None:
            return
        now_ms = self.clock.now_ms()
        ready: list[Operation] = []
        request: Operation | Question | None = None
        fields: list[str] = []
        try:
            for line in lines:
                request = None
                fields = line.decode().split("\t")
                request = link.waiting.pop(fields[0], None)
                if request is None:
                    self._on_notice(link, fields, now_ms)
                elif isinstance(request, Question):
                    request.answer(request, fields)
                else:
                    self._on_answer(link, request, fields, now_ms, ready)
        except (ProtocolViolation, *MALFORMED) as error:
            log.warning("version %s: runner broke the protocol: %r", process.version_id, error)
            if request is not None:
                self._put_back(link, fields[0], request)
            process.kill("protocol")
        if ready:
            self.store.put(ready)
        if link.quarantined:
            self.crashes.go_on(link)

    def _put_back(self, link: RunnerLink, rid: str, request: Operation | Question) -> None:
        """An answer can't be understood: what was asked is still in flight as the runner ends."""
        link.waiting[rid] = request
        if isinstance(request, Operation):
            if request not in request.activation.sent:
                request.activation.sent.appendleft(request)
            if not request.suspect:
                request.suspect = True  # it is the culprit
                link.suspects += 1

    def _on_answer(
        self,
        link: RunnerLink,
        operation: Operation,
        fields: list[str],
        now_ms: int,
        ready: list[Operation],
    ) -> None:
        activation = operation.activation
        if operation.suspect:
            operation.suspect = False  # answered, hence innocent
            link.suspects -= 1
        if activation.closing:
            return  # its end has begun; what was sent is tried again then
        if not activation.sent or activation.sent[0] is not operation:
            raise ProtocolViolation("an answer out of order")
        activation.sent.popleft()
        code = int(fields[1])
        operation.code = code
        if code == Code.CHANGED or code == Code.CHANGED_WITH_EFFECTS:
            (
                _,
                _,
                operation.state,
                operation.extra,
                operation.context,
                operation.public,
                operation.children,
                operation.effects,
                operation.report,
                duration,
            ) = fields
            operation.duration_us = int(float(duration))
            error = check_step(activation, operation, now_ms, self.settle_limit_ms)
            if error is None:
                activation.tail_seq += 1
                operation.seq = activation.tail_seq
                ts = activation.tail_ts + 1
                activation.tail_ts = operation.ts = now_ms if now_ms > ts else ts
                operation.created_at_ms = now_ms
                operation.commit_id = next(self._commit_ids) & 0x7FFFFFFFFFFFFFFF
                activation.uncommitted.append(operation)
                ready.append(operation)
                return
            # Steps behind it were computed on a state that will not be: start again without it.
            self.refuse(operation, error)
            self.restart(activation)
            return
        if code == Code.UNKNOWN_ACTIVATION:
            activation.sent.appendleft(operation)
            self.restart(activation)
            return
        operation.state = fields[2] if len(fields) > 2 else ""  # the error object, if any
        if code not in WITHOUT_TRANSITION or (
            operation.kind is Kind.UPGRADE and code != Code.THREW
        ):
            raise ProtocolViolation(f"unknown code {code}")
        if activation.uncommitted or operation.delivery is not None or self.store.has_other_writers:
            # Computed on steps that are not committed: it waits behind them (and a delivery that
            # changes nothing is consumed by a write).
            operation.seq, operation.ts = activation.tail_seq, activation.tail_ts
            activation.uncommitted.append(operation)
            ready.append(operation)
            return
        self._finish_unchanged(activation, operation)
        self._after_step(activation)

    def _on_notice(self, link: RunnerLink, fields: list[str], now_ms: int) -> None:
        kind = fields[0]
        if kind == "G":
            self.journal.on_log(link, fields, now_ms)
            return
        if kind.isdigit():
            return  # the answer to a request of an activation that is gone
        activation = link.activations.get(fields[1])
        if activation is None:
            return
        if kind == "E":
            _, _, n, child, event = fields
            if activation.closing:
                return
            operation = Operation(Kind.SERVICE, activation.key, event, "", child=child, inbox_n=n)
            activation.inbox += 1
            self.enqueue(activation, operation)
        elif kind == "K":
            if activation.acknowledgements:
                activation.acknowledgements -= 1
            self._after_step(activation)
        elif kind == "W":
            activation.wants_acknowledgement = True
            self._acknowledge_if_wanted(activation)
        else:
            raise ProtocolViolation(f"unknown message {kind[:20]!r}")

    # ------------------------------------------------------------------ the store answers

    def on_commit(self, outcomes: list[tuple[Operation, Outcome]]) -> None:
        """What became of steps that were put into the store, in the order of `put`."""
        for operation, outcome in outcomes:
            activation = operation.activation
            if activation.uncommitted and activation.uncommitted[0] is operation:
                activation.uncommitted.popleft()
            if outcome is Outcome.COMMITTED:
                code = operation.code
                if code == Code.CHANGED or code == Code.CHANGED_WITH_EFFECTS:
                    self._committed(activation, operation)
                else:
                    self._finish_unchanged(activation, operation)
                self._after_step(activation)
            else:
                self._not_committed(activation, operation, outcome)

    def _committed(self, activation: Activation, operation: Operation) -> None:
        self.commits += 1
        link = activation.link
        link.weight -= activation.weight()
        activation.seq, activation.ts = operation.seq, operation.ts
        activation.state, activation.extra = operation.state, operation.extra
        activation.context, activation.public = operation.context, operation.public
        activation.children = operation.children
        link.weight += activation.weight()
        kind = operation.kind
        if kind is Kind.INIT:
            self._created(activation)
        elif kind is Kind.SERVICE:
            activation.inbox -= 1
        if operation.code == Code.CHANGED_WITH_EFFECTS:
            if self.suspended:
                self.close(activation)  # nothing is started: another node may take over
            else:
                self._acknowledge(activation)
        if operation.timers:
            self._schedule(activation, operation.timers)
        if operation.messages:
            self._post(operation.messages)
        if operation.cancelled_ids:
            self.on_cancelled(operation.cancelled_ids)
        if operation.delivery is not None:
            self.delivered(operation)
        if self.on_committed is not None:
            self.on_committed(operation)
        if operation.reply is not None:
            if operation.children == SETTLED and activation.is_settled():
                operation.answer(state_body(operation.ts, operation.state, operation.public))
            else:
                activation.waiters.append(operation)

    def _created(self, activation: Activation) -> None:
        """The activation of a new instance is the live one from now on."""
        mounted = self.activations.get(activation.key)
        self.activations[activation.key] = activation
        if mounted is not None:
            # Its row was read before the word of its commit came here, for an event that was in a
            # hurry. There must not be two: the services of this one are not lost.
            mounted.children = SETTLED
            self.restart(mounted)

    def _schedule(self, activation: Activation, timers: list[TimerRow]) -> None:
        soon = self.clock.now_ms() + LOCAL_TIMER_MS
        due = [
            Delivery(
                t.delivery_id,
                DeliveryKind.TIMER,
                activation.key,
                t.event,
                t.due_at_ms,
                0,
                1,
                t.send_id,
                hops=t.hops,
            )
            for t in timers
            if t.due_at_ms < soon
        ]
        if due:
            self.on_timers(due)

    def _post(self, messages: list[MessageRow]) -> None:
        """Wake the targets of messages that were committed, now or when they are due."""
        now_ms = self.clock.now_ms()
        for m in messages:
            if m.key is None or m.due_at_ms >= now_ms + LOCAL_TIMER_MS:
                continue
            if m.due_at_ms <= now_ms:
                self.messages.wake(m.key, due_ms=m.due_at_ms)
            else:
                delivery = Delivery(m.delivery_id, m.kind, m.key, "", m.due_at_ms, 0, 1, m.send_id)
                self.on_timers([delivery])

    def _acknowledge(self, activation: Activation) -> None:
        activation.wants_acknowledgement = False
        if activation.link.alive:
            activation.acknowledgements += 1
            activation.link.send(f"K\t{activation.aid}\n".encode())

    def _acknowledge_if_wanted(self, activation: Activation) -> None:
        if activation.wants_acknowledgement and not activation.uncommitted and not activation.sent:
            self._acknowledge(activation)

    def _finish_unchanged(self, activation: Activation, operation: Operation) -> None:
        """An answer without a transition: refused, thrown, or nothing to do."""
        if operation.kind is Kind.SERVICE:
            activation.inbox -= 1
        self.journal.unheeded(activation, operation)
        code = operation.code
        if code == Code.UNCHANGED:
            self.delivered(operation)
            if operation.reply is not None:
                if activation.is_settled():
                    operation.answer(activation.body())
                else:
                    activation.waiters.append(operation)
            return
        if operation.kind in (Kind.INIT, Kind.UPGRADE):
            self._forget(activation)
        if code == Code.DENIED:
            if operation.state:
                self.journal.thrown(activation, operation, "authorizer threw")
            self.refuse(operation, RejectedByAuthorizer("the machine's authorizer said no"))
        else:
            name, message, stack = error_fields(operation.state)
            is_upgrade = operation.kind is Kind.UPGRADE
            what, error = ("upgrade", MigrationFailed) if is_upgrade else ("event", MachineThrew)
            self.journal.thrown(activation, operation, f"{what} failed")
            thrown: EngineError = error(f"{name}: {message}" if name else message, stack)
            if name == "ContextTooLarge":
                thrown = ContextTooLarge(message)
            self.refuse(operation, thrown)
            if operation.kind in (Kind.SERVICE, Kind.LOST_SERVICE):
                self._service_event_failed(activation, operation, thrown)

    def _service_event_failed(
        self, activation: Activation, operation: Operation, thrown: EngineError
    ) -> None:
        """The service has ended but its event can't be processed: it counts as lost.

        If even the event of a lost service fails, what waits behind it can't be processed either.
        """
        if operation.kind is Kind.LOST_SERVICE:
            for waiting in activation.queue:
                if waiting.is_external:
                    self.refuse(waiting, thrown)
            activation.queue.clear()
        self.close(activation)

    def _not_committed(
        self, activation: Activation, operation: Operation, outcome: Outcome
    ) -> None:
        match outcome:
            case Outcome.CONFLICT | Outcome.DELETED:
                # Of a deleted one: there may be another instance of that name by now.
                self.conflicts += 1
                operation.tries += 1
                activation.returned.append(operation)
            case Outcome.DUPLICATE:
                self.request_keys.answer_replayed(operation)
            case Outcome.GONE:
                operation.answer(b"{}")  # to the node that forwarded it
                self.delivered(operation)
            case Outcome.EXISTS:
                self.request_keys.refuse_existing(operation)
            case Outcome.PAUSED:
                self.journal.paused(activation.row_id, activation.seq, operation)
                self.refuse(operation, InstancePaused(f"{operation.key[1]} is paused"))
            case Outcome.FAILED:
                self.refuse(operation, Unavailable("the database refused the transition"))
            case Outcome.AMBIGUOUS:
                self.refuse(operation, OutcomeUnknown("the database did not answer in time"))
        self.restart(activation)

    # ------------------------------------------------------------------ after each step

    def _after_step(self, activation: Activation) -> None:
        if activation.closing:
            if not activation.uncommitted:
                self._close_now(activation)
            return
        if activation.outdated and _is_at_rest(activation):
            self.close(activation)
            return
        if activation.queue:
            self.send_queued(activation)
        if activation.link.quarantined:
            self.crashes.go_on(activation.link)
        if activation.wants_acknowledgement:
            self._acknowledge_if_wanted(activation)
        if activation.children != SETTLED or activation.inbox:
            self._watch_deadline(activation)
        elif activation.waiters and activation.is_settled():
            self._answer_waiters(activation)
        if activation.is_passing or activation.link.retiring:
            self._forget_if_idle(activation)

    def _forget_if_idle(self, activation: Activation) -> None:
        # How fast it may wake itself is known here only.
        wakes_itself = activation.self_made_ms > self.clock.now_ms() - SELF_MADE_BURST_MS
        if activation.is_idle() and (activation.link.retiring or not wakes_itself):
            self._forget(activation)

    def _answer_waiters(self, activation: Activation) -> None:
        body = activation.body()
        waiters, activation.waiters = activation.waiters, []
        for operation in waiters:
            operation.answer(body)

    def _watch_deadline(self, activation: Activation) -> None:
        if activation.timer is None:
            in_ms = activation.deadline_ms - self.clock.now_ms()
            activation.timer = self.clock.call_at(
                self.clock.monotonic() + in_ms / 1000, self._on_deadline, activation
            )

    def _on_deadline(self, activation: Activation) -> None:
        activation.timer = None
        if activation.dead or activation.closing or activation.is_settled():
            return
        if self.clock.now_ms() < activation.deadline_ms:
            self._watch_deadline(activation)  # an event came meanwhile and moved it
        else:
            self.close(activation)

    # ------------------------------------------------------------------ ends of activations

    def _forget(self, activation: Activation) -> None:
        """Drop an activation that owes nobody anything."""
        if self.activations.get(activation.key) is activation:
            del self.activations[activation.key]
        activation.dead = True
        link = activation.link
        if link.activations.pop(activation.aid, None) is not None:
            link.weight -= activation.weight()
        if activation.timer is not None:
            activation.timer.cancel()
            activation.timer = None
        if link.alive:
            link.send(f"D\t{activation.aid}\n".encode())
            if link.retiring and not link.activations and not link.waiting:
                self.runners.release(link.process)

    def restart(self, activation: Activation) -> None:
        """What is not committed of this activation is void: end it, and do that work anew.

        Steps that are with the store come back as conflicts, since the activation is dead.
        """
        activation.dead = True
        activation.closing = True
        if not activation.uncommitted:
            self._close_now(activation)

    def close(self, activation: Activation) -> None:
        """End an activation in order: what the store has still counts, the rest is done anew."""
        if activation.closing:
            return
        activation.closing = True
        if not activation.uncommitted:
            self._close_now(activation)

    def _close_now(self, activation: Activation) -> None:
        self._answer_waiters(activation)
        self._drop_requests(activation)
        again = [*activation.returned, *activation.sent, *activation.queue]
        activation.returned.clear()
        activation.sent.clear()
        activation.queue.clear()
        if activation.children != SETTLED and activation.row_id is not None:
            self.store.release(activation.row_id, activation.seq)
        self._forget(activation)
        for operation in again:
            self.try_again(operation)
        if activation.link.alive and activation.link.quarantined:
            self.crashes.go_on(activation.link)

    def _drop_requests(self, activation: Activation) -> None:
        link = activation.link
        for operation in activation.sent:
            link.waiting.pop(operation.rid, None)
        for operation in itertools.chain(activation.sent, activation.queue):
            if operation.suspect:
                link.suspects -= 1

    def try_again(self, operation: Operation) -> None:
        if operation.kind in (Kind.SERVICE, Kind.LOST_SERVICE):
            return  # of the activation that is gone; its lost services are in the row
        if operation.kind is Kind.UPGRADE:
            self.upgrades.again(operation)
            return
        if operation.delivery is not None and self.messages.is_void(operation):
            self.messages.ended(operation.delivery)
        elif operation.tries >= self.tries:
            self.refuse(operation, Unavailable("the instance is contended"))
        elif operation.kind is Kind.INIT:
            self._create(operation)
        else:
            operation.must_look_up_key = True
            self.submit(operation)

    def refuse(self, operation: Operation, error: EngineError) -> None:
        operation.refuse(error)
        delivery = operation.delivery
        if delivery is None:
            return
        if delivery.kind != DeliveryKind.TIMER:
            self.messages.refused(delivery, error)
            return
        if isinstance(error, InstancePaused):
            self.store.hold(delivery.id)
        elif isinstance(error, NotOwner):
            pass  # the node that forwarded it goes on with it
        elif error.counts_as_attempt:
            self.store.fail(delivery, f"{error.code}: {error}"[:2000])
        else:
            self.store.postpone(delivery.id, self.clock.now_ms() + 1_000)
        self.on_delivered(delivery)

    def delivered(self, operation: Operation) -> None:
        delivery = operation.delivery
        if delivery is not None and delivery.kind == DeliveryKind.TIMER:
            self.on_delivered(delivery)
        elif delivery is not None:
            self.messages.ended(delivery)

    # ------------------------------------------------------------------ ends of runners

    def on_exit(self, process: RunnerProcess, reason: str) -> None:
        """A runner died. What it had not answered was not committed and may be computed again."""
        self.crashes.on_exit(process, reason)

    def on_retire(self, process: RunnerProcess) -> None:
        """A runner is to be replaced: idle activations leave it now, others once they settle."""
        link = self.link_to(process)
        link.retiring = True
        for activation in list(link.activations.values()):
            if activation.is_idle():
                self._forget(activation)
        if not link.activations and not link.waiting:
            self.runners.release(process)

    # ------------------------------------------------------------------ pause, delete, drain

    def set_status(
        self,
        key: tuple[int, str],
        row_id: int,
        status: int,
        reply: Reply,
        timers: Resume = Resume.ORIGINAL,
    ) -> None:
        """Pause or resume. Pausing stops the services; their error events come when it resumes.

        `timers` says when the timers that the pause has held fire.
        """

        def done(found: bool | None) -> None:
            if found and status != 0:
                self.end(key, is_deleted=False)
            _tell(reply, found)

        self.store.set_status(row_id, status, done, timers)

    def delete(self, key: tuple[int, str], row_id: int, reply: Reply) -> None:
        def done(found: bool | None) -> None:
            if found:
                self.end(key, is_deleted=True)
            _tell(reply, found)

        self.store.delete(row_id, done)

    def reload(self, key: tuple[int, str]) -> None:
        """The row of an instance wants another version, or none any more, here or on another node.

        What is in flight goes on, and the services that run or that it starts; then the activation
        ends, and the rest is done anew on what the row says.
        """
        self.loading.reload(key)
        activation = self.activations.get(key)
        if activation is None:
            return
        activation.outdated = True
        if _is_at_rest(activation):
            self.close(activation)

    def end(self, key: tuple[int, str], *, is_deleted: bool) -> None:
        """An instance was paused or deleted, here or on another node: its services stop."""
        activation = self.activations.get(key)
        if activation is None:
            return
        if is_deleted:
            activation.children = SETTLED  # nothing to release: the row is gone
        self.close(activation)

    def drain(self) -> None:
        """Take no new work from clients; what is in flight goes on."""
        self.draining = True

    def busy(self) -> int:
        """How many activations still have work in flight."""
        return sum(not a.is_idle() for a in self.activations.values()) + len(self.loading.waiting)

    def close_all(self) -> None:
        """Give up what has not settled: services are stopped and count as lost."""
        for activation in list(self.activations.values()):
            self.close(activation)


def _is_at_rest(activation: Activation) -> bool:
    """No service runs, and no step is on its way that might start one."""
    return activation.is_settled() and not activation.sent and not activation.uncommitted


def _tell(reply: Reply, found: bool | None) -> None:
    if reply.done():
        return
    if found is None:
        reply.set_exception(Unavailable("the database refused the change"))
    else:
        reply.set_result(found)
