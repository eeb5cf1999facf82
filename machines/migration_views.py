"""Pages of a machine's migrations: the list, one with its code, and adding one."""

from typing import Any, NamedTuple

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from authz.members import Member
from authz.permissions import require
from instances.pages.definitions import definition_of, known_definition
from instances.pages.words import version_name
from machines import code_view, publishing, state_counts
from machines.access import get_machine, version_of
from machines.migration_draft import Gone, draft_of, gone_states
from machines.models import Machine, MachineVersion, MachineVersionMigration
from machines.source import Problem
from machines.views import (
    WRITE,
    GivenCode,
    UnusableCode,
    checked_code,
    given_code,
    migration_command,
    of_machine,
)
from statebacked_site.errors import NotFound
from statebacked_site.frame import org_page, render_page, tell
from statebacked_site.identifiers import SLUG
from statebacked_site.paging import page_of

VERSIONS_OFFERED = 200
CODE_TYPE = "text/javascript; charset=utf-8"


class MigrationRow(NamedTuple):
    migration: MachineVersionMigration
    from_name: str
    to_name: str
    is_replaced: bool  # there is a newer one between the same versions


class Pair(NamedTuple):
    """Two versions that a migration is to lead between."""

    old: MachineVersion
    new: MachineVersion


# --- The list -----------------------------------------------------------------------------------


@require_safe
@org_page
def migrations_page(request: HttpRequest, member: Member, machine: str) -> HttpResponse:
    found = get_machine(member.caller, machine)
    page = page_of(with_versions(found), "-id", request.GET.get("after"))
    newest = newest_of_pairs(found)
    teaching = _lesson(found) if not page.items else {}
    context = {
        **of_machine(member, found, "migrations"),
        "rows": [
            MigrationRow(
                migration,
                version_name(migration.from_version),
                version_name(migration.to_version),
                newest[migration.from_version_id, migration.to_version_id] != migration.pk,
            )
            for migration in page.items
        ],
        "cursor": page.cursor,
        "is_first_page": not request.GET.get("after"),
        "new_url": new_url(member, found, teaching.get("pair")),
        "refusal": member.refusal(WRITE),
        **teaching,
    }
    return render_page(request, member, "machines/migrations.html", context, section="machines")


def with_versions(machine: Machine) -> QuerySet[MachineVersionMigration]:
    """With what a list says of their code, and not the code."""
    return machine.migrations.select_related(
        "from_version", "to_version", "created_by", "code"
    ).defer("code__source_gzip", "code__commonjs_gzip", "code__externals")


def newest_of_pairs(machine: Machine) -> dict[tuple[int, int], int]:
    """The migration that is used between two versions."""
    ids = machine.migrations.order_by("id").values_list("from_version_id", "to_version_id", "id")
    return {(from_id, to_id): migration_id for from_id, to_id, migration_id in ids}


def _lesson(machine: Machine) -> dict[str, Any]:
    """What a migration would look like between the two newest versions, if there are two."""
    versions = list(machine.versions.order_by("-id")[:2])
    if len(versions) < 2:
        return {}
    pair = Pair(old=versions[1], new=versions[0])
    gone = _gone(machine, pair, known_only=True)
    example = draft_of(machine.slug, *pair, gone)
    return {
        "pair": pair,
        "old_name": version_name(pair.old),
        "new_name": version_name(pair.new),
        "gone": gone,
        "example": example,
        "example_lines": code_view.highlighted_text(example.rstrip()),
        "command": migration_command(machine, *pair),
    }


def new_url(member: Member, machine: Machine, pair: Pair | None = None) -> str:
    url = reverse("new-migration", args=[member.org.public_id, machine.slug])
    return f"{url}?from={pair.old.public_id}&to={pair.new.public_id}" if pair else url


# --- One migration ------------------------------------------------------------------------------


@require_safe
@org_page
def migration_page(
    request: HttpRequest, member: Member, machine: str, migration: str
) -> HttpResponse:
    found = get_machine(member.caller, machine)
    shown = migration_of(found, migration)
    newest = newest_of_pairs(found)[shown.from_version_id, shown.to_version_id]
    context = {
        **of_machine(member, found, "migrations"),
        "migration": shown,
        "from_name": version_name(shown.from_version),
        "to_name": version_name(shown.to_version),
        "is_replaced": newest != shown.pk,
        "lines": code_view.highlighted_text(code_view.source_of(shown.code)),
        "new_url": new_url(member, found, Pair(shown.from_version, shown.to_version)),
        "refusal": member.refusal(WRITE),
    }
    return render_page(request, member, "machines/migration.html", context, section="machines")


