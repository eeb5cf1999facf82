"""What customers' code wrote: the newest first, searched, and followed."""

from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from authz.members import Member
from authz.permissions import require
from instances.models import LogEntry
from machines.models import Machine
from statebacked_site.errors import InvalidParameter
from statebacked_site.frame import org_page, render_page
from statebacked_site.log_lines import Line, line_of
from statebacked_site.pages.timers import machine_names

ROWS = 200
# A search looks through so many lines at once, and goes on from there when it is asked to.
SEARCHED_MAX = 20_000
TEXT_CHARS_MAX = 200

# What "at least this level" holds.
LEVELS = {
    "debug": None,
    "info": ("info", "log", "warn", "error"),
    "warn": ("warn", "error"),
    "error": ("error",),
}


class Asked(NamedTuple):
    text: str
    machine: str
    instance: str
    level: str

    @property
    def is_narrow(self) -> bool:
        return bool(self.text or self.machine or self.instance or self.level != "debug")

    def query(self, **more: object) -> str:
        given = {"q": self.text, "machine": self.machine, "instance": self.instance}
        level = {} if self.level == "debug" else {"level": self.level}
        kept = {name: value for name, value in given.items() if value}
        return urlencode(kept | level | more)


@require_safe
@org_page
def logs_page(request: HttpRequest, member: Member) -> HttpResponse:
    require(member.caller, "logs.read")
    asked = asked_of(request)
    entries = matching(LogEntry.objects.filter(org_id=member.org.pk), member, asked)
    newer_than = number(request, "newer")
    if newer_than is not None:
        return _newer(request, member, asked, entries, newer_than)
    before = number(request, "before")
    window = LogEntry.objects.filter(org_id=member.org.pk)
    if before is not None:
        window = window.filter(pk__lt=before)
    # By primary key, which is the order of writing: lines of one millisecond keep theirs.
    ids = list(window.order_by("-pk").values_list("pk", flat=True)[SEARCHED_MAX - 1 : SEARCHED_MAX])
    if before is not None:
        entries = entries.filter(pk__lt=before)
    if ids:
        entries = entries.filter(pk__gte=ids[0])
    found = list(entries.order_by("-pk")[:ROWS])
    oldest = found[-1].pk if len(found) == ROWS else (ids[0] if ids else None)
    newest = (
        LogEntry.objects.filter(org_id=member.org.pk).order_by("-pk").values_list("pk", flat=True)
    )
    context = {
        "lines": lines_of(found, asked.text),
        "asked": asked,
        "machines": machine_names(member.org),
        "levels": list(LEVELS),
        "has_any": bool(found) or newest.exists(),
        "older": asked.query(before=oldest) if oldest is not None else "",
        "newer": asked.query(newer=newest.first() or 0) if before is None else "",
        "searched_max": SEARCHED_MAX,
    }
    return render_page(request, member, "site/logs.html", context, section="logs")


def _newer(
    request: HttpRequest,
    member: Member,
    asked: Asked,
    entries: QuerySet[LogEntry],
    newer_than: int,
) -> HttpResponse:
    """The lines that came since, for the top of the list; 204 if there are none."""
    found = list(entries.filter(pk__gt=newer_than).order_by("-pk")[:ROWS])
    if not found:
        return HttpResponse(status=204)
    context = {
        "lines": lines_of(found, asked.text),
        "asked": asked,
        "newer": asked.query(newer=found[0].pk),
    }
    return render_page(request, member, "site/_log_lines.html", context, section="logs")


def asked_of(request: HttpRequest) -> Asked:
    """The filter in the address; raises InvalidParameter."""
    given = request.GET
    asked = Asked(
        text=given.get("q", "").strip()[:TEXT_CHARS_MAX],
        machine=given.get("machine", ""),
        instance=given.get("instance", "").strip(),
        level=given.get("level", "") or "debug",
    )
    if asked.level not in LEVELS:
        raise InvalidParameter(f"The level is one of {', '.join(LEVELS)}", "level")
    if any("\0" in value for value in asked):
        raise InvalidParameter("The filter holds a null character")
    return asked


def number(request: HttpRequest, name: str) -> int | None:
    text = request.GET.get(name, "")
    return int(text) if text.isdecimal() and len(text) <= 18 else None


def matching(entries: QuerySet[LogEntry], member: Member, asked: Asked) -> QuerySet[LogEntry]:
    if asked.machine:
        machines = Machine.objects.filter(org=member.org, slug=asked.machine)
        entries = entries.filter(machine_id__in=machines.values("pk"))
    if asked.instance:
        entries = entries.filter(instance_slug__startswith=asked.instance)
    levels = LEVELS[asked.level]
    if levels is not None:
        entries = entries.filter(level__in=levels)
    if asked.text:
        entries = entries.filter(Q(message__icontains=asked.text) | Q(instance_slug=asked.text))
    return entries


def lines_of(found: list[LogEntry], text: str) -> list[Line]:
    slugs: dict[Any, str] = dict(
        Machine.objects.filter(pk__in={entry.machine_id for entry in found}).values_list(
            "pk", "slug"
        )
    )
    return [line_of(entry, slugs.get(entry.machine_id, ""), text) for entry in found]
