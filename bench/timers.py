"""Timers through Celery workers: a burst in which a worker is killed, a quiet run, many that wait.

One web process and two workers on Postgres and Redis. Instances are created with a timer that is a
year away, and their rows are then moved to where they are wanted; that they exist unharmed after
all processes were stopped and started anew is the first thing that is checked. A timer's lateness
is from its time to the moment at which its event was computed, by the database's clock.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import workloads
from bench.databases import Database
from bench.site import (
    PROJECT_ROOT,
    BenchSite,
    CannotStart,
    environment_of,
    fresh_database,
    running_node,
)
from bench.workloads import QUICK, Scale, WrongResult

BURST = 20_000
QUIET = 1_000
QUIET_PER_SECOND = 100
PENDING = 100_000
WORKERS = 2
BEGIN_IN_MS = 5_000  # so that workers claim as they would
YEAR_MS = 365 * 86_400_000
FIRE_SECONDS_MAX = 180
TIMER_EVENT = 2  # a value of Transition.kind

NOW_MS = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
# Firing a timer deletes its row, so what is known of it is kept aside.
CREATE_TABLE = "CREATE TABLE bench_due (run text, source_id bigint PRIMARY KEY, due_at bigint)"
MOVE = f"""WITH picked AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM delivery
   WHERE due_at > {NOW_MS} + 86400000 AND NOT EXISTS (
     SELECT 1 FROM bench_due b WHERE b.source_id = delivery.source_id)
   ORDER BY id LIMIT ?),
moved AS (UPDATE delivery d SET due_at = (extract(epoch FROM now()) * 1000)::bigint
     + ?::bigint + (p.n * ?::float8)::bigint
   FROM picked p WHERE p.id = d.id RETURNING d.source_id, d.due_at)
