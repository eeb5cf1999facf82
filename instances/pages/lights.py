"""What to light up in the picture of an instance's machine."""

from typing import Any

from instances.explain import Definition
from instances.pages.moment import Moment
from machines.flow import active_paths


def lights_of(definition: Definition | None, moment: Moment, *, is_past: bool) -> dict[str, Any]:
    """What to light up: the active states, the transition just taken, and the events possible next.

    States are told by their paths and transitions by their numbers; `next` says the type of each
    transition's event.
    """
    lights: dict[str, Any] = {
        "seq": moment.seq,
        "version": moment.version_id,
        "active": active_paths(moment.value),
        "taken": None,
        "next": {},
        "past": is_past,
    }
    if definition is not None:
        lights["taken"] = definition.taken(moment.before, moment.event_type, moment.value)
        if not moment.is_done and not is_past:
            lights["next"] = {
                transition.number: handling.event_type
                for handling in definition.handling(moment.value)
                for transition in handling.transitions
            }
    return lights
