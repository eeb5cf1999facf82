"""Pages of machines: the list, a new one, its overview, versions and settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from authz.members import Member
from authz.permissions import require
from authz.views import next_path
from instances.pages.words import version_name
from machines import diagrams, lifecycle, publishing, state_counts
from machines.access import get_machine, machines_of
from machines.cards import cards_of, lit_thumb
from machines.checked_code import CheckedCode
from machines.code_view import highlighted
from machines.errors import InvalidBundle
from machines.examples_gallery import EXAMPLES, example_named
from machines.flow import Run
from machines.flow.standalone import Theme
from machines.models import Machine, MachineVersion, VersionCode
from machines.serializers import CLIENT_INFO_LENGTH_MAX
from machines.source import Problem, compile_source, problem_of
from machines.upgrade_ways import edges_of, steps_to
from statebacked_site import welcome
from statebacked_site.errors import Conflict, DomainError, InvalidState, NotFound
from statebacked_site.frame import org_page, render_page, tell
from statebacked_site.identifiers import SLUG
from statebacked_site.paging import page_of

WRITE = "machine-versions.write"
SVG_TYPE = "image/svg+xml"
FOLDED_MAX = 500  # paths of closed states in an address
VERSIONS_SHOWN_IN_BAR = 4


@dataclass(frozen=True, slots=True)
class Tab:
    name: str
    title: str
    url: str
    count: str = ""


# --- The list, and a new machine ----------------------------------------------------------------


@require_safe
@org_page
def machines_page(request: HttpRequest, member: Member) -> HttpResponse:
    text = request.GET.get("q", "").strip()
    machines = machines_of(member.caller)
    found = machines.filter(slug__icontains=text) if "\0" not in text else machines.none()
    page = page_of(found, "slug", request.GET.get("after"))
    context = {
        "rows": cards_of(page.items, member.org.public_id),
        "cursor": page.cursor,
        "q": text,
        "has_any": bool(page.items) or machines.exists(),
        "refusal": member.refusal("machines.write"),
        "examples": EXAMPLES,
        "deploy_command": welcome.this_site().command(f"deploy {welcome.EXAMPLE}"),
    }
    template = "machines/_rows.html" if request.headers.get("HX-Request") else "machines/list.html"
    return render_page(request, member, template, context, section="machines")


@require_safe
@org_page
def machine_thumb(request: HttpRequest, member: Member, machine: str) -> HttpResponse:
    """The small picture of a machine, which is made when it is first asked for."""
    context = {"thumb": lit_thumb(get_machine(member.caller, machine))}
    return render(request, "machines/_thumb.html", context)


class GivenCode(NamedTuple):
    """The form that takes code."""

    text: str
    file_name: str
    reference: str  # what its publisher calls the version
    make_current: bool


@require_http_methods(["GET", "HEAD", "POST"])
@org_page
def new_machine(request: HttpRequest, member: Member) -> HttpResponse:
    """A name and code, from a file, pasted, or of an example."""
    if request.method != "POST":
        example = example_named(request.GET.get("example", ""))
        code = GivenCode(example.source(), f"{example.name}.ts", "", True) if example else None
        return _new_machine_page(request, member, example.name if example else "", code)
    require(member.caller, "machines.write")
    require(member.caller, WRITE)
    code = given_code(request)
    name = request.POST.get("name", "").strip()
    if not SLUG.match(name):
        error = "A name has 1 to 128 letters, digits, dashes or underscores."
        return _new_machine_page(request, member, name, code, name_error=error)
    if machines_of(member.caller).filter(slug=name).exists():
        error = f"There is a machine {name} already. To change it, deploy a version of it."
        return _new_machine_page(request, member, name, code, name_error=error)
    try:
        checked = checked_code(code)
        with transaction.atomic():
            machine = lifecycle.create_machine(member.caller, name)
            published = publishing.record_version(
                member.caller, machine, checked, client_info=code.reference, make_current=True
            )
    except UnusableCode as exc:
        return _new_machine_page(request, member, name, code, problem=exc.problem)
    except Conflict as exc:
        return _new_machine_page(request, member, name, code, name_error=str(exc))
    tell_published(request, machine, published)
    return redirect("machine-page", member.org.public_id, name)


def _new_machine_page(
    request: HttpRequest,
    member: Member,
    name: str,
    code: GivenCode | None,
    *,
    name_error: str = "",
    problem: Problem | None = None,
) -> HttpResponse:
    context = {
        "name": name,
        "name_error": name_error,
        "code": code,
        "problem": problem,
        "examples": EXAMPLES,
        "refusal": member.refusal("machines.write"),
    }
    status = 422 if name_error or problem else 200
    return render_page(
        request, member, "machines/new.html", context, section="machines", status=status
    )


# --- Deploying ----------------------------------------------------------------------------------


class UnusableCode(Exception):
    """Code that can't become a version, and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@require_http_methods(["GET", "HEAD", "POST"])
