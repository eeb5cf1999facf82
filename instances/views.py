"""Pages of instances: the list of a machine's, and one with its diagram, history and actions."""

import json
import shlex
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_htmx.http import HttpResponseClientRedirect

from authz.errors import MissingScope
from authz.members import Member
from authz.models import Org, User
from instances import deliveries
from instances.access import get_instance, instances_of
from instances.engine import door
from instances.engine.holding import Resume, resume_named
from instances.explain import Definition, why_refused
from instances.models import Instance
from instances.pages import acting, parts
from instances.pages.context_tree import tree_of
from instances.pages.definitions import definition_of, known_definition
from instances.pages.lanes import lanes_of
from instances.pages.lights import lights_of
from instances.pages.listing import (
    ORDERS,
    STATES_OFFERED,
    Listing,
    list_instances,
    newest_id,
)
from instances.pages.listing import Filter as ListFilter
from instances.pages.moment import Moment, moment_of
from instances.pages.privacy import public_moment, public_outcome, public_row
from instances.pages.relatives import relatives_of
from instances.pages.sending import choices_of
from instances.pages.timeline import (
    BLOCK,
    BLOCKS_MAX,
    ERRORS,
    SOURCES,
    Block,
    Filter,
    Row,
    blocks_around,
    blocks_of,
    matches_before,
)
from instances.pages.words import leaves_of, version_name
from machines import diagrams
from machines.access import get_machine
from machines.models import Machine, MachineVersion
from machines.views import of_machine
from statebacked_site.errors import DomainError, InvalidParameter
from statebacked_site.frame import org_page, render_page, tell
from statebacked_site.welcome import this_site

SECTION = "machines"
SEE_ALL = "instances.admin"  # the whole context, events and their senders
CONTEXT_BYTES_MAX = 400_000
TEXT_CHARS_MAX = 128
TAB_ICONS = {
    "timeline": "history",
    "context": "code",
    "timers": "clock",
    "family": "tree",
    "logs": "logs",
    "raw": "file",
}
TABS = tuple(TAB_ICONS)
RAW_CHARS_MAX = 60_000
PEOPLE_MAX = 1_000
NEWER_COUNTED_MAX = 99
EVENT_CHARS_MAX = 1_000
EVENTS_OFFERED = 200  # to filter the timeline by


# --- The list -----------------------------------------------------------------------------------


@require_http_methods(["GET", "POST"])
@org_page
def instances_page(request: HttpRequest, member: Member, machine: str) -> HttpResponse:
    found = get_machine(member.caller, machine)
    if request.method == "POST":
        return _create(request, member, found)
    newer_than = _number(request.GET.get("newer_than"), "newer_than")
    if newer_than is not None:
        return _newer(request, member, found, newer_than)
    return _list(request, member, found, {})


def _newer(request: HttpRequest, member: Member, machine: Machine, newer_than: int) -> HttpResponse:
    """How many instances were created since the list was shown; it asks again by itself."""
    _require(member, "instances.read")
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
    _require(member, "instances.read")
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
    _require(member, "instances.write")
    form: dict[str, Any] = {
        name: request.POST.get(name, "") for name in ("slug", "context", "version", "claims")
    }
    claims = member.caller.auth_context
    try:
        if form["claims"].strip():
            _require(member, "instances.admin")
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


# --- One instance -------------------------------------------------------------------------------


@require_GET
@org_page
def instance_page(
    request: HttpRequest, member: Member, machine: str, instance: str
) -> HttpResponse:
    _require(member, "instances.read")
    found = _instance(member, machine, instance)
    at = _number(request.GET.get("at"), "at")
    tab = request.GET.get("tab", "timeline")
    if tab not in TABS:
        raise InvalidParameter("There is no such tab", "tab")
    context = _page_context(member, found, at, tab)
    moment = context["moment"]
    context |= {
        # What was never drawn is fetched by the page, so that nobody waits for it to begin with.
        "drawing": diagrams.stored_panel(moment.version_id),
        "commands": _commands(context["page_url"], member, is_past=context["is_past"]),
        "view": request.GET.get("view", ""),
        **_timeline(request, member, found, moment.version_id),
    }
    if context["matches"] is None:
        context["blocks"] = _blocks(member, found, blocks_around(moment.seq, found.seq), context)
    return render_page(request, member, "instances/detail.html", context, section=SECTION)