INSERT INTO bench_due (run, source_id, due_at) SELECT ?, source_id, due_at FROM moved
RETURNING due_at"""
FIRED = f"""SELECT count(t.seq), count(DISTINCT t.instance_id) FROM bench_due b
 JOIN transition t ON t.instance_id = b.source_id AND t.kind = {TIMER_EVENT} WHERE b.run = ?"""
LATENESS = f"""SELECT t.created_at - b.due_at, t.created_at FROM bench_due b
 JOIN transition t ON t.instance_id = b.source_id AND t.kind = {TIMER_EVENT} WHERE b.run = ?"""
# As many more as are wanted, of instances that there are, far in the future.
ADD_PENDING = """INSERT INTO delivery (kind, org_id, target_machine_id, target_slug, source_id,
   source_seq, source_n, send_id, event, due_at, claim_until, claims, attempts, created_at)
 SELECT d.kind, d.org_id, d.target_machine_id, d.target_slug, d.source_id, d.source_seq + x.n, 0,
   'pending', d.event, d.due_at + x.n, 0, 0, 0, d.created_at
 FROM (SELECT * FROM delivery ORDER BY id LIMIT 100) d, generate_series(1, ?) AS x(n)"""


def measure(directory: Path, burst: int, scale: Scale) -> Any:
    """Prints a table; the figures. Raises WrongResult if a timer did not fire exactly once."""
    from tests.servers import running_redis  # its wheel is one of the development requirements

    with contextlib.ExitStack() as stack:
        data_dir, database = stack.enter_context(fresh_database(directory, "postgres"))
        redis = stack.enter_context(running_redis(data_dir / "redis"))
        database.environment["REDIS_URL"] = redis.url
        with _running_site(data_dir, database) as (site, _):
            _set_timers(site, burst + 3 * QUIET)
        pending = database.rows("SELECT count(*) FROM delivery")[0][0]
        if pending != burst + 3 * QUIET:
            raise WrongResult(f"of {burst + 3 * QUIET} timers {pending} survived a restart")
        with _running_site(data_dir, database) as (site, workers):
            workloads.create_instances(site, QUICK)
            # Before what is measured: each worker has a runner then, and its code is compiled.
            _fire(database, "warm-up", QUIET, 1000 / QUIET_PER_SECOND)
            figures = {"quiet": _fire(database, "quiet", QUIET, 1000 / QUIET_PER_SECOND)}
            figures["burst"] = _fire(database, "burst", burst, 1000 / burst, kill=workers[0])
            figures["pending"] = _events(site, scale)
    for line in _lines(figures):
        print(line)
    return figures


@contextlib.contextmanager
def _running_site(
    data_dir: Path, database: Database
) -> Iterator[tuple[BenchSite, list[subprocess.Popen[bytes]]]]:
    with contextlib.ExitStack() as stack:
        web = stack.enter_context(running_node(data_dir, database, "--role", "web"))
        workers = [
            stack.enter_context(_running_worker(data_dir, database, number))
            for number in range(WORKERS)
        ]
        yield BenchSite([web], database), workers


@contextlib.contextmanager
def _running_worker(
    data_dir: Path, database: Database, number: int
) -> Iterator[subprocess.Popen[bytes]]:
    log_path = data_dir / f"worker-{number}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT_ROOT / "manage.py"), "up", "--role", "worker"],
            env=environment_of(data_dir, database),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        while "Ctrl-C" not in log_path.read_text():
            if process.poll() is not None:
                raise CannotStart(f"a worker did not start:\n{log_path.read_text()}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait()


def _set_timers(site: BenchSite, count: int) -> None:
    site.database.rows(CREATE_TABLE)
    workloads.deploy_machines(site)
    site.load(workloads.creates(site, "alarm", count, body=f'"context":{{"delayMs":{YEAR_MS}}}'))


def _fire(
    database: Database,
    run: str,
    count: int,
    apart_ms: float,
    kill: subprocess.Popen[bytes] | None = None,
) -> dict[str, float]:
    """Let so many timers fire, one every `apart_ms`; how late they were."""
    moved = database.rows(MOVE, count, BEGIN_IN_MS, apart_ms, run)
    if len(moved) != count:
        raise WrongResult(f"there are {len(moved)} timers, not {count}")
    begins_ms, ends_ms = min(moved)[0], max(moved)[0]
    if kill is not None:
        _wait_until(database, (begins_ms + ends_ms) // 2)
        kill.kill()
    give_up = time.monotonic() + FIRE_SECONDS_MAX
    while (fired := database.rows(FIRED, run)[0])[1] < count:
        if time.monotonic() > give_up:
            raise WrongResult(f"{fired[1]} of {count} timers fired in {FIRE_SECONDS_MAX} s")
        time.sleep(0.25)
    if fired[0] != count:
        raise WrongResult(f"{count} timers fired {fired[0]} times")
    rows = database.rows(LATENESS, run)
    late = sorted(ms for ms, _ in rows)
    if late[0] < 0:
        raise WrongResult(f"a timer fired {-late[0]} ms too early")
    return {
        "timers": count,
        "due_within_s": (ends_ms - begins_ms) / 1000,
        "p50_ms": late[len(late) // 2],
        "p99_ms": late[len(late) * 99 // 100],
        "max_ms": late[-1],
        "drained_s": (max(at for _, at in rows) - begins_ms) / 1000,
    }


def _wait_until(database: Database, moment_ms: int) -> None:
    (now_ms,) = database.rows(f"SELECT {NOW_MS}")[0]
    time.sleep(max(0, moment_ms - now_ms) / 1000)


def _events(site: BenchSite, scale: Scale) -> dict[str, float]:
    """What events cost with hardly any timers waiting, and with many; in turn."""
    workloads.many_instances(site, QUICK)
    few = [workloads.many_instances(site, scale)]
    site.database.rows(ADD_PENDING, PENDING // 100)
    waiting = site.database.rows("SELECT count(*) FROM delivery")[0][0]
    many = [workloads.many_instances(site, scale) for _ in range(2)]
    site.database.rows("DELETE FROM delivery WHERE send_id = 'pending'")
    few.append(workloads.many_instances(site, scale))
    return {
        "waiting": waiting,
        "ms_each_with_few": min(measured.server_ms_each for measured in few),
        "ms_each_with_many": min(measured.server_ms_each for measured in many),
        "p50_ms_with_few": min(measured.p50_ms for measured in few),
        "p50_ms_with_many": min(measured.p50_ms for measured in many),
    }


def _lines(figures: dict[str, dict[str, float]]) -> Iterator[str]:
    yield f"Timers: one web process, {WORKERS} workers, Postgres (fsync=on), Redis"
    yield "all had survived a restart of every process, and each fired exactly once"
    yield f"{'':24}{'timers':>8}{'due within':>12}{'p50':>9}{'p99':>9}{'max':>10}{'all fired':>11}"
    for name, run in (("quiet", "quiet"), ("a worker killed meanwhile", "burst")):
        one = figures[run]
        yield (
            f"{name:25}{one['timers']:>7,}{one['due_within_s']:>10.1f} s"
            f"{one['p50_ms']:>6,.0f} ms{one['p99_ms']:>6,.0f} ms{one['max_ms']:>7,.0f} ms"
            f"{one['drained_s']:>9.1f} s"
        )
    events = figures["pending"]
    yield (
        f"an event with {events['waiting']:,} timers waiting: {events['ms_each_with_many']:.3f} ms"
        f" of CPU, p50 {events['p50_ms_with_many']:.1f} ms; with hardly any:"
        f" {events['ms_each_with_few']:.3f} ms, p50 {events['p50_ms_with_few']:.1f} ms"
    )
