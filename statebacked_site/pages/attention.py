"""What went wrong and waits for a person: dead letters, and deliveries that keep failing."""

import time
from typing import NamedTuple

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from authz.members import Member
from instances import deliveries
from instances.engine.holding import HELD_MS
from instances.models import DeadLetter, Delivery
from instances.pages.words import Leaf
from statebacked_site import words
from statebacked_site.errors import InvalidParameter
from statebacked_site.frame import org_page, render_page, tell
from statebacked_site.pages.timers import leaves_by_target, machines_by_id

ROWS = 50
LATE_MS = 60_000
TRIED_AGAIN_WITHIN_MS = 300_000  # far longer than from one attempt to the next
KINDS = ("all", "letters", "failing")


class Item(NamedTuple):
    """A row: a dead letter, or a delivery that is failing or late."""

    delivery: DeadLetter | Delivery
    is_dead: bool
    machine: str  # empty if it is gone
    event: deliveries.EventWords
    cause: str
    at_ms: int


class Chosen(NamedTuple):
    """The letter beside the list."""

    item: Item
    event: str  # its JSON, as it was edited
    error: str
    leaves: list[Leaf]
    instance_url: str  # empty if the instance is gone


@require_safe
@org_page
def attention_page(request: HttpRequest, member: Member) -> HttpResponse:
    return _page(request, member, request.GET.get("letter", ""))


def _page(
    request: HttpRequest,
    member: Member,
    letter: str,
    *,
    event: str | None = None,
    error: str = "",
) -> HttpResponse:
    kind = request.GET.get("kind", "all")
    if kind not in KINDS:
        raise InvalidParameter(f"The kind is one of {', '.join(KINDS)}", "kind")
    now_ms = time.time_ns() // 1_000_000
    dead = deliveries.letters(member.caller)
    # What has failed is due again soon, or held: so the index by time leads to it, past all the
    # timers that only wait.
    failing = deliveries.pending(member.caller).filter(
        Q(due_at__lt=now_ms - LATE_MS)
        | Q(attempts__gt=0, due_at__lt=now_ms + TRIED_AGAIN_WITHIN_MS)
        | Q(attempts__gt=0, due_at__gte=HELD_MS)
    )
    items = [] if kind == "failing" else items_of(list(dead[:ROWS]))
    items += [] if kind == "letters" else items_of(list(failing[:ROWS]))
    limit = words.COUNT_EXACT_MAX + 1
    numbers = {"letters": dead[:limit].count(), "failing": failing[:limit].count()}
    context = {
        "items": items,
        "kind": kind,
        "tabs": [
            ("all", "All", numbers["letters"] + numbers["failing"]),
            ("letters", "Dead letters", numbers["letters"]),
            ("failing", "Failing or late", numbers["failing"]),
        ],
        "is_cut": max(numbers.values()) > ROWS,
        "rows_max": ROWS,
        "chosen": chosen_of(member, letter, event, error),
        "refusal": member.refusal(deliveries.SCOPE),
    }
    status = 422 if error else 200
    return render_page(
        request, member, "site/attention.html", context, section="attention", status=status
    )


@require_POST
@org_page
def letter_action(request: HttpRequest, member: Member, letter: int) -> HttpResponse:
    """Send it again, as it is or edited, or discard it."""
    match request.POST.get("action"):
        case "redrive":
            deliveries.redrive(member.caller, letter, time.time_ns() // 1_000_000)
            tell(request, "It is sent again now")
        case "edit":
            event = request.POST.get("event", "")
            try:
                deliveries.redrive(member.caller, letter, time.time_ns() // 1_000_000, event)
            except InvalidParameter as exc:
                return _page(request, member, str(letter), event=event, error=str(exc))
            tell(request, "The edited event is sent now")
        case "discard":
            deliveries.discard(member.caller, letter)
            tell(request, "The dead letter was discarded")
        case _:
            raise InvalidParameter("Say redrive, edit or discard", "action")
    return redirect("attention-page", member.org.public_id)


def items_of(found: list[DeadLetter] | list[Delivery]) -> list[Item]:
    machines = machines_by_id(list(found))
    return [_item(delivery, machines.get(delivery.target_machine_id, "")) for delivery in found]


def _item(delivery: DeadLetter | Delivery, machine: str) -> Item:
    if isinstance(delivery, DeadLetter):
        cause = f"{delivery.attempts} tries, then: {delivery.reason}"
        at_ms = delivery.died_at
    elif delivery.last_error:
        cause = f"{delivery.attempts} tries so far, the last: {delivery.last_error}"
        at_ms = delivery.planned_at
    else:
        cause = "It is due and was not delivered yet"
        at_ms = delivery.planned_at
    return Item(
        delivery,
        isinstance(delivery, DeadLetter),
        machine,
        deliveries.event_words(delivery.event),
        cause,
        at_ms,
    )


def chosen_of(member: Member, letter: str, event: str | None, error: str) -> Chosen | None:
    """The letter that the address names, if it is still there."""
    if not letter.isdecimal() or len(letter) > 18:
        return None
    found = deliveries.letters(member.caller).filter(pk=int(letter)).first()
    if found is None:
        return None
    item = items_of([found])[0]
    leaves = leaves_by_target([found]).get((found.target_machine_id, found.target_slug))
    url = ""
    if leaves is not None and item.machine:
        url = reverse("instance-page", args=[member.org.public_id, item.machine, found.target_slug])
    return Chosen(item, found.event if event is None else event, error, leaves or [], url)
