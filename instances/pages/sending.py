"""What the drawer for sending an event offers: the events that are handled here, and elsewhere.

What such events carry is learned from those that clients have sent: to this instance, and where it
has seen none of a type, to the machine's newest instances at the beginning of their lives.
"""

import json
from collections.abc import Collection
from typing import NamedTuple

from django.db.models import QuerySet
from django.db.models.functions import Length

from instances.explain import Definition
from instances.models import Instance, Transition
from instances.pages.stored_events import event_type_of

PAST_EVENTS_LOOKED_AT = 60
OTHER_INSTANCES_LOOKED_AT = 20
OTHER_EVENTS_LOOKED_AT = 12  # of each of them
PAYLOADS_KEPT = 5  # of each type
PAYLOAD_CHARS_MAX = 4_000
SENDERS_KEPT = 6
EVENTS_MAX = 100


class Choice(NamedTuple):
    event_type: str
    note: str  # where it leads, or where it is handled
    guard: str
    payloads: str  # of the latest such events: JSON list of texts, the newest first


class Choices(NamedTuple):
    here: list[Choice]
    elsewhere: list[Choice]
    chosen: str  # the event to begin with
    is_known: bool  # whether the machine's definition could be read
    senders: list[str]  # claims, as JSON, of who sent events lately


class _Learned(NamedTuple):
    payloads: dict[str, list[str]]  # by event type
    senders: list[str]

    def of(self, event_type: str) -> str:
        return json.dumps(self.payloads.get(event_type, []), ensure_ascii=False)


def choices_of(
    instance: Instance, definition: Definition | None, wanted: str, *, with_payloads: bool
) -> Choices:
    learned = _learned(instance) if with_payloads else _Learned({}, [])
    if definition is None:
        here = [
            Choice(event_type, "", "", learned.of(event_type)) for event_type in learned.payloads
        ]
        chosen = wanted or (here[0].event_type if here else "")
        return Choices(here, [], chosen, is_known=False, senders=learned.senders)
    value = json.loads(instance.state)["state"]
    here = []
    for handling in definition.handling(value)[:EVENTS_MAX]:
        targets = [p for t in handling.transitions for p in definition.target_paths(t)]
        guards = [t.guard for t in handling.transitions if t.guard]
        here.append(
            Choice(
                handling.event_type,
                ", ".join(dict.fromkeys(targets)),
                ", ".join(dict.fromkeys(guards)),
                learned.of(handling.event_type),
            )
        )
    handled = {choice.event_type for choice in here}
    elsewhere = [
        Choice(
            event_type, ", ".join(definition.handled_in(event_type)[:3]), "",
            learned.of(event_type),
        )
        for event_type in definition.events()
        if event_type not in handled
    ][:EVENTS_MAX]  # fmt: skip
    chosen = wanted or (here[0].event_type if here else "")
    return Choices(here, elsewhere, chosen, is_known=True, senders=learned.senders)


def _learned(instance: Instance) -> _Learned:
    own = Transition.objects.filter(
        instance_id=instance.pk, seq__gt=instance.seq - PAST_EVENTS_LOOKED_AT
    ).order_by("-seq")
    newest = (
        Instance.objects.filter(machine=instance.machine_id)
        .exclude(pk=instance.pk)
        .order_by("-pk")
        .values_list("pk", flat=True)[:OTHER_INSTANCES_LOOKED_AT]
    )
    others = Transition.objects.filter(
        instance_id__in=list(newest), seq__lte=OTHER_EVENTS_LOOKED_AT
    ).order_by("-instance_id", "-seq")
    learned = _Learned({}, [])
    _learn(learned, own)
    known = set(learned.payloads)
    _learn(learned, others, known)
    return learned


def _learn(
    learned: _Learned, transitions: QuerySet[Transition], known: Collection[str] = ()
) -> None:
    """Add what clients have sent; nothing of the types that are `known` already."""
    sent = (
        transitions.filter(kind=Transition.Kind.CLIENT)
        .annotate(length=Length("event"))
        .filter(length__lte=PAYLOAD_CHARS_MAX)
        .values_list("event", "auth_context")
    )
    for event, auth_context in sent:
        if auth_context and auth_context not in learned.senders:
            if len(learned.senders) < SENDERS_KEPT:
                learned.senders.append(auth_context)
        event_type = event_type_of(event)
        if event_type in known:
            continue
        payloads = learned.payloads.setdefault(event_type, [])
        members = {name: value for name, value in json.loads(event).items() if name != "type"}
        text = json.dumps(members, indent=2, ensure_ascii=False) if members else ""
        if text not in payloads and len(payloads) < PAYLOADS_KEPT:
            payloads.append(text)
