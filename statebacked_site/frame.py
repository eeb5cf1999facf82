"""The frame of every page of an org: who looks at it, the navigation, and how failures look.

A page's view is decorated with `org_page` and answers with `render_page`:

    @org_page
    def timers(request: HttpRequest, member: Member) -> HttpResponse:
        return render_page(request, member, "site/timers.html", {...}, section="timers")
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from http import HTTPStatus
from typing import Any, Concatenate, ParamSpec

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django_htmx.http import trigger_client_event

from authz.errors import MissingScope
from authz.members import Member, get_member, memberships_of
from authz.models import Org, User
from instances.models import DeadLetter
from statebacked_site.errors import REQUEST_ID_HEADER, DomainError, request_id

# The org that `/` shows again: the one that was looked at last.
SESSION_ORG = "org"
DEAD_LETTERS_COUNTED_MAX = 100

# How a page that cannot be shown says so, by the status of the answer.
FAILURES = {403: "This is not for your role", 404: "There is nothing here"}
KINDS_OF_FAILURES = {403: "denied", 404: "missing"}

Arguments = ParamSpec("Arguments")
OrgView = Callable[Concatenate[HttpRequest, Member, Arguments], HttpResponse]


@dataclass(frozen=True)
class Section:
    """An entry of the navigation. Its shortcut is `g` and then `key`."""

    name: str
    title: str
    icon: str
    group: str
    url_name: str
    key: str


SECTIONS = (
    Section("home", "Home", "home", "", "org-home", "h"),
    Section("machines", "Machines", "machine", "", "machines-page", "m"),
    Section("attention", "Attention", "alert", "", "attention-page", "a"),
    Section("timers", "Timers", "clock", "Operate", "timers-page", "t"),
    Section("logs", "Logs", "logs", "Operate", "logs-page", "l"),
    Section("keys", "Keys", "key", "Access", "keys-page", "k"),
)

# What can be done from everywhere: the scope that it needs, and where.
COMMANDS = (
    ("machines.write", "New machine", "plus", "new-machine", ""),
    ("org.keys.write", "New key", "key", "keys-page", "?new=1"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A section as the templates show it."""

    section: Section
    url: str
    is_current: bool
    count: str


@dataclass(frozen=True)
class Command:
    """What the palette offers to do."""

    title: str
    icon: str
    url: str


@dataclass(frozen=True)
class Frame:
    member: Member
    orgs: list[Org]
    groups: list[tuple[str, list[Entry]]]
    entries: list[Entry]
    commands: list[Command]  # on every page, if the role allows them

    @property
    def org(self) -> Org:
        return self.member.org


def org_page(view: OrgView[Arguments]) -> Callable[..., HttpResponse]:
    """A page below /o/<org>: `view` gets the member instead of the org's id.

    Who is signed out is sent to sign in and comes back; an org that the person is not in is a 404
    like one that is not there. A DomainError becomes a page, or a toast for a part of one.
    """

    @wraps(view)
    @never_cache
    def with_member(
        request: HttpRequest, org: str, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> HttpResponse:
        if not isinstance(request.user, User):
            return to_sign_in(request)
        member = None
        try:
            member = get_member(request.user, org)
            remember_org(request, member.org)
            return view(request, member, *args, **kwargs)
        except DomainError as exc:
            return failure(request, member, exc)

    return with_member


def to_sign_in(request: HttpRequest) -> HttpResponse:
    """To the sign-in page and back; htmx loads it as a page of its own."""
    if request.headers.get("HX-Request"):
        came_from = request.headers.get("HX-Current-URL", "/")
        path = "/" + came_from.partition("//")[2].partition("/")[2]
        target = redirect_to_login(path, reverse("account_login"), "next").url
        return HttpResponse(status=204, headers={"HX-Redirect": target})
    return redirect_to_login(request.get_full_path(), reverse("account_login"), "next")


def remember_org(request: HttpRequest, org: Org) -> None:
    if request.session.get(SESSION_ORG) != org.public_id:
        request.session[SESSION_ORG] = org.public_id


def render_page(
    request: HttpRequest,
    member: Member,
    template: str,
    context: dict[str, Any],
    *,
    section: str,
    status: int = 200,
) -> HttpResponse:
    """`template` inside the frame, with `section` marked in the navigation."""
    in_frame = {
        **context,
        "frame": frame_of(member, section),
        "member": member,
        "org": member.org,
        "read_only": not member.may("machines.write"),
    }
    return render(request, template, in_frame, status=status)


def frame_of(member: Member, current: str) -> Frame:
    counts = {"attention": dead_letter_count(member.org)}
    entries = [
        Entry(
            section,
            reverse(section.url_name, args=[member.org.public_id]),
            section.name == current,
            counts.get(section.name, ""),
        )
        for section in SECTIONS
    ]
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.section.group, []).append(entry)
    orgs = [membership.org for membership in memberships_of(member.user)]
    commands = [
        Command(title, icon, reverse(url_name, args=[member.org.public_id]) + query)
        for scope, title, icon, url_name, query in COMMANDS
        if member.may(scope)
    ]
    return Frame(member, orgs, list(groups.items()), entries, commands)


def dead_letter_count(org: Org) -> str:
    """How many events of the org failed for good, as it is shown; empty for none."""
    counted = DeadLetter.objects.filter(org_id=org.pk)[: DEAD_LETTERS_COUNTED_MAX + 1].count()
    if counted > DEAD_LETTERS_COUNTED_MAX:
        return f"{DEAD_LETTERS_COUNTED_MAX}+"
    return str(counted or "")


def failure(request: HttpRequest, member: Member | None, error: DomainError) -> HttpResponse:
    """What a page or a part of one answers to `error`."""
    name = request_id(request)
    if request.headers.get("HX-Request"):
        response = HttpResponse(status=error.status)
        text = words_for(error, member)
        return trigger_client_event(response, "toast", {"text": text, "kind": "bad"})
    context = {
        "title": FAILURES.get(error.status, HTTPStatus(error.status).phrase),
        "message": words_for(error, member),
        "request_id": name,
        "kind": KINDS_OF_FAILURES.get(error.status, "failed"),
        "instead": error.instead,
    }
    if member is None:
        response = render(request, "site/error.html", context, status=error.status)
    else:
        response = render_page(
            request, member, "site/failure.html", context, section="", status=error.status
        )
    response[REQUEST_ID_HEADER] = name
    return response


def words_for(error: DomainError, member: Member | None) -> str:
    """What a person is told: of their role, where a program is told of scopes."""
    if isinstance(error, MissingScope) and error.any_of and member is not None:
        return member.refusal(error.any_of[0]) or str(error)
    return str(error)


def tell(request: HttpRequest, text: str, *, bad: bool = False) -> None:
    """A toast on the next page that is shown. Its text is escaped there."""
    messages.add_message(request, messages.ERROR if bad else messages.SUCCESS, text)
