"""Which faults happen when: the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

LEASE_S = 10.0
START_S = 6.0  # that a process which was killed is taken to need
QUIET_S = 3.0  # at the beginning, and at the end
SHELTERED_AFTER_S = 2.0  # a node that had a fault is left alone for so long

# Kind of fault: how often, relative to the others.
OF_WEB = {
    "kill-web": 9,
    "stop-short": 6,
    "stop-long": 4,
    "kill-runner": 12,
    "stop-runner": 4,
    "cut-postgres": 10,
    "stall-postgres": 6,
    "swallow-postgres": 8,
    "delay-postgres": 5,
    "partition-postgres": 4,
    "partition-postgres-long": 2,
    "restart-web": 2,
}
OF_WORKER = {
    "kill-worker": 6,
    "stop-worker": 2,
    "stop-worker-long": 1,
    "cut-postgres-worker": 4,
    "swallow-postgres-worker": 3,
    "stall-redis": 3,
    "cut-redis": 4,
}
OF_DATABASE = {
    "restart-postgres": 3,
    "crash-postgres": 3,
    "kill-postgres": 2,
    "kill-backend": 3,
    "exhaust-connections": 4,
    "lock-rows": 4,
    "fill-disk": 3,
}
OF_REDIS = {"flush-redis": 4, "kill-redis": 3}
OF_ALL = {"cut-all-postgres": 2}


@dataclass(frozen=True)
class Planned:
    at: float  # seconds from the beginning
    kind: str
    target: str  # web-0, worker-1, postgres, redis, all
    seconds: float  # that it lasts


def all_kinds(*, workers: bool) -> list[str]:
    kinds = {**OF_WEB, **OF_DATABASE, **OF_REDIS, **OF_ALL}
    return [*kinds, *(OF_WORKER if workers else ())]


def plan(seed: int, *, duration_s: float, every_s: float, webs: int, workers: int) -> list[Planned]:
    """Faults about every so many seconds. One web node at least is left alone at any time.

    Each kind comes once before any comes again by chance, as far as the time allows.
    """
    chance = random.Random(seed)
    weights = {**OF_WEB, **OF_DATABASE, **OF_REDIS, **OF_ALL, **(OF_WORKER if workers else {})}
    waiting = all_kinds(workers=workers > 0)
    chance.shuffle(waiting)
    busy_until: dict[str, float] = {}
    faults: list[Planned] = []
    at = QUIET_S
    while at < duration_s - QUIET_S:
        kind = _next_kind(chance, waiting, weights)
        target = _target(chance, kind, at, busy_until, webs, workers)
        seconds = _seconds(chance, kind)
        if target is None or at + seconds > duration_s:
            waiting.append(kind)  # later, when a node is free
            at += every_s * 0.2
            continue
        faults.append(Planned(round(at, 2), kind, target, seconds))
        busy_until[target] = at + seconds + _rest_s(kind)
        at += every_s * (0.5 + chance.random())
    return faults


def _next_kind(chance: random.Random, waiting: list[str], weights: dict[str, int]) -> str:
    if waiting and (len(waiting) > 3 or chance.random() < 0.5):
        return waiting.pop(0)
    return chance.choices(list(weights), list(weights.values()))[0]


def _target(
    chance: random.Random,
    kind: str,
    at: float,
    busy_until: dict[str, float],
    webs: int,
    workers: int,
) -> str | None:
    def is_free(name: str) -> bool:
        return busy_until.get(name, 0.0) <= at

    if kind in OF_REDIS:
        return "redis"
    if kind in OF_DATABASE or kind in OF_ALL:
        name = "postgres" if kind in OF_DATABASE else "all"
        return name if is_free("postgres") and is_free("all") else None
    if kind in OF_WORKER:
        free = [f"worker-{n}" for n in range(workers) if is_free(f"worker-{n}")]
        return chance.choice(free) if free else None
    free = [f"web-{n}" for n in range(webs) if is_free(f"web-{n}")]
    # The last one that is free stays so: others must be able to take over.
    return chance.choice(free) if len(free) > 1 else None


def _seconds(chance: random.Random, kind: str) -> float:
    low, high = {
        "stop-short": (0.3, 4.0),
        "stop-worker": (0.3, 4.0),
        "stop-long": (LEASE_S + 1.5, LEASE_S + 4.0),
        "stop-worker-long": (LEASE_S + 1.5, LEASE_S + 4.0),
        "stop-runner": (0.5, 4.0),
        "stall-postgres": (0.5, 4.5),
        "swallow-postgres": (0.1, 0.6),
        "swallow-postgres-worker": (0.1, 0.6),
        "delay-postgres": (1.0, 4.0),
        "partition-postgres": (1.0, 4.0),
        "partition-postgres-long": (LEASE_S + 1.0, LEASE_S + 3.0),
        "stall-redis": (1.0, 4.0),
        "exhaust-connections": (1.0, 2.5),
        "lock-rows": (0.5, 3.0),
        "fill-disk": (0.5, 2.0),
        "kill-redis": (0.0, 2.0),
    }.get(kind, (0.0, 0.0))
    return round(low + (high - low) * chance.random(), 2)


def _rest_s(kind: str) -> float:
    """How long the target is left alone afterwards."""
    if kind in ("kill-web", "kill-worker", "restart-web"):
        return START_S
    if kind in OF_DATABASE:
        return 2 * SHELTERED_AFTER_S
    return SHELTERED_AFTER_S
