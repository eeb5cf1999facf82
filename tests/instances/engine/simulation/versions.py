"""The versions of the simulated machine, and the migrations between them.

All versions do the same, but each signs what it computes: a step under another version than its
transition says differs in every state from there on. A version has timers of its own: those of its
states, which an upgrade keeps under another name, cancels, or starts.
"""

from __future__ import annotations

import json
import random
from typing import Any
from zlib import crc32

from instances.engine.operations import SETTLED
from machines.migration_paths import shortest_path
from tests.instances.engine.simulation import machine
from tests.instances.engine.simulation.machine import Json, Kill, Step

# (migration, from, to). Each version leads to each other; some migrations fail at times.
MIGRATIONS = [(1, 1, 2), (2, 2, 3), (3, 3, 2), (4, 2, 1), (5, 2, 3), (6, 3, 4), (7, 4, 1)]
THROWS, KILLS = 6, 7
DESIRED = {1: 3, 2: 5, 3: 4, 4: 1}  # and how often
KINDS = {"wait": 7, "leave": 2}  # events about the timers of states, and how often
STATE_TIMERS = "pq"
STARTED_BY_UPGRADE = "r"  # a timer of a state that only version 3 has


def name_of(version: int) -> str:
    return f"ver_{version}"


def path(from_version: int, to_version: int) -> list[int]:
    found = shortest_path(MIGRATIONS, from_version, to_version)
    assert found is not None
    return found


def details(chance: random.Random, kind: str) -> Json:
    """The rest of an event of that type."""
    event: Json = {"timer": chance.choice(STATE_TIMERS)}
    if kind == "wait":
        event["ms"] = chance.choice((0, 50, 500, 1_500, 4_000))
        event["then"] = chance.choice(("inc", "inc", "act", "noop", "call", "throw"))
    return event


def signed(step: Step, version: int) -> Step:
    """A step as that version computes it."""
    if step.code in (machine.CHANGED, machine.CHANGED_WITH_EFFECTS):
        context = step.context
        context["digest"] = crc32(b"%d" % version, context["digest"])
        context["public"] = {**context["public"], "v": version}
        for effect in step.effects:
            if effect.pop("of_state", False):
                effect["id"] = f"{effect['id']}.{version}"
                if effect["t"] == "timer":
                    effect["event"] = {**effect["event"], "v": version}
    return step


def describe(context: Json, version: int) -> Json:
    return {"k": context["k"], "v": version}


def upgrade(context: Json, migrations: list[int], description: Json, to_version: int) -> Step:
    """The step of an upgrade."""
    n, old = context["public"]["n"], description["v"]
    assert description["k"] == context["k"], "described as it was at another time"
    if THROWS in migrations and n % 2:
        return Step(machine.THREW)
    if KILLS in migrations and n % 3 == 0:
        raise Kill
    digest = crc32(json.dumps(migrations).encode(), context["digest"])
    changed = {**context, "k": context["k"] + 1, "digest": digest}
    step = Step(machine.CHANGED, changed, [])
    waits = dict(context.get("waits", {}))
    for timer, fired in list(waits.items()):
        if timer == "q" and to_version % 2:
            step.effects.append({"t": "cancel", "id": f"{timer}.{old}"})
            del waits[timer]
        else:
            names = {"id": f"{timer}.{old}", "to": f"{timer}.{to_version}"}
            event = {**fired, "v": to_version}
            step.effects.append({"t": "rename", **names, "event": event})
    if to_version == 3 and STARTED_BY_UPGRADE not in waits:
        fired = {"type": "inc", "of": f"upgrade {context['uid']}-{context['k']}"}
        waits[STARTED_BY_UPGRADE] = fired = {**fired, "timer": STARTED_BY_UPGRADE}
        timer = {"t": "timer", "id": STARTED_BY_UPGRADE, "delay": 400, "event": fired}
        step.effects.append({**timer, "of_state": True})
    changed["waits"] = waits
    return signed(step, to_version)


def is_stuck(values: dict[str, Any]) -> bool:
    """Whether a row waits for an upgrade that can't take place."""
    if not values["desired_version_id"] or values["children"] != SETTLED:
        return False
    context = json.loads(values["context"])
    migrations = path(values["version_id"], values["desired_version_id"])
    try:
        description = describe(context, values["version_id"])
        step = upgrade(context, migrations, description, values["desired_version_id"])
    except Kill:
        return True
    return step.code == machine.THREW
