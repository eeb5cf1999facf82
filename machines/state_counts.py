"""Where a machine's instances are: how many in each state, on each version.

What events change has no index, so counting looks at instances. It looks at the newest ones, up to
a bound, and says whether it has seen all.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db import connection
from django.db.models import Count

from instances.models import Instance
from instances.pages.words import leaves_of
from instances.stored_state import parse_state
from machines.models import Machine

COUNTED_MAX = 50_000  # instances of one machine, on the page that is about them: 0.2 s
GLANCED_MAX = 10_000  # on its other pages
SAMPLED_MAX = 2_000  # instances of each machine in a list of machines
SHARES_SHOWN = 3
STATELESS = "running"  # the one state of a machine without states

_SAMPLE = """
SELECT machine_id, state, COUNT(*) FROM (
  SELECT machine_id, state FROM instance
  WHERE machine_id = %s AND status <> 2 ORDER BY id DESC LIMIT %s
) AS newest GROUP BY machine_id, state
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
    total: int  # of the instances that were counted
    is_cut: bool  # there are more
    states: dict[str, int]  # by stored state
    versions: dict[int, int]  # by primary key of the version

    def by_path(self) -> dict[str, int]:
        """How many are in each state, by its path; a state holds those in states inside it."""
        counts: Counter[str] = Counter()
        for stored, count in self.states.items():
            for path in active_paths(stored):
                counts[path] += count
        return dict(counts)

    def by_node(self) -> dict[str, int]:
        """The same, by the path that a drawing has: there, dots in keys are not escaped."""
        return {path.replace("\\.", "."): count for path, count in self.by_path().items()}

    def shares(self) -> list[Share]:
        return shares_of(leaf_counts(self.states), self.total)


def whereabouts(machine: Machine) -> Whereabouts:
    """Exact up to COUNTED_MAX instances, and beyond that of the newest ones."""
    return _counted(machine, COUNTED_MAX)


def glance(machine: Machine) -> Whereabouts:
    """The same of fewer instances."""
    return _counted(machine, GLANCED_MAX)


def _counted(machine: Machine, limit: int) -> Whereabouts:
    existing = Instance.objects.filter(machine=machine).exclude(status=Instance.Status.DELETED)
    newest = existing.order_by("-id").values("pk")[:limit]
    groups = (
        Instance.objects.filter(pk__in=newest)
        .values_list("state", "version_id")
        .annotate(count=Count("pk"))
        .order_by()
    )
    states: Counter[str] = Counter()
    versions: Counter[int] = Counter()
    for state, version_id, count in groups:
        states[state] += count
        versions[version_id] += count
    total = states.total()
    is_cut = total == limit and existing[limit : limit + 1].exists()
    return Whereabouts(total, is_cut, dict(states), dict(versions))


def sample(machines: Sequence[Machine]) -> dict[int, Whereabouts]:
    """By primary key, of the newest SAMPLED_MAX instances of each machine; one query for all."""
    if not machines:
        return {}
    parameters: list[int] = []
    for machine in machines:
        parameters += [machine.pk, SAMPLED_MAX + 1]
    states: dict[int, dict[str, int]] = {machine.pk: {} for machine in machines}
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ALL ".join([f"SELECT * FROM ({_SAMPLE}) AS one"] * len(machines)), parameters
        )
        for machine_id, state, count in cursor.fetchall():
            states[machine_id][state] = count
    return {key: _sampled(counts) for key, counts in states.items()}


def _sampled(states: dict[str, int]) -> Whereabouts:
    total = sum(states.values())
    return Whereabouts(total, total > SAMPLED_MAX, states, {})


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