def _timeline(
    request: HttpRequest, member: Member, instance: Instance, version_id: int
) -> dict[str, Any]:
    """The timeline's form, and what it lets through; `matches` is None if it shows everything."""
    wanted = Filter(request.GET.get("event", "")[:EVENT_CHARS_MAX], request.GET.get("source", ""))
    if wanted.source not in ("", ERRORS, *SOURCES):
        raise InvalidParameter("There is no such source of events", "source")
    definition = known_definition(version_id)
    lanes = lanes_of(definition.graph) if definition is not None else []
    shown_lanes = lanes if "lanes" in request.GET else []
    context: dict[str, Any] = {
        "wanted": wanted,
        "is_filtered": any(wanted),
        "sources": SOURCES,
        "event_types": _event_types(definition, wanted),
        "lanes": shown_lanes,
        "has_lanes": bool(lanes),
        "block_size": BLOCK,
        "matches": None,
    }
    if any(wanted):
        query = {"event": wanted.event, "source": wanted.source} | (
            {"lanes": "1"} if shown_lanes else {}
        )
        context["filter_query"] = urlencode(query)
        before = _number(request.GET.get("before"), "before") or instance.seq + 1
        found = matches_before(instance.pk, wanted, before, shown_lanes)
        context["matches"] = found._replace(rows=list(map(_sight_of(member), found.rows)))
    return context


def _event_types(definition: Definition | None, wanted: Filter) -> list[str]:
    """What the timeline offers to choose among."""
    known = definition.events()[:EVENTS_OFFERED] if definition is not None else []
    return [*known, *([wanted.event] if wanted.event and wanted.event not in known else [])]


def _blocks(
    member: Member, instance: Instance, numbers: list[int], timeline: Mapping[str, Any]
) -> list[Block]:
    see = _sight_of(member)
    blocks = blocks_of(instance.pk, numbers[:BLOCKS_MAX], timeline["lanes"])
    return [block._replace(rows=[see(row) for row in block.rows]) for block in blocks]


def _commands(page_url: str, member: Member, *, is_past: bool) -> list[dict[str, str]]:
    """What the palette offers on the page."""
    commands = []
    if member.may("events.write"):
        commands.append({"title": "Send event…", "icon": "send", "url": f"{page_url}?send"})
    if is_past:
        commands.append({"title": "Return to now", "icon": "history", "url": page_url})
    for tab, icon in TAB_ICONS.items():
        commands.append({"title": f"Show {tab}", "icon": icon, "url": f"{page_url}?tab={tab}"})
    return commands


@require_GET
@org_page
def instance_moment(
    request: HttpRequest, member: Member, machine: str, instance: str
) -> HttpResponse:
    """The parts of the page that differ from moment to moment: head, tab, and what to light up.

    With `blocks`, these blocks of the timeline as well, or the newest ones: one request for all.
    """
    _require(member, "instances.read")
    found = _instance(member, machine, instance)
    tab = request.GET.get("tab", "timeline")
    if tab not in TABS:
        raise InvalidParameter("There is no such tab", "tab")
    context = _page_context(member, found, _number(request.GET.get("at"), "at"), tab)
    numbers = _block_numbers(request, found)
    if numbers:
        timeline = _timeline(request, member, found, context["moment"].version_id)
        context |= timeline | {"blocks": _blocks(member, found, numbers, timeline)}
    return render(request, "instances/_moment.html", context)


def _block_numbers(request: HttpRequest, instance: Instance) -> list[int]:
    """Those that `blocks` names, such as `12,13`, or with `newest` those that it begins with."""
    text = request.GET.get("blocks", "")
    if text == "newest":
        return blocks_around(instance.seq, instance.seq)
    numbers = [_number(one, "blocks") for one in text.split(",")[:BLOCKS_MAX]]
    return [number for number in numbers if number is not None]


def _page_context(member: Member, instance: Instance, at: int | None, tab: str) -> dict[str, Any]:
    if at is not None and at >= instance.seq:
        at = None
    moment = moment_of(instance, at)
    sees_all = member.may(SEE_ALL)
    if not sees_all:
        moment = public_moment(moment)
    definition = known_definition(moment.version_id)
    version = MachineVersion.objects.filter(pk=moment.version_id).first()
    urls = {"org": member.org.public_id, "machine": instance.machine.slug}
    return {
        "org": member.org,
        "machine": instance.machine,
        "instance": instance,
        "moment": moment,
        "tab": tab,
        "tabs": TABS,
        "page_url": reverse("instance-page", kwargs={**urls, "instance": instance.slug}),
        "sees_all": sees_all,
        "is_past": at is not None,
        "previous_seq": moment.seq - 1,
        "next_seq": moment.seq + 1,
        "is_paused": instance.status == Instance.Status.PAUSED,
        "paused_ms": instance.paused_at,
        "services": acting.services_of(instance.children),
        "version": version,
        "version_name": version_name(version),
        "timer_count": parts.timer_count(instance),
        "lights": json.dumps(
            lights_of(definition, moment, is_past=at is not None)
            | {"tab": tab, "picture": _picture_url(urls, version)}
        ),
        "admin_refusal": member.refusal("instances.admin"),
        "send_refusal": member.refusal("events.write"),
        **_tab_context(instance, moment, tab, member.org.public_id, is_past=at is not None),
    }


