"""The checker: what clients were told, what the outside world saw and what is stored must agree.

Each check is a function from the evidence to violations. None of them trusts the site: the order
of an instance's history is only a claim, which must fit the times at which clients sent and were
answered.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from bench.faults.history import (
    CLIENT,
    FROM_OUTSIDE,
    INIT,
    LOST_SERVICE,
    SERVICE,
    TIMER,
    UPGRADE,
    Evidence,
    Operation,
    Transition,
)

CONTEXT_BYTES_MAX = 400_000
OVERDUE_MS_MAX = 60_000
EARLY_MS_MAX = 50  # by which the clocks of two nodes may differ when one sets and one fires
UNHEARD_S = 30.0  # longer than a stalled connection lasts
KEPT = ("append", "enter", "open", "close", "climb", "rung", "pay")  # events that the context keeps
NEVER_APPLIED = ("boom", "forbid")
REFUSALS = {"boom": (500, "machine-error"), "forbid": (403, "rejected-by-machine-authorizer")}
IDLE = {"subject.ts": "idle", "subject-2.ts": "resting"}  # by version: its state without a service
EXPECTED_ANSWERS = {
    (429, "too-many-events"),
    (503, "unavailable"),
    (504, "outcome-unknown"),
    (504, "settle-timeout"),
}


@dataclass(frozen=True)
class Violation:
    check: str
    what: str


@dataclass(frozen=True)
class Sent:
    """All tries of one event together."""

    n: str
    slug: str
    kind: str
    started: float  # the first try
    acknowledged: float | None  # the first answer that said yes
    is_unknown: bool  # some try's outcome is not known
    code: str  # of the last try


class Facts:
    """The evidence, arranged for the checks."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    @cached_property
    def sent(self) -> dict[str, Sent]:
        tries: dict[str, list[Operation]] = defaultdict(list)
        for operation in self.evidence.operations:
            if operation.n:
                tries[operation.n].append(operation)
        return {n: _together(n, operations) for n, operations in tries.items()}

    @cached_property
    def histories(self) -> dict[str, list[Transition]]:
        """By instance, in the order of seq."""
        found: dict[str, list[Transition]] = defaultdict(list)
        for transition in self.evidence.transitions:
            found[transition.slug].append(transition)
        for history in found.values():
            history.sort(key=lambda transition: transition.seq)
        return found

    @cached_property
    def applied(self) -> dict[str, list[Transition]]:
        """The transitions that clients' events caused, by n."""
        found: dict[str, list[Transition]] = defaultdict(list)
        for transition in self.evidence.transitions:
            if transition.kind == CLIENT:
                found[transition.n].append(transition)
        return found

    @cached_property
    def by_n(self) -> dict[str, Transition]:
        return {t.n: t for t in self.evidence.transitions if t.n}

    @cached_property
    def operations_of(self) -> dict[str, list[Operation]]:
        found: dict[str, list[Operation]] = defaultdict(list)
        for operation in self.evidence.operations:
            found[operation.slug].append(operation)
        return found


def _together(n: str, tries: list[Operation]) -> Sent:
    yes = [operation.ended for operation in tries if operation.outcome == "ok"]
    return Sent(
        n,
        tries[0].slug,
        tries[0].kind,
        min(operation.started for operation in tries),
        min(yes) if yes else None,
        any(operation.outcome == "unknown" for operation in tries),
        tries[-1].code,
    )


Check = Callable[[Facts], Iterable[str]]
CHECKS: dict[str, Check] = {}