@org_page
def deploy_page(request: HttpRequest, member: Member, machine: str) -> HttpResponse:
    found = get_machine(member.caller, machine)
    if request.method != "POST":
        return _deploy_page(request, member, found)
    require(member.caller, WRITE)
    code = given_code(request)
    try:
        published = publishing.record_version(
            member.caller,
            found,
            checked_code(code),
            client_info=code.reference,
            make_current=code.make_current,
        )
    except UnusableCode as exc:
        return _deploy_page(request, member, found, code, exc.problem)
    tell_published(request, found, published)
    return redirect("version-page", member.org.public_id, found.slug, published.version.public_id)


def _deploy_page(
    request: HttpRequest,
    member: Member,
    machine: Machine,
    code: GivenCode | None = None,
    problem: Problem | None = None,
) -> HttpResponse:
    context = {
        **of_machine(member, machine, "versions"),
        "code": code,
        "problem": problem,
        "refusal": member.refusal(WRITE),
    }
    return render_page(
        request,
        member,
        "machines/deploy.html",
        context,
        section="machines",
        status=422 if problem else 200,
    )


def given_code(request: HttpRequest) -> GivenCode:
    """The file of the form, or else the pasted text."""
    text = request.POST.get("code", "")
    file_name = request.POST.get("file_name", "")
    file = request.FILES.get("file")
    if file is not None and file.name is not None and not text.strip():
        # What is not UTF-8 is shown with marks in its place, and the compiler refuses it.
        text, file_name = file.read().decode(errors="replace"), file.name
    reference = request.POST.get("reference", "").strip()[:CLIENT_INFO_LENGTH_MAX]
    return GivenCode(text, file_name, reference or file_name[:100], "make_current" in request.POST)


def checked_code(
    code: GivenCode, check: Callable[[bytes], CheckedCode] = publishing.check_code
) -> CheckedCode:
    """Compiled and loaded in the sandbox; raises UnusableCode."""
    try:
        compiled = compile_source(code.text, code.file_name)
    except InvalidBundle as exc:
        raise UnusableCode(problem_of(exc, code.text)) from exc
    except DomainError as exc:
        raise UnusableCode(Problem(str(exc), "", [])) from exc
    try:
        return check(compiled)
    except InvalidBundle as exc:
        raise UnusableCode(problem_of(exc, compiled.decode())) from exc
    except DomainError as exc:
        raise UnusableCode(Problem(str(exc), "", [])) from exc


def tell_published(
    request: HttpRequest, machine: Machine, published: publishing.PublishedVersion
) -> None:
    tell(request, f"{machine.slug} has the version {version_name(published.version)}")
    for warning in published.warnings:
        tell(request, f"Warning: {warning}", bad=True)


# --- One machine --------------------------------------------------------------------------------


class StateRow(NamedTuple):
    path: str  # as addresses have it
    number: int
    node: str  # as drawings have it


@require_safe
@org_page
def machine_page(request: HttpRequest, member: Member, machine: str) -> HttpResponse:
    """The living diagram: where the machine's instances are."""
    found = get_machine(member.caller, machine)
    where = state_counts.whereabouts(found)
    context = {
        **of_machine(member, found, "overview", where),
        **overview_of(member, found, where),
    }
    part = request.headers.get("HX-Request")
    template = "machines/_overview.html" if part else "machines/machine.html"
    return render_page(request, member, template, context, section="machines")


def overview_of(
    member: Member, machine: Machine, where: state_counts.Whereabouts
) -> dict[str, Any]:
    paths = where.by_path()
    versions = MachineVersion.objects.filter(pk__in=where.versions).order_by("-id")
    return {
        "where": where,
        "by_state": [
            StateRow(path, number, path.replace("\\.", "."))
            for path, number in sorted(paths.items())
        ],
        "counts": where.by_node(),
        "by_version": version_shares(list(versions), where),
        "instances_url": instances_url(member, machine),
        "new_instance_refusal": member.refusal("instances.write"),
    }


def version_shares(
    versions: list[MachineVersion], where: state_counts.Whereabouts
) -> list[dict[str, Any]]:
    """The versions that have instances, newest first, as parts of a bar; the oldest are one."""
    shown = versions[:VERSIONS_SHOWN_IN_BAR]
    parts = [(version_name(v), where.versions[v.pk], v.public_id) for v in shown]
    rest = where.total - sum(count for _, count, _ in parts)
    if rest > 0:
        parts.append(("older", rest, ""))
    shares = []
    start = 0.0
    for (name, count, public_id), kind in zip(parts, ("now", "a", "b", "c", "c"), strict=False):
        width = 100 * count / where.total
        shares.append(
            {
                "name": name,
                "public_id": public_id,
                "count": count,
                "percent": round(width),
                "start": round(start, 2),
                "width": round(max(width - 0.6, 0.4), 2),
                "kind": kind,
            }
        )
        start += width
    return shares


