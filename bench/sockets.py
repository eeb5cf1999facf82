"""Ten thousand subscribers on one server: how fast they connect, what they weigh, when they know.

The program that plays them runs on the same machine and takes about as much of it as the server.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import workloads
from bench.site import BenchSite, running_site
from bench.subscribers import Subscribers, allow_files, subscribers
from bench.usage import server_usage
from bench.workloads import INSTANCES, QUICK, Scale

SOCKETS = 10_000
UPDATES_PER_SECOND = 100
STALLED_INSTANCES = 2  # whose subscribers read nothing in the last part
STALLED_UPDATES_PER_SECOND = 1_000
STALLED_ROUNDS = 4
CONNECTS_PER_SECOND_MIN = 500
BYTES_EACH_MAX = 60_000
P99_MS_MAX = 250


def measure(directory: Path, database: str, count: int, scale: Scale) -> Any:
    """Prints the figures, and returns them."""
    allow_files(count)
    with running_site(directory, database) as site:
        workloads.deploy_machines(site)
        workloads.create_instances(site, QUICK)
        # The compilers have seen events then, and the instances are in memory.
        workloads.many_instances(site, QUICK)
        with subscribers(site, count, instances=INSTANCES) as clients:
            figures = _measure(site, clients, count, scale)
    return figures


def _measure(site: BenchSite, clients: Subscribers, count: int, scale: Scale) -> Any:
    before, runners_before = site.memory_bytes()
    cpu = _cpu(site)
    connected = clients.connect()
    cpu_each_ms = (_cpu(site) - cpu) * 1000 / count
    after, runners_after = site.memory_bytes()
    bytes_each = (after - before) / count
    _tell(
        f"{count:,} subscribers of {INSTANCES:,} instances connected in"
        f" {connected['seconds']:.1f} s: {connected['perSecond']:,.0f}/s"
        f" ({CONNECTS_PER_SECOND_MIN} are asked for), {connected['p50Ms']:.0f} ms (p50),"
        f" {connected['p99Ms']:.0f} ms (p99), {cpu_each_ms:.2f} ms of CPU each"
    )
    _tell(
        f"each weighs {bytes_each / 1000:.1f} kB in the server ({BYTES_EACH_MAX / 1000:.0f} are"
        f" allowed), {(runners_after - runners_before) / count / 1000:.1f} kB in the runner"
    )
    cpu = _cpu(site)
    told = clients.updates(UPDATES_PER_SECOND, scale.duration_s, instances=INSTANCES)
    cpu_each_us = (_cpu(site) - cpu) * 1e6 / told["events"]
    _expect_all(told, count)
    _tell(
        f"{UPDATES_PER_SECOND} updates/s, {told['messages'] / told['seconds']:,.0f} messages/s:"
        f" subscribers know after {told['p50Ms']:.1f} ms (p50), {told['p99Ms']:.1f} ms (p99,"
        f" {P99_MS_MAX} are allowed), {told['maxMs']:.0f} ms (max);"
        f" {cpu_each_us:.0f} us of CPU per update"
    )
    flood = (STALLED_UPDATES_PER_SECOND, scale.duration_s)
    memory = [site.memory_bytes()[0]]
    clients.updates(*flood, instances=STALLED_INSTANCES)
    memory.append(site.memory_bytes()[0])
    stalled = clients.stall(STALLED_INSTANCES)
    for _ in range(STALLED_ROUNDS):
        clients.updates(*flood, instances=STALLED_INSTANCES)
        memory.append(site.memory_bytes()[0])
    reading, *grown = [later - earlier for earlier, later in pairwise(memory)]
    unread = STALLED_UPDATES_PER_SECOND * scale.duration_s / STALLED_INSTANCES
    _tell(
        f"{stalled:,} that never read, rounds of {unread:,.0f} updates for each: the server's"
        f" memory changes by {', '.join(f'{bytes_ / 1e6:+.1f} MB' for bytes_ in grown)}"
        f" (while they read: {reading / 1e6:+.1f} MB);"
        f" {clients.open_sockets():,} are connected"
    )
    return {
        "connectsPerSecond": connected["perSecond"],
        "connectCpuMs": cpu_each_ms,
        "bytesEach": bytes_each,
        "updateP50Ms": told["p50Ms"],
        "updateP99Ms": told["p99Ms"],
        "updateCpuUs": cpu_each_us,
        "grownBytes": grown,
    }


def _expect_all(told: dict[str, float], count: int) -> None:
    """At this rate every subscriber hears of every update, unless a newer one overtook it."""
    most = told["events"] * count / INSTANCES
    if told["answered"] < told["events"] or told["messages"] < 0.95 * most:
        _tell(f"!! {told['messages']:,} of {most:,.0f} messages have come")


def _cpu(site: BenchSite) -> float:
    return server_usage([node.process.pid for node in site.nodes]).total


def _tell(line: str) -> None:
    print(line, flush=True)
