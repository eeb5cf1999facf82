"""`python3 manage.py faults`: a site under load whose parts are killed, stopped and cut off.

The order of faults depends on the seed alone; what they meet does not quite, since real processes
take the time that they take. What was seen is kept, so that a run can be checked again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import psycopg

from bench.faults import schedule
from bench.faults.balancer import Balancer
from bench.faults.check import Violation, check
from bench.faults.client import Clients
from bench.faults.cluster import CannotStart, Cluster, Deployed, Migration
from bench.faults.collect import collect
from bench.faults.effects import EffectRecorder
from bench.faults.history import Evidence
from bench.faults.inject import Injector
from bench.faults.report import OK_SHARE_MIN, Run, ok_share, slow_recoveries, table
from bench.faults.subscribers import Subscribers
from bench.faults.workloads import Load, Scale
from bench.site import PROJECT_ROOT
from tests.servers import ServerFailed

MACHINES = Path(__file__).with_name("machines")
SUBJECTS = ("subject-2.ts", "subject.ts")  # two versions between which instances are moved
VERSIONS = [
    *(Deployed("subject", MACHINES / name) for name in SUBJECTS),
    Deployed("bank", MACHINES / "bank.ts"),
]
MIGRATIONS = [
    Migration("subject", "subject.ts", "subject-2.ts", MACHINES / "subject-to-2.ts"),
    Migration("subject", "subject-2.ts", "subject.ts", MACHINES / "subject-to-1.ts"),
]
EVERY_S = 2.3  # between two faults, on average
QUIET_WITHIN_S = 120.0  # all deliveries are done, so long after the last fault at most
LOOK_EVERY_S = 1.0
SUBSCRIBERS = 3
RESYNC_S = 12.0  # within which a subscriber has heard of the last state
DEPOSIT = 1_000  # with which bank.ts opens an account

OVERDUE = """SELECT coalesce(max(extract(epoch FROM now()) * 1000 - due_at), 0)::bigint
 FROM delivery WHERE attempts = 0"""


class Settings(argparse.Namespace):
    minutes: float
    seed: int | Any  # None until one is drawn
    webs: int
    workers: int
    every: float
    directory: Path | Any  # None until it is named
    keep: bool
    check: Path | None


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 1 if a promise was broken or too little worked."""
    settings = parse(argv)
    if settings.check is not None:
        evidence = Evidence.read(settings.check)
        violations = check(evidence)
        run = Run(settings.seed, "before", settings.minutes, settings.webs, settings.workers, 0)
        print(table(run, evidence, violations))
        return int(bool(violations))
    try:
        run, evidence = asyncio.run(_until_terminated(settings))
    except (CannotStart, ServerFailed, psycopg.Error, TimeoutError) as error:
        print(f"The fault run failed: {error}", file=sys.stderr)
        return 1
    evidence.write(settings.directory / "evidence")
    violations = check(evidence)
    figures = table(run, evidence, violations)
    (settings.directory / "table.txt").write_text(figures + "\n")
    print(figures)
    failed = _failures(evidence, violations)
    for failure in failed:
        print(f"! {failure}")
    _tell_where(settings)
    return int(bool(failed))


def _failures(evidence: Evidence, violations: list[Violation]) -> list[str]:
    failures = slow_recoveries(evidence)
    if violations:
        failures.append(f"{len(violations)} violations")
    if ok_share(evidence) < OK_SHARE_MIN:
        failures.append(f"only {ok_share(evidence):.1%} of the operations were answered as wanted")
    return failures


def _tell_where(settings: Settings) -> None:
    again = f"--minutes {settings.minutes:g} --seed {settings.seed}"
    again += f" --webs {settings.webs} --workers {settings.workers} --every {settings.every:g}"
    print(f"\nWhat was seen, and the logs: {settings.directory}")
    print(f"Check it again: python3 manage.py faults --check {settings.directory}/evidence")
    print(f"The same faults again: python3 manage.py faults {again}")


def parse(argv: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="manage.py faults", description="Break the parts of a site under load, and check it."
    )
    parser.add_argument("--minutes", type=float, default=10, help="of faults (10)")
    parser.add_argument("--seed", type=int, default=None, help="of the faults (a random one)")
    parser.add_argument("--webs", type=int, default=3, help="web nodes (3; 2 at least)")
    parser.add_argument("--workers", type=int, default=2, help="Celery workers (2)")
    parser.add_argument("--every", type=float, default=EVERY_S, help=f"seconds ({EVERY_S})")
    parser.add_argument(
        "--directory", type=Path, help="for what was seen, and the logs (a new one in build/)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the nodes' data directories, too")
    parser.add_argument(
        "--check", type=Path, metavar="DIR", help="only check what an earlier run has seen"
    )
    settings = parser.parse_args(argv, Settings())
    if settings.webs < 2:
        parser.error("--webs: 2 at least, so that one can take over")
    if settings.seed is None:
        settings.seed = random.SystemRandom().randrange(1_000_000)
    if settings.directory is None:
        name = f"faults-{datetime.now(UTC):%Y%m%d-%H%M%S}-{settings.seed}"
        settings.directory = PROJECT_ROOT / "build" / name
    return settings


async def _until_terminated(settings: Settings) -> tuple[Run, Evidence]:
    """A run that also cleans up behind itself when it is told to stop."""
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await run_faults(settings)


