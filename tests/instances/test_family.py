"""The family of an instance as pages see it."""

import json

import pytest

from instances.family import family_of
from instances.models import Instance, Transition
from tests.factories import make_instance, make_machine, make_org, make_transition

pytestmark = pytest.mark.django_db


@pytest.fixture
def machine():
    return make_machine(make_org(), with_version=True)


def reference(slug: str, machine: str = "order") -> dict[str, str]:
    return {"machineName": machine, "machineInstanceName": slug}


def test_parent_and_children_are_found(machine):
    parent = make_instance(machine, "parent")
    middle = make_instance(machine, "middle", parent_id=parent.pk, parent_child="kid")
    first = make_instance(machine, "first", parent_id=middle.pk, parent_child="a")
    second = make_instance(machine, "second", parent_id=middle.pk, parent_child="b")
    deleted = Instance.Status.DELETED
    make_instance(machine, "gone~9", parent_id=middle.pk, parent_child="c", status=deleted)

    family = family_of(middle)

    assert family.parent == parent
    assert family.children == [second, first]
    assert family.children_count == 2


def test_deleted_parent_is_told_from_none(machine):
    orphan = make_instance(machine, "orphan", parent_id=99_999, parent_child="kid")

    family = family_of(orphan)

    assert (family.parent, family.had_parent) == (None, True)
    assert not family_of(make_instance(machine, "alone")).had_parent


def test_correspondents_are_counted_and_looked_up(machine):
    here = make_instance(machine, "here")
    friend = make_instance(machine, "friend")
    other_org = make_machine(make_org(), with_version=True)
    make_instance(other_org, "nobody")
    sends = [
        {"t": "send", "to": reference("friend"), "event": {"type": "x"}},
        {"t": "send", "to": reference("nobody"), "event": {"type": "x"}},
        {"t": "cancel", "id": "t"},
    ]
    make_transition(here, 2, effects=json.dumps(sends))
    auth = json.dumps({"stateBackedSender": reference("friend")})
    make_transition(here, 3, kind=Transition.Kind.MESSAGE, auth_context=auth)
    make_transition(here, 4, effects='[{"machineInstanceName"', auth_context="{}")

    found = {one.slug: one for one in family_of(here).correspondents}

    assert found["friend"].instance == friend
    assert (found["friend"].sent, found["friend"].received) == (1, 1)
    assert found["nobody"].instance is None
