"""What is measured. Each function runs one workload against a site and checks what it left."""

import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bench.load import Measurement, Options
from bench.site import PROJECT_ROOT, BenchSite

EXAMPLES = PROJECT_ROOT / "machines" / "examples"
MACHINES = Path(__file__).with_name("machines")

INSTANCES = 1000  # that events go to in turn
TIMERS = 1000
TIMER_DELAY_MS = 3000
TIMER_SECONDS_MAX = 60
POLL_SECONDS = 0.1

CLIENT_EVENT = 1  # values of Transition.kind
TIMER_EVENT = 2


class WrongResult(Exception):
    """The site did not do what it answered: the figures mean nothing."""


@dataclass(frozen=True)
class Scale:
    """How long and how much, so that a look takes seconds and a measurement a minute."""

    warmup_s: float
    duration_s: float
    creates: int


FULL = Scale(warmup_s=3, duration_s=8, creates=5000)
QUICK = Scale(warmup_s=1, duration_s=2, creates=2000)


@dataclass(frozen=True)
class Lateness:
    """How much later than they were due timers fired."""

    timers: int
    within_s: float  # from the first to the last one's due time
    p50_ms: float
    p99_ms: float
    max_ms: float


def deploy_machines(site: BenchSite) -> None:
    site.deploy("toggler", EXAMPLES / "toggler.ts")
    site.deploy("big-context", MACHINES / "big-context.ts")
    site.deploy("alarm", MACHINES / "alarm.ts")


def create_instances(site: BenchSite, scale: Scale) -> Measurement:
    """Creates/s; the first of these instances are those that events are sent to."""
    return site.load(creates(site, "toggler", max(scale.creates, INSTANCES)))


def warm_up(site: BenchSite, machine: str) -> None:
    """Start the machine's runner, and let it see an event."""
    prefix = f"warm-{secrets.token_hex(4)}-"
    site.create_instance(machine, f"{prefix}0")
    options = events(site, QUICK, machine, "toggle", connections=1, instances=1, prefix=prefix)
    site.load(replace(options, warmup_s=0))


def many_instances(site: BenchSite, scale: Scale) -> Measurement:
    """Events/s: 64 connections, 1,000 instances in turn."""
    return _send_events(site, scale, "toggler", "toggle", connections=64, instances=INSTANCES)


def one_connection(site: BenchSite, scale: Scale) -> Measurement:
    """Latency of one event after the other."""
    return _send_events(site, scale, "toggler", "toggle", connections=1, instances=INSTANCES)


def one_hot_instance(site: BenchSite, scale: Scale) -> Measurement:
    """16 connections to the same instance. Each acknowledged event must count exactly once."""
    slug = "hot-0"
    site.create_instance("toggler", slug)
    measured = _send_events(
        site, scale, "toggler", "toggle", connections=16, instances=1, prefix="hot-"
    )
    counted = site.public_context("toggler", slug)["toggleCount"]
    if counted != measured.acknowledged:
        raise WrongResult(f"{measured.acknowledged} events acknowledged, {counted} counted")
    return measured


def big_context(site: BenchSite, scale: Scale) -> Measurement:
    """Events/s with 5 KB of context in every row and history row."""
    site.load(creates(site, "big-context", INSTANCES))
    return _send_events(site, scale, "big-context", "next", connections=64, instances=INSTANCES)


def http_only(site: BenchSite, scale: Scale) -> Measurement:
    """A constant answer: what HTTP alone costs."""
    return site.load(
        Options(
            "GET",
            "/healthz",
            connections=64,
            warmup_s=scale.warmup_s / 2,
            duration_s=scale.duration_s / 2,
        )
    )


def refused_events(site: BenchSite, scale: Scale) -> Measurement:
    """Events refused right after token, URL and body were checked, before the engine is asked."""
    options = events(site, scale, "toggler", "xstate.reserved", connections=64, instances=1)
    return site.load(
        replace(
            options,
            warmup_s=scale.warmup_s / 2,
            duration_s=scale.duration_s / 2,
            status=400,
            expect="xstate.reserved",
        )
    )


def timers(site: BenchSite) -> Lateness:
    """Timers of 1,000 instances that are due within the same second."""
    site.load(creates(site, "alarm", TIMERS, body=f'"context":{{"delayMs":{TIMER_DELAY_MS}}}'))
    give_up = time.monotonic() + TIMER_SECONDS_MAX
    while len(fired := _fired_timers(site)) < TIMERS:
        if time.monotonic() > give_up:
            raise WrongResult(f"{len(fired)} of {TIMERS} timers fired in {TIMER_SECONDS_MAX} s")
        time.sleep(POLL_SECONDS)
    due = sorted(set_at + TIMER_DELAY_MS for set_at, _ in fired)
    late = sorted(fired_at - set_at - TIMER_DELAY_MS for set_at, fired_at in fired)
    if late[0] < 0:
        raise WrongResult(f"a timer fired {-late[0]} ms too early")
    return Lateness(
        timers=len(fired),
        within_s=(due[-1] - due[0]) / 1000,
        p50_ms=late[len(late) // 2],
        p99_ms=late[len(late) * 99 // 100],
        max_ms=late[-1],
    )


def _fired_timers(site: BenchSite) -> list[tuple[int, int]]:
    """(when it was set, when it fired) of each timer, in the server's milliseconds."""
    query = """
        SELECT started.created_at, rung.created_at
        FROM transition AS rung
        JOIN transition AS started ON started.instance_id = rung.instance_id AND started.seq = 1
        JOIN instance ON instance.id = rung.instance_id
        JOIN machines_machine AS machine ON machine.id = instance.machine_id
        WHERE rung.kind = ? AND machine.slug = 'alarm'
    """
    return site.database.rows(query, TIMER_EVENT)


def _send_events(
    site: BenchSite,
    scale: Scale,
    machine: str,
    event: str,
    *,
    connections: int,
    instances: int,
    prefix: str = "i-",
) -> Measurement:
    before = stored_events(site)
    options = events(
        site, scale, machine, event, connections=connections, instances=instances, prefix=prefix
    )
    measured = site.load(options)
    stored = stored_events(site) - before
    if stored != measured.acknowledged:
        raise WrongResult(f"{measured.acknowledged} events acknowledged, {stored} in the history")
    return measured


def stored_events(site: BenchSite) -> int:
    query = "SELECT count(*) FROM transition WHERE kind = ?"
    return int(site.database.rows(query, CLIENT_EVENT)[0][0])


def events(
    site: BenchSite,
    scale: Scale,
    machine: str,
    event: str,
    *,
    connections: int,
    instances: int,
    prefix: str = "i-",
) -> Options:
    return Options(
        "POST",
        f"/api/machines/{machine}/i/{prefix}{{n}}/events",
        f'{{"event":{{"type":"{event}"}}}}',
        headers=site.headers,
        connections=connections,
        instances=instances,
        warmup_s=scale.warmup_s,
        duration_s=scale.duration_s,
        expect='"publicContext"',
    )


def creates(site: BenchSite, machine: str, count: int, body: str = "") -> Options:
    more = f",{body}" if body else ""
    return Options(
        "POST",
        f"/api/machines/{machine}",
        f'{{"slug":"i-{{n}}"{more}}}',
        headers=site.headers,
        connections=32,
        instances=count,
        cycle=False,
        duration_s=TIMER_SECONDS_MAX,
        expect='"state"',
    )
