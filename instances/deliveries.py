"""What people do with deliveries: see timers and dead letters, fire, cancel, send again.

The engine finds its work by looking at the rows (instances/engine/timers.py), so a change of a row
is all that is needed. One that is in flight at that moment finds its row gone when it commits, and
its transition is not made.
"""

import json
import re
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import QuerySet

from authz.callers import Caller
from authz.permissions import require
from instances.engine.holding import HELD_MS
from instances.models import DeadLetter, Delivery, DeliveryFields
from instances.pages.words import duration
from statebacked_site.errors import Conflict, InvalidParameter, NotFound
from statebacked_site.json_text import MalformedJson, parse_json, write_json

SCOPE = "instances.admin"
EVENT_BYTES_MAX = 400_000

# How both versions of XState name the event of a delayed transition:
# xstate.after.1000.order.pending and xstate.after(1000)#order.pending
_AFTER = re.compile(r"xstate\.after[.(]([^.)]+)[.)]#?(.*)", re.DOTALL)

# Events of the platform's own deliveries.
_WORDS = {
    "statebacked.spawn": "create this instance",
    "statebacked.child-done": "its child has ended",
    "statebacked.child-error": "its child is lost",
}

# Everything that a dead letter keeps of its delivery, and gives back to it.
_KEPT = [field.name for field in DeliveryFields._meta.get_fields()]


class EventWords(NamedTuple):
    """An event as a list says it."""

    text: str  # `after 1 d`, or the type of the event
    state: str  # where a delayed transition belongs, or empty
    type: str


def pending(caller: Caller) -> QuerySet[Delivery]:
    """All that is still to be delivered in the caller's org, what is due first, first."""
    return Delivery.objects.filter(org_id=caller.org_pk).order_by("due_at", "id")


def letters(caller: Caller) -> QuerySet[DeadLetter]:
    """The org's deliveries that failed for good, the latest first."""
    return DeadLetter.objects.filter(org_id=caller.org_pk).order_by("-died_at", "-id")


def fire_now(caller: Caller, delivery_id: int, now_ms: int) -> None:
    """Make a delivery due; the engine takes it within a second. Raises NotFound if it is gone."""
    require(caller, SCOPE)
    # One that is claimed waits in the engine for a moment within the next second: leave the claim.
    if not pending(caller).filter(pk=delivery_id, due_at__lt=HELD_MS).update(due_at=now_ms):
        if pending(caller).filter(pk=delivery_id).exists():
            raise Conflict("The instance is paused: what it is to get is held until it resumes")
        raise NotFound("It was delivered or cancelled meanwhile")


def cancel(caller: Caller, delivery_id: int) -> None:
    """Take a delivery back. Raises NotFound if it is gone already."""
    require(caller, SCOPE)
    deleted, _ = pending(caller).filter(pk=delivery_id).delete()
    if not deleted:
        raise NotFound("It was delivered or cancelled meanwhile")


@transaction.atomic
def redrive(caller: Caller, letter_id: int, now_ms: int, event: str | None = None) -> None:
    """Send a dead letter again at once, with all its tries before it; `event` replaces its event.

    Raises NotFound if somebody has redriven or discarded it, InvalidParameter for a bad event.
    """
    require(caller, SCOPE)
    letter = _letter(caller, letter_id)
    kept = {name: getattr(letter, name) for name in _KEPT}
    if event is not None:
        kept["event"] = checked_event(event)
    kept |= {"due_at": now_ms, "claim_until": 0, "claims": 0, "attempts": 0, "last_error": None}
    # Of two people who redrive it at the same moment, one deletes the row.
    deleted, _ = letters(caller).filter(pk=letter_id).delete()
    if not deleted or Delivery.objects.filter(pk=letter_id).exists():
        raise Conflict("It is being sent again already")
    Delivery.objects.create(id=letter_id, **kept)


def discard(caller: Caller, letter_id: int) -> None:
    """Forget a dead letter. Raises NotFound if it is gone already."""
    require(caller, SCOPE)
    deleted, _ = letters(caller).filter(pk=letter_id).delete()
    if not deleted:
        raise NotFound("It was sent again or discarded meanwhile")


def checked_event(text: str) -> str:
    """The JSON of an event as it is stored; raises InvalidParameter."""
    if len(text.encode()) > EVENT_BYTES_MAX:
        raise InvalidParameter(f"The event is larger than {EVENT_BYTES_MAX} bytes", "event")
    try:
        event = parse_json(text.encode())
    except MalformedJson as exc:
        raise InvalidParameter(f"The event is not valid JSON: {exc}", "event") from exc
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise InvalidParameter('An event is an object with a "type"', "event")
    return write_json(event).decode()


def event_words(event: str) -> EventWords:
    """What a stored event says to people."""
    return type_words(event_type(event))


def type_words(kind: str) -> EventWords:
    """The same of an event's type."""
    match = _AFTER.fullmatch(kind)
    if match is None:
        return EventWords(_WORDS.get(kind, kind), "", kind)
    delay, state = match.groups()
    size = duration(int(delay)) if delay.isdecimal() and len(delay) < 16 else delay
    return EventWords(f"after {size}", state, kind)


def event_type(event: str) -> str:
    try:
        value: Any = json.loads(event)
    except ValueError:
        return "unreadable"
    kind = value.get("type") if isinstance(value, dict) else value
    return kind if isinstance(kind, str) else "unreadable"


def _letter(caller: Caller, letter_id: int) -> DeadLetter:
    letter = letters(caller).filter(pk=letter_id).first()
    if letter is None:
        raise NotFound("It was sent again or discarded meanwhile")
    return letter