def _check(name: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS[name] = check
        return check

    return register


def check(evidence: Evidence) -> list[Violation]:
    """Everything that is wrong."""
    facts = Facts(evidence)
    return [Violation(name, what) for name, find in CHECKS.items() for what in find(facts)]


# ---------------------------------------------------------------------- histories


@_check("I1 history has gaps")
def _gaps(facts: Facts) -> Iterator[str]:
    for instance in facts.evidence.instances:
        history = facts.histories.get(instance.slug, [])
        if [t.seq for t in history] != list(range(1, instance.seq + 1)):
            yield f"{instance.slug}: seq {instance.seq}, {len(history)} transitions"
        if history and history[0].kind != INIT:
            yield f"{instance.slug} does not begin with its creation"
    known = {instance.slug for instance in facts.evidence.instances}
    yield from (f"{slug} has a history and no row" for slug in facts.histories.keys() - known)


@_check("I2 acknowledged and lost")
def _lost(facts: Facts) -> Iterator[str]:
    for sent in facts.sent.values():
        if sent.acknowledged is not None and sent.n not in facts.applied:
            yield f"{sent.kind} {sent.n} for {sent.slug}, acknowledged at {sent.acknowledged:.2f}"
    for operation in facts.evidence.operations:
        if operation.kind == "create" and operation.outcome == "ok":
            if operation.slug not in facts.histories:
                yield f"the creation of {operation.slug}"


@_check("I2 refused and applied")
def _refused_applied(facts: Facts) -> Iterator[str]:
    for sent in facts.sent.values():
        if sent.n not in facts.applied:
            continue
        if sent.kind in NEVER_APPLIED:
            yield f"{sent.kind} {sent.n} for {sent.slug}"
        elif sent.acknowledged is None and not sent.is_unknown:
            yield f"{sent.kind} {sent.n} for {sent.slug} ({sent.code})"


@_check("I2 applied twice")
def _duplicates(facts: Facts) -> Iterator[str]:
    for n, transitions in facts.applied.items():
        if len(transitions) > 1:
            yield f"{n}: {[(t.slug, t.seq) for t in transitions]}"
    keys = Counter((t.slug, t.request_key) for t in facts.evidence.transitions if t.request_key)
    yield from (f"key {key} of {slug}" for (slug, key), times in keys.items() if times > 1)


@_check("I2 applied and never sent")
def _invented(facts: Facts) -> Iterator[str]:
    for n, transitions in facts.applied.items():
        for transition in transitions:
            sent = facts.sent.get(n)
            if sent is None or sent.slug != transition.slug:
                yield f"{n} in {transition.slug} at {transition.seq}"


@_check("I3 ts does not grow")
def _times(facts: Facts) -> Iterator[str]:
    for slug, history in facts.histories.items():
        for before, after in pairwise(history):
            if after.ts <= before.ts:
                yield f"{slug}: {before.ts} at {before.seq}, {after.ts} at {after.seq}"


# ---------------------------------------------------------------------- order


@dataclass(frozen=True)
class _Point:
    """An operation and its place in the history of its instance."""

    started: float
    ended: float | None  # None: nobody was told
    low: int  # it saw, or made, this seq
    is_write: bool
    name: str


@_check("I3 not linearizable")
def _order(facts: Facts) -> Iterator[str]:
    """What ended before another began comes before it; no read sees what is older than that."""
    for slug, operations in facts.operations_of.items():
        history = facts.histories.get(slug, [])
        by_ts = {t.ts: t.seq for t in history}
        points = []
        for operation in operations:
            if operation.outcome != "ok" or not operation.ts:
                continue
            seen = by_ts.get(operation.ts)
            name = f"{operation.kind} {operation.n} at {operation.started:.2f}"
            if seen is None:
                yield f"{slug}: {name} was told a state that is not in the history"
                continue
            points.append(_Point(operation.started, operation.ended, seen, False, name))
        for t in history:
            sent = facts.sent.get(t.n)
            if t.kind == CLIENT and sent is not None:
                ended = sent.acknowledged
                points.append(_Point(sent.started, ended, t.seq, True, f"{sent.kind} {t.n}"))
        yield from (f"{slug}: {what}" for what in _out_of_order(points))


def _out_of_order(points: list[_Point]) -> Iterator[str]:
    ends = sorted((p.ended, p.low) for p in points if p.ended is not None)
    latest: list[int] = []  # the highest seq that was known at each of these ends
    for _, seq in ends:
        latest.append(max(seq, latest[-1] if latest else 0))
    times = [ended for ended, _ in ends]
    for point in points:
        before = bisect.bisect_left(times, point.started)
        known = latest[before - 1] if before else 0
        if point.low < known or (point.is_write and point.low == known):
            yield f"{point.name} is at {point.low}, but {known} was known before it began"


@_check("I3 answer is older than its event")
def _answers(facts: Facts) -> Iterator[str]:
    for operation in facts.evidence.operations:
        transitions = facts.applied.get(operation.n)
        if operation.outcome == "ok" and operation.ts and transitions:
            if operation.ts < transitions[0].ts:
                yield f"{operation.kind} {operation.n}: {operation.ts} < {transitions[0].ts}"


@_check("register is not linearizable")
def _registers(facts: Facts) -> Iterator[str]:
    """The same question asked of the clients' words alone, without the history."""
    for slug, operations in facts.operations_of.items():
        if slug.startswith("register-"):
            yield from (f"{slug}: {what}" for what in check_register(operations))


def check_register(operations: list[Operation]) -> Iterator[str]:
    """Whether reads and writes of one register (each writes another value) can be put in an order.

    Gibbons and Korach: each value's operations span a zone, from the first end to the last start.
    Zones that run forward (some operation ended before another began) must not overlap, and one
    that runs backward must not lie inside one that runs forward.
    """
    starts: dict[str, float] = {"": float("-inf")}
    first_end: dict[str, float] = {"": float("-inf")}
    last_start: dict[str, float] = {"": float("-inf")}
    for operation in operations:
        if operation.kind == "write":
            start = min(operation.started, starts.get(operation.n, float("inf")))
            starts[operation.n] = start
            last_start[operation.n] = max(start, last_start.get(operation.n, start))
            if operation.outcome == "ok":
                earlier = first_end.get(operation.n, float("inf"))
                first_end[operation.n] = min(operation.ended, earlier)
    for operation in operations:
        if operation.kind != "read" or operation.outcome != "ok":
            continue
        value = operation.value
        if value not in starts:
            yield f"read {value!r}, which nobody wrote"
            return
        if operation.ended < starts[value]:
            yield f"read {value!r} before it was written"
        first_end[value] = min(operation.ended, first_end.get(value, float("inf")))
        last_start[value] = max(operation.started, last_start[value])
    zones = [(first_end[v], last_start[v], v) for v in first_end]
    forward = sorted(zone for zone in zones if zone[0] < zone[1])
    for (_, end, one), (begin, _, other) in pairwise(forward):
        if begin < end:
            yield f"{one!r} and {other!r} each were there before and after the other"
    begins = [zone[0] for zone in forward]
    for end, begin, value in zones:
        if begin > end or value == "":
            continue
        at = bisect.bisect_left(begins, begin) - 1
        if at >= 0 and forward[at][1] > end:
            yield f"{value!r} came and went while {forward[at][2]!r} was there all the time"


@_check("I3 refused by an old state")
def _gates(facts: Facts) -> Iterator[str]:
    """Whoever was refused was refused by a state that was current at some time meanwhile."""
    for slug, history in facts.histories.items():
        if not slug.startswith("gate-"):
            continue
        is_closed = [False]  # by seq; nothing is before the first
        for t in history:
            kind = t.event["type"]
            if kind == "enter" and is_closed[-1]:
                yield f"{slug}: {t.n} entered at {t.seq} while it was closed"
            is_closed.append(kind == "close" or (kind != "open" and is_closed[-1]))
        ends = sorted(
            (sent.acknowledged, facts.applied[sent.n][0].seq)
            for sent in facts.sent.values()
            if sent.slug == slug and sent.acknowledged is not None and sent.n in facts.applied
        )
        starts = {t.seq: facts.sent[t.n].started for t in history if t.n in facts.sent}
        for operation in facts.operations_of[slug]:
            if operation.kind == "enter" and operation.status == 403:
                known = max((seq for at, seq in ends if at < operation.started), default=1)
                begun = [seq for seq, at in starts.items() if at < operation.ended]
                latest = max([known, *begun])
                if not any(is_closed[known : latest + 1]):
                    yield f"{slug}: {operation.n} was refused at {operation.started:.2f}, when open"


@_check("pause was not kept")
def _pauses(facts: Facts) -> Iterator[str]:
    """I11: nothing that was sent and answered while an instance was paused was applied."""
    for slug, operations in facts.operations_of.items():
        paused_at: float | None = None
        resumed_at = 0.0
        windows = []
        for operation in sorted(operations, key=lambda o: o.started):
            if operation.kind == "pause" and operation.outcome == "ok":
                paused_at = operation.ended
            elif operation.kind == "resume" and paused_at is not None:
                resumed_at = operation.started
                windows.append((paused_at, resumed_at))
                paused_at = None
        for operation in operations:
            if operation.n and operation.outcome == "ok" and not operation.replayed:
                if any(a < operation.started and operation.ended < b for a, b in windows):
                    if operation.kind not in NEVER_APPLIED:
                        yield f"{slug}: {operation.n} was accepted at {operation.ended:.2f}"


# ---------------------------------------------------------------------- what a history amounts to


@_check("state is not what the history makes it")
def _states(facts: Facts) -> Iterator[str]:
    for instance in facts.evidence.instances:
        if instance.slug.startswith("bank-"):
            continue
        history = facts.histories.get(instance.slug, [])
        kept = [t.n for t in history if t.event["type"] in KEPT]
        if instance.public.get("ids") != kept:
            yield f"{instance.slug} keeps other events than its history has"
        written = [t.n for t in history if t.event["type"] == "write"]
        if instance.public.get("value", "") != (written[-1] if written else ""):
            yield f"{instance.slug} holds another value than the last one written"
        if history and instance.ts != history[-1].ts:
            yield f"{instance.slug}: its row has another ts than its last transition"


@_check("I5 service did not end exactly once")
def _services(facts: Facts) -> Iterator[str]:
    for instance in facts.evidence.instances:
        started = ended = 0
        is_paying = False
        for t in facts.histories.get(instance.slug, []):
            if t.kind in (SERVICE, LOST_SERVICE):
                ended += 1
                if not is_paying:
                    yield f"{instance.slug}: a service ended at {t.seq} that did not run"
                is_paying = False
            elif t.event["type"] == "pay" and not is_paying:
                started += 1
                is_paying = True
            if (t.state == "paying") != is_paying:
                yield f"{instance.slug}: {t.state} at {t.seq}"
                break
        if started - ended != instance.children:
            yield f"{instance.slug}: {started} started, {ended} ended, {instance.children} there"


@_check("I6 event before the error of a lost service")
def _lost_services(facts: Facts) -> Iterator[str]:
    """A node that takes an instance over begins with the error events of what was lost."""
    slugs = {instance.id: instance.slug for instance in facts.evidence.instances}
    commits = defaultdict(list)
    for ownership in facts.evidence.ownerships:
        commits[ownership.instance_id].append(ownership)
    for instance_id, row in commits.items():
        history = {t.seq: t for t in facts.histories.get(slugs.get(instance_id, ""), [])}
        for before, after in pairwise(row):
            if before.owner == after.owner or not before.children or after.seq == before.seq:
                continue
            lost = len(before.children)
            first = [history.get(before.seq + n) for n in range(1, lost + 1)]
            wrong = [
                t for t in first if t is not None and t.kind in (*FROM_OUTSIDE, SERVICE, UPGRADE)
            ]
            if wrong:
                yield f"{slugs[instance_id]}: {wrong[0].event['type']} at {wrong[0].seq}"


# ---------------------------------------------------------------------- upgrades


@_check("I10 a step under another version than its instance's")
def _versions(facts: Facts) -> Iterator[str]:
    """Each version has a name of its own for the state in which nothing runs."""
    for slug, history in facts.histories.items():
        for before, after in pairwise(history):
            if (before.version != after.version) != (after.kind == UPGRADE):
                yield f"{slug}: {after.event['type']} at {after.seq} on {after.version}"
        for t in history:
            if t.state != "paying" and IDLE.get(t.version, t.state) != t.state:
                yield f"{slug}: {t.state} at {t.seq} on {t.version}"


@_check("I10 upgrade while services ran")
def _upgrades_settled(facts: Facts) -> Iterator[str]:
    for slug, history in facts.histories.items():
        for before, after in pairwise(history):
            if after.kind == UPGRADE and before.state == "paying":
                yield f"{slug}: at {after.seq}"


def _may_work_until(operation: Operation) -> float:
    """A request of which nobody has heard may be carried out a while later."""
    return operation.ended + (UNHEARD_S if operation.outcome == "unknown" else 0)


@_check("upgrade was forgotten")
def _upgrades_kept(facts: Facts) -> Iterator[str]:
    """An event that came after a desired version was acknowledged is processed on that version.

    Where no service can have been running meanwhile, and until the next wish was sent.
    """
    for slug, operations in facts.operations_of.items():
        if slug.startswith(("service-", "probe-")):
            continue
        wishes = sorted(
            (o for o in operations if o.kind == "upgrade"), key=lambda operation: operation.started
        )
        for n, wish in enumerate(wishes):
            earlier = [other for other in wishes[:n] if _may_work_until(other) > wish.started]
            if wish.outcome != "ok" or earlier:
                continue
            until = min((o.started for o in wishes[n + 1 :]), default=float("inf"))
            for operation in operations:
                for t in facts.applied.get(operation.n, []):
                    sent = facts.sent[operation.n]
                    is_meanwhile = wish.ended < sent.started and operation.ended < until
                    if operation.outcome == "ok" and is_meanwhile and t.version != wish.value:
                        yield f"{slug}: {operation.n} at {t.seq} on {t.version}, not {wish.value}"


# ---------------------------------------------------------------------- effects


@_check("I4 effect without a transition, or before its commit")
def _early_effects(facts: Facts) -> Iterator[str]:
    for effect in facts.evidence.effects:
        transition = facts.by_n.get(effect.n)
        if transition is None or transition.slug != effect.slug:
            yield f"{effect.kind} of {effect.n} for {effect.slug} at {effect.at:.2f}"
        elif effect.committed in ("after", "never"):
            yield f"{effect.kind} of {effect.n} at {effect.at:.2f}, before its commit"


@_check("I4 effect seen twice")
def _double_effects(facts: Facts) -> Iterator[str]:
    times = Counter((effect.n, effect.kind) for effect in facts.evidence.effects)
    yield from (f"{kind} of {n}, {many} times" for (n, kind), many in times.items() if many > 1)


@_check("I9 two activations had services at the same time")
def _overlaps(facts: Facts) -> Iterator[str]:
    """Except while a process stood still: then the connection of a lost service stays open."""
    still = [f for f in facts.evidence.faults if f.kind.startswith(("stop-", "partition-"))]
    calls = defaultdict(list)
    for effect in facts.evidence.effects:
        if effect.kind == "service":
            calls[effect.slug].append(effect)
    for slug, effects in calls.items():
        effects.sort(key=lambda effect: effect.at)
        for before, after in pairwise(effects):
            excused = any(f.at < before.ended and f.ended + 2 > before.at for f in still)
            if after.at < before.ended - 0.05 and not excused:
                yield f"{slug}: {after.n} was called at {after.at:.2f}, before {before.n} had ended"


# ---------------------------------------------------------------------- deliveries and timers


@_check("I7 created is not consumed + cancelled + dead + pending")
def _deliveries(facts: Facts) -> Iterator[str]:
    evidence = facts.evidence
    created = {row.id for row in evidence.deliveries if row.fate == "created"}
    deleted = {row.id: row for row in evidence.deliveries if row.fate == "deleted"}
    consumed = Counter(t.caused_by for t in evidence.transitions if t.caused_by is not None)
    dead, pending = set(evidence.dead), set(evidence.pending)
    cancelling = Counter[int]()
    for t in evidence.transitions:
        cancelling[t.xid] += t.cancels
    for id_, times in consumed.items():
        if times > 1:
            yield f"delivery {id_} was consumed {times} times"
        if id_ not in created:
            yield f"delivery {id_} was consumed and never created"
    for id_ in created:
        if (id_ in pending) == (id_ in deleted):
            yield f"delivery {id_} is neither there nor gone"
        fates = (id_ in pending) + (id_ in dead) + (id_ in consumed)
        is_cancelled = id_ in deleted and cancelling[deleted[id_].xid] > 0
        if fates > 1 or (fates == 0 and not is_cancelled):
            yield f"delivery {id_} has {fates} fates"


@_check("timer did not fire exactly once")
def _ladders(facts: Facts) -> Iterator[str]:
    rungs = Counter(t.n for t in facts.evidence.transitions if t.event["type"] == "rung")
    wanted = {
        f"{t.n}.{k}"
        for t in facts.evidence.transitions
        if t.event["type"] == "climb"
        for k in range(1, t.event["rungs"] + 1)
    }
    yield from (f"{n} fired {times} times" for n, times in rungs.items() if times > 1)
    yield from (f"{n} never fired" for n in wanted - rungs.keys())
    yield from (f"{n} was never set" for n in rungs.keys() - wanted)


@_check("timer fired before it was due")
def _early_timers(facts: Facts) -> Iterator[str]:
    for t in facts.evidence.transitions:
        if t.kind != TIMER or t.event.get("type") != "rung":
            continue
        ladder, _, k = t.n.rpartition(".")
        setter = facts.by_n.get(ladder if k == "1" else f"{ladder}.{int(k) - 1}")
        delay_ms = t.event["delayMs"]
        if setter is None or setter.seq >= t.seq:
            yield f"{t.n} fired before it was set"
        elif t.created_at - setter.created_at < delay_ms - EARLY_MS_MAX:
            yield f"{t.n} fired {t.created_at - setter.created_at} ms after, of {delay_ms}"
    # The same by the run's own clock: the first try of the event was sent before it was set.
    for effect in facts.evidence.effects:
        ladder, _, k = effect.n.rpartition(".")
        sent, transition = facts.sent.get(ladder), facts.by_n.get(effect.n)
        if sent is not None and transition is not None and transition.event["type"] == "rung":
            due = sent.started + int(k) * transition.event["delayMs"] / 1000
            if effect.at < due - EARLY_MS_MAX / 1000:
                yield f"{effect.n} was seen {due - effect.at:.3f} s too early"


@_check("I8 delivery was overdue")
def _overdue(facts: Facts) -> Iterator[str]:
    overdue_ms = facts.evidence.overdue_ms_max
    if overdue_ms > OVERDUE_MS_MAX:
        yield f"by {overdue_ms} ms"


@_check("bank does not balance")
def _bank(facts: Facts) -> Iterator[str]:
    """Money is neither made nor lost: each transfer is taken once and arrives once."""
    evidence = facts.evidence
    accounts = [i for i in evidence.instances if i.slug.startswith("bank-")]
    if not accounts:
        return
    total = sum(instance.public.get("balance", 0) for instance in accounts)
    wanted = evidence.accounts * evidence.deposit
    taken = Counter(t.n for t in evidence.transitions if t.event["type"] == "transfer")
    arrived = Counter(t.n for t in evidence.transitions if t.event["type"] == "credit")
    yield from (f"{n} arrived {times} times" for n, times in arrived.items() if times > 1)
    yield from (f"{n} arrived from nowhere" for n in arrived.keys() - taken.keys())
    if not evidence.pending and not evidence.dead:
        yield from (f"{n} was taken and never arrived" for n in taken.keys() - arrived.keys())
        if total != wanted:
            yield f"{total} are there of {wanted}"


@_check("messages of one sender out of order")
def _message_order(facts: Facts) -> Iterator[str]:
    sent_at: dict[str, tuple[str, int]] = {}
    for t in facts.evidence.transitions:
        if t.event["type"] == "transfer":
            sent_at[t.n] = (t.slug, t.seq)
    for slug, history in facts.histories.items():
        latest: dict[str, int] = {}
        for t in history:
            if t.event["type"] == "credit" and t.n in sent_at:
                sender, seq = sent_at[t.n]
                if seq < latest.get(sender, 0):
                    yield f"{slug}: {t.n}, the {seq}. of {sender}, comes after {latest[sender]}."
                latest[sender] = seq


# ---------------------------------------------------------------------- the rest


@_check("I12 subscriber went back, or missed the end")
def _subscribers(facts: Facts) -> Iterator[str]:
    final = {instance.slug: instance.ts for instance in facts.evidence.instances}
    last: dict[tuple[int, str], int] = {}
    latest: dict[str, int] = {}
    for seen in facts.evidence.seen:
        before = last.get((seen.connection, seen.slug), 0)
        if seen.ts < before:
            yield f"{seen.slug}: {seen.ts} after {before}"
        last[(seen.connection, seen.slug)] = seen.ts
        latest[seen.slug] = max(seen.ts, latest.get(seen.slug, 0))
    for slug, ts in latest.items():
        if slug in final and ts != final[slug]:
            yield f"{slug}: its last state has ts {final[slug]}, the last one told is {ts}"


@_check("I13 context too large, or another org's")
def _rows(facts: Facts) -> Iterator[str]:
    for instance in facts.evidence.instances:
        if instance.context_bytes > CONTEXT_BYTES_MAX or not instance.is_of_its_org:
            yield instance.slug


@_check("answer that is not to be expected")
def _unexpected(facts: Facts) -> Iterator[str]:
    """The site's own trouble is 503 or 504, whatever happens."""
    paused = {
        operation.slug for operation in facts.evidence.operations if operation.kind == "pause"
    }
    for operation in facts.evidence.operations:
        if operation.outcome == "ok":
            if operation.kind in NEVER_APPLIED:
                yield f"{operation.kind} {operation.n} was accepted"
            continue
        answer = (operation.status, operation.code)
        if operation.status == 0 or answer in EXPECTED_ANSWERS:
            continue
        if answer == REFUSALS.get(operation.kind):
            continue
        if operation.kind == "enter" and answer == REFUSALS["forbid"]:
            continue
        if operation.slug in paused and answer == (409, "invalid-state"):
            continue
        yield f"{answer} for {operation.kind} {operation.n} of {operation.slug}"
