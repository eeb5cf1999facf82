"""The checker of fault runs can fail: each kind of broken promise is found, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bench.faults.check import CHECKS, check, check_register
from bench.faults.history import (
    CLIENT,
    INIT,
    LOST_SERVICE,
    MESSAGE,
    SERVICE,
    TIMER,
    UPGRADE,
    DeliveryRow,
    Effect,
    Evidence,
    Fault,
    Instance,
    Operation,
    Ownership,
    Seen,
    Transition,
)

SETTLED: tuple[str, ...] = ()


class Story:
    """Evidence of a site that keeps its promises, told step by step; tests then corrupt it."""

    def __init__(self) -> None:
        self.evidence = Evidence()
        self.now = 0.0
        self._xid = 100

    def creates(self, slug: str, **public: Any) -> None:
        self._transition(slug, INIT, {"type": "xstate.init"})
        instance = Instance(len(self.evidence.instances), slug, 1, 1, 0, 0, public, 100, True)
        self.evidence.instances.append(instance)
        self.asks(slug, "create", "")

    def sends(
        self,
        slug: str,
        kind: str,
        n: str,
        *,
        state: str = "idle",
        version: str = "subject.ts",
        **event: Any,
    ) -> None:
        """A client's event that is applied and acknowledged."""
        event = {"type": kind, "n": n, **event}
        transition = self._transition(slug, CLIENT, event, state, version=version)
        self.asks(slug, kind, n, ts=transition.ts)

    def gets(self, slug: str, kind: int, event: dict[str, Any], **options: Any) -> Transition:
        """An event that no client sent."""
        return self._transition(slug, kind, event, **options)

    def asks(self, slug: str, kind: str, n: str, **answer: Any) -> None:
        self.now += 2
        told = {"outcome": "ok", "status": 200, **answer}
        operation = Operation(n, "any", slug, kind, 0, self.now - 1, self.now, **told)
        self.evidence.operations.append(operation)

    def is_refused(self, slug: str, kind: str, n: str, status: int = 503) -> None:
        code = {503: "unavailable", 403: "rejected-by-machine-authorizer"}[status]
        self.asks(slug, kind, n, outcome="refused", status=status, code=code)

    def shows(self, slug: str, **public: Any) -> None:
        """The row at the end."""
        history = [t for t in self.evidence.transitions if t.slug == slug]
        last = history[-1]
        children = public.pop("children", 0)
        for n, row in enumerate(self.evidence.instances):
            if row.slug == slug:
                self.evidence.instances[n] = replace(
                    row, seq=last.seq, ts=last.ts, public=public, children=children
                )

    def _transition(
        self,
        slug: str,
        kind: int,
        event: dict[str, Any],
        state: str = "idle",
        caused_by: int | None = None,
        created_at: int | None = None,
        version: str = "subject.ts",
    ) -> Transition:
        before = [t for t in self.evidence.transitions if t.slug == slug]
        self._xid += 1
        at = created_at if created_at is not None else int(self.now * 1000)
        transition = Transition(
            sum(i.slug != slug for i in self.evidence.instances),
            slug,
            len(before) + 1,
            kind,
            event,
            state,
            1000 + len(self.evidence.transitions),
            at,
            None,
            caused_by,
            self._xid,
            0,
            version,
        )
        self.evidence.transitions.append(transition)
        return transition


