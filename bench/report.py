"""The figures of one benchmark run: as a table for people and as JSON for comparisons."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.load import Measurement
from bench.workloads import Lateness

NOISE_CPUS = 0.15  # more than this of other programs' CPU makes times and rates too bad
MB = 1_000_000
EVENTS = "events, 1,000 instances"  # the workload that the stages are told for


@dataclass
class Memory:
    """Bytes before and after a number of events."""

    events: int
    server_before: int
    runners_before: int
    server_after: int
    runners_after: int


@dataclass
class Report:
    """What was measured on one database, by the name of the workload, in the order it was run."""

    database: str
    durability: str
    file_system: str
    cpus: int
    measurements: dict[str, Measurement] = field(default_factory=dict)
    lateness: Lateness | None = None
    memory: Memory | None = None
    http: Measurement | None = None
    refused: Measurement | None = None

    def notes(self) -> Iterator[str]:
        """What the table has no place for."""
        yield f"\n{self.durability}, {self.file_system}"
        for stage, microseconds in self.stages().items():
            yield f"  {stage:<52}{microseconds:>6.0f} us"
        if self.lateness is not None:
            late = self.lateness
            yield (
                f"  {late.timers:,} timers due within {late.within_s:.1f} s:"
                f" late by {late.p50_ms:.0f} ms (p50), {late.p99_ms:.0f} ms (p99),"
                f" {late.max_ms:.0f} ms (max)"
            )
        if self.memory is not None:
            used = self.memory
            yield (
                f"  Memory over {used.events:,} events:"
                f" server {used.server_before / MB:.0f} -> {used.server_after / MB:.0f} MB,"
                f" runners {used.runners_before / MB:.0f} -> {used.runners_after / MB:.0f} MB"
            )

    def stages(self) -> dict[str, float]:
        """Microseconds of CPU per event by stage, for events over many instances.

        Runners and writer have threads of their own. What the loop's thread does is told apart
        by two probes: a constant answer, and an event that is refused once its token, URL and
        body are checked. The latter also renders an error, so it is an upper bound.
        """
        events = self.measurements.get(EVENTS)
        if events is None or self.http is None or self.refused is None:
            return {}
        loop = _loop_us(events)
        http = _loop_us(self.http)
        refused = _loop_us(self.refused)
        return {
            "HTTP (loop's thread)": http,
            "token, URL and body (at most)": max(0.0, refused - http),
            "engine, runner's pipe, answer (the rest of the loop)": max(0.0, loop - refused),
            "runner (XState, allowWrite, JSON)": events.server.runners * 1e6 / events.requests,
            "other threads (on SQLite: the commits)": events.server.writer * 1e6 / events.requests,
            "the database's processes": events.server.database * 1e6 / events.requests,
        }

    def as_json(self) -> dict[str, Any]:
        return {
            "database": self.database,
            "durability": self.durability,
            "fileSystem": self.file_system,
            "processors": self.cpus,
            "machine": platform.platform(),
            "python": platform.python_version(),
            "workloads": {name: as_json(m) for name, m in self.measurements.items()},
            "stagesMicroseconds": {name: round(us, 1) for name, us in self.stages().items()},
            "timers": self.lateness and vars(self.lateness),
            "memory": self.memory and vars(self.memory),
        }


def table(reports: Sequence[Report]) -> str:
    """All databases in one table, a workload's lines together."""
    return "\n".join(_lines(reports))


def _lines(reports: Sequence[Report]) -> Iterator[str]:
    yield f"{reports[0].cpus} processors, shared with the load\n"
    yield HEAD
    for name in dict.fromkeys(name for report in reports for name in report.measurements):
        for report in reports:
            if name in report.measurements:
                yield row(name, report.database, report.measurements[name])
    for report in reports:
        yield from report.notes()
    if any(is_noisy(m) for report in reports for m in report.measurements.values()):
        yield NOISE


NOISE = (
    "\n! Other programs were busy: rates and times are worse than on a quiet machine."
    "\n  CPU per event is what to compare."
)


def is_noisy(measurement: Measurement) -> bool:
    return measurement.others_cpus > NOISE_CPUS


def row(name: str, database: str, m: Measurement) -> str:
    """A line below HEAD."""
    return _cells(
        name,
        database,
        f"{m.per_second:,.0f}",
        f"{m.p50_ms:.2f}",
        f"{m.p99_ms:.2f}",
        f"{m.server_ms_each:.3f}",
        f"{m.generator_cpus:.2f}",
        f"{m.others_cpus:.2f}{' !' if is_noisy(m) else ''}",
    )


def _cells(name: str, database: str, *cells: str) -> str:
    return f"{name:<42}{database:<10}" + "".join(f"{cell:>12}" for cell in cells)


HEAD = _cells("", "", "per s", "p50 ms", "p99 ms", "CPU ms each", "generator", "others")


def _loop_us(measurement: Measurement) -> float:
    return measurement.server.loop * 1e6 / measurement.requests


def as_json(m: Measurement) -> dict[str, float]:
    return {
        "requests": m.requests,
        "perSecond": round(m.per_second, 1),
        "p50Ms": round(m.p50_ms, 3),
        "p99Ms": round(m.p99_ms, 3),
        "maxMs": round(m.max_ms, 3),
        "serverCpuMs": round(m.server_ms_each, 4),
        "loopCpuMs": round(m.server.loop * 1000 / m.requests, 4),
        "writerCpuMs": round(m.server.writer * 1000 / m.requests, 4),
        "runnerCpuMs": round(m.server.runners * 1000 / m.requests, 4),
        "databaseCpuMs": round(m.server.database * 1000 / m.requests, 4),
        "generatorCpus": round(m.generator_cpus, 3),
        "othersCpus": round(m.others_cpus, 3),
    }