def of_machine(
    member: Member,
    machine: Machine,
    current: str,
    where: state_counts.Whereabouts | None = None,
) -> dict[str, Any]:
    """What the head and the tabs of a machine's pages need; `current` is a tab's name."""
    org = member.org.public_id
    versions = machine.versions.count()
    instances = f"{'≈ ' if where.is_approximate else ''}{where.total:,}" if where else ""
    tabs = [
        Tab("overview", "Overview", reverse("machine-page", args=[org, machine.slug])),
        Tab("instances", "Instances", instances_url(member, machine), instances),
        Tab(
            "versions",
            "Versions",
            reverse("versions-page", args=[org, machine.slug]),
            f"{versions:,}",
        ),
        Tab("migrations", "Migrations", reverse("migrations-page", args=[org, machine.slug])),
        Tab("schedules", "Schedules", reverse("schedules-page", args=[org, machine.slug])),
        Tab("settings", "Settings", reverse("machine-settings", args=[org, machine.slug])),
    ]
    return {
        "machine": machine,
        "tabs": tabs,
        "tab": current,
        "deploy_refusal": member.refusal(WRITE),
        "commands": [
            {
                "title": f"Deploy a version of {machine.slug}",
                "icon": "upload",
                "url": reverse("deploy-page", args=[org, machine.slug]),
            },
            *(
                {"title": f"{tab.title} of {machine.slug}", "icon": "right", "url": tab.url}
                for tab in tabs
            ),
        ],
    }


def instances_url(member: Member, machine: Machine) -> str:
    return reverse("instances-page", args=[member.org.public_id, machine.slug])


# --- Versions -----------------------------------------------------------------------------------


class VersionRow(NamedTuple):
    version: MachineVersion
    name: str
    code: VersionCode | None
    instances: int
    is_current: bool
    way: "Way | None"  # of the current version itself there is none to tell


class Way(NamedTuple):
    """How instances of a version come to the current one."""

    steps: int  # migrations; 0: there is no way
    instances: int  # that have the version, without those that are done
    upgrade_url: str
    command: str  # that adds a migration
    new_url: str  # the page that does


@require_safe
@org_page
def versions_page(request: HttpRequest, member: Member, machine: str) -> HttpResponse:
    found = get_machine(member.caller, machine)
    where = state_counts.whereabouts(found)
    versions = with_size(found.versions.select_related("created_by"))
    page = page_of(versions, "-id", request.GET.get("after"))
    ways = ways_to_current(member, found, page.items, where)
    context = {
        **of_machine(member, found, "versions", where),
        "rows": [
            VersionRow(
                version,
                version_name(version),
                getattr(version, "code", None),
                where.versions.get(version.pk, 0),
                version.pk == found.current_version_id,
                ways.get(version.pk),
            )
            for version in page.items
        ],
        "cursor": page.cursor,
        "where": where,
        "instances_url": instances_url(member, found),
        "refusal": member.refusal(WRITE),
    }
    return render_page(request, member, "machines/versions.html", context, section="machines")


def ways_to_current(
    member: Member,
    machine: Machine,
    versions: Sequence[MachineVersion],
    where: state_counts.Whereabouts,
) -> dict[int, Way]:
    """By primary key of the version; that of the current one is not there."""
    current = machine.current_version
    if current is None:
        return {}
    steps = steps_to(edges_of(machine), current.pk)
    names = [member.org.public_id, machine.slug]
    url = reverse("new-migration", args=names)
    return {
        version.pk: Way(
            steps.get(version.pk, 0),
            sum(where.living_on(version.pk).values()),
            reverse("upgrade-page", args=[*names, version.public_id]),
            migration_command(machine, version, current),
            f"{url}?from={version.public_id}&to={current.public_id}",
        )
        for version in versions
        if version.pk != current.pk
    }


def migration_command(machine: Machine, old: MachineVersion, new: MachineVersion) -> str:
    """The shell line that adds a migration between the two."""
    return welcome.this_site().command(
        f"deploy_migration migration.ts --machine {machine.slug}"
        f" --from {old.public_id} --to {new.public_id}"
    )


def with_size(versions: QuerySet[MachineVersion]) -> QuerySet[MachineVersion]:
    """With what a list says of their code, and not the code."""
    return versions.select_related("code").defer(
        "code__source_gzip", "code__commonjs_gzip", "code__externals"
    )