@pytest.fixture
def story() -> Story:
    """One of everything."""
    story = Story()
    story.creates("append-0")
    story.sends("append-0", "append", "a1", url="…")
    story.is_refused("append-0", "append", "a2")
    story.sends("append-0", "append", "a3")
    story.asks("append-0", "boom", "a4", outcome="refused", status=500, code="machine-error")
    story.asks("append-0", "pause", "")
    story.asks("append-0", "append", "a5", outcome="refused", status=409, code="invalid-state")
    story.asks("append-0", "resume", "")
    story.shows("append-0", ids=["a1", "a3"])
    story.evidence.effects.append(Effect("a1", "append-0", "action", 5, 5, "before"))

    story.creates("register-0")
    story.sends("register-0", "write", "w1")
    story.asks("register-0", "read", "", ts=story.evidence.transitions[-1].ts, value="w1")
    story.sends("register-0", "write", "w2")
    story.shows("register-0", ids=[], value="w2")

    story.creates("gate-0")
    story.sends("gate-0", "close", "g1")
    story.is_refused("gate-0", "enter", "g2", 403)
    story.sends("gate-0", "open", "g3")
    story.sends("gate-0", "enter", "g4")
    story.shows("gate-0", ids=["g1", "g3", "g4"])

    story.creates("service-0")
    story.sends("service-0", "pay", "p1", state="paying")
    story.gets("service-0", SERVICE, {"type": "done"})
    story.sends("service-0", "pay", "p2", state="paying")
    story.gets("service-0", LOST_SERVICE, {"type": "lost"})
    story.shows("service-0", ids=["p1", "p2"])
    story.evidence.effects += [
        Effect("p1", "service-0", "service", 30, 31, "before"),
        Effect("p2", "service-0", "service", 32, 33, "before"),
    ]
    story.evidence.ownerships += [
        Ownership(3, 4, "one", ("pay",)),
        Ownership(3, 5, "two", SETTLED),
    ]

    second: dict[str, Any] = {"state": "resting", "version": "subject-2.ts"}
    story.creates("append-1")
    story.sends("append-1", "append", "u1")
    story.asks("append-1", "upgrade", "", value="subject-2.ts")
    story.gets("append-1", UPGRADE, {"type": "statebacked.upgrade"}, **second)
    story.sends("append-1", "append", "u2", **second)
    story.shows("append-1", ids=["u1", "u2"])

    story.creates("ladder-0")
    climb: dict[str, Any] = {"ladder": "c1", "rungs": 1, "delayMs": 100}
    story.sends("ladder-0", "climb", "c1", **climb)
    at = story.evidence.transitions[-1].created_at + 101
    rung = {"type": "rung", "n": "c1.1", **climb}
    story.gets("ladder-0", TIMER, rung, caused_by=7, created_at=at)
    story.shows("ladder-0", ids=["c1", "c1.1"])

    story.creates("bank-0")
    story.creates("bank-1")
    for n, delivery in (("t1", 8), ("t2", 9)):
        story.sends("bank-0", "transfer", n, to="bank-1", amount=10)
        story.gets("bank-1", MESSAGE, {"type": "credit", "n": n}, caused_by=delivery)
    story.shows("bank-0", balance=980)
    story.shows("bank-1", balance=1020)
    story.evidence.accounts, story.evidence.deposit = 2, 1000

    for id_ in (7, 8, 9):
        xid = next(t.xid for t in story.evidence.transitions if t.caused_by == id_)
        story.evidence.deliveries += [
            DeliveryRow(id_, "created", 1, 0, 0, "", 0),
            DeliveryRow(id_, "deleted", xid, 0, 0, "", 0),
        ]
    last = next(i.ts for i in story.evidence.instances if i.slug == "append-0")
    story.evidence.seen += [Seen(1, "append-0", last - 1, 1.0), Seen(1, "append-0", last, 2.0)]
    return story


def test_honest_site_has_no_violations(story):
    assert check(story.evidence) == []


# ---------------------------------------------------------------------- corruptions

Corrupt = Callable[[Evidence], object]


def _drop_transition(n: str) -> Corrupt:
    """A commit that was acknowledged and has gone, with all that would give it away."""

    def corrupt(evidence: Evidence) -> None:
        gone = next(t for t in evidence.transitions if t.n == n)
        evidence.transitions = [
            replace(t, seq=t.seq - 1) if t.slug == gone.slug and t.seq > gone.seq else t
            for t in evidence.transitions
            if t is not gone
        ]
        _replace_instance(evidence, gone.slug, lambda i: replace(i, seq=i.seq - 1))

    return corrupt


def _replace_instance(
    evidence: Evidence, slug: str, change: Callable[[Instance], Instance]
) -> None:
    evidence.instances = [change(i) if i.slug == slug else i for i in evidence.instances]


