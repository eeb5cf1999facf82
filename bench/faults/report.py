"""The figures of one fault run, as a table for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.faults.check import CHECKS, Violation
from bench.faults.history import TIMER, UPGRADE, Evidence, Recovery

RECOVERY_S_MAX = {"settled": 1.0, "unsettled": 12.0, "runner": 1.0}
RECOVERY_NAMES = {
    "settled": "settled instance, after its node",
    "unsettled": "unsettled instance, after its node",
    "runner": "after a runner",
    "database": "after the database is back",
}
OK_SHARE_MIN = 0.7
EXAMPLES = 5


@dataclass(frozen=True)
class Run:
    """What was run."""

    seed: int
    date: str
    minutes: float
    webs: int
    workers: int
    skipped: int  # faults that found their target down


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so many of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def ok_share(evidence: Evidence) -> float:
    """Of all operations, those that were answered as they should be, refusals included."""
    as_wanted = sum(o.outcome == "ok" or o.status in (403, 409, 500) for o in evidence.operations)
    return as_wanted / max(1, len(evidence.operations))


def recovery_s(evidence: Evidence, what: str) -> list[float]:
    """Seconds of each recovery that no other fault disturbed."""
    return [r.seconds for r in evidence.recoveries if r.what == what and not r.disturbed]


def slow_recoveries(evidence: Evidence) -> list[str]:
    """What took longer than it may, by the 99th percentile."""
    late = {what: percentile(recovery_s(evidence, what), 0.99) for what in RECOVERY_S_MAX}
    return [
        f"{RECOVERY_NAMES[what]}: p99 {seconds:.2f} s, allowed are {RECOVERY_S_MAX[what]:g} s"
        for what, seconds in late.items()
        if seconds > RECOVERY_S_MAX[what]
    ]


def table(run: Run, evidence: Evidence, violations: list[Violation]) -> str:
    return "\n".join(_lines(run, evidence, violations))


def _lines(run: Run, evidence: Evidence, violations: list[Violation]) -> Iterator[str]:
    yield f"Fault run of {run.date}, seed {run.seed}: {run.minutes:g} minutes,"
    yield f"{run.webs} web nodes, {run.workers} workers, one Postgres, one Redis"
    yield ""
    outcomes = Counter(operation.outcome for operation in evidence.operations)
    yield _row("client operations", f"{len(evidence.operations):,}")
    yield _row("  answered as wanted", f"{ok_share(evidence):.1%}")
    yield _row("  refused / unknown", f"{outcomes['refused']:,} / {outcomes['unknown']:,}")
    yield _row("transitions", f"{len(evidence.transitions):,}")
    upgrades = sum(transition.kind == UPGRADE for transition in evidence.transitions)
    yield _row("  upgrades to another version", f"{upgrades:,}")
    created = sum(row.fate == "created" for row in evidence.deliveries)
    yield _row("deliveries created", f"{created:,}")
    yield _row("  left / dead", f"{len(evidence.pending):,} / {len(evidence.dead):,}")
    yield _row("effects seen outside", f"{len(evidence.effects):,}")
    unclear = sum(effect.committed == "unclear" for effect in evidence.effects)
    yield _row("  not looked up in time", f"{unclear:,}")
    yield _row("states seen by subscribers", f"{len(evidence.seen):,}")
    late = [ms / 1000 for ms in lateness_ms(evidence)]
    lateness = f"{percentile(late, 0.5):.3f} / {percentile(late, 0.99):.2f}"
    yield _row("timers late by p50 / p99 / max", f"{lateness} / {max(late, default=0):.2f} s")
    yield ""
    yield _row("faults", f"{len(evidence.faults)}")
    for kind, times in sorted(Counter(fault.kind for fault in evidence.faults).items()):
        yield _row(f"  {kind}", f"{times}")
    if run.skipped:
        yield _row("  could not be done, or their target was down", f"{run.skipped}")
    yield ""
    yield _row("an event is accepted again", "times", "p50", "p99", "max", "disturbed")
    for what, name in RECOVERY_NAMES.items():
        yield _recovery_row(name, recovery_s(evidence, what), _disturbed(evidence.recoveries, what))
    yield ""
    found: dict[str, list[Violation]] = defaultdict(list)
    for violation in violations:
        found[violation.check].append(violation)
    yield _row("violations", f"{len(violations)}")
    for name in CHECKS:
        yield _row(f"  {name}", f"{len(found[name])}")
    for name, those in found.items():
        for violation in those[:EXAMPLES]:
            yield f"! {name}: {violation.what}"
        if len(those) > EXAMPLES:
            yield f"! {name}: and {len(those) - EXAMPLES} more"


def lateness_ms(evidence: Evidence) -> list[int]:
    """How long after it was due each timer's transition was made."""
    due = {row.id: row.due_at for row in evidence.deliveries if row.fate == "created"}
    return [
        max(0, t.created_at - due[t.caused_by])
        for t in evidence.transitions
        if t.kind == TIMER and t.caused_by in due
    ]


def _disturbed(recoveries: list[Recovery], what: str) -> int:
    return sum(recovery.what == what and recovery.disturbed for recovery in recoveries)


def _recovery_row(name: str, seconds: list[float], disturbed: int) -> str:
    cells = [percentile(seconds, 0.5), percentile(seconds, 0.99), max(seconds, default=0.0)]
    shown = [f"{cell:.2f} s" for cell in cells]
    return _row(f"  {name}", str(len(seconds)), *shown, str(disturbed))


def _row(name: str, *cells: str) -> str:
    return f"{name:<52}" + "".join(f"{cell:>11}" for cell in cells)
