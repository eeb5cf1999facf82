"""The list of a machine's instances, and creating one."""

import shlex
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from authz.members import Member
from instances.access import instances_of
from instances.explain import why_refused
from instances.pages import acting
from instances.pages.asked import number_in, require_scope
from instances.pages.definitions import known_definition
from instances.pages.listing import (
    ORDERS,
    STATES_OFFERED,
    Listing,
    list_instances,
    newest_id,
)
from instances.pages.listing import Filter as ListFilter
from instances.pages.words import version_name
from machines.access import get_machine
from machines.models import Machine, MachineVersion
from machines.views import of_machine
from statebacked_site.errors import DomainError
from statebacked_site.frame import org_page, render_page
from statebacked_site.welcome import this_site

SECTION = "machines"
TEXT_CHARS_MAX = 128
NEWER_COUNTED_MAX = 99


@require_http_methods(["GET", "POST"])
@org_page
def instances_page(request: HttpRequest, member: Member, machine: str) -> HttpResponse:
    found = get_machine(member.caller, machine)
    if request.method == "POST":
        return _create(request, member, found)
    newer_than = number_in(request.GET.get("newer_than"), "newer_than")
    if newer_than is not None:
        return _newer(request, member, found, newer_than)
    return _list(request, member, found, {})


def _newer(request: HttpRequest, member: Member, machine: Machine, newer_than: int) -> HttpResponse:
    """How many instances were created since the list was shown; it asks again by itself."""
    require_scope(member, "instances.read")
    newer = instances_of(machine).filter(pk__gt=newer_than)
    context = {
        "newer": newer.values("pk")[: NEWER_COUNTED_MAX + 1].count(),
        "newer_max": NEWER_COUNTED_MAX,
        "newest_id": newer_than,
    }
    return render(request, "instances/_newer.html", context)


def _list(
    request: HttpRequest, member: Member, machine: Machine, form: dict[str, Any], status: int = 200
) -> HttpResponse:
    require_scope(member, "instances.read")
    query = request.GET
    asked = ListFilter(
        text=query.get("q", "").strip().replace("\0", "")[:TEXT_CHARS_MAX],
        state=query.get("state", ""),
        status=query.get("status", ""),
        version=query.get("version", ""),
        order=query.get("sort", "created"),
    )
    listing = list_instances(machine, asked, query.get("after"))
    return render_page(
        request,
        member,
        "instances/list.html",
        {
            **of_machine(member, machine, "instances"),
            "listing": listing,
            "asked": asked,
            "is_first_page": not query.get("after"),
            "newest_id": newest_id(machine),
            "next_url": _with(query, after=listing.cursor) if listing.cursor else "",
            "first_url": _with(query, after=None),
            "sort_urls": {
                name.replace("-", "not_"): _with(query, sort=name, after=None) for name in ORDERS
            },
            "preds": _preds(query, listing.versions),
            "create_refusal": member.refusal("instances.write"),
            "claims_refusal": member.refusal("instances.admin"),
            "clear_url": request.path,
            "other_states": _other_states(machine, listing, asked),
            "create_command": this_site().command(
                f"api POST machines/{machine.slug} " + shlex.quote('{"slug": "first"}')
            ),
            "form": form,
        },
        section=SECTION,
        status=status,
    )


def _other_states(machine: Machine, listing: Listing, asked: ListFilter) -> list[str]:
    """States to filter by that none of the instances looked at is in."""
    seen = {state.path for state in listing.states}
    others = [asked.state] if asked.state else []
    if machine.current_version_id is not None:
        definition = known_definition(machine.current_version_id)
        if definition is not None:
            others += sorted(path for path in definition.graph.paths.values() if path)
    return [path for path in dict.fromkeys(others) if path not in seen][:STATES_OFFERED]


def _with(query: Any, **changes: str | None) -> str:
    """The query string with these values; None takes one away."""
    changed = query.copy()
    for name, value in changes.items():
        if value is None:
            changed.pop(name, None)
        else:
            changed[name] = value
    return f"?{changed.urlencode()}"


def _preds(query: Any, versions: list[MachineVersion]) -> list[dict[str, str]]:
    """The filters that are on, each with the address of the list without it."""
    names = {version.public_id: version_name(version) for version in versions}
    words = [("q", "name", "begins with"), ("state", "state", "is"), ("status", "status", "is"),
             ("version", "version", "is")]  # fmt: skip
    return [
        {
            "name": word,
            "op": op,
            "value": names.get(query[name], query[name]),
            "without": _with(query, **{name: None, "after": None}),
        }
        for name, word, op in words
        if query.get(name)
    ]


def _create(request: HttpRequest, member: Member, machine: Machine) -> HttpResponse:
    require_scope(member, "instances.write")
    form: dict[str, Any] = {
        name: request.POST.get(name, "") for name in ("slug", "context", "version", "claims")
    }
    claims = member.caller.auth_context
    try:
        if form["claims"].strip():
            require_scope(member, "instances.admin")
            claims = acting.claims_json(form["claims"])
        acting.create(
            machine,
            form["slug"].strip(),
            form["context"],
            acting.chosen_version(machine, form["version"]),
            claims,
        )
    except DomainError as error:
        if not acting.is_complaint(error):
            raise
        complaint = str(error)
        if error.status == 403:
            complaint = why_refused(error.code, complaint, claims, form["slug"])
        form |= {
            "error": complaint,
            "parameter": error.parameter or "",
            "is_denied": error.status == 403,
        }
        return _list(request, member, machine, form, status=error.status)
    return redirect("instance-page", member.org.public_id, machine.slug, form["slug"].strip())