def _change_transition(n: str, **values: Any) -> Corrupt:
    def corrupt(evidence: Evidence) -> None:
        evidence.transitions = [
            replace(t, **values) if t.n == n else t for t in evidence.transitions
        ]

    return corrupt


def _change_operation(n: str, **values: Any) -> Corrupt:
    def corrupt(evidence: Evidence) -> None:
        evidence.operations = [replace(o, **values) if o.n == n else o for o in evidence.operations]

    return corrupt


def _repeat_transition(n: str) -> Corrupt:
    def corrupt(evidence: Evidence) -> None:
        once = next(t for t in evidence.transitions if t.n == n)
        last = [t for t in evidence.transitions if t.slug == once.slug][-1]
        again = replace(once, seq=last.seq + 1, ts=last.ts + 10**6)
        evidence.transitions.append(again)
        _replace_instance(evidence, once.slug, lambda i: replace(i, seq=again.seq, ts=again.ts))

    return corrupt


def _swap_transitions(one: str, other: str) -> Corrupt:
    """The history tells them the other way round."""

    def corrupt(evidence: Evidence) -> None:
        places = {t.n: (t.seq, t.ts) for t in evidence.transitions if t.n in (one, other)}
        swapped = {one: places[other], other: places[one]}
        evidence.transitions = [
            replace(t, seq=swapped[t.n][0], ts=swapped[t.n][1]) if t.n in swapped else t
            for t in evidence.transitions
        ]

    return corrupt


def _stale_read(evidence: Evidence) -> None:
    old = next(t for t in evidence.transitions if t.n == "w1")
    last = evidence.operations[-1].ended
    read = Operation(
        "", "any", "register-0", "read", 0, last + 1, last + 2, "ok", 200, ts=old.ts, value="w1"
    )
    evidence.operations.append(read)


def _read_of_nothing(evidence: Evidence) -> None:
    read = Operation("", "any", "append-0", "read", 0, 90, 91, "ok", 200, ts=5)
    evidence.operations.append(read)


def _accept_while_paused(evidence: Evidence) -> None:
    _change_operation("a5", outcome="ok", status=200, code="")(evidence)


def _two_services_at_once(evidence: Evidence) -> None:
    evidence.effects = [replace(e, ended=32.5) if e.n == "p1" else e for e in evidence.effects]


def _consume_twice(evidence: Evidence) -> None:
    _change_transition("a3", caused_by=7)(evidence)


def _lose_delivery(evidence: Evidence) -> None:
    _change_transition("c1.1", caused_by=None)(evidence)


def _leak_delivery(evidence: Evidence) -> None:
    evidence.deliveries.append(DeliveryRow(11, "created", 1, 0, 0, "", 0))


def _owner_ignores_lost_services(evidence: Evidence) -> None:
    service = next(t for t in evidence.transitions if t.kind == LOST_SERVICE)
    at = evidence.transitions.index(service)
    event = {"type": "append", "n": "a3"}
    evidence.transitions[at] = replace(service, kind=CLIENT, event=event)


def _upgrade_while_paying(evidence: Evidence) -> None:
    at = next(n for n, t in enumerate(evidence.transitions) if t.kind == UPGRADE)
    before = evidence.transitions[at - 1]
    evidence.transitions[at - 1] = replace(before, state="paying")


def _forget_upgrade(evidence: Evidence) -> None:
    """As if there had been none: the first version goes on."""
    gone = next(t for t in evidence.transitions if t.kind == UPGRADE)
    evidence.transitions = [
        replace(t, seq=t.seq - 1, version="subject.ts", state="idle") if t.n == "u2" else t
        for t in evidence.transitions
        if t is not gone
    ]
    _replace_instance(evidence, gone.slug, lambda i: replace(i, seq=i.seq - 1))


def _add_effect(**values: Any) -> Corrupt:
    effect = Effect("a1", "append-0", "action", 6, 6, "before")
    return lambda evidence: evidence.effects.append(replace(effect, **values))


def _effect_before_commit(evidence: Evidence) -> None:
    evidence.effects[0] = replace(evidence.effects[0], committed="after")


