"""Upgrading all instances of a version: what would happen, and doing it part by part."""

from typing import Any, NamedTuple

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from authz.members import Member
from instances.access import instances_of
from instances.pages.asked import SEE_ALL, require_scope
from instances.pages.upgrade_sample import SAMPLE, sample_of, shares_of, try_sample
from instances.pages.words import version_name
from instances.upgrading import set_desired_versions
from machines import state_counts
from machines.access import get_machine, version_of
from machines.models import Machine, MachineVersion
from machines.upgrade_ways import edges_of, steps_from
from machines.views import of_machine
from statebacked_site.errors import InvalidParameter
from statebacked_site.frame import org_page, render_page

SCOPE = "instances.admin"
LOOKED_AT = 5_000  # instances in one request: some tenths of a second
STATES_SHOWN = 12
COUNT_DIGITS_MAX = 18


class Progress(NamedTuple):
    """How far it has come. It starts and ends in the page; each part is safe to repeat."""

    last_id: int = 0  # of the instances that were looked at
    looked_at: int = 0
    matched: int = 0  # of the version, and not done
    changed: int = 0  # of these, those for which it was not noted before

    @property
    def kept(self) -> int:
        return self.matched - self.changed


@require_http_methods(["GET", "POST"])
@org_page
def upgrade_page(request: HttpRequest, member: Member, machine: str, version: str) -> HttpResponse:
    """What is to be upgraded; by POST, the next part of it."""
    require_scope(member, "instances.read")
    found = get_machine(member.caller, machine)
    old = version_of(found, version, "version")
    if request.method == "GET":
        new = _target(found, old, request.GET.get("to", ""))
        return _page(request, member, old, new, {"stage": "asking"})
    require_scope(member, SCOPE)
    new = version_of(found, request.POST.get("to", ""), "to")
    if new == old:
        raise InvalidParameter("Its instances have that version already", "to")
    progress = _progress(request)
    if request.POST.get("do") == "stop":
        return _page(request, member, old, new, {"stage": "stopped", "progress": progress})
    part = set_desired_versions(old, new, after_id=progress.last_id, limit=LOOKED_AT)
    progress = Progress(
        part.last_id or progress.last_id,
        progress.looked_at + LOOKED_AT,
        progress.matched + part.matched,
        progress.changed + part.changed,
    )
    stage = "done" if part.last_id is None else "going"
    return _page(request, member, old, new, {"stage": stage, "progress": progress})


def _target(machine: Machine, old: MachineVersion, public_id: str) -> MachineVersion | None:
    """The version that is named, or the current one; None if there is none but its own."""
    new = version_of(machine, public_id, "to") if public_id else machine.current_version
    return new if new is not None and new != old else None


def _progress(request: HttpRequest) -> Progress:
    return Progress(*(_count(request, name) for name in Progress._fields))


def _count(request: HttpRequest, name: str) -> int:
    text = request.POST.get(name, "0")
    if not text.isascii() or not text.isdigit() or len(text) > COUNT_DIGITS_MAX:
        raise InvalidParameter(f"{name} must be a number", name)
    return int(text)


def _page(
    request: HttpRequest,
    member: Member,
    old: MachineVersion,
    new: MachineVersion | None,
    context: dict[str, Any],
) -> HttpResponse:
    machine = old.machine
    where = state_counts.whereabouts(machine)
    states = where.living_on(old.pk)
    org = member.org.public_id
    url = reverse("upgrade-page", args=[org, machine.slug, old.public_id])
    context |= {
        "org": member.org,
        "machine": machine,
        "old": old,
        "new": new,
        "old_name": version_name(old),
        "new_name": version_name(new),
        "steps": steps_from(edges_of(machine), old.pk).get(new.pk, 0) if new else 0,
        "count": sum(states.values()),
        "done_count": where.versions.get(old.pk, 0) - sum(states.values()),
        "where": where,
        "refusal": member.refusal(SCOPE),
        "url": url,
    }
    if new is not None and where.total <= state_counts.COUNTED_MAX:
        noted = instances_of(machine).filter(version=old, desired_version=new)
        context["noted"] = noted.count()
    if "progress" in context:
        total = max(where.total, 1)
        context["percent"] = min(100 * context["progress"].looked_at // total, 99)
    if request.headers.get("HX-Request"):
        return render(request, "instances/_upgrading.html", context)
    shares = shares_of(states)
    return render_page(
        request,
        member,
        "instances/upgrade.html",
        {
            **of_machine(member, machine, "versions", where),
            **context,
            "shares": shares[:STATES_SHOWN],
            "more_shares": max(len(shares) - STATES_SHOWN, 0),
            "sample_max": SAMPLE,
            "instances_url": reverse("instances-page", args=[org, machine.slug])
            + f"?version={old.public_id}",
            "sample_url": f"{url}/sample?to={new.public_id}" if new else "",
            "new_migration_url": reverse("new-migration", args=[org, machine.slug])
            + f"?from={old.public_id}"
            + (f"&to={new.public_id}" if new else ""),
        },
        section="machines",
    )


@require_GET
@org_page
def upgrade_sample(
    request: HttpRequest, member: Member, machine: str, version: str
) -> HttpResponse:
    """A part of the page: how upgrading a few of them would turn out."""
    require_scope(member, SEE_ALL)
    found = get_machine(member.caller, machine)
    old = version_of(found, version, "version")
    new = version_of(found, request.GET.get("to", ""), "to")
    chosen = sample_of(state_counts.whereabouts(found), old)
    context = {
        "org": member.org,
        "machine": found,
        "sample": try_sample(chosen, old, new),
        "new_name": version_name(new),
    }
    return render(request, "instances/_upgrade_sample.html", context)
