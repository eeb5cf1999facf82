"""Several servers on one Postgres: what it costs when events are spread over them.

All share the machine with each other, the database and the load, so more servers can't be faster
here: what is measured is what they lose by being several. Every acknowledged event is looked for in
the database, so a figure also says that nothing was lost or applied twice.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import report, workloads
from bench.load import Measurement, Options
from bench.site import BenchSite, running_site
from bench.workloads import INSTANCES, QUICK, Scale, WrongResult

CONTENDED = 100  # instances that all connections of all servers go to
HASHED_LOSS_MAX = 0.10  # of the events per second that one server does


def measure(directory: Path, count: int, scale: Scale) -> Any:
    """Prints a table; the figures by workload."""
    with running_site(directory, "postgres", nodes=count) as site:
        workloads.deploy_machines(site)
        workloads.create_instances(site, QUICK)
        found: dict[str, Measurement] = {}
        for name, options, nodes in _workloads(site, scale, count):
            # Once before what is measured: the compilers of every server have seen it then.
            _send(site, replace(options, warmup_s=0, duration_s=2), nodes)
            found[name] = _send(site, options, nodes)
            print(f"{name}: {found[name].per_second:,.0f}/s", file=sys.stderr)
    for line in _lines(found):
        print(line)
    return {name: report.as_json(measured) for name, measured in found.items()}


def _workloads(
    site: BenchSite, scale: Scale, count: int
) -> Iterator[tuple[str, Options, int | None]]:
    """(name, load, number of servers that it goes to)."""
    spread = workloads.events(site, scale, "toggler", "toggle", connections=64, instances=INSTANCES)
    contended = replace(spread, instances=CONTENDED)
    few = f"{CONTENDED} instances"
    yield "one server", spread, 1
    yield f"{count} servers, by instance", replace(spread, is_hashed=True), count
    yield f"{count} servers, at random", replace(spread, may_refuse=True), count
    yield f"one server, {few}", contended, 1
    yield f"{count} servers, by instance, {few}", replace(contended, is_hashed=True), count
    yield f"{count} servers, at random, {few}", replace(contended, may_refuse=True), count


def _send(site: BenchSite, options: Options, nodes: int | None) -> Measurement:
    before = _counted(site)
    measured = site.load(options, nodes=nodes)
    transitions, toggles = (now - then for now, then in zip(_counted(site), before, strict=True))
    if not measured.acknowledged == transitions == toggles:
        raise WrongResult(
            f"{measured.acknowledged} events acknowledged, {transitions} in the history,"
            f" {toggles} counted by the instances"
        )
    return measured


def _counted(site: BenchSite) -> tuple[int, int]:
    """(events in the history, what the instances have counted themselves)."""
    toggles = """SELECT sum((context::json -> 'public' ->> 'toggleCount')::int)
                 FROM instance WHERE slug LIKE 'i-%'"""
    ((counted,),) = site.database.rows(toggles)
    return workloads.stored_events(site), counted


def _lines(found: dict[str, Measurement]) -> Iterator[str]:
    yield f"{os.cpu_count()} processors, shared by servers, Postgres and load\n"
    yield report.HEAD
    for name, measured in found.items():
        yield report.row(name, "Postgres", measured)
        usage, events = measured.server, measured.requests
        yield (
            f"    us of CPU per event: servers {(usage.loop + usage.writer) * 1e6 / events:.0f},"
            f" runners {usage.runners * 1e6 / events:.0f},"
            f" Postgres {usage.database * 1e6 / events:.0f}"
        )
        if measured.refused:
            yield f"    {measured.refused:,} of {measured.acknowledged:,} events refused with 503"
    one, hashed, *_ = found.values()
    loss = 1 - hashed.per_second / one.per_second
    more_cpu = hashed.server_ms_each / one.server_ms_each - 1
    yield (
        f"\nBy instance against one server: {-loss:+.0%} events/s"
        f" (a loss of {HASHED_LOSS_MAX:.0%} is allowed), {more_cpu:+.0%} CPU per event"
    )
    if any(report.is_noisy(measured) for measured in found.values()):
        yield report.NOISE