CORRUPTIONS: list[tuple[str, Corrupt]] = [
    ("I1 history has gaps", _change_transition("a3", seq=9)),
    ("I2 acknowledged and lost", _drop_transition("a3")),
    ("I2 refused and applied", _change_operation("a3", outcome="refused", status=503)),
    ("I2 refused and applied", _change_operation("a3", kind="boom")),
    ("I2 applied twice", _repeat_transition("a3")),
    ("I2 applied and never sent", _change_transition("a3", event={"type": "append", "n": "x"})),
    ("I3 ts does not grow", _change_transition("a3", ts=1)),
    ("I3 not linearizable", _swap_transitions("a1", "a3")),
    ("I3 not linearizable", _stale_read),
    ("I3 not linearizable", _read_of_nothing),
    ("I3 answer is older than its event", _change_operation("a3", ts=1000)),
    ("register is not linearizable", _stale_read),
    ("I3 refused by an old state", _swap_transitions("g1", "g3")),
    ("pause was not kept", _accept_while_paused),
    (
        "state is not what the history makes it",
        lambda e: _replace_instance(e, "append-0", lambda i: replace(i, public={"ids": ["a1"]})),
    ),
    (
        "state is not what the history makes it",
        lambda e: _replace_instance(
            e, "register-0", lambda i: replace(i, public={"ids": [], "value": "w1"})
        ),
    ),
    ("I5 service did not end exactly once", _change_transition("p1", state="idle")),
    (
        "I5 service did not end exactly once",
        lambda e: _replace_instance(e, "service-0", lambda i: replace(i, children=1)),
    ),
    ("I6 event before the error of a lost service", _owner_ignores_lost_services),
    (
        "I10 a step under another version than its instance's",
        _change_transition("u2", version="subject.ts", state="idle"),
    ),
    (
        "I10 a step under another version than its instance's",
        _change_transition("u2", state="idle"),
    ),
    ("I10 upgrade while services ran", _upgrade_while_paying),
    ("upgrade was forgotten", _forget_upgrade),
    ("I4 effect without a transition, or before its commit", _add_effect(n="a2")),
    ("I4 effect without a transition, or before its commit", _effect_before_commit),
    ("I4 effect seen twice", _add_effect()),
    ("I9 two activations had services at the same time", _two_services_at_once),
    ("I7 created is not consumed + cancelled + dead + pending", _consume_twice),
    ("I7 created is not consumed + cancelled + dead + pending", _lose_delivery),
    ("I7 created is not consumed + cancelled + dead + pending", _leak_delivery),
    (
        "I7 created is not consumed + cancelled + dead + pending",
        lambda e: e.dead.append(7),
    ),
    ("timer did not fire exactly once", _drop_transition("c1.1")),
    ("timer did not fire exactly once", _repeat_transition("c1.1")),
    ("timer fired before it was due", _change_transition("c1.1", created_at=0)),
    (
        "timer fired before it was due",
        _add_effect(n="c1.1", slug="ladder-0", at=0.0),
    ),
    ("I8 delivery was overdue", lambda e: setattr(e, "overdue_ms_max", 60_001)),
    (
        "bank does not balance",
        lambda e: _replace_instance(e, "bank-1", lambda i: replace(i, public={"balance": 1021})),
    ),
    ("bank does not balance", _drop_transition("t2")),
    ("I12 subscriber went back, or missed the end", lambda e: e.seen.reverse()),
    ("I12 subscriber went back, or missed the end", lambda e: e.seen.pop()),
    (
        "I13 context too large, or another org's",
        lambda e: _replace_instance(e, "append-0", lambda i: replace(i, context_bytes=400_001)),
    ),
    (
        "I13 context too large, or another org's",
        lambda e: _replace_instance(e, "append-0", lambda i: replace(i, is_of_its_org=False)),
    ),
    ("answer that is not to be expected", _change_operation("a2", status=500, code="internal")),
    ("answer that is not to be expected", _change_operation("a4", outcome="ok", status=200)),
    ("answer that is not to be expected", _change_operation("a2", status=404, code="not-found")),
]


