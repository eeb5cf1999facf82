"""Which version instances should have: the desired one, that they upgrade to.

Here it is only noted. An instance upgrades right before the next event that finds it settled
(instances/engine/upgrades.py), so what is noted is a column of its row, and null while it has the
version that is desired. Every commit of an event from outside looks at it in the same statement:
nothing is lost between here and there, whoever is first.
"""

from typing import NamedTuple

from django.db import transaction
from django.db.models import QuerySet

from instances.access import instances_of
from instances.errors import InstanceNotFound, NoMigrationPath
from instances.models import Instance
from machines.migration_paths import find_path, find_versions_before
from machines.models import MachineVersion
from statebacked_site.errors import Unavailable

TRIES_MAX = 5  # of an instance that is upgraded meanwhile, each time
LOOKED_AT_MAX = 10_000  # instances in one request for many
CHUNK = 200  # instances that are changed in one transaction: some milliseconds


class Upgrades(NamedTuple):
    """What has become of some of a machine's instances."""

    matched: int  # that could be upgraded
    changed: int  # for which that was not desired before
    last_id: int | None  # the last that was looked at; None if there are no more


def set_desired_version(instance: Instance, version: MachineVersion) -> None:
    """Have `instance` upgrade to `version`; if it has that version, it stays there.

    Raises NoMigrationPath, InstanceNotFound, and Unavailable if it never stands still.
    """
    from instances.engine import door

    assert version.machine_id == instance.machine_id
    for _ in range(TRIES_MAX):
        desired = _checked(instance, version)
        # The path was checked from that version: it must still be the one it is on.
        unmoved = _living(Instance.objects.filter(pk=instance.pk, version=instance.version_id))
        if unmoved.update(desired_version=desired) == 1:
            door.instance_outdated(instance.pk)
            return
        moved = _living(Instance.objects.filter(pk=instance.pk)).select_related("version").first()
        if moved is None:
            raise InstanceNotFound("The instance was deleted meanwhile")
        instance = moved
    raise Unavailable("The instance is being upgraded all the time: try again")


def set_desired_versions(
    from_version: MachineVersion | None,
    to_version: MachineVersion,
    *,
    after_id: int,
    limit: int = LOOKED_AT_MAX,
) -> Upgrades:
    """Have the next `limit` instances of a machine upgrade to `to_version`.

    Those that are on `from_version`, or else on any version with a way to it; what is final stays.
    A machine has a million instances: they are walked through by id, which no event changes, and
    changed a few at a time. Safe to repeat, from any id. Raises NoMigrationPath.
    """
    assert from_version != to_version
    versions = _versions(from_version, to_version)
    all_of_machine = instances_of(to_version.machine)
    ids = all_of_machine.filter(pk__gt=after_id).order_by("pk").values_list("pk", flat=True)
    looked_at = list(ids[:limit])
    matched = changed = 0
    for first in range(0, len(looked_at), CHUNK):
        chunk = looked_at[first : first + CHUNK]
        found = Instance.objects.filter(pk__in=chunk, version__in=versions)
        of_chunk = list(
            _living(found)
            .exclude(state__endswith='"done":true}')
            .values_list("pk", "slug", "desired_version_id")
        )
        slugs = {pk: slug for pk, slug, desired in of_chunk if desired != to_version.pk}
        matched += len(of_chunk)
        if slugs:
            changed += _change_chunk(slugs, versions, to_version)
    return Upgrades(matched, changed, looked_at[-1] if len(looked_at) == limit else None)


def _checked(instance: Instance, version: MachineVersion) -> MachineVersion | None:
    """What to note for an instance that should have `version`."""
    if instance.version_id == version.pk:
        return None
    if find_path(instance.version, version) is None:
        raise _no_path(instance.version, version)
    return version


def _versions(from_version: MachineVersion | None, to_version: MachineVersion) -> set[int]:
    """The ids of the versions to leave."""
    if from_version is None:
        versions = find_versions_before(to_version)
        if not versions:
            raise NoMigrationPath(f"No migration leads to {to_version}: create one")
        return versions
    if find_path(from_version, to_version) is None:
        raise _no_path(from_version, to_version)
    return {from_version.pk}


def _change_chunk(slugs: dict[int, str], versions: set[int], to_version: MachineVersion) -> int:
    """Note the version for instances (slug by id); the number of those that it was noted for."""
    from instances.engine import door

    def update(chosen: QuerySet[Instance]) -> int:
        return _living(chosen.filter(version__in=versions)).update(desired_version=to_version)

    # Waiting for a row while others are locked could end in a deadlock with the engine's commits,
    # which take many rows in an order of their own. So those that are free go first, together, and
    # the few that were just being changed are waited for one by one.
    with transaction.atomic():
        rows = Instance.objects.filter(pk__in=slugs).select_for_update(skip_locked=True)
        free = list(rows.order_by("pk").values_list("pk", flat=True))
        changed = update(Instance.objects.filter(pk__in=free))
    for pk in slugs.keys() - free:
        changed += update(Instance.objects.filter(pk=pk))
    door.instances_outdated([(to_version.machine_id, slug) for slug in slugs.values()])
    return changed


def _living(instances: QuerySet[Instance]) -> QuerySet[Instance]:
    return instances.exclude(status=Instance.Status.DELETED)


def _no_path(from_version: MachineVersion, to_version: MachineVersion) -> NoMigrationPath:
    return NoMigrationPath(
        f"No migrations lead from {from_version} to {to_version}: create those that are missing"
    )
