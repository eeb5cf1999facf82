"""The family of an instance: its parent, its children, and whom it writes to or hears from.

For pages: ordinary Django, two queries for the relatives and two for the correspondents.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q

from instances.models import Instance, Transition

CHILDREN_MAX = 200
# How many of the latest transitions with messages are read for correspondents, and how many of the
# latest of all are looked through for them: a history may be long and hold none.
TRANSITIONS_MAX = 500
LOOKED_THROUGH_MAX = 20_000

Name = tuple[str, str]  # slugs of machine and instance


@dataclass
class Correspondent:
    """Another instance of the org by its names; there may be none of that name."""

    machine: str
    slug: str
    instance: Instance | None = None
    sent: int = 0  # messages to it, among the latest transitions
    received: int = 0
    last_at: int = 0  # ms


@dataclass
class Family:
    parent: Instance | None  # None also if it was deleted: `had_parent` tells
    had_parent: bool
    children: list[Instance]  # the latest first; `parent_child` is the id that they are known by
    children_count: int
    correspondents: list[Correspondent] = field(default_factory=list)  # the latest first


def family_of(instance: Instance) -> Family:
    """The relatives of an instance with their present states, and its correspondents."""
    living = Instance.objects.exclude(status=Instance.Status.DELETED)
    relatives = living.filter(Q(pk=instance.parent_id) | Q(parent_id=instance.pk))
    nearest = list(relatives.select_related("machine").order_by("-id")[: CHILDREN_MAX + 1])
    parent = next((one for one in nearest if one.pk == instance.parent_id), None)
    children = [one for one in nearest if one.parent_id == instance.pk][:CHILDREN_MAX]
    count = len(children)
    if len(nearest) > CHILDREN_MAX:
        count = living.filter(parent_id=instance.pk).count()
        if parent is None and instance.parent_id is not None:
            parent = living.filter(pk=instance.parent_id).select_related("machine").first()
    return Family(
        parent=parent,
        had_parent=instance.parent_id is not None,
        children=children,
        children_count=count,
        correspondents=_correspondents(instance),
    )


def _correspondents(instance: Instance) -> list[Correspondent]:
    messages = Q(effects__contains='"machineInstanceName"')
    messages |= Q(auth_context__contains='"stateBackedSender"')
    transitions = (
        Transition.objects.filter(
            messages, instance_id=instance.pk, seq__gt=instance.seq - LOOKED_THROUGH_MAX
        )
        .order_by("-seq")
        .values_list("effects", "auth_context", "created_at")[:TRANSITIONS_MAX]
    )
    found: dict[Name, Correspondent] = {}
    for effects, auth_context, created_at in transitions:
        for name in _names_sent_to(effects):
            found.setdefault(name, Correspondent(*name, last_at=created_at)).sent += 1
        sender = _name_of(_parsed(auth_context, {}).get("stateBackedSender"))
        if sender is not None:
            found.setdefault(sender, Correspondent(*sender, last_at=created_at)).received += 1
    slugs = {slug for _, slug in found}
    there = Instance.objects.filter(org_id=instance.org_id, slug__in=slugs)
    for one in there.exclude(status=Instance.Status.DELETED).select_related("machine"):
        correspondent = found.get((one.machine.slug, one.slug))
        if correspondent is not None:
            correspondent.instance = one
    return list(found.values())


def _names_sent_to(effects: str) -> Iterable[Name]:
    for effect in _parsed(effects, []):
        name = _name_of(effect.get("to") or effect.get("src"))
        if name is not None:
            yield name


def _name_of(reference: Any) -> Name | None:
    if not isinstance(reference, dict):
        return None
    names = reference.get("machineName"), reference.get("machineInstanceName")
    return (str(names[0]), str(names[1])) if None not in names else None


def _parsed(text: str, default: Any) -> Any:
    """What a runner has written down; it may be anything."""
    try:
        value = json.loads(text)
    except ValueError:
        return default
    return value if isinstance(value, type(default)) else default
