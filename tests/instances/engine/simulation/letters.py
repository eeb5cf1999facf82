"""What clients have instances do with each other: messages, chains of them, children."""

from __future__ import annotations

import random
from typing import Any

from tests.instances.engine.simulation.database import LATE_NAME, MACHINE_NAME

Json = dict[str, Any]

KINDS = {"tell": 14, "relay": 4, "spawn": 6, "kid": 5, "up": 2}  # and how often
KID_KINDS = {"up": 4, "finish": 3, "tell": 3, "relay": 1, "call": 2, "inc": 3, "spawn": 1}
KID_NAMES = "xy"  # that spawns compete for
LATE_SLUG = "d"  # an instance that there is not from the beginning
SHARED_IDS = "tu"  # of delayed messages, as of timers: what is cancelled is the latest of both

# What is said, and how often.
SAYS = {
    "inc": 6,
    "pay": 8,
    "if-even": 4,
    "noop": 2,
    "call": 2,
    "hang": 0.5,
    "act": 1,
    "after": 1,
    "cancel": 1,
    "tell": 1,
    "throw": 0.4,
    "deny": 0.4,
    "kill": 0.05,
}


def says(chance: random.Random, kinds: dict[str, float] = SAYS) -> Json:
    kind = chance.choices(list(kinds), list(kinds.values()))[0]
    return {"type": kind, **details(chance, kind)}


def several(chance: random.Random, kinds: dict[str, float] = SAYS) -> list[Json]:
    return [says(chance, kinds) for _ in range(chance.choice((1, 1, 1, 2, 3)))]


def details(chance: random.Random, kind: str) -> Json:
    """The rest of an event of that type."""
    if kind == "after":
        return {
            "timer": chance.choice(SHARED_IDS),
            "ms": chance.choice((0, 50, 500, 1_500, 4_000)),
            "then": chance.choice(("inc", "inc", "act", "noop", "call", "throw", "cancel")),
        }
    if kind == "cancel":
        return {"timer": chance.choice(SHARED_IDS)}
    if kind == "pay":
        return {"gold": chance.randint(1, 9)}
    if kind == "tell":
        return _tell(chance)
    if kind == "relay":
        path = chance.choice(("ab", "ba", "abc", "cab", "bcx", "aa"))
        left = chance.choice((1, 2, 3, 5, 8))
        return {"path": [[MACHINE_NAME, slug] for slug in path], "left": left, "gold": 1}
    if kind == "spawn":
        return _spawn(chance)
    if kind == "kid":
        return {"says": several(chance, {**SAYS, "up": 4, "finish": 4})}
    if kind == "up":
        return {"says": several(chance, {"inc": 2, "pay": 3, "if-even": 1, "throw": 0.1})}
    return {}


def _tell(chance: random.Random) -> Json:
    to = [MACHINE_NAME, chance.choice("aaaaabbbbbcccccd" + KID_NAMES)]
    if chance.random() < 0.04:
        to = [chance.choice((LATE_NAME, "unheard-of")), "l"]
    plain = {kind: weight for kind, weight in SAYS.items() if kind != "tell"}
    if chance.random() < 0.75:
        return {"to": to, "says": several(chance, plain)}
    # What may be cancelled carries no gold: it would vanish.
    del plain["pay"]
    delay = chance.choice((0, 30, 400, 1_200, 3_000))
    says = several(chance, plain)
    return {"to": to, "says": says, "delay": delay, "send": chance.choice(SHARED_IDS)}


def spawn(name: str) -> Json:
    """An ordinary child of that name; of one of its own if there is none."""
    return {
        "machine": MACHINE_NAME,
        "as": name,
        "gold": 0,
        "start": "",
        "version": "",
        "says": [],
    }


def _spawn(chance: random.Random) -> Json:
    event = spawn(chance.choice(("", "", "", "", *KID_NAMES, *KID_NAMES, "c")))
    fate = chance.random()
    event["gold"] = chance.choice((0, 0, 5))
    event["start"] = chance.choice(("", "", "greet", "greet", "deny" if fate < 0.2 else ""))
    if chance.random() < 0.6:
        event["says"] = several(chance, {**SAYS, "up": 3, "finish": 3})
    if fate > 0.97:
        event["version"] = "ver_unknown"
    elif fate > 0.94:
        event["machine"] = chance.choice((LATE_NAME, "unheard-of"))
    return event
