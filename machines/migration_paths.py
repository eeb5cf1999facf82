"""The way from one version of a machine to another: which migrations to run, in order."""

from collections import deque
from collections.abc import Iterable

from machines.models import MachineVersion, MachineVersionMigration

Edge = tuple[int, int, int]  # ids: of a migration, the version it is from, the version it is to


def find_path(from_version: MachineVersion, to_version: MachineVersion) -> list[int] | None:
    """The ids of the migrations between two versions of one machine, or None without a way."""
    return shortest_path(_edges_of(from_version.machine_id), from_version.pk, to_version.pk)


def find_versions_before(version: MachineVersion) -> set[int]:
    """The ids of all other versions from which migrations lead to this one."""
    return versions_before(_edges_of(version.machine_id), version.pk)


def shortest_path(edges: Iterable[Edge], from_id: int, to_id: int) -> list[int] | None:
    """The ids of the fewest migrations that lead from one version to the other, in order.

    Between two versions the newest migration counts, and of several ways with as few steps the one
    whose first step is the newest, then its second, and so on. Without a way it is None; from a
    version to itself it is empty.
    """
    ways_out = _ways_out(edges)
    arrivals: dict[int, tuple[int, int] | None] = {from_id: None}  # the step that came there first
    reached = deque([from_id])
    while reached and to_id not in arrivals:
        version = reached.popleft()
        for next_version, migration in ways_out.get(version, {}).items():
            if next_version not in arrivals:
                arrivals[next_version] = (version, migration)
                reached.append(next_version)
    return _walk_back(arrivals, to_id) if to_id in arrivals else None


def versions_before(edges: Iterable[Edge], to_id: int) -> set[int]:
    """The ids of all versions with a way to this one, without itself."""
    ways_in: dict[int, set[int]] = {}
    for _, before, after in edges:
        ways_in.setdefault(after, set()).add(before)
    found = {to_id}
    to_follow = [to_id]
    while to_follow:
        more = ways_in.get(to_follow.pop(), set()) - found
        found |= more
        to_follow += more
    return found - {to_id}


def _edges_of(machine_id: int) -> Iterable[Edge]:
    migrations = MachineVersionMigration.objects.filter(machine_id=machine_id)
    return migrations.values_list("id", "from_version_id", "to_version_id")


def _ways_out(edges: Iterable[Edge]) -> dict[int, dict[int, int]]:
    """From version: to version: migration. The newest first, and only that of two versions."""
    ways_out: dict[int, dict[int, int]] = {}
    for migration, from_id, to_id in sorted(edges, reverse=True):
        ways_out.setdefault(from_id, {}).setdefault(to_id, migration)
    return ways_out


def _walk_back(arrivals: dict[int, tuple[int, int] | None], to_id: int) -> list[int]:
    path = []
    step = arrivals[to_id]
    while step is not None:
        version, migration = step
        path.append(migration)
        step = arrivals[version]
    return path[::-1]
