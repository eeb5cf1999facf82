"""Home: what runs, what needs somebody, and for a new org the first three steps."""

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from authz.members import Member, member_of, memberships_of
from authz.models import Key, Org, User
from instances.models import DeadLetter, Delivery, Instance, LogEntry
from machines.cards import Card, cards_of
from machines.examples_gallery import EXAMPLES
from machines.models import Machine, MachineVersion
from statebacked_site import welcome, words
from statebacked_site.frame import SESSION_ORG, org_page, render_page

MACHINES_SHOWN = 8
DEPLOYS_SHOWN = 7
ATTENTION_SHOWN = 4
HOUR_MS = 3_600_000
LATE_MS = 60_000  # a timer that is due longer than this is late

STEPS = 3


class Step(NamedTuple):
    """One of the first steps."""

    title: str
    text: str
    command: str
    is_done: bool
    is_next: bool


class Figures(NamedTuple):
    """Right now. Counts stop at words.COUNT_EXACT_MAX + 1."""

    instances: int
    errors: int  # logged within the last hour
    due: int  # timers within the next hour
    overdue: Delivery | None  # the oldest that is late


@dataclass(frozen=True)
class Progress:
    """What of the first steps is done."""

    has_version: bool
    has_instance: bool
    has_key: bool

    @property
    def done(self) -> int:
        return sum((self.has_version, self.has_instance, self.has_key))

    @property
    def is_first_run(self) -> bool:
        return not (self.has_version and self.has_instance)


@require_safe
@never_cache
def home(request: HttpRequest) -> HttpResponse:
    """The org that the person looked at last, or how to sign in."""
    if not isinstance(request.user, User):
        return redirect("account_login")
    memberships = memberships_of(request.user)
    if not memberships:
        return render(request, "site/no_org.html", {"api_url": api_url()})
    seen_last = request.session.get(SESSION_ORG)
    shown = next((m for m in memberships if m.org.public_id == seen_last), memberships[0])
    return _home_page(request, member_of(request.user, shown))


@require_safe
@org_page
def org_home(request: HttpRequest, member: Member) -> HttpResponse:
    return _home_page(request, member)


def _home_page(request: HttpRequest, member: Member) -> HttpResponse:
    progress = progress_of(member.org)
    is_part = bool(request.headers.get("HX-Request"))
    if is_part and request.GET.get("done") == str(progress.done):
        return HttpResponse(status=204)
    context: dict[str, Any] = {"api_url": api_url(), "progress": progress, "steps_total": STEPS}
    if progress.is_first_run:
        context |= {
            "steps": first_steps(welcome.this_site(), newest_machine(member.org), progress),
            "machine": newest_machine(member.org),
            "examples": EXAMPLES,
            "refusal": member.refusal("machines.write"),
        }
        template = "site/_first_steps.html" if is_part else "site/home_first.html"
    elif is_part and "done" in request.GET:
        # The last of the first steps was done: what was a checklist is a page of its own now.
        return HttpResponse(status=204, headers={"HX-Refresh": "true"})
    else:
        context |= overview(member)
        template = "site/_home.html" if is_part else "site/home.html"
    return render_page(request, member, template, context, section="home")


def progress_of(org: Org) -> Progress:
    machines = Machine.objects.filter(org=org)
    return Progress(
        has_version=machines.filter(current_version__isnull=False).exists(),
        has_instance=Instance.objects.filter(machine__in=machines.values("pk")).exists(),
        has_key=Key.objects.filter(org=org).exists(),
    )


def overview(member: Member) -> dict[str, Any]:
    org = member.org
    now_ms = time.time_ns() // 1_000_000
    cards = machine_cards(org)
    return {
        "figures": figures_of(org, now_ms),
        "letters": letters_by_machine(org),
        "cards": cards[:MACHINES_SHOWN],
        "more_machines": len(cards) > MACHINES_SHOWN,
        "deploys": list(
            MachineVersion.objects.filter(machine__org=org)
            .select_related("machine", "created_by")
            .order_by("-id")[:DEPLOYS_SHOWN]
        ),
    }


def figures_of(org: Org, now_ms: int) -> Figures:
    limit = words.COUNT_EXACT_MAX + 1
    instances = Instance.objects.filter(
        machine__in=Machine.objects.filter(org=org).values("pk")
    ).exclude(status=Instance.Status.DELETED)
    errors = LogEntry.objects.filter(org_id=org.pk, created_at__gt=now_ms - HOUR_MS, level="error")
    timers = Delivery.objects.filter(org_id=org.pk)
    due = timers.filter(due_at__gt=now_ms, due_at__lte=now_ms + HOUR_MS)
    late = timers.filter(due_at__lt=now_ms - LATE_MS).order_by("due_at")
    return Figures(
        instances=instances[:limit].count(),
        errors=errors[:limit].count(),
        due=due[:limit].count(),
        overdue=late.first(),
    )


def letters_by_machine(org: Org) -> list[dict[str, Any]]:
    """The machines with the most dead letters: how many, and the latest reason."""
    rows = (
        DeadLetter.objects.filter(org_id=org.pk)
        .values("target_machine_id")
        .annotate(number=Count("pk"))
        .order_by("-number")[:ATTENTION_SHOWN]
    )
    slugs = dict(
        Machine.objects.filter(pk__in=[row["target_machine_id"] for row in rows]).values_list(
            "pk", "slug"
        )
    )
    return [
        {
            "machine": slugs.get(row["target_machine_id"], "a deleted machine"),
            "number": row["number"],
            "latest": DeadLetter.objects.filter(
                org_id=org.pk, target_machine_id=row["target_machine_id"]
            )
            .order_by("-died_at")
            .first(),
        }
        for row in rows
    ]


def machine_cards(org: Org) -> list[Card]:
    """The newest machines, one more than are shown."""
    machines = Machine.objects.filter(org=org).select_related("current_version").order_by("-id")
    return cards_of(list(machines[: MACHINES_SHOWN + 1]), org.public_id)


def newest_machine(org: Org) -> str:
    """The name of the machine that was made last and has code; empty if there is none."""
    machines = Machine.objects.filter(org=org, current_version__isnull=False).order_by("-id")
    return machines.values_list("slug", flat=True).first() or ""


def first_steps(site: welcome.Site, machine: str, progress: Progress) -> list[Step]:
    """From nothing to a connected app, with lines that work as they stand here."""
    machine = machine or Path(welcome.EXAMPLE).stem
    create = shlex.quote('{"slug": "first"}')
    done = (progress.has_version, progress.has_instance, progress.has_key)
    following = done.index(False) if False in done else -1
    texts = (
        (
            "Deploy a machine",
            "A machine is a statechart. Start from an example, paste your own, or run this:",
            site.command(f"deploy {welcome.EXAMPLE}"),
        ),
        (
            "Create an instance of it",
            "In a terminal on the machine that runs this server; the step then ticks itself.",
            site.command(f"api POST machines/{machine} {create}"),
        ),
        (
            "Connect your app",
            "Your app signs tokens with a key. Create one, and its secret is shown once.",
            "npm install @statebacked/client",
        ),
    )
    return [
        Step(title, text, command, is_done, number == following)
        for number, ((title, text, command), is_done) in enumerate(zip(texts, done, strict=True))
    ]


def api_url() -> str:
    return f"{settings.PUBLIC_URL}/api"