async def run_faults(settings: Settings) -> tuple[Run, Evidence]:
    """Run everything; raises CannotStart. No process is left behind."""
    duration_s = settings.minutes * 60
    cluster = Cluster(settings.directory / "site", settings.webs, settings.workers)
    evidence = Evidence()
    try:
        print(f"Starting, seed {settings.seed}…", file=sys.stderr, flush=True)
        await cluster.start(VERSIONS, MIGRATIONS)
        start = time.monotonic()

        def clock() -> float:
            return time.monotonic() - start

        clients = Clients(cluster.webs, cluster.headers, clock, settings.seed)
        effects = EffectRecorder(cluster.database.url, clock)
        await clients.start()
        await effects.start()
        asking = aiohttp.ClientSession()
        balancer = Balancer(cluster.webs, lambda node, s: node.is_ready(asking, s), clock)
        balancing = asyncio.create_task(balancer.run())
        note = _note(settings.directory)
        injector = Injector(cluster, clients, effects, balancer, clock, note)
        await injector.prepare()
        subjects = {name: id_ for name, id_ in cluster.versions.items() if name in SUBJECTS}
        load = Load(clients, effects, Scale(), settings.seed, subjects)
        await load.open_accounts()
        plan = schedule.plan(
            settings.seed,
            duration_s=duration_s,
            every_s=settings.every,
            webs=settings.webs,
            workers=settings.workers,
        )
        offset = clock()
        plan = [schedule.Planned(p.at + offset, p.kind, p.target, p.seconds) for p in plan]
        subscribers = Subscribers(cluster.webs, cluster.headers, clock, load.followed)
        following = [asyncio.create_task(subscribers.run(n)) for n in range(SUBSCRIBERS)]
        running = asyncio.create_task(load.run())
        looking = asyncio.create_task(_watch_overdue(cluster, evidence))
        faulting = asyncio.create_task(injector.run(plan))
        await asyncio.wait({running, faulting}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()  # a session failed: that is a bug of the run
        await faulting
        await asyncio.sleep(max(0.0, offset + duration_s - clock()))
        load.stop()
        await running
        await _settle_down(cluster, load)
        await asyncio.sleep(RESYNC_S)
        for task in (looking, balancing, *following):
            task.cancel()
        await asyncio.gather(looking, balancing, *following, return_exceptions=True)
        await asking.close()
        await effects.stop()
        await clients.stop()
        await cluster.stop()
        evidence.operations = clients.operations
        evidence.effects = effects.effects()
        evidence.seen = subscribers.seen
        evidence.faults = sorted(injector.faults, key=lambda fault: fault.at)
        evidence.recoveries = injector.recoveries
        evidence.accounts, evidence.deposit = load.scale.accounts, DEPOSIT
        with psycopg.connect(cluster.database.url) as database:
            collect(database, evidence)
    finally:
        await cluster.stop()
        await cluster.stop_servers()
        cluster.database.give_back(cluster.directory / "postgres.log")
        if not settings.keep:
            _remove_data(cluster)
    run = Run(
        settings.seed,
        f"{datetime.now(UTC):%Y-%m-%d}",
        settings.minutes,
        settings.webs,
        settings.workers,
        len(injector.skipped),
    )
    return run, evidence


def _note(directory: Path) -> Callable[[str], None]:
    def note(line: str) -> None:
        with (directory / "faults.log").open("a") as log:
            log.write(line + "\n")

    return note


async def _settle_down(cluster: Cluster, load: Load) -> None:
    """End all faults, wait until nothing is left to be done, and look at every instance once."""
    cluster.heal()
    await asyncio.to_thread(cluster.database.ensure_running)
    await cluster.wait_until_ready()
    await load.finish()
    give_up = time.monotonic() + QUIET_WITHIN_S
    while await asyncio.to_thread(_has_pending, cluster):
        if time.monotonic() >= give_up:
            await asyncio.to_thread(_tell_left, cluster)
            return
        await asyncio.sleep(LOOK_EVERY_S)


def _tell_left(cluster: Cluster) -> None:
    """Write down what was not delivered, and who might have done it."""
    with cluster.database.connect() as database, (cluster.directory / "left.txt").open("w") as left:
        for _ in range(2):  # two looks, to see whose claims are renewed
            for table in ("delivery", "node"):
                rows = database.execute(f"SELECT row_to_json(x)::text FROM {table} x").fetchall()
                left.writelines(f"{time.time():.3f} {table} {row[0]}\n" for row in rows)
            time.sleep(LOOK_EVERY_S * 3)


def _has_pending(cluster: Cluster) -> bool:
    with cluster.database.connect() as database:
        return database.execute("SELECT 1 FROM delivery LIMIT 1").fetchone() is not None


async def _watch_overdue(cluster: Cluster, evidence: Evidence) -> None:
    """Remember how long a delivery was overdue at worst (I8)."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            connection = await psycopg.AsyncConnection.connect(
                cluster.database.url, connect_timeout=2
            )
            async with connection:
                cursor = await connection.execute(OVERDUE)
                row = await cursor.fetchone()
        except psycopg.Error:
            continue
        if row is not None:
            evidence.overdue_ms_max = max(evidence.overdue_ms_max, int(row[0]))


def _remove_data(cluster: Cluster) -> None:
    """Keep the logs only."""
    for node in cluster.nodes:
        shutil.rmtree(node.directory, ignore_errors=True)
    shutil.rmtree(cluster.database.directory, ignore_errors=True)
