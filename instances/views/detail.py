"""One instance: its diagram, its history, and the tabs beside it."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from authz.members import Member
from instances.explain import Definition
from instances.models import Instance
from instances.pages import acting, parts, upgrading
from instances.pages.asked import SEE_ALL, instance_of, now_ms, number_in, require_scope, sight_of
from instances.pages.context_tree import tree_of
from instances.pages.definitions import known_definition
from instances.pages.lanes import lanes_of
from instances.pages.lights import lights_of
from instances.pages.moment import Moment, moment_of
from instances.pages.privacy import public_moment
from instances.pages.reasons import reason_of
from instances.pages.relatives import relatives_of
from instances.pages.timeline import (
    BLOCK,
    BLOCKS_MAX,
    ERRORS,
    IGNORED,
    SOURCES,
    Block,
    Filter,
    blocks_around,
    blocks_of,
    matches_before,
)
from instances.pages.words import version_name
from machines import diagrams
from machines.models import MachineVersion
from statebacked_site.errors import InvalidParameter
from statebacked_site.frame import org_page, render_page

SECTION = "machines"
CONTEXT_BYTES_MAX = 400_000
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
EVENT_CHARS_MAX = 1_000
EVENTS_OFFERED = 200  # to filter the timeline by


@require_GET
@org_page
def instance_page(
    request: HttpRequest, member: Member, machine: str, instance: str
) -> HttpResponse:
    require_scope(member, "instances.read")
    found = instance_of(member, machine, instance)
    at = number_in(request.GET.get("at"), "at")
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
    if wanted.source not in ("", ERRORS, IGNORED, *SOURCES):
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
        before = number_in(request.GET.get("before"), "before") or instance.seq + 1
        found = matches_before(instance.pk, wanted, before, shown_lanes)
        context["matches"] = found._replace(rows=list(map(sight_of(member), found.rows)))
    return context


def _event_types(definition: Definition | None, wanted: Filter) -> list[str]:
    """What the timeline offers to choose among."""
    known = definition.events()[:EVENTS_OFFERED] if definition is not None else []
    return [*known, *([wanted.event] if wanted.event and wanted.event not in known else [])]


def _blocks(
    member: Member, instance: Instance, numbers: list[int], timeline: Mapping[str, Any]
) -> list[Block]:
    see = sight_of(member)
    blocks = blocks_of(instance.pk, numbers[:BLOCKS_MAX], timeline["lanes"])
    return [block._replace(rows=[see(row) for row in block.rows]) for block in blocks]


def _commands(page_url: str, member: Member, *, is_past: bool) -> list[dict[str, str]]:
    """What the palette offers on the page."""
    commands = []
    if member.may("events.write"):
        commands.append({"title": "Send event…", "icon": "send", "url": f"{page_url}?send"})
    if member.may("instances.write") and not is_past:
        commands.append({"title": "Upgrade…", "icon": "versions", "url": f"{page_url}?upgrade"})
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
    require_scope(member, "instances.read")
    found = instance_of(member, machine, instance)
    tab = request.GET.get("tab", "timeline")
    if tab not in TABS:
        raise InvalidParameter("There is no such tab", "tab")
    context = _page_context(member, found, number_in(request.GET.get("at"), "at"), tab)
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
    numbers = [number_in(one, "blocks") for one in text.split(",")[:BLOCKS_MAX]]
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
        "upgrade": upgrading.pending_of(instance, instance.machine),
        "upgrade_refusal": member.refusal("instances.write"),
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
                "timers": parts.timers_of(instance, now_ms()),
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
    require_scope(member, "instances.read")
    found = instance_of(member, machine, instance)
    seq = min(number_in(request.GET.get("at"), "at") or found.seq, found.seq)
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
    require_scope(member, "instances.read")
    found = instance_of(member, machine, instance)
    context: dict[str, Any] = {
        "instance": found,
        "page_url": reverse("instance-page", args=[member.org.public_id, machine, instance]),
        **_timeline(request, member, found, found.version_id),
    }
    if context["matches"] is not None:
        return render(request, "instances/_matches.html", context)
    context["blocks"] = _blocks(member, found, _block_numbers(request, found), context)
    return render(request, "instances/_blocks.html", context)


@require_GET
@org_page
def instance_reason(
    request: HttpRequest, member: Member, machine: str, instance: str, note: int
) -> HttpResponse:
    """Why an event of the timeline led to no transition."""
    require_scope(member, "instances.read")
    found = instance_of(member, machine, instance)
    reason = reason_of(found, note, sees_all=member.may(SEE_ALL))
    return render(request, "instances/_reason.html", {"reason": reason})
