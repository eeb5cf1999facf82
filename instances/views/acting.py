"""Acting on an instance: send, pause and resume, delete, fire or cancel a timer."""

import json
import time
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST
from django_htmx.http import HttpResponseClientRedirect

from authz.members import Member
from instances import deliveries
from instances.engine import door
from instances.engine.holding import Resume, resume_named
from instances.engine.store import DONE
from instances.models import Instance
from instances.pages import acting, parts, upgrading
from instances.pages.asked import SEE_ALL, instance_of, now_ms, require_scope
from instances.pages.definitions import definition_of
from instances.pages.privacy import public_outcome
from instances.pages.sending import choices_of
from instances.pages.words import leaves_of, version_name
from instances.upgrading import set_desired_version
from machines.access import version_of
from statebacked_site.errors import DomainError, InvalidParameter
from statebacked_site.frame import org_page, tell


@require_http_methods(["GET", "POST"])
@org_page
def instance_send(
    request: HttpRequest, member: Member, machine: str, instance: str
) -> HttpResponse:
    """The drawer; by POST, what an event did or would do."""
    require_scope(member, "events.write")
    found = instance_of(member, machine, instance)
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
            require_scope(member, "instances.admin")
            return {}
        case _:
            require_scope(member, "instances.admin")
            return acting.claims_json(request.POST.get("claims", ""))


@require_POST
@org_page
def instance_pause(
    request: HttpRequest, member: Member, machine: str, instance: str
) -> HttpResponse:
    require_scope(member, "instances.admin")
    found = instance_of(member, machine, instance)
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
    require_scope(member, "instances.admin")
    found = instance_of(member, machine, instance)
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


@require_http_methods(["GET", "POST"])
@org_page
def instance_upgrade(
    request: HttpRequest, member: Member, machine: str, instance: str
) -> HttpResponse:
    """Which versions it can have; by POST, how an upgrade would turn out, or that it is to be."""
    require_scope(member, "instances.write")
    found = instance_of(member, machine, instance)
    page_url = reverse("instance-page", args=[member.org.public_id, machine, instance])
    context: dict[str, Any] = {"org": member.org, "machine": found.machine, "instance": found}
    if request.method == "GET":
        targets = upgrading.targets_of(found, found.machine)
        possible = [target for target in targets if target.steps]
        preferred = [one for one in possible if one.is_desired or one.is_current] or possible
        context |= {
            "targets": targets,
            "chosen": preferred[0].version.public_id if preferred else "",
            "own_name": version_name(found.version),
            "desired": upgrading.pending_of(found, found.machine).desired,
            "is_done": found.state.endswith(DONE),
            "new_migration_url": reverse("new-migration", args=[member.org.public_id, machine]),
        }
        return render(request, "instances/_upgrade.html", context)
    doing = request.POST.get("do", "")
    try:
        if doing == "cancel":
            set_desired_version(found, found.version)
            tell(request, f"{found.slug} stays on {version_name(found.version)}")
            return _back(request, page_url)
        version = version_of(found.machine, request.POST.get("version", ""), "version")
        if doing == "try":
            tried = upgrading.try_one(found, version, sees_all=member.may(SEE_ALL))
            context |= {"tried": tried, "name": version_name(version)}
            return render(request, "instances/_tried.html", context)
        set_desired_version(found, version)
    except DomainError as error:
        if not request.headers.get("HX-Request"):
            raise
        return render(request, "instances/_tried.html", {"complaint": str(error)})
    tell(request, f"{found.slug} upgrades to {version_name(version)} before its next event")
    return _back(request, page_url)


def _back(request: HttpRequest, url: str) -> HttpResponse:
    return HttpResponseClientRedirect(url) if request.headers.get("HX-Request") else redirect(url)


@require_POST
@org_page
def instance_timer(
    request: HttpRequest, member: Member, machine: str, instance: str, timer: int
) -> HttpResponse:
    """Fire a pending timer now, or cancel it."""
    require_scope(member, "instances.admin")
    found = instance_of(member, machine, instance)
    if request.POST.get("do") == "fire":
        deliveries.fire_now(member.caller, timer, now_ms())
    else:
        deliveries.cancel(member.caller, timer)
    context = {
        "instance": found,
        "org": member.org,
        "machine": found.machine,
        "timers": parts.timers_of(found, now_ms()),
        "admin_refusal": "",
    }
    return render(request, "instances/_timers.html", context)
