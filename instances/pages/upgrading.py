"""What pages say of upgrades: which versions an instance can go to, and how that would turn out."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from instances.engine import door
from instances.engine.operations import SETTLED
from instances.engine.store import InstanceRow
from instances.engine.upgrade_preview import (
    REFUSED,
    NotTried,
    NotUpgraded,
    Result,
    Subject,
    Upgraded,
    preview_upgrades,
)
from instances.explain import code
from instances.models import Delivery, Instance
from instances.pages.acting import services_of
from instances.pages.context_tree import Line, tree_of
from instances.pages.definitions import definition_of
from instances.pages.parts import TIMERS_MAX
from instances.pages.privacy import public_lines
from instances.pages.stored_events import event_type_of
from instances.pages.timeline import effects_of, timer_name
from instances.pages.words import Leaf, leaves_of, version_name
from machines.migration_paths import find_path
from machines.models import Machine, MachineVersion
from machines.upgrade_ways import edges_of, steps_from
from statebacked_site.errors import InvalidParameter

VERSIONS_OFFERED = 100


class Target(NamedTuple):
    """A version to choose."""

    version: MachineVersion
    name: str
    steps: int  # migrations that lead there; 0: none do
    is_current: bool
    is_desired: bool


class Pending(NamedTuple):
    """What the head of an instance's page says of its version."""

    newer: str  # the name of the machine's current version, if the instance has another
    has_way: bool  # whether migrations lead there
    desired: str  # the name of the version that it is to have before its next event


class Tried(NamedTuple):
    """How an upgrade would turn out."""

    slug: str
    kind: str  # ok, refused, throws, over-limit, not-tried, unsettled, done
    why: str  # unless it is ok
    before: list[Leaf]
    after: list[Leaf]
    changes: list[Line]  # in the context
    kept: list[str]  # timers
    cancelled: list[str]
    new: list[str]
    warnings: list[str]  # with the machine's words in backticks
    duration_ms: float

    @property
    def is_ok(self) -> bool:
        return self.kind == "ok"


def pending_of(instance: Instance, machine: Machine) -> Pending:
    """Asks for versions and migrations only if the instance has not the current version."""
    desired_id, current = instance.desired_version_id, machine.current_version
    desired = ""
    if desired_id is not None:
        desired = version_name(MachineVersion.objects.filter(pk=desired_id).first())
    if current is None or current.pk == instance.version_id:
        return Pending("", has_way=False, desired=desired)
    has_way = current.pk in steps_from(edges_of(machine), instance.version_id)
    return Pending(version_name(current), has_way, desired)


def targets_of(instance: Instance, machine: Machine) -> list[Target]:
    """All versions but the instance's own: those that can be reached first, the newest first."""
    steps = steps_from(edges_of(machine), instance.version_id)
    others = machine.versions.exclude(pk=instance.version_id).order_by("-id")
    reached = list(others.filter(pk__in=steps))
    rest = list(others.exclude(pk__in=steps)[:VERSIONS_OFFERED])
    return [
        Target(
            version,
            version_name(version),
            steps.get(version.pk, 0),
            version.pk == machine.current_version_id,
            version.pk == instance.desired_version_id,
        )
        for version in [*reached, *rest]
    ]


def try_one(instance: Instance, version: MachineVersion, *, sees_all: bool) -> Tried:
    """What upgrading this instance now would make of it. Nothing is kept."""
    (tried,) = try_many([instance], instance.version, version, sees_all=sees_all)
    return tried