@require_safe
@org_page
def migration_file(
    request: HttpRequest, member: Member, machine: str, migration: str
) -> HttpResponse:
    """The code as a file."""
    shown = migration_of(get_machine(member.caller, machine), migration)
    headers = {
        "Content-Disposition": f'attachment; filename="{shown.public_id}.js"',
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    source = code_view.source_of(shown.code)
    return HttpResponse(source.encode(), content_type=CODE_TYPE, headers=headers)


def migration_of(machine: Machine, public_id: str) -> MachineVersionMigration:
    migrations = machine.migrations.select_related(
        "from_version", "to_version", "created_by", "code"
    )
    found = migrations.filter(public_id=public_id).first() if SLUG.match(public_id) else None
    if found is None:
        raise NotFound(f"{machine.slug} has no such migration")
    return found


# --- Adding one ---------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@org_page
def new_migration(request: HttpRequest, member: Member, machine: str) -> HttpResponse:
    """Code from a file, pasted, or of a draft, that leads from one version to another."""
    found = get_machine(member.caller, machine)
    if request.method != "POST":
        like = request.GET.get("like", "")
        source = code_view.source_of(migration_of(found, like).code) if like else ""
        code = GivenCode(source, f"{like}.js", "", make_current=False) if source else None
        return _new_migration_page(request, member, found, _asked(found, request.GET), code)
    pair = Pair(
        version_of(found, request.POST.get("from", ""), "from"),
        version_of(found, request.POST.get("to", ""), "to"),
    )
    if request.POST.get("do") == "draft":
        return redirect(new_url(member, found, pair))
    require(member.caller, WRITE)
    code = given_code(request)
    if pair.old == pair.new:
        error = "Choose two different versions: there is no way from a version to itself."
        return _new_migration_page(request, member, found, pair, code, pair_error=error)
    try:
        checked = checked_code(code, publishing.check_migration_code)
    except UnusableCode as exc:
        return _new_migration_page(request, member, found, pair, code, problem=exc.problem)
    published = publishing.record_migration(member.caller, *pair, checked)
    names = f"{version_name(pair.old)} → {version_name(pair.new)}"
    tell(request, f"{found.slug} has a migration {names}")
    for warning in published.warnings:
        tell(request, f"Warning: {warning}", bad=True)
    return redirect(
        "migration-page", member.org.public_id, found.slug, published.migration.public_id
    )


def _asked(machine: Machine, query: QueryDict) -> Pair | None:
    """The versions that an address names; else the one with most instances, and the current one.

    None if the machine has not two versions.
    """
    to = _named_version(machine, query.get("to")) or machine.current_version
    old = _named_version(machine, query.get("from"))
    if old is None:
        old = _with_most_instances(machine, to)
    if to is None:
        to = machine.versions.order_by("-id").first()
    return Pair(old, to) if old is not None and to is not None else None


def _named_version(machine: Machine, public_id: str | None) -> MachineVersion | None:
    return version_of(machine, public_id, "version") if public_id else None


def _with_most_instances(machine: Machine, but: MachineVersion | None) -> MachineVersion | None:
    counts = state_counts.whereabouts(machine).versions
    others = list(machine.versions.exclude(pk=but.pk if but else 0).order_by("-id")[:1_000])
    # Of several with as many, the newest.
    return max(others, key=lambda version: (counts.get(version.pk, 0), version.pk), default=None)


def _new_migration_page(
    request: HttpRequest,
    member: Member,
    machine: Machine,
    pair: Pair | None,
    code: GivenCode | None = None,
    *,
    pair_error: str = "",
    problem: Problem | None = None,
) -> HttpResponse:
    context: dict[str, Any] = {
        **of_machine(member, machine, "migrations"),
        "pair": pair,
        "pair_error": pair_error,
        "problem": problem,
        "refusal": member.refusal(WRITE),
    }
    if pair is not None:
        gone = _gone(machine, pair)
        draft = draft_of(machine.slug, *pair, gone)
        offered = list(machine.versions.order_by("-id")[:VERSIONS_OFFERED])
        context |= {
            "is_draft": code is None,
            "code": code or GivenCode(draft, "", "", make_current=False),
            "gone": gone,
            "versions": [
                (version, version_name(version))
                for version in dict.fromkeys([*offered, pair.old, pair.new])
            ],
            "old_name": version_name(pair.old),
            "new_name": version_name(pair.new),
            "command": migration_command(machine, *pair),
        }
    status = 422 if pair_error or problem else 200
    return render_page(
        request, member, "machines/new_migration.html", context, section="machines", status=status
    )


def _gone(machine: Machine, pair: Pair, *, known_only: bool = False) -> list[Gone] | None:
    """The states that are lost on the way, or None if a version can't be described.

    `known_only`: no code is run for it.
    """
    read = known_definition if known_only else definition_of
    old, new = read(pair.old.pk), read(pair.new.pk)
    if old is None or new is None:
        return None
    states = state_counts.whereabouts(machine).on(pair.old.pk)
    return gone_states(old.graph, new.graph, states)
