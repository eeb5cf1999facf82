"""The machine that simulated instances run, as a pure function: runners and the checker call it.

Its context counts steps (`k`, which equals the seq of the transition) and keeps a digest of all the
events that led to it and of who sent them: two histories that differ anywhere differ in every state
from there on.

Instances pay each other: `gold` is what one has, and what is on its way stands in the messages.
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


GOLD = 100  # of an instance that a client creates


class Kill(Exception):
    """The event kills its runner."""


def begin(given: Json, parent: str = "") -> Step:
    """The first step; `parent` is the reference to whoever spawns it, as JSON."""
    start = given.get("start")
    if start == "deny":
        return Step(DENIED)
    if start == "throw":
        return Step(THREW)
    context = {"public": {"n": 0}, "k": 1, "digest": 0, "gold": GOLD, "kids": {}, **given}
    step = Step(CHANGED, context)
    if parent:
        reference = json.loads(parent)
        context["parent"] = [reference["machineName"], reference["machineInstanceName"]]
        if start == "greet":
            _send(step, context["parent"], {"type": "greeted"})
    return step


def take(
    context: Json,
    children: list[Json],
    event: Json,
    *,
    asks: bool,
    auth: str = "",
    version: int = 0,
) -> Step:
    """The step of an event. `asks`: its sender, `auth`, needs the authorizer's permission.

    A version knows the timers of its states only; without one, all of them are known.
    """
    kind = event["type"]
    n = context["public"]["n"]
    if asks and (kind == "deny" or (kind == "if-even" and n % 2)):
        return Step(DENIED)
    if context.get("done"):
        return Step(UNCHANGED)
    if kind == "throw":
        return Step(THREW)
    if kind == "kill":
        raise Kill
    if kind == "noop" or (kind == "once" and n >= event["below"]):
        return Step(UNCHANGED)
    if version and event.get("v", version) != version:
        return Step(UNCHANGED)  # it has no such timer
    step = _changed(context, list(children), event, auth)
    if "v" in event:
        waits = step.context.get("waits", {})  # without: it is of another instance of that name
        step.context["waits"] = {id_: of for id_, of in waits.items() if id_ != event["timer"]}
    _act(step, kind, event)
    _wait(step, kind, event)
    _tell(step, kind, event)
    return step


def hear(context: Json, children: list[Json], event: Json, child: str, auth: str) -> Step:
    """A persistent child has come to its end, or there will be none."""
    sender = json.loads(auth)["stateBackedSender"]
    known = context["kids"].get(child)
    if context.get("done") or known != [sender["machineName"], sender["machineInstanceName"]]:
        return Step(UNCHANGED)
    step = _changed(context, list(children), event, auth)
    step.context["kids"] = {id_: to for id_, to in context["kids"].items() if id_ != child}
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


def _changed(context: Json, children: list[Json], event: Json, auth: str = "") -> Step:
    digest = crc32((json.dumps(event) + auth).encode(), context["digest"])
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
        fired = {"type": event["then"], "of": _name(event), "timer": event["timer"]}
        step.effects.append({**timer, "event": fired})
    elif kind == "cancel":
        step.effects.append({"t": "cancel", "id": event["timer"]})
    elif kind == "again" and event["left"]:
        again = {"type": "again", "left": event["left"] - 1}
        step.effects.append({"t": "timer", "id": "again", "delay": 0, "event": again})
    elif kind == "to-self":
        step.after.append(("self", {"type": "told", "of": _name(event)}))
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


def _wait(step: Step, kind: str, event: Json) -> None:
    """Set and cancel the timers of states, of which there is one each. Their names are those of the
    version (`versions.signed`)."""
    if kind not in ("wait", "leave"):
        return
    timer = event["timer"]
    waits = dict(step.context.get("waits", {}))
    if waits.pop(timer, None) is not None:
        step.effects.append({"t": "cancel", "id": timer, "of_state": True})
    if kind == "wait":
        fired = {"type": event["then"], "of": _name(event), "timer": timer}
        waits[timer] = fired
        effect = {"t": "timer", "id": timer, "delay": event["ms"], "event": fired}
        step.effects.append({**effect, "of_state": True})
    step.context["waits"] = waits


def _name(event: Json) -> Any:
    """By which one event is told from all others: of a client, or of an instance."""
    return event.get("id", event.get("of"))


# ---------------------------------------------------------------------- to other instances


def _tell(step: Step, kind: str, event: Json) -> None:
    """What an event makes an instance do with others."""
    context = step.context
    if kind == "tell":
        for says in event["says"]:
            context["gold"] -= says.get("gold", 0)
            _send(step, event["to"], says, event.get("delay"), event.get("send"))
    elif kind == "relay" and event["path"]:
        context["gold"] -= event["gold"]
        _hop(step, event)
    elif kind == "hop":
        if event["left"]:
            _hop(step, event)
        else:
            context["gold"] += event["gold"]
    elif kind == "pay":
        context["gold"] += event["gold"]
    elif kind == "spawn":
        _spawn(step, event)
    elif kind == "kid" and context["kids"]:
        for says in event["says"]:
            context["gold"] -= says.get("gold", 0)
            _send(step, list(context["kids"].values())[-1], says)
    elif kind == "up" and "parent" in context:
        for says in event["says"]:
            context["gold"] -= says.get("gold", 0)
            _send(step, context["parent"], says)
    elif kind == "finish":
        context["done"] = True
        step.children.clear()
        step.code = CHANGED_WITH_EFFECTS
        step.effects.append({"t": "done", "output": {"n": context["public"]["n"]}})


def _hop(step: Step, event: Json) -> None:
    to, *further = event["path"]
    hop = {"type": "hop", "path": [*further, to], "left": event["left"] - 1, "gold": event["gold"]}
    _send(step, to, hop)


def _spawn(step: Step, event: Json) -> None:
    """A child of its own name, or of one that others may have; told something at once."""
    context = step.context
    uid = f"{context['uid']}-{context['k']}"
    to = [event["machine"], event["as"] or f"kid-{uid}"]
    given = {"uid": uid, "gold": event["gold"], "start": event["start"]}
    context["gold"] -= event["gold"]
    context["kids"] = {**context["kids"], uid: to}
    source = {"machineName": to[0], "machineInstanceName": to[1]}
    if event["version"]:
        source["machineVersionId"] = event["version"]
    step.effects.append({"t": "spawn", "id": uid, "src": source, "input": given})
    for says in event["says"]:
        context["gold"] -= says.get("gold", 0)
        _send(step, to, says)


def _send(
    step: Step, to: list[str], says: Json, delay: int | None = None, send_id: str | None = None
) -> None:
    context = step.context
    of = f"{context['uid']}-{context['k']}-{len(step.effects)}"
    reference = {
        "type": "statebacked.instance",
        "id": "it",
        "machineName": to[0],
        "machineInstanceName": to[1],
    }
    effect: Json = {"t": "send", "to": reference, "event": {**says, "of": of}}
    if delay is not None:
        effect.update(t="timer", delay=delay, id=send_id or of)
    step.effects.append(effect)
