"""A few of a version's instances, spread over its states, and how upgrading them would turn out."""

from collections.abc import Sequence
from typing import NamedTuple

from instances import places
from instances.access import instances_of
from instances.models import Instance
from instances.pages.upgrading import Tried, try_many
from instances.pages.words import leaves_of
from machines.models import MachineVersion
from machines.state_counts import COUNTED_MAX, Whereabouts

SAMPLE = 20


class StateShare(NamedTuple):
    """How many of a version's instances are in one state."""

    name: str  # of a parallel one its leaves
    instances: int


class Group(NamedTuple):
    """Those of a sample that would turn out alike."""

    kind: str  # as in Tried
    why: str
    tried: list[Tried]


class Sample(NamedTuple):
    size: int
    works: list[Tried]
    fails: list[Group]  # the largest first


def shares_of(states: dict[str, int]) -> list[StateShare]:
    """By what a person calls the state, the most frequent first."""
    counts: dict[str, int] = {}
    for state, count in states.items():
        name = " + ".join(f"{leaf.parents}{leaf.name}" for leaf in leaves_of(state))
        counts[name] = counts.get(name, 0) + count
    return [StateShare(*item) for item in sorted(counts.items(), key=lambda item: -item[1])]


def sample_of(where: Whereabouts, version: MachineVersion) -> list[Instance]:
    """At most SAMPLE instances, the newest of each state; of rare states as many as of others."""
    states = sorted(where.living_on(version.pk).items(), key=lambda item: -item[1])[:SAMPLE]
    by_state = [_newest(where, version, state) for state, _ in states]
    chosen: list[Instance] = []
    for n in range(SAMPLE):
        chosen += [instances[n] for instances in by_state if n < len(instances)]
    return chosen[:SAMPLE]


def _newest(where: Whereabouts, version: MachineVersion, state: str) -> list[Instance]:
    of_version = instances_of(version.machine).filter(version=version).order_by("-pk")
    if where.total <= COUNTED_MAX:
        return list(of_version.filter(state=state)[:SAMPLE])
    # No index is on the state; places follow instances at a distance of two seconds.
    kinds = [
        (state_id, version_id)
        for _, state_id, text, version_id, _ in places.counts([version.machine_id])
        if version_id == version.pk and text == state
    ]
    return list(of_version.filter(pk__in=places.newest(kinds, SAMPLE, after=None)))


def try_sample(
    instances: Sequence[Instance], from_version: MachineVersion, to_version: MachineVersion
) -> Sample:
    """For who sees everything: errors may quote private data. Raises Unavailable."""
    tried = try_many(instances, from_version, to_version, sees_all=True)
    groups: dict[tuple[str, str], list[Tried]] = {}
    for one in tried:
        if not one.is_ok:
            groups.setdefault((one.kind, one.why), []).append(one)
    return Sample(
        len(tried),
        [one for one in tried if one.is_ok],
        [
            Group(kind, why, alike)
            for (kind, why), alike in sorted(groups.items(), key=lambda item: -len(item[1]))
        ],
    )
