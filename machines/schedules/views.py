"""The pages of a machine's schedules: the list, and the form of one."""

import time
from dataclasses import asdict, dataclass
from typing import Any
from zoneinfo import available_timezones

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from authz.members import Member
from authz.permissions import require
from machines.access import get_machine
from machines.models import Machine
from machines.schedules import service
from machines.schedules.cron import checked_cron, checked_zone, next_runs
from machines.schedules.models import Schedule
from machines.schedules.serializers import NEXT_RUNS
from machines.views import of_machine
from statebacked_site.errors import Conflict, InvalidParameter
from statebacked_site.frame import org_page, render_page, tell
from statebacked_site.json_text import MalformedJson, parse_json

WRITE = "instances.write"
SECTION = "machines"


@dataclass(frozen=True, slots=True)
class Form:
    """What stands in the fields."""

    cron: str = "0 9 * * 1-5"
    time_zone: str = "UTC"
    action: str = "send"
    slug: str = ""
    payload: str = ""


@require_safe
@org_page
def schedules_page(request: HttpRequest, member: Member, machine: str) -> HttpResponse:
    found = get_machine(member.caller, machine)
    context = {
        **of_machine(member, found, "schedules"),
        "schedules": service.schedules_of(found).order_by("id"),
        "write_refusal": member.refusal(WRITE),
    }
    return render_page(request, member, "schedules/list.html", context, section=SECTION)


@require_http_methods(["GET", "HEAD", "POST"])
@org_page
def schedule_form(
    request: HttpRequest, member: Member, machine: str, schedule: str | None = None
) -> HttpResponse:
    """A new schedule, or one that is there: its event or context may be private."""
    require(member.caller, WRITE)
    found = get_machine(member.caller, machine)
    there = service.get_schedule(found, schedule) if schedule is not None else None
    if request.method != "POST":
        form = Form()
        if there is not None:
            form = Form(there.cron, there.time_zone, there.action, there.slug, there.payload)
        return _form_page(request, member, found, there, form)
    posted = request.POST
    form = Form(**{name: posted.get(name, "").strip() for name in asdict(Form())})
    try:
        given = _given(form)
        if there is None:
            service.create_schedule(member.caller, found, given)
        else:
            service.change_schedule(there, given)
    except (InvalidParameter, Conflict) as exc:
        return _form_page(request, member, found, there, form, error=exc)
    tell(request, "The schedule was saved")
    return redirect("schedules-page", member.org.public_id, machine)


def _given(form: Form) -> dict[str, Any]:
    """The form as the API takes it. Raises InvalidParameter."""
    text = form.payload or "{}"
    try:
        payload = parse_json(text)
    except MalformedJson as exc:
        if form.action == Schedule.Action.SEND and not text.startswith(("{", "[", '"')):
            payload = text  # an event without payload may be its type alone
        else:
            raise InvalidParameter(f"It is not valid JSON: {exc}", "payload") from exc
    given: dict[str, Any] = {"cron": form.cron, "time_zone": form.time_zone or "UTC"}
    if form.action == Schedule.Action.CREATE:
        given["create"] = {"slug": form.slug, "context": payload}
    else:
        given["send"] = {"slug": form.slug, "event": payload}
    return given


FIELD_OF_PARAMETER = {
    "cron": "cron",
    "timeZone": "time_zone",
    "slug": "slug",
    "event": "payload",
    "context": "payload",
    "payload": "payload",
}


def _form_page(
    request: HttpRequest,
    member: Member,
    machine: Machine,
    schedule: Schedule | None,
    form: Form,
    error: InvalidParameter | Conflict | None = None,
) -> HttpResponse:
    parameter = getattr(error, "parameter", None) or ""
    context = {
        **of_machine(member, machine, "schedules"),
        "schedule": schedule,
        "form": form,
        "error": str(error).removeprefix(f"{parameter}: ") if error else "",
        "error_at": FIELD_OF_PARAMETER.get(parameter, "form"),
        "zones": sorted(available_timezones()),
        "write_refusal": member.refusal(WRITE),
        **_runs(form.cron, form.time_zone),
    }
    status = error.status if error is not None else 200
    return render_page(
        request, member, "schedules/form.html", context, section=SECTION, status=status
    )


@require_safe
@org_page
def schedule_runs(request: HttpRequest, member: Member, machine: str) -> HttpResponse:
    """The next runs of what stands in the form."""
    get_machine(member.caller, machine)
    runs = _runs(request.GET.get("cron", ""), request.GET.get("time_zone", ""))
    return render(request, "schedules/_runs.html", runs)


def _runs(cron: str, time_zone: str) -> dict[str, Any]:
    try:
        zone = checked_zone(time_zone or "UTC")
        now_ms = time.time_ns() // 1_000_000
        return {"runs": next_runs(checked_cron(cron), zone, now_ms, NEXT_RUNS), "zone": zone}
    except InvalidParameter as exc:
        return {"runs": [], "problem": str(exc).partition(": ")[2]}


@require_POST
@org_page
def schedule_act(request: HttpRequest, member: Member, machine: str, schedule: str) -> HttpResponse:
    """Pause, resume or delete."""
    require(member.caller, WRITE)
    found = service.get_schedule(get_machine(member.caller, machine), schedule)
    match request.POST.get("do"):
        case "pause":
            service.change_schedule(found, {"paused": True})
            tell(request, "The schedule is paused")
        case "resume":
            service.change_schedule(found, {"paused": False})
            tell(request, "The schedule is running again")
        case "delete":
            found.delete()
            tell(request, "The schedule was deleted")
        case _:
            raise InvalidParameter("Say pause, resume or delete", "do")
    return redirect("schedules-page", member.org.public_id, machine)
