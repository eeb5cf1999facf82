"""Where machines' instances are: how many in each state, on each version.

Of few instances the rows themselves are counted. Of many, the counts that follow the instances at a
distance of two seconds are read (instances/places.py); while these may be wrong, they are marked.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db import connection

from instances import places
from instances.pages.words import leaves_of
from instances.stored_state import parse_state
from machines.models import Machine

COUNTED_MAX = 5_000  # instances of one machine that are counted one by one
COUNTED_EACH_MAX = 500  # of each machine in a list of machines
SHARES_SHOWN = 3
STATELESS = "running"  # the one state of a machine without states

_COUNT_ROWS = """
SELECT machine_id, state, version_id, COUNT(*) FROM (
  SELECT machine_id, state, version_id FROM instance
  WHERE machine_id = %s AND status <> 2 ORDER BY id DESC LIMIT %s
) AS newest GROUP BY machine_id, state, version_id
"""


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a bar of 100 units."""

    name: str
    count: int
    start: float
    width: float
    kind: str  # class of the part: now, a, b, c


@dataclass(frozen=True)
class Whereabouts:
    total: int
    is_approximate: bool  # some may be missing, or counted where they are no more
    states: dict[str, int]  # by stored state
    versions: dict[int, int]  # by primary key of the version
    kinds: dict[tuple[str, int], int]  # by both

    def by_path(self) -> dict[str, int]:
        """How many are in each state, by its path; a state holds those in states inside it."""
        counts: Counter[str] = Counter()
        for stored, count in self.states.items():
            for path in active_paths(stored):
                counts[path] += count
        return dict(counts)

    def on(self, version_id: int) -> dict[str, int]:
        """How many of the version's instances are in each stored state."""
        return {state: count for (state, of), count in self.kinds.items() if of == version_id}

    def living_on(self, version_id: int) -> dict[str, int]:
        """The same without those that have reached their final state."""
        states = self.on(version_id)
        return {state: count for state, count in states.items() if not parse_state(state).done}

    def by_node(self) -> dict[str, int]:
        """The same, by the path that a drawing has: there, dots in keys are not escaped."""
        return {path.replace("\\.", "."): count for path, count in self.by_path().items()}

    def shares(self) -> list[Share]:
        return shares_of(leaf_counts(self.states), self.total)


def whereabouts(machine: Machine) -> Whereabouts:
    return _counted([machine], COUNTED_MAX)[machine.pk]


def whereabouts_of(machines: Sequence[Machine]) -> dict[int, Whereabouts]:
    """By primary key; the number of queries does not depend on how many machines there are."""
    return _counted(machines, COUNTED_EACH_MAX)


def _counted(machines: Sequence[Machine], limit: int) -> dict[int, Whereabouts]:
    """Counts up to `limit` instances of each."""
    kinds: dict[int, Counter[tuple[str, int]]] = {machine.pk: Counter() for machine in machines}
    for machine_id, _, state, version_id, count in places.counts(list(kinds)):
        kinds[machine_id][state, version_id] += count
    is_approximate = dict.fromkeys(kinds, False)
    small = [pk for pk, counts in kinds.items() if counts.total() <= limit]
    for pk in small:
        kinds[pk].clear()
    for machine_id, state, version_id, count in _count_rows(small, limit + 1):
        kinds[machine_id][state, version_id] += count
    large = [pk for pk, counts in kinds.items() if counts.total() > limit]
    if large:
        is_exact = places.are_exact()
        # What was counted up to the limit now is more than its places say.
        is_approximate |= {pk: not is_exact or pk in small for pk in large}
    return {pk: _whereabouts(counts, is_approximate[pk]) for pk, counts in kinds.items()}


def _whereabouts(kinds: Counter[tuple[str, int]], is_approximate: bool) -> Whereabouts:
    states: Counter[str] = Counter()
    versions: Counter[int] = Counter()
    for (state, version_id), count in kinds.items():
        states[state] += count
        versions[version_id] += count
    return Whereabouts(kinds.total(), is_approximate, dict(states), dict(versions), dict(kinds))


def _count_rows(machine_ids: list[int], limit: int) -> list[tuple[int, str, int, int]]:
    """(machine, state, version, instances) of the newest `limit` instances of each machine."""
    if not machine_ids:
        return []
    parameters = [value for machine_id in machine_ids for value in (machine_id, limit)]
    queries = [f"SELECT * FROM ({_COUNT_ROWS}) AS one"] * len(machine_ids)
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(queries), parameters)
        rows: list[tuple[int, str, int, int]] = cursor.fetchall()
    return rows


def active_paths(stored_state: str) -> set[str]:
    """Of all active states, those that hold others included."""
    paths = set()
    for leaf in leaves_of(stored_state):
        keys = leaf.path.replace("\\.", "\0").split(".")
        for depth in range(1, len(keys) + 1):
            paths.add(".".join(keys[:depth]).replace("\0", "\\."))
    return paths


def leaf_counts(states: dict[str, int]) -> Counter[tuple[str, bool]]:
    """By what a person calls the state (`inTransit`, or `a + b` of a parallel one) and doneness."""
    counts: Counter[tuple[str, bool]] = Counter()
    for stored, count in states.items():
        name = " + ".join(leaf.name for leaf in leaves_of(stored))
        counts[name or STATELESS, parse_state(stored).done] += count
    return counts


def shares_of(counts: Counter[tuple[str, bool]], total: int) -> list[Share]:
    """The most frequent states, then the rest and what is done as one."""
    if total == 0:
        return []
    living = [(name, count) for (name, done), count in counts.most_common() if not done]
    parts = [
        (name, count, kind)
        for (name, count), kind in zip(living[:SHARES_SHOWN], ("now", "a", "b"), strict=False)
    ]
    rest = total - sum(count for _, count, _ in parts)
    if rest:
        parts.append(("finished or other", rest, "c"))
    return list(_placed(parts, total))


def _placed(parts: Iterable[tuple[str, int, str]], total: int) -> Iterable[Share]:
    start = 0.0
    for name, count, kind in parts:
        width = 100 * count / total
        # A gap of 0.6 between parts, where there is room for one.
        yield Share(name, count, round(start, 2), round(max(width - 0.6, 0.4), 2), kind)
        start += width
