"""The history of an instance as rows: what happened, who did it, from where to where.

A history may have 100,000 transitions and an event 500 kB, so rows come in pages by sequence number
and carry only the beginning of what may be large.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from django.db.models import QuerySet
from django.db.models.functions import Length, Substr

from instances.models import Transition
from instances.pages.words import Leaf, duration, leaves_of

ROWS = 60
HEAD_CHARS = 4_000  # of an event, its report and effects
IDLE_MS = 60_000  # from here on the timeline says how long nothing happened
NAMES_SHOWN = 3
ERROR_CHARS_MAX = 300

KINDS = {
    Transition.Kind.INIT: ("plus", "created"),
    Transition.Kind.CLIENT: ("user", "client"),
    Transition.Kind.TIMER: ("clock", "timer"),
    Transition.Kind.MESSAGE: ("send", "message"),
    Transition.Kind.SERVICE: ("bolt", "service"),
    Transition.Kind.LOST_SERVICE: ("alert", "lost service"),
    Transition.Kind.UPGRADE: ("versions", "upgrade"),
    Transition.Kind.HTTP_API: ("http", "HTTP"),
}

_TYPE = re.compile(r'"type"\s*:\s*("(?:[^"\\]|\\.)*")')


class Effects(NamedTuple):
    """What a transition caused, by name."""

    actions: list[str]
    started: list[str]
    stopped: list[str]
    timers: list[str]  # such as "reminder in 3 d"
    cancelled: list[str]
    sent: int  # messages to other instances


class Row(NamedTuple):
    seq: int
    created_ms: int
    idle: str  # how long nothing happened before it; empty for not long
    kind: str
    icon: str
    event_type: str
    has_payload: bool
    left: list[Leaf]
    entered: list[Leaf]
    stayed: list[Leaf]  # where it is if it neither left nor entered a state
    who: str
    error: str  # what a service failed with
    effects: Effects
    duration_ms: float
    version_id: int


class Rows(NamedTuple):
    rows: list[Row]  # newest first
    has_older: bool
    has_newer: bool

    def naming(self, people: Mapping[str, str]) -> "Rows":
        """The same rows, with better names for some senders."""
        named = [row._replace(who=people.get(row.who, row.who)) for row in self.rows]
        return self._replace(rows=named)

    @property
    def oldest(self) -> int:
        return self.rows[-1].seq if self.rows else 0


class _EventType(msgspec.Struct):
    type: str = ""


_decode_type = msgspec.json.Decoder(_EventType).decode


def rows_before(instance_id: int, before: int) -> Rows:
    """The rows older than `before`."""
    found = list(_history(instance_id).filter(seq__lt=before).order_by("-seq")[: ROWS + 1])
    return Rows(_rows(found[:ROWS], found[1:]), len(found) > ROWS, has_newer=False)


def rows_after(instance_id: int, after: int) -> Rows:
    """The rows that follow `after` at once; newer ones may be there that are not among them."""
    # With `after` itself, which tells what the first of them left.
    found = list(_history(instance_id).filter(seq__gte=after).order_by("seq")[: ROWS + 2])
    newer = found[1 : ROWS + 1] if found and found[0].seq == after else found[:ROWS]
    earlier = {transition.seq + 1: transition for transition in found}
    rows = [_row(transition, earlier.get(transition.seq)) for transition in reversed(newer)]
    return Rows(rows, has_older=False, has_newer=len(found) > ROWS + 1)


def rows_around(instance_id: int, seq: int) -> Rows:
    """A page with that row in its upper part, so that what follows it is seen as well."""
    newer = rows_after(instance_id, seq)
    above = newer.rows[-ROWS // 4 :] if newer.rows else []
    older = rows_before(instance_id, seq + 1)
    has_newer = newer.has_newer or len(above) < len(newer.rows)
    return Rows([*above, *older.rows], older.has_older, has_newer)


def _history(instance_id: int) -> QuerySet[Transition]:
    return (
        Transition.objects.filter(instance_id=instance_id)
        .defer("event", "context", "effects", "report")
        .annotate(
            event_head=Substr("event", 1, HEAD_CHARS),
            event_length=Length("event"),
            effects_head=Substr("effects", 1, HEAD_CHARS),
            report_head=Substr("report", 1, HEAD_CHARS),
        )
    )


def _rows(found: list[Any], earlier: list[Any]) -> list[Row]:
    befores = [*earlier, *([None] * (len(found) - len(earlier)))]
    return [_row(transition, before) for transition, before in zip(found, befores, strict=True)]


def _row(transition: Any, before: Any | None) -> Row:
    icon, kind = KINDS[Transition.Kind(transition.kind)]
    now = leaves_of(transition.state)
    earlier = leaves_of(before.state) if before is not None else []
    left = [leaf for leaf in earlier if leaf not in now]
    entered = [leaf for leaf in now if leaf not in earlier]
    event_type = event_type_of(transition.event_head)
    idle_ms = transition.created_at - before.created_at if before is not None else 0
    return Row(
        seq=transition.seq,
        created_ms=transition.created_at,
        idle=duration(idle_ms) if idle_ms >= IDLE_MS else "",
        kind=kind,
        icon=icon,
        event_type=event_type,
        has_payload=transition.event_length > len(event_type) + len('{"type":""}'),
        left=left,
        entered=entered,
        stayed=[] if left or entered else now,
        who=who(transition.auth_context),
        error=error_of(transition.event_head) if _is_error(event_type) else "",
        effects=effects_of(transition.report_head, transition.effects_head),
        duration_ms=transition.duration_us / 1_000,
        version_id=transition.version_id,
    )


def event_type_of(event: str) -> str:
    """The type of a stored event, also if the text was cut off somewhere behind it."""
    try:
        return _decode_type(event).type
    except (msgspec.MsgspecError, UnicodeEncodeError):
        match = _TYPE.search(event)
        return json.loads(match[1]) if match else "(large event)"


def _is_error(event_type: str) -> bool:
    return event_type.startswith(("xstate.error.", "error."))


def error_of(event: str) -> str:
    """The message of a service's error event; XState 4 calls the error `data`."""
    told = _parsed(event, dict)
    error = told.get("error", told.get("data"))
    message = error.get("message") if isinstance(error, dict) else error
    return message[:ERROR_CHARS_MAX] if isinstance(message, str) else ""


