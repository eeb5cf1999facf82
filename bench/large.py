"""A million instances: what lists and cold events cost then, and how the database got there."""

import html
import json
import re
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench import filling, report, workloads
from bench.databases import Database
from bench.load import Measurement
from bench.site import BenchSite, fresh_database, running_node
from bench.visitor import Visitor
from bench.workloads import Scale

INSTANCES = 1_000_000
COLD_EVENTS = 1_000  # each to another instance that no server has seen
PAGE_MS_MAX = 300
COLD_FACTOR_MAX = 2.0
TIMES = 5  # each page
POLL_S = 0.5
ONCE = Scale(warmup_s=0, duration_s=60, creates=COLD_EVENTS)


def measure(directory: Path, databases: tuple[str, ...], count: int, keep: bool) -> Any:
    """Prints a table; the figures by database."""
    return {kind: _measure(directory, kind, count, keep) for kind in databases}


def _measure(directory: Path, kind: str, count: int, keep: bool) -> Any:
    with fresh_database(directory, kind) as (data_dir, database):
        with running_node(data_dir, database) as node:
            site = BenchSite([node], database)
            made = filling.templates(site)
            workloads.create_instances(site, ONCE)
        with running_node(data_dir, database) as node:
            empty = _cold_events(BenchSite([node], database), "i-", count=COLD_EVENTS)
        for step in filling.fill(database, made, count):
            print(f"{database.label}: {step}", file=sys.stderr)
        ((instances, first),) = database.rows("SELECT count(*), min(id) FROM instance")
        ((transitions,),) = database.rows("SELECT count(*) FROM transition")
        print(f"\n{database.label}: {instances:,} instances, {transitions:,} transitions\n")
        query = "SELECT min(id) FROM instance WHERE slug LIKE 'toggler-%' AND id % 1000 = 0"
        ((first,),) = database.rows(query)
        with running_node(data_dir, database) as node:
            site = BenchSite([node], database)
            print(f"{database.label}: counted in {_until_counted(database):.0f} s", file=sys.stderr)
            cold = _cold_events(
                site,
                "toggler-",
                count=min(COLD_EVENTS, count // filling.SLOTS),
                first=first,
                stride=filling.SLOTS,
            )
            print(report.HEAD)
            print(report.row("cold events, empty database", database.label, empty))
            print(report.row("cold events, full database", database.label, cold))
            factor = cold.p50_ms / empty.p50_ms
            print(f"    {factor:.2f} times as long (p50; {COLD_FACTOR_MAX} is allowed)\n")
            pages = dict(_pages(site, first))
            if keep:
                link = site.manage("sign_in_link").split()[-1]
                print(f"\nThe site is at {link} until Ctrl-C.", file=sys.stderr)
                _until_interrupted()
    return {
        "instances": instances,
        "transitions": transitions,
        "coldP50Ms": {"empty": empty.p50_ms, "full": cold.p50_ms},
        "pagesMs": pages,
    }


def _until_counted(database: Database) -> float:
    """Seconds that the server takes to find out where all these instances are."""
    started = time.monotonic()
    while database.rows("SELECT 1 FROM place_keeper WHERE is_lost"):
        time.sleep(POLL_S)
    return time.monotonic() - started


def _cold_events(
    site: BenchSite, prefix: str, *, count: int, first: int = 0, stride: int = 1
) -> Measurement:
    """One after the other, each to another instance that the server has not read yet."""
    # A runner must be there; what is measured is the row, not the start of a process.
    workloads.warm_up(site, "toggler")
    options = workloads.events(
        site, ONCE, "toggler", "toggle", connections=1, instances=count, prefix=prefix
    )
    return site.load(replace(options, cycle=False, first=first, stride=stride))


def _pages(site: BenchSite, first: int) -> Iterator[tuple[str, dict[str, float]]]:
    visitor = Visitor(site)
    slowest = 0.0
    print(f"{'pages and lists':<90}{'ms':>8}{'first':>8}{'CPU ms':>8}")
    for path in _paths(visitor, site, first):
        get = visitor.api if path.startswith("/api") else visitor.page
        before = site.usage()
        times = [get(path).ms for _ in range(TIMES)]
        cpu_ms = (site.usage() - before).total * 1000 / TIMES
        typical = statistics.median(times)
        slowest = max(slowest, typical)
        mark = "  !" if typical > PAGE_MS_MAX else ""
        print(
            f"{path.replace(visitor.org, '…'):<90}{typical:>8.0f}{times[0]:>8.0f}{cpu_ms:>8.0f}"
            + mark
        )
        yield path.replace(visitor.org, "ORG"), {"ms": round(typical, 1), "cpuMs": round(cpu_ms, 1)}
    print(f"    the slowest takes {slowest:.0f} ms ({PAGE_MS_MAX} are allowed)")


def _paths(visitor: Visitor, site: BenchSite, first: int) -> Iterator[str]:
    org = f"/o/{visitor.org}"
    machines = f"{org}/machines"
    query = """SELECT v.public_id FROM machines_machineversion v JOIN machines_machine m
               ON m.id = v.machine_id WHERE m.slug = 'order' ORDER BY v.id DESC"""
    versions = [public_id for (public_id,) in site.database.rows(query)]
    yield from (org, machines, f"{machines}?q=or", f"{org}/timers", f"{org}/timers?machine=order")
    yield from (f"{org}/timers?q=order-1", f"{org}/attention", f"{org}/logs")
    yield from (f"{org}/logs?q=99", f"{org}/logs?level=error", f"{org}/keys")
    yield f"{org}/palette?q=order-1"
    for machine in ("toggler", "order", "approval"):
        yield f"{machines}/{machine}"
        yield f"{machines}/{machine}/versions"
        yield f"{machines}/{machine}/instances"
    yield f"{machines}/order/versions/{versions[0]}"
    yield f"{machines}/order/versions/{versions[-1]}"
    orders = f"{machines}/order/instances"
    filters = (
        "state=awaitingPayment", "state=cancelled", "state=charging", "state=nowhere",
        "status=running", "status=paused", f"version={versions[0]}", f"version={versions[-1]}",
        "q=order-1", "q=order-99", "q=nothing", "q=template",
        f"state=paid&version={versions[1]}", "state=paid&status=paused", "q=order-5&state=shipped",
        f"q=order-5&state=shipped&status=paused&version={versions[0]}",
    )  # fmt: skip
    for asked in filters:
        yield f"{orders}?{asked}"
    yield f"{machines}/approval/instances?state=pending"
    yield f"{machines}/approval/instances?state=pending.withApprover"
    for sort in ("created", "-created", "name", "-name", "updated", "-updated"):
        yield f"{orders}?sort={sort}"
        yield f"{orders}?sort={sort}&state=shipped"
    yield from _deep(visitor, orders)
    yield from _deep(visitor, f"{orders}?state=shipped&sort=name")
    slug = site.database.rows("SELECT slug FROM instance WHERE id = ?", first)[0][0]
    yield f"{machines}/toggler/instances/{quote(slug)}"
    api = "/api/machines"
    yield from (api, f"{api}/order/v", f"{api}/order/i", "/api/logs?from=2020-01-01T00:00:00Z")
    yield "/api/dead-letters"
    yield f"{api}/order/i?cursor={quote(_api_cursor(visitor, f'{api}/order/i'))}"


def _deep(visitor: Visitor, path: str) -> Iterator[str]:
    """A page far inside of a list: the tenth that its own links lead to."""
    page = path
    for _ in range(10):
        body = visitor.page(page).body.decode()
        after = re.search(r"[?&;]after=([^&\"]+)", html.unescape(body))
        if after is None:
            return
        page = f"{path}{'&' if '?' in path else '?'}after={after[1]}"
    yield page


def _api_cursor(visitor: Visitor, path: str) -> str:
    cursor: str = json.loads(visitor.api(path).body)["cursor"]
    return cursor


def _until_interrupted() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print(file=sys.stderr)
