"""The machine that simulated instances run, as a pure function: runners and the checker call it.

Its context counts steps (`k`, which equals the seq of the transition) and keeps a digest of all the
events that led to it: two histories that differ anywhere differ in every state from there on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

CHANGED, UNCHANGED, DENIED, THREW, CHANGED_WITH_EFFECTS = 0, 1, 2, 3, 5

Json = dict[str, Any]


@dataclass(slots=True)
class Step:
    code: int
    context: Json = field(default_factory=dict)
    children: list[Json] = field(default_factory=list)
    effects: list[Json] = field(default_factory=list)
    # What runs after the commit: ("act",), ("start", child, src), ("self", event).
    after: list[tuple[Any, ...]] = field(default_factory=list)
    waits_at_gate: bool = False  # a request of its own, made while it computed


class Kill(Exception):
    """The event kills its runner."""


def begin(given: Json) -> Step:
    return Step(CHANGED, {"public": {"n": 0}, "k": 1, "digest": 0, **given}, [])


def take(context: Json, children: list[Json], event: Json, *, asks: bool) -> Step:
    """The step of an event. `asks`: its sender needs the authorizer's permission."""
    kind = event["type"]
    n = context["public"]["n"]
    if asks and (kind == "deny" or (kind == "if-even" and n % 2)):
        return Step(DENIED)
    if kind == "throw":
        return Step(THREW)
    if kind == "kill":
        raise Kill
    if kind == "noop" or (kind == "once" and n >= event["below"]):
        return Step(UNCHANGED)
    step = _changed(context, list(children), event)
    _act(step, kind, event)
    return step


def end_service(context: Json, children: list[Json], event: Json) -> Step:
    """A service event: the service is done or failed, or says something before that."""
    child = event["child"]
    if not any(c["id"] == child for c in children):
        return Step(UNCHANGED)  # it was stopped meanwhile
    left = [c for c in children if c["id"] != child] if event["ends"] else list(children)
    return _changed(context, left, event)


def lose_service(context: Json, children: list[Json], child: str) -> Step:
    step = _changed(
        context, [c for c in children if c["id"] != child], {"type": "lost", "child": child}
    )
    step.context["lost"] = context.get("lost", 0) + 1
    return step


def _changed(context: Json, children: list[Json], event: Json) -> Step:
    digest = crc32(json.dumps(event).encode(), context["digest"])
    public = {"n": context["public"]["n"] + 1}
    changed = {**context, "public": public, "k": context["k"] + 1, "digest": digest}
    changed.pop("big", None)
    return Step(CHANGED, changed, children)


def _act(step: Step, kind: str, event: Json) -> None:
    context = step.context
    if kind == "act":
        step.after.append(("act",))
    elif kind == "fetch":
        step.waits_at_gate = True
    elif kind == "after":
        timer = {"t": "timer", "id": event["timer"], "delay": event["ms"]}
        fired = {"type": event["then"], "of": event["id"], "timer": event["timer"]}
        step.effects.append({**timer, "event": fired})
    elif kind == "cancel":
        step.effects.append({"t": "cancel", "id": event["timer"]})
    elif kind == "again" and event["left"]:
        again = {"type": "again", "left": event["left"] - 1}
        step.effects.append({"t": "timer", "id": "again", "delay": 0, "event": again})
    elif kind == "to-self":
        step.after.append(("self", {"type": "told", "of": event["id"]}))
    elif kind in ("call", "fail", "hang", "chat"):
        child = f"{kind}-{context['k']}"
        step.children.append({"id": child, "src": kind})
        step.after.append(("start", child, kind))
    elif kind == "stop":
        step.children.clear()
    elif kind == "big":
        context["big"] = "x" * 400_000
    if step.after or (kind == "stop"):
        step.code = CHANGED_WITH_EFFECTS