@pytest.mark.parametrize(("name", "corrupt"), CORRUPTIONS)
def test_broken_promise_is_found(story, name, corrupt):
    corrupt(story.evidence)

    assert name in {violation.check for violation in check(story.evidence)}


def test_messages_that_overtake_each_other_are_found(story):
    credited = [t for t in story.evidence.transitions if t.event["type"] == "credit"]
    first, second = (story.evidence.transitions.index(t) for t in credited)
    story.evidence.transitions[first] = replace(credited[0], event=credited[1].event)
    story.evidence.transitions[second] = replace(credited[1], event=credited[0].event)

    names = {violation.check for violation in check(story.evidence)}
    assert names == {"messages of one sender out of order"}


def test_every_check_is_known_to_fail(story):
    known = {name for name, _ in CORRUPTIONS} | {"messages of one sender out of order"}

    assert known == set(CHECKS)


def test_what_nobody_was_told_may_be_there_or_not(story):
    _change_operation("a3", outcome="unknown", status=0, code="TimeoutError")(story.evidence)
    assert check(story.evidence) == []

    story.asks("append-0", "append", "a9", outcome="unknown", status=504, code="outcome-unknown")
    assert check(story.evidence) == []


def test_services_may_overlap_while_a_node_stands_still(story):
    _two_services_at_once(story.evidence)
    story.evidence.faults.append(Fault(29, 34, "stop-long", "web-0"))

    assert check(story.evidence) == []


def test_delivery_that_is_taken_back_is_cancelled(story):
    story.evidence.deliveries += [
        DeliveryRow(11, "created", 1, 0, 0, "", 0),
        DeliveryRow(11, "deleted", story.evidence.transitions[1].xid, 0, 0, "", 0),
    ]
    assert check(story.evidence) != []
    story.evidence.transitions[1] = replace(story.evidence.transitions[1], cancels=1)

    assert check(story.evidence) == []


def test_evidence_is_the_same_when_it_is_read_again(story, tmp_path):
    story.evidence.write(tmp_path / "evidence")

    again = Evidence.read(tmp_path / "evidence")

    assert again.operations == story.evidence.operations
    assert again.transitions == story.evidence.transitions
    assert check(again) == []


# ---------------------------------------------------------------------- a register, by itself


def _operation(kind: str, value: str, started: float, ended: float, **told: Any) -> Operation:
    n = value if kind == "write" else ""
    outcome = told.pop("outcome", "ok")
    return Operation(n, "", "register-0", kind, 0, started, ended, outcome, value=value)


WRITE_A, WRITE_B = _operation("write", "a", 1, 2), _operation("write", "b", 3, 4)


@pytest.mark.parametrize(
    "operations",
    [
        [WRITE_A, _operation("read", "a", 2.5, 2.6), WRITE_B, _operation("read", "b", 5, 6)],
        # Both overlap: each order is one.
        [
            _operation("write", "a", 1, 9),
            _operation("write", "b", 1, 9),
            _operation("read", "b", 2, 3),
            _operation("read", "a", 4, 5),
        ],
        # A write whose outcome is unknown may take place at any later time.
        [
            _operation("write", "a", 1, 2, outcome="unknown"),
            WRITE_B,
            _operation("read", "b", 5, 6),
            _operation("read", "a", 7, 8),
        ],
        [_operation("read", "", 1, 2)],
    ],
)
def test_register_that_can_be_put_in_order(operations):
    assert list(check_register(operations)) == []


@pytest.mark.parametrize(
    "operations",
    [
        [WRITE_A, WRITE_B, _operation("read", "a", 5, 6)],  # stale
        [WRITE_A, _operation("read", "", 5, 6)],
        [WRITE_A, _operation("read", "x", 5, 6)],
        [_operation("read", "a", 0.1, 0.2), WRITE_A],
        [
            _operation("write", "a", 1, 9),
            _operation("write", "b", 1, 9),
            _operation("read", "a", 2, 3),
            _operation("read", "b", 4, 5),
            _operation("read", "a", 6, 7),
        ],
    ],
)
def test_register_that_can_not_be_put_in_order(operations):
    assert list(check_register(operations)) != []
