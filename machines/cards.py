"""A machine in a list: where its instances are, in numbers and as a small picture."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.urls import reverse

from machines import diagrams, state_counts
from machines.models import Machine
from machines.thumbs import lit


class Card(NamedTuple):
    machine: Machine
    where: state_counts.Whereabouts
    shares: list[state_counts.Share]
    thumb: dict[str, Any] | None
    thumb_url: str  # where to get the picture that was not made yet; empty if there can be none


def cards_of(machines: Sequence[Machine], org: str) -> list[Card]:
    """In a few queries, however many machines; `org` is the public id."""
    where = state_counts.whereabouts_of(machines)
    thumbs = diagrams.thumbs_of(machines)
    return [
        Card(
            machine,
            where[machine.pk],
            where[machine.pk].shares(),
            _lit(thumbs.get(machine.pk), where[machine.pk]),
            "" if machine.pk in thumbs else _thumb_url(machine, org),
        )
        for machine in machines
    ]


def lit_thumb(machine: Machine) -> dict[str, Any] | None:
    """The picture of the machine's current version, made if need be."""
    if machine.current_version is None:
        return None
    diagrams.drawing_of(machine.current_version)
    thumb = diagrams.diagram_of(machine.current_version).thumb
    return _lit(thumb, state_counts.whereabouts(machine))


def _lit(thumb: Any, where: state_counts.Whereabouts) -> dict[str, Any] | None:
    return lit(thumb or {}, where.by_node(), where.total)


def _thumb_url(machine: Machine, org: str) -> str:
    if machine.current_version_id is None:
        return ""
    return reverse("machine-thumb", args=[org, machine.slug])
