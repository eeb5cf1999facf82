"""The family of an instance as its page shows it: a tree, and whom it exchanges messages with."""

import json
from typing import NamedTuple

from django.urls import reverse

from instances.family import Correspondent, family_of
from instances.models import Instance
from instances.pages.words import Leaf, leaves_of


class Relative(NamedTuple):
    machine: str
    slug: str
    url: str  # empty if there is none of that name
    role: str  # such as the id that a child is known by to its parent
    leaves: list[Leaf]
    is_paused: bool
    is_done: bool


class Friend(NamedTuple):
    """Another instance that it writes to or hears from, with the numbers of messages."""

    relative: Relative
    sent: int
    received: int
    last_ms: int


class Relatives(NamedTuple):
    parent: Relative | None
    is_orphan: bool  # there was a parent, which is deleted
    here: Relative
    children: list[Relative]
    children_hidden: int  # how many more there are
    friends: list[Friend]

    @property
    def is_empty(self) -> bool:
        return not (self.parent or self.is_orphan or self.children or self.friends)


def relatives_of(instance: Instance, org: str) -> Relatives:
    """`org` is the public id of the instance's org."""
    family = family_of(instance)
    return Relatives(
        parent=_relative(family.parent, org, "parent") if family.parent else None,
        is_orphan=family.had_parent and family.parent is None,
        here=_relative(instance, org, instance.parent_child or ""),
        children=[_relative(child, org, child.parent_child or "") for child in family.children],
        children_hidden=family.children_count - len(family.children),
        friends=[_friend(one, org) for one in family.correspondents],
    )


def _relative(instance: Instance, org: str, role: str) -> Relative:
    machine = instance.machine.slug
    return Relative(
        machine,
        instance.slug,
        reverse("instance-page", args=[org, machine, instance.slug]),
        role,
        leaves_of(instance.state),
        is_paused=instance.status == Instance.Status.PAUSED,
        is_done=bool(json.loads(instance.state)["done"]),
    )


def _friend(one: Correspondent, org: str) -> Friend:
    if one.instance is not None:
        relative = _relative(one.instance, org, "")
    else:
        relative = Relative(one.machine, one.slug, "", "", [], is_paused=False, is_done=False)
    return Friend(relative, one.sent, one.received, one.last_at)