def try_many(
    instances: Sequence[Instance],
    from_version: MachineVersion,
    to_version: MachineVersion,
    *,
    sees_all: bool,
) -> list[Tried]:
    """The same for several that have one version.

    Raises InvalidParameter without a way, and Unavailable.
    """
    path = find_path(from_version, to_version)
    if not path:
        raise InvalidParameter(
            "No migration leads to that version: add one, or choose another version", "version"
        )
    ready = [one for one in instances if one.children == SETTLED and not _is_done(one)]
    subjects = [Subject(_row_of(one), one.slug) for one in ready]

    async def trying() -> list[Result]:
        return await preview_upgrades(door.node(), subjects, to_version.pk, path)

    results = dict(zip((one.pk for one in ready), door.run(trying()), strict=True))
    return [_tried(one, results.get(one.pk), to_version, sees_all=sees_all) for one in instances]


def _is_done(instance: Instance) -> bool:
    return instance.state.endswith('"done":true}')


def _row_of(instance: Instance) -> InstanceRow:
    return InstanceRow(
        instance.pk,
        instance.version_id,
        instance.status,
        instance.seq,
        instance.ts,
        instance.state,
        instance.extra,
        instance.context,
        instance.children,
    )


def _tried(
    instance: Instance, result: Result | None, to_version: MachineVersion, *, sees_all: bool
) -> Tried:
    match result:
        case Upgraded():
            return _upgraded(instance, result, to_version, sees_all=sees_all)
        case NotUpgraded(name=name, message=message):
            kind = "over-limit" if not name else "refused" if name == REFUSED else "throws"
            if sees_all or kind == "over-limit":
                why = message if kind != "throws" else f"{name}: {message}"
            else:
                why = "The migration failed."
            return _not(instance, kind, why)
        case NotTried():
            return _not(instance, "not-tried", "Not tried: others took too much time or memory.")
        case None if _is_done(instance):
            return _not(instance, "done", "It has reached its final state, and keeps its version.")
        case None:
            names = ", ".join(services_of(instance.children))
            return _not(
                instance, "unsettled", f"It waits for {names}: it upgrades once it settles."
            )


def _upgraded(
    instance: Instance, upgraded: Upgraded, to_version: MachineVersion, *, sees_all: bool
) -> Tried:
    changes = tree_of(upgraded.context, instance.context).changes
    effects = effects_of("", upgraded.effects)
    cancelled = _cancelled_ids(upgraded.effects)
    pending = Delivery.objects.filter(
        source_id=instance.pk, send_id__isnull=False, kind=Delivery.Kind.TIMER
    ).order_by("due_at", "id")[:TIMERS_MAX]
    timers = [(one.send_id, timer_name(event_type_of(one.event))) for one in pending]
    return Tried(
        slug=instance.slug,
        kind="ok",
        why="",
        before=leaves_of(instance.state),
        after=leaves_of(upgraded.state),
        changes=changes if sees_all else public_lines(changes),
        kept=[name for send_id, name in timers if send_id not in cancelled],
        cancelled=[name for send_id, name in timers if send_id in cancelled],
        new=effects.timers,
        warnings=_warnings(instance, upgraded, to_version),
        duration_ms=upgraded.duration_us / 1_000,
    )


def _warnings(instance: Instance, upgraded: Upgraded, to_version: MachineVersion) -> list[str]:
    """What may never happen in the new version, since an upgrade enters no state."""
    definition = definition_of(to_version.pk)
    if definition is None:
        return []
    before, after = (json.loads(state)["state"] for state in (instance.state, upgraded.state))
    words = {
        "invoke": "begins with a service, and an upgrade starts none",
        "always": "is left by `always`, and an upgrade takes none",
    }
    return [f"{code(path)} {words[what]}." for path, what in definition.not_begun(before, after)]


def _cancelled_ids(effects: str) -> set[str]:
    try:
        told = json.loads(effects or "[]")
    except ValueError:
        return set()
    return {
        str(effect.get("id"))
        for effect in told
        if isinstance(effect, dict) and effect.get("t") == "cancel"
    }


def _not(instance: Instance, kind: str, why: str) -> Tried:
    here = leaves_of(instance.state)
    return Tried(instance.slug, kind, why, here, here, [], [], [], [], [], 0)
