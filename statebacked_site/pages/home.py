"""The page at the address of the site: who you are here, what runs, and what to do next."""

import shlex
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.db.models import IntegerField, OuterRef, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from authz.members import Member, member_of, memberships_of
from authz.models import Org, User
from instances.models import Instance
from machines.models import Machine
from statebacked_site import welcome
from statebacked_site.frame import SESSION_ORG, org_page, render_page

MACHINES_SHOWN = 50
# Counting looks at each instance; beyond this many the page says "more than".
INSTANCES_COUNTED_MAX = 10_000


class Step(NamedTuple):
    title: str
    command: str


class MachineRow(NamedTuple):
    machine: Machine
    instances: str  # their number, as it is shown


class CountOf(Subquery):
    """How many rows a subquery has. Sliced, it stops counting there."""

    template = "(SELECT COUNT(*) FROM (%(subquery)s) AS counted)"
    output_field = IntegerField()


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The org that the person looked at last, or how to sign in."""
    if not isinstance(request.user, User):
        return redirect("sign-in")
    memberships = memberships_of(request.user)
    if not memberships:
        return render(request, "site/no_org.html", {"api_url": f"{settings.PUBLIC_URL}/api"})
    seen_last = request.session.get(SESSION_ORG)
    shown = next((m for m in memberships if m.org.public_id == seen_last), memberships[0])
    return _home_page(request, member_of(request.user, shown))


@require_safe
@org_page
def org_home(request: HttpRequest, member: Member) -> HttpResponse:
    return _home_page(request, member)


def _home_page(request: HttpRequest, member: Member) -> HttpResponse:
    machines = machine_rows(member.org)
    context = {
        "api_url": f"{settings.PUBLIC_URL}/api",
        "machines": machines[:MACHINES_SHOWN],
        "more_machines": len(machines) > MACHINES_SHOWN,
        "steps": next_steps(this_site()),
    }
    return render_page(request, member, "site/home.html", context, section="home")


def machine_rows(org: Org) -> list[MachineRow]:
    """The org's machines by name, one more than are shown."""
    instances = Instance.objects.filter(machine=OuterRef("pk")).exclude(
        status=Instance.Status.DELETED
    )
    machines = (
        Machine.objects.filter(org=org)
        .select_related("current_version")
        .annotate(counted=CountOf(instances.values("pk")[: INSTANCES_COUNTED_MAX + 1]))
        .order_by("slug")
    )
    return [
        MachineRow(machine, count_text(machine.counted))
        for machine in machines[: MACHINES_SHOWN + 1]
    ]


def count_text(counted: int) -> str:
    if counted > INSTANCES_COUNTED_MAX:
        return f"more than {INSTANCES_COUNTED_MAX:,}"
    return f"{counted:,}"


def next_steps(site: welcome.Site) -> list[Step]:
    """From nothing to an event, as the first start prints it."""
    machine = Path(welcome.EXAMPLE).stem
    create = shlex.quote('{"slug": "second"}')
    send = shlex.quote(f'{{"event": "{welcome.EXAMPLE_EVENT}"}}')
    return [
        Step("Deploy a machine", site.command(f"deploy {welcome.EXAMPLE}")),
        Step("Create an instance of it", site.command(f"api POST machines/{machine} {create}")),
        Step(
            "Send the instance an event",
            site.command(f"api POST machines/{machine}/i/second/events {send}"),
        ),
        Step("Get a token for your own programs", site.command("access_token --json")),
        Step("Or use the published CLI", site.command("smply_login")),
    ]


def this_site() -> welcome.Site:
    return welcome.Site(settings.PUBLIC_URL, settings.DATA_DIR, settings.BASE_DIR / "data")