@require_http_methods(["GET", "HEAD", "POST"])
@org_page
def version_page(request: HttpRequest, member: Member, machine: str, version: str) -> HttpResponse:
    """A version as diagram and as code. POST makes it the machine's current one."""
    found = get_machine(member.caller, machine)
    shown = version_of(found, version)
    if request.method == "POST":
        require(member.caller, WRITE)
        publishing.make_current(found, shown)
        tell(request, f"New instances of {found.slug} start on {version_name(shown)}")
        return redirect(next_path(request) if "next" in request.POST else request.path)
    view = request.GET.get("view", "")
    where = state_counts.whereabouts(found)
    context = {
        **of_machine(member, found, "versions", where),
        "way": ways_to_current(member, found, [shown], where).get(shown.pk),
        "version": shown,
        "name": version_name(shown),
        "is_current": shown.pk == found.current_version_id,
        "instances": where.versions.get(shown.pk, 0),
        "instances_url": f"{instances_url(member, found)}?version={shown.public_id}",
        "view": "code" if view == "code" else "diagram",
        "lines": highlighted(shown) if view == "code" else [],
        "refusal": member.refusal(WRITE),
    }
    return render_page(request, member, "machines/version.html", context, section="machines")


def version_of(machine: Machine, public_id: str) -> MachineVersion:
    versions = with_size(machine.versions.select_related("created_by"))
    found = versions.filter(public_id=public_id).first() if SLUG.match(public_id) else None
    if found is None:
        raise NotFound(f"{machine.slug} has no such version")
    return found


@require_safe
@org_page
def version_diagram(
    request: HttpRequest, member: Member, machine: str, version: str
) -> HttpResponse:
    """The drawing of a version, as a part of a page. It is made when it is first asked for."""
    found = get_machine(member.caller, machine)
    shown = version_of(found, version)
    panel = diagrams.panel_of(shown)
    context = {
        "org": member.org,
        "machine": found,
        "version": shown,
        "drawing": panel,
        "view": request.GET.get("view", ""),
        "problem": "" if panel else diagrams.diagram_of(shown).problem,
    }
    return render(request, "machines/_diagram.html", context)


@require_safe
@org_page
def version_picture(
    request: HttpRequest, member: Member, machine: str, version: str
) -> HttpResponse:
    """The drawing alone, with the states closed that `?fold=` names; an empty one opens all.

    `?outer=TB` or `LR` says which way it runs.
    """
    shown = version_of(get_machine(member.caller, machine), version)
    folded = [path for path in request.GET.getlist("fold")[:FOLDED_MAX] if path]
    given = request.GET.get("outer")
    outer: Run | None = "TB" if given == "TB" else "LR" if given == "LR" else None
    drawing = diagrams.drawing_of(shown, folded if "fold" in request.GET else None, outer)
    if drawing is None:
        raise NotFound("This version has no diagram")
    return HttpResponse(drawing.svg, content_type=SVG_TYPE)


@require_safe
@org_page
def version_export(
    request: HttpRequest, member: Member, machine: str, version: str, kind: str
) -> HttpResponse:
    """The drawing as a file: an SVG with its colours in it (`?theme=dark`), or Mermaid."""
    shown = version_of(get_machine(member.caller, machine), version)
    content: str | None = None
    if kind == "svg":
        theme: Theme = "dark" if request.GET.get("theme") == "dark" else "light"
        content = diagrams.file_of(shown, theme)
    elif kind == "mmd":
        drawing = diagrams.drawing_of(shown)
        content = drawing.mermaid if drawing else None
    if content is None:
        raise NotFound("This version has no such picture")
    # A sandbox of its own: the file is opened outside of any page.
    headers = {"Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'"}
    return HttpResponse(
        content, content_type=SVG_TYPE if kind == "svg" else "text/plain", headers=headers
    )


# --- Settings -----------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@org_page
def machine_settings(request: HttpRequest, member: Member, machine: str) -> HttpResponse:
    """Facts, and deleting: the name must be typed, and there must be no instances."""
    found = get_machine(member.caller, machine)
    error = ""
    if request.method == "POST":
        require(member.caller, "machines.admin")
        error = _delete(found, request.POST)
        if not error:
            tell(request, f"{machine} was deleted with its versions")
            return redirect("machines-page", member.org.public_id)
    where = state_counts.whereabouts(found)
    context = {
        **of_machine(member, found, "settings", where),
        "where": where,
        "error": error,
        "refusal": member.refusal("machines.admin"),
    }
    status = 422 if error else 200
    return render_page(
        request, member, "machines/settings.html", context, section="machines", status=status
    )


def _delete(machine: Machine, given: QueryDict | Mapping[str, str]) -> str:
    """Delete it, or return why not."""
    if given.get("name") != machine.slug:
        return f"Type the name of the machine, {machine.slug}."
    try:
        lifecycle.delete_machine(machine)
    except InvalidState as exc:
        return f"{exc}."
    return ""
