"""What the palette finds: machines and instances by the start of their names, versions by id."""

from typing import NamedTuple

from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from authz.members import Member
from instances.models import Instance
from machines.access import machines_of
from machines.models import Machine, MachineVersion
from statebacked_site.frame import org_page
from statebacked_site.identifiers import SLUG

MACHINES_FOUND_MAX = 8
INSTANCES_FOUND_MAX = 8
# Instances are unique by machine and name: one look-up by prefix in each machine, and no more
# machines than this.
MACHINES_SEARCHED_MAX = 50


class Found(NamedTuple):
    machine: str
    instance: str
    status: str


@require_safe
@org_page
def palette(request: HttpRequest, member: Member) -> HttpResponse:
    """Options for the palette's list, for `?q=`."""
    text = request.GET.get("q", "").strip()
    if text and not SLUG.match(text):
        return render(request, "site/_palette_found.html", {"org": member.org})
    machines = list(
        machines_of(member.caller)
        .filter(slug__startswith=text)
        .order_by("slug")[:MACHINES_FOUND_MAX]
    )
    found = {
        "org": member.org,
        "machines": machines,
        "instances": instances_beginning(member, text) if text else [],
        "version": version_with_id(member, text),
    }
    return render(request, "site/_palette_found.html", found)


def version_with_id(member: Member, text: str) -> MachineVersion | None:
    if not text.startswith("ver_"):
        return None
    versions = MachineVersion.objects.select_related("machine")
    return versions.filter(machine__org=member.org, public_id=text).first()


def instances_beginning(member: Member, prefix: str) -> list[Found]:
    """Instances whose name begins so, in the first machines of the org by name."""
    machines = Machine.objects.filter(org=member.org).order_by("slug")
    found: list[Found] = []
    for machine in machines.only("pk", "slug")[:MACHINES_SEARCHED_MAX]:
        # A range, and not LIKE: it is case-sensitive and uses the unique index.
        rows = (
            Instance.objects.filter(
                machine=machine, slug__gte=prefix, slug__lt=prefix + "\U0010ffff"
            )
            .exclude(status=Instance.Status.DELETED)
            .order_by("slug")
            .values_list("slug", F("status"))[: INSTANCES_FOUND_MAX - len(found)]
        )
        found += [Found(machine.slug, slug, Instance.Status(status).label) for slug, status in rows]
        if len(found) >= INSTANCES_FOUND_MAX:
            break
    return found
