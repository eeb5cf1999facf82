"""How far a machine's versions are from one another, counted in migrations."""

from collections import deque
from collections.abc import Iterable

from machines.migration_paths import Edge
from machines.models import Machine, MachineVersionMigration


def edges_of(machine: Machine) -> list[Edge]:
    """All migrations of the machine, one query."""
    migrations = MachineVersionMigration.objects.filter(machine=machine)
    return list(migrations.values_list("id", "from_version_id", "to_version_id"))


def steps_to(edges: Iterable[Edge], to_id: int) -> dict[int, int]:
    """How many migrations lead from each version to this one; those without a way are left out."""
    return _distances(((to, from_) for _, from_, to in edges), to_id)


def steps_from(edges: Iterable[Edge], from_id: int) -> dict[int, int]:
    """How many migrations lead from this version to each of those that can be reached."""
    return _distances(((from_, to) for _, from_, to in edges), from_id)


def _distances(pairs: Iterable[tuple[int, int]], start: int) -> dict[int, int]:
    beside: dict[int, set[int]] = {}
    for one, other in pairs:
        beside.setdefault(one, set()).add(other)
    distances = {start: 0}
    to_follow = deque([start])
    while to_follow:
        version = to_follow.popleft()
        for other in beside.get(version, ()):
            if other not in distances:
                distances[other] = distances[version] + 1
                to_follow.append(other)
    return distances