def _picture_url(urls: Mapping[str, str], version: MachineVersion | None) -> str:
    if version is None:
        return ""
    return reverse("version-diagram", kwargs={**urls, "version": version.public_id})


def _tab_context(
    instance: Instance, moment: Moment, tab: str, org: str, *, is_past: bool
) -> dict[str, Any]:
    match tab:
        case "context":
            byte_count = len(moment.context.encode())
            return {
                "tree": tree_of(moment.context, moment.context_before),
                "context_bytes": byte_count,
                "context_share": round(byte_count * 56 / CONTEXT_BYTES_MAX),
                "claims_text": json.dumps(moment.claims, ensure_ascii=False)
                if moment.claims
                else "",
            }
        case "timers":
            return {
                "timers": parts.timers_of(instance, _now_ms()),
                "dead_letters": parts.dead_letter_count(instance),
            }
        case "family":
            return {"family": relatives_of(instance, org)}
        case "logs":
            return {"logs": parts.logs_of(instance, moment if is_past else None)}
        case "raw":
            return {"raw": _raw(instance, moment)}
    return {}


def _raw(instance: Instance, moment: Moment) -> dict[str, str]:
    return {
        "state": json.dumps(moment.value, indent=2, ensure_ascii=False)[:RAW_CHARS_MAX],
        "context": json.dumps(json.loads(moment.context), indent=2, ensure_ascii=False)[
            :RAW_CHARS_MAX
        ],
        "event": moment.event,
        "curl": (
            f"curl -H 'Authorization: Bearer …' {settings.PUBLIC_URL}"
            f"/api/machines/{instance.machine.slug}/i/{instance.slug}/admin"
        ),
    }


@require_GET
@org_page
def instance_timeline(
    request: HttpRequest, member: Member, machine: str, instance: str
) -> HttpResponse:
    """The timeline around a moment, or what a filter lets through."""
    _require(member, "instances.read")
    found = _instance(member, machine, instance)
    seq = min(_number(request.GET.get("at"), "at") or found.seq, found.seq)
    context = _timeline(request, member, found, found.version_id) | {
        "instance": found,
        "page_url": reverse("instance-page", args=[member.org.public_id, machine, instance]),
    }
    if context["matches"] is None:
        context["blocks"] = _blocks(member, found, blocks_around(seq, found.seq), context)
    return render(request, "instances/_timeline.html", context)


@require_GET
@org_page
def instance_rows(
    request: HttpRequest, member: Member, machine: str, instance: str
) -> HttpResponse:
    """More of the timeline: the `blocks` with these numbers, or what a filter finds `before`."""
    _require(member, "instances.read")
    found = _instance(member, machine, instance)
    context: dict[str, Any] = {
        "instance": found,
        "page_url": reverse("instance-page", args=[member.org.public_id, machine, instance]),
        **_timeline(request, member, found, found.version_id),
    }
    if context["matches"] is not None:
        return render(request, "instances/_matches.html", context)
    context["blocks"] = _blocks(member, found, _block_numbers(request, found), context)
    return render(request, "instances/_blocks.html", context)


# --- Actions ------------------------------------------------------------------------------------


@require_http_methods(["GET", "POST"])
@org_page
def instance_send(
    request: HttpRequest, member: Member, machine: str, instance: str
) -> HttpResponse:
    """The drawer; by POST, what an event did or would do."""
    _require(member, "events.write")
    found = _instance(member, machine, instance)
    definition = definition_of(found.version_id)
    if request.method == "GET":
        context = {
            "org": member.org,
            "machine": found.machine,
            "instance": found,
            "me": member.user.public_id,
            "choices": choices_of(
                found,
                definition,
                request.GET.get("event", ""),
                with_payloads=member.may(SEE_ALL),
            ),
            "claims_refusal": member.refusal("instances.admin"),
            "leaves": leaves_of(found.state),
        }
        return render(request, "instances/_send.html", context)
    is_preview = request.POST.get("do") == "preview"
    try:
        event_type = request.POST.get("event") or request.POST.get("other", "")
        event = acting.event_json(event_type.strip(), request.POST.get("payload", ""))
        claims = _claims(request, member)
    except DomainError as error:
        return render(request, "instances/_outcome.html", {"complaint": str(error)})
    act = acting.try_out if is_preview else acting.send
    started = time.monotonic()
    outcome = act(found, event, claims, definition)
    if not member.may(SEE_ALL):
        outcome = public_outcome(outcome)
    context = {
        "outcome": outcome,
        "is_preview": is_preview,
        "took_ms": (time.monotonic() - started) * 1_000,
        "preview_paths": json.dumps(
            [leaf.path for leaf in outcome.after]
            if is_preview and outcome.kind == "changed"
            else []
        ),
    }
    return render(request, "instances/_outcome.html", context)


