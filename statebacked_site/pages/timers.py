"""All that is still to happen in an org: pending timers and messages, what is overdue first."""

import time
from typing import Any, NamedTuple

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST, require_safe

from authz.members import Member
from authz.models import Org
from instances import deliveries
from instances.models import Delivery, Instance
from instances.pages.words import Leaf, leaves_of
from machines.models import Machine
from statebacked_site import base64url, words
from statebacked_site.errors import InvalidParameter
from statebacked_site.frame import org_page, render_page, tell
from statebacked_site.json_text import parse_json, write_json

ROWS = 50
HOURS = 24
HOUR_MS = 3_600_000
FORECAST_MAX = 50_000  # timers that the forecast looks at
LATE_MS = 5_000  # what is due for longer is late, and not just on its way
BAR_WIDTH, BAR_STEP, BAR_HEIGHT = 36, 46, 88


class Row(NamedTuple):
    delivery: Delivery
    machine: str  # empty if it is gone
    event: deliveries.EventWords
    leaves: list[Leaf]  # where the instance is now
    is_late: bool

    @property
    def more_leaves(self) -> int:
        return len(self.leaves) - 1


class Bar(NamedTuple):
    """An hour of the forecast, in units of its picture."""

    number: int
    hour: str
    x: int
    y: int
    height: int
    label_x: int
    kind: str


@require_safe
@org_page
def timers_page(request: HttpRequest, member: Member) -> HttpResponse:
    now_ms = time.time_ns() // 1_000_000
    machine, prefix = request.GET.get("machine", ""), request.GET.get("q", "").strip()
    waiting = deliveries.pending(member.caller)
    shown = filtered(waiting, member.org, machine, prefix)
    found = list(after(shown, request.GET.get("after"))[: ROWS + 1])
    cursor = cursor_of(found[ROWS - 1]) if len(found) > ROWS else None
    context = {
        "rows": rows_of(found[:ROWS], now_ms),
        "cursor": cursor,
        "q": prefix,
        "machine": machine,
        "machines": machine_names(member.org),
        "has_any": bool(found) or waiting.exists(),
        "total": waiting[: words.COUNT_EXACT_MAX + 1].count(),
        "bars": forecast(member.org, now_ms),
        "refusal": member.refusal(deliveries.SCOPE),
    }
    part = request.headers.get("HX-Request")
    template = "site/_timers.html" if part else "site/timers.html"
    return render_page(request, member, template, context, section="timers")


@require_POST
@org_page
def timer_action(request: HttpRequest, member: Member, timer: int) -> HttpResponse:
    """Fire it now, or cancel it."""
    match request.POST.get("action"):
        case "fire":
            deliveries.fire_now(member.caller, timer, time.time_ns() // 1_000_000)
            tell(request, "It fires now")
        case "cancel":
            deliveries.cancel(member.caller, timer)
            tell(request, "The timer was cancelled")
        case _:
            raise InvalidParameter("Say fire or cancel", "action")
    return redirect("timers-page", member.org.public_id)


def filtered(waiting: Any, org: Org, machine: str, prefix: str) -> Any:
    if "\0" in machine + prefix:
        return waiting.none()
    if machine:
        waiting = waiting.filter(
            target_machine_id__in=Machine.objects.filter(org=org, slug=machine).values("pk")
        )
    if prefix:
        waiting = waiting.filter(target_slug__startswith=prefix)
    return waiting


def rows_of(found: list[Delivery], now_ms: int) -> list[Row]:
    machines = machines_by_id(found)
    leaves = leaves_by_target(found)
    return [
        Row(
            delivery,
            machines.get(delivery.target_machine_id, ""),
            deliveries.event_words(delivery.event),
            leaves.get((delivery.target_machine_id, delivery.target_slug), []),
            delivery.due_at < now_ms - LATE_MS,
        )
        for delivery in found
    ]


def machines_by_id(found: list[Any]) -> dict[int, str]:
    ids = {delivery.target_machine_id for delivery in found}
    return dict(Machine.objects.filter(pk__in=ids).values_list("pk", "slug"))


def leaves_by_target(found: list[Any]) -> dict[tuple[int, str], list[Leaf]]:
    """Where the targets are now; one query for all."""
    instances = Instance.objects.filter(
        machine_id__in={delivery.target_machine_id for delivery in found},
        slug__in={delivery.target_slug for delivery in found},
    ).values_list("machine_id", "slug", "state")
    return {(machine, slug): leaves_of(state) for machine, slug, state in instances}


def machine_names(org: Org) -> list[str]:
    return list(Machine.objects.filter(org=org).order_by("slug").values_list("slug", flat=True))


def forecast(org: Org, now_ms: int) -> list[Bar]:
    """How many are due in each of the next hours; the first holds what is overdue."""
    hour_ms = now_ms // HOUR_MS * HOUR_MS
    due = Delivery.objects.filter(org_id=org.pk, due_at__lt=hour_ms + HOURS * HOUR_MS)
    numbers = [0] * HOURS
    for due_at in due.order_by("due_at").values_list("due_at", flat=True)[:FORECAST_MAX]:
        numbers[max((due_at - hour_ms) // HOUR_MS, 0)] += 1
    most = max(numbers)
    if most == 0:
        return []
    return [_bar(index, number, most, hour_ms) for index, number in enumerate(numbers)]


def _bar(index: int, number: int, most: int, hour_ms: int) -> Bar:
    height = max(round(BAR_HEIGHT * number / most), 2) if number else 0
    kind = "now" if index == 0 else "warn" if number == most and most > 1 else "c"
    return Bar(
        number=number,
        hour=f"{(hour_ms // HOUR_MS + index) % 24:02}",
        x=index * BAR_STEP + 5,
        y=BAR_HEIGHT + 16 - height,
        height=height,
        label_x=index * BAR_STEP + 5 + BAR_WIDTH // 2,
        kind=kind,
    )


def cursor_of(delivery: Delivery) -> str:
    return base64url.encode(write_json([delivery.due_at, delivery.pk]))


def after(waiting: Any, cursor: str | None) -> Any:
    """The rows behind `cursor`; raises InvalidParameter for one that no page has given."""
    if not cursor:
        return waiting
    try:
        match parse_json(base64url.decode(cursor[:200])):
            case [int(due_at), int(key)] if abs(due_at) < 2**63 and abs(key) < 2**63:
                return waiting.filter(due_at__gte=due_at).exclude(due_at=due_at, pk__lte=key)
    except ValueError:
        pass
    raise InvalidParameter("The cursor is none that this list has given", "after")