def who(auth_context: str) -> str:
    """The sender in a word or two: their `sub`, and their role if they have one."""
    claims = claims_of(auth_context)
    named = [
        str(claims[name])
        for name in ("sub", "role")
        if isinstance(claims.get(name), str | int) and claims[name] != ""
    ]
    if named or not claims:
        return ", ".join(named)
    name, value = next(iter(claims.items()))
    return f"{name}={value}" if isinstance(value, str | int) else name


def claims_of(auth_context: str) -> Mapping[str, Any]:
    claims = json.loads(auth_context) if auth_context else {}
    return claims if isinstance(claims, dict) else {}


def effects_of(report: str, effects: str) -> Effects:
    """From the two columns; what was cut off or is none of the words we know is left out."""
    named = _parsed(report, dict)
    told = [effect for effect in _parsed(effects, list) if isinstance(effect, dict)]
    return Effects(
        actions=_names(named.get("actions")),
        started=_names(named.get("started")),
        stopped=_names(named.get("stopped")),
        timers=[_set_timer(effect) for effect in told if effect.get("t") == "timer"],
        cancelled=[_timer_name(effect) for effect in told if effect.get("t") == "cancel"],
        sent=sum(effect.get("t") == "send" for effect in told),
    )


def _parsed(text: str, kind: type[Any]) -> Any:
    try:
        value = json.loads(text) if text else kind()
    except ValueError:
        return kind()
    return value if isinstance(value, kind) else kind()


def _names(value: Any) -> list[str]:
    names = [
        str(item.get("src") or item.get("id") or item.get("type")) if isinstance(item, dict)
        else str(item)
        for item in value or []
    ]  # fmt: skip
    more = len(names) - NAMES_SHOWN
    return [*names[:NAMES_SHOWN], *([f"{more} more"] if more > 0 else [])]


def _timer_name(effect: Mapping[str, Any]) -> str:
    """The event of a timer, or of `after` the state that waits."""
    event = effect.get("event")
    name = event.get("type") if isinstance(event, dict) else None
    return timer_name(str(name or effect.get("id") or "timer"))


def _set_timer(effect: Mapping[str, Any]) -> str:
    name = _timer_name(effect)
    if name.startswith("after "):
        return name  # says how long already
    return f"{name} in {duration(float(effect.get('delay') or 0))}"


def timer_name(event_type: str) -> str:
    """`after` in words: XState names its event xstate.after.1000.order.pending."""
    for prefix in ("xstate.after.", "xstate.after("):
        if event_type.startswith(prefix):
            rest = event_type.removeprefix(prefix)
            delay, _, state = rest.partition(")#" if prefix.endswith("(") else ".")
            shown = duration(float(delay)) if delay.replace(".", "", 1).isdigit() else delay
            return f"after {shown} in {state.partition('.')[2] or state}"
    return event_type