def _claims(request: HttpRequest, member: Member) -> dict[str, Any]:
    """With whose claims to act: one's own, chosen ones, or none at all."""
    match request.POST.get("as", "me"):
        case "me":
            return member.caller.auth_context
        case "nobody":
            _require(member, "instances.admin")
            return {}
        case _:
            _require(member, "instances.admin")
            return acting.claims_json(request.POST.get("claims", ""))


@require_POST
@org_page
def instance_pause(
    request: HttpRequest, member: Member, machine: str, instance: str
) -> HttpResponse:
    _require(member, "instances.admin")
    found = _instance(member, machine, instance)
    is_resuming = request.POST.get("status") == "running"
    status = Instance.Status.RUNNING if is_resuming else Instance.Status.PAUSED
    try:
        timers = resume_named(request.POST.get("timers", Resume.ORIGINAL.label))
    except KeyError as exc:
        raise InvalidParameter("Choose when its timers fire", "timers") from exc
    door.set_status(found.pk, status, timers)
    tell(request, f"{found.slug} is {'running again' if is_resuming else 'paused'}")
    return redirect("instance-page", member.org.public_id, machine, instance)


@require_http_methods(["GET", "POST"])
@org_page
def instance_delete(
    request: HttpRequest, member: Member, machine: str, instance: str
) -> HttpResponse:
    """What deleting it would take; by POST with its name typed, do it."""
    _require(member, "instances.admin")
    found = _instance(member, machine, instance)
    services = acting.services_of(found.children)
    context = {
        "org": member.org,
        "machine": found.machine,
        "instance": found,
        "stakes": parts.stakes_of(found, len(services)),
    }
    if request.method == "GET":
        return render(request, "instances/_delete.html", context)
    if request.POST.get("name") != found.slug:
        context["error"] = "That is not the name of this instance."
        return render(request, "instances/_delete.html", context)
    door.delete_instance(found.pk)
    tell(request, f"{found.slug} is deleted")
    return HttpResponseClientRedirect(
        reverse("instances-page", args=[member.org.public_id, machine])
    )


@require_POST
@org_page
def instance_timer(
    request: HttpRequest, member: Member, machine: str, instance: str, timer: int
) -> HttpResponse:
    """Fire a pending timer now, or cancel it."""
    _require(member, "instances.admin")
    found = _instance(member, machine, instance)
    if request.POST.get("do") == "fire":
        deliveries.fire_now(member.caller, timer, _now_ms())
    else:
        deliveries.cancel(member.caller, timer)
    context = {
        "instance": found,
        "org": member.org,
        "machine": found.machine,
        "timers": parts.timers_of(found, _now_ms()),
        "admin_refusal": "",
    }
    return render(request, "instances/_timers.html", context)


# --- Look-ups -----------------------------------------------------------------------------------


def _instance(member: Member, machine: str, slug: str) -> Instance:
    instance = get_instance(member.caller, machine, slug)
    instance.machine = get_machine(member.caller, machine)
    return instance


def _sight_of(member: Member) -> Callable[[Row], Row]:
    """Makes of a row what this member may see of it."""
    if not member.may(SEE_ALL):
        return public_row
    people = people_of(member.org)
    return lambda row: row.naming(people)


def people_of(org: Org) -> dict[str, str]:
    """E-mail addresses of the org's members, by what the machine knows them as."""
    members = User.objects.filter(memberships__org=org).values_list("public_id", "email")
    return dict(members[:PEOPLE_MAX])


def _require(member: Member, scope: str) -> None:
    refusal = member.refusal(scope)
    if refusal:
        raise MissingScope(refusal)


def _number(text: str | None, parameter: str) -> int | None:
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidParameter(f"{parameter} is no number of a transition", parameter)
    return int(text)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
