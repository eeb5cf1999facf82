"""What a request of an instance's pages asks for, and what its sender may see."""

import time
from collections.abc import Callable

from django.urls import reverse

from authz.errors import MissingScope
from authz.members import Member
from authz.models import Org, User
from instances.access import get_instance
from instances.errors import InstanceNotFound
from instances.models import Instance
from instances.pages.near import near_names
from instances.pages.privacy import public_row
from instances.pages.timeline import Row
from machines.access import get_machine
from statebacked_site.errors import InvalidParameter

SEE_ALL = "instances.admin"  # the whole context, events and their senders
PEOPLE_MAX = 1_000
SLUG_CHARS_MAX = 128


def instance_of(member: Member, machine: str, slug: str) -> Instance:
    """Raises InstanceNotFound with the pages of those that may be meant."""
    try:
        instance = get_instance(member.caller, machine, slug)
    except InstanceNotFound as error:
        if member.may("instances.read"):
            error.instead = _meant(member, machine, slug)
        raise
    instance.machine = get_machine(member.caller, machine)
    return instance


def _meant(member: Member, machine: str, slug: str) -> list[tuple[str, str]]:
    names = near_names(get_machine(member.caller, machine), slug[:SLUG_CHARS_MAX])
    return [
        (name, reverse("instance-page", args=[member.org.public_id, machine, name]))
        for name in names
    ]


def sight_of(member: Member) -> Callable[[Row], Row]:
    """Makes of a row what this member may see of it."""
    if not member.may(SEE_ALL):
        return public_row
    people = people_of(member.org)
    return lambda row: row.naming(people)


def people_of(org: Org) -> dict[str, str]:
    """E-mail addresses of the org's members, by what the machine knows them as."""
    members = User.objects.filter(memberships__org=org).values_list("public_id", "email")
    return dict(members[:PEOPLE_MAX])


def require_scope(member: Member, scope: str) -> None:
    refusal = member.refusal(scope)
    if refusal:
        raise MissingScope(refusal)


def number_in(text: str | None, parameter: str) -> int | None:
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidParameter(f"{parameter} is no number of a transition", parameter)
    return int(text)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
