"""What the drawer for sending an event offers: the events that are handled here, and elsewhere."""

import json
from typing import NamedTuple

from instances.explain import Definition
from instances.models import Instance, Transition
from instances.pages.timeline import event_type_of

PAST_EVENTS_LOOKED_AT = 60
PAYLOAD_CHARS_MAX = 4_000
EVENTS_MAX = 100


class Choice(NamedTuple):
    event_type: str
    note: str  # where it leads, or where it is handled
    guard: str
    payload: str  # of the latest such event, as JSON text; empty if it had none


class Choices(NamedTuple):
    here: list[Choice]
    elsewhere: list[Choice]
    chosen: str  # the event to begin with
    is_known: bool  # whether the machine's definition could be read


def choices_of(
    instance: Instance, definition: Definition | None, wanted: str, *, with_payloads: bool
) -> Choices:
    payloads = _past_payloads(instance) if with_payloads else {}
    if definition is None:
        here = [Choice(event_type, "", "", payload) for event_type, payload in payloads.items()]
        chosen = wanted or (here[0].event_type if here else "")
        return Choices(here, [], chosen, is_known=False)
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
                payloads.get(handling.event_type, ""),
            )
        )
    handled = {choice.event_type for choice in here}
    elsewhere = [
        Choice(
            event_type, ", ".join(definition.handled_in(event_type)[:3]), "",
            payloads.get(event_type, ""),
        )
        for event_type in definition.events()
        if event_type not in handled
    ][:EVENTS_MAX]  # fmt: skip
    chosen = wanted or (here[0].event_type if here else "")
    return Choices(here, elsewhere, chosen, is_known=True)


def _past_payloads(instance: Instance) -> dict[str, str]:
    """By event type: what the latest events of clients have carried besides their type."""
    events = (
        Transition.objects.filter(
            instance_id=instance.pk,
            seq__gt=instance.seq - PAST_EVENTS_LOOKED_AT,
            kind=Transition.Kind.CLIENT,
        )
        .order_by("-seq")
        .values_list("event", flat=True)
    )
    payloads: dict[str, str] = {}
    for event in events:
        event_type = event_type_of(event)
        if event_type in payloads or len(event) > PAYLOAD_CHARS_MAX:
            continue
        members = {name: value for name, value in json.loads(event).items() if name != "type"}
        payloads[event_type] = json.dumps(members, indent=2, ensure_ascii=False) if members else ""
    return payloads
