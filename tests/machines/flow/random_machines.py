"""Machines of every shape that XState allows, and worse than anybody would write."""

from __future__ import annotations

import json
import random
from typing import Any

from machines.flow.model import Graph

STATES_MAX = 40


def random_graph(seed: int) -> Graph:
    """The same seed always has the same machine, of at most about STATES_MAX states."""
    chance = random.Random(seed)
    states = _states(chance)
    transitions = _transitions(chance, states)
    definition = {"name": f"seed {seed}", "xstate": 5, "states": states, "transitions": transitions}
    return Graph.decode(json.dumps(definition))


def _states(chance: random.Random) -> list[dict[str, Any]]:
    states: list[dict[str, Any]] = [_state(0, None, "compound", chance)]
    open_ = [(0, 0)]
    while open_ and len(states) < STATES_MAX:
        parent, depth = open_.pop(0)
        for _ in range(chance.randint(2, 4)):
            kind = chance.choice(
                ["atomic"] * 5 + ["compound"] * 2 + ["parallel", "final", "history"]
            )
            if states[parent]["type"] == "parallel" and chance.random() < 0.8:
                kind = "compound"
            if depth > 2 and kind in ("compound", "parallel"):
                kind = "atomic"
            states.append(_state(len(states), parent, kind, chance))
            if kind in ("compound", "parallel"):
                open_.append((len(states) - 1, depth + 1))
    for state in states:
        inside = [s for s in states if s["parent"] == state["number"] and s["type"] != "history"]
        if state["type"] in ("compound", "parallel") and not inside:
            state["type"] = "atomic"
        if state["type"] == "compound":
            state["initial"] = inside[0]["number"]
    # A state that turned out to be empty can't keep a history.
    return _without_orphans(states)


def _without_orphans(states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [
        s
        for s in states
        if s["parent"] is None or states[s["parent"]]["type"] in ("compound", "parallel")
    ]
    numbers = {s["number"]: position for position, s in enumerate(kept)}
    for state in kept:
        state["number"] = numbers[state["number"]]
        for name in ("parent", "initial"):
            if state.get(name) is not None:
                state[name] = numbers[state[name]]
    return kept


def _state(number: int, parent: int | None, kind: str, chance: random.Random) -> dict[str, Any]:
    return {
        "number": number,
        "key": f"s{number}" * chance.choice([1, 1, 4]),
        "id": f"s{number}",
        "parent": parent,
        "type": kind,
        "history": chance.choice(["deep", "shallow"]) if kind == "history" else None,
        "entry": ["go"] * chance.choice([0, 0, 1]),
        "tags": chance.choice([[], [], ["busy"]]),
    }


def _transitions(chance: random.Random, states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    transitions: list[dict[str, Any]] = []
    for state in states:
        if state["type"] == "final":
            continue
        is_history = state["type"] == "history"
        for _ in range(chance.choice([0, 1, 1, 2, 3]) if not is_history else chance.randint(0, 1)):
            near = [s["number"] for s in states if s["parent"] == state["parent"]]
            far = range(1, len(states))
            count = 1 if is_history else chance.choice([0, 1, 1, 1, 1, 1, 1, 1, 2])
            pool = (list(far) if chance.random() < 0.2 else near) or near
            targets = list(dict.fromkeys(chance.choice(pool) for _ in range(count)))
            kind = "default" if is_history else chance.choice(["event", "after", "always"])
            transitions.append(
                {
                    "number": len(transitions),
                    "source": state["number"],
                    "targets": targets,
                    "kind": kind,
                    "label": f"EVENT_{len(transitions)}",
                    "eventType": f"E{len(transitions)}",
                    "guard": chance.choice([None, None, "isIt"]),
                    "actions": ["act"] * chance.choice([0, 0, 1]),
                    "isInternal": chance.random() < 0.5,
                }
            )
    return transitions
