"""The beginning of a migration: code that keeps the states that both versions have.

What it can't know is which state takes the instances of one that is gone. For each of those
there is a place in the draft that throws until somebody has filled it in: a dry run then names the
instances.
"""

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from machines.flow import Graph, active_paths
from machines.flow.text import clean
from machines.models import MachineVersion

STATES_MAX = 200  # of which the draft says something
NAME_CHARS_MAX = 60

Keys = tuple[str, ...]

STARTS_WITH = """\
// Upgrades instances of {machine} from {old} to {new}.

/**
 * Called for each state without states inside that an instance is in, and for those that it
 * would come back to by a history state.
 *
 * @param {{string[]}} path its keys, such as ["parent", "child"]
 * @param {{object}} context as it is before the upgrade
 * @returns {{string[]}} the path of the state in the new version
 */
export function upgradeState(path, context) {{
"""
ENDS_WITH = """\
}

/**
 * @param {string[][]} oldPaths the states that the instance was in
 * @param {string[][]} newPaths those that upgradeState has returned for them
 * @param {object} context as it is before the upgrade
 * @returns {object} the context that the new version goes on with
 */
export function upgradeContext(oldPaths, newPaths, context) {
  return { ...context };
}
"""


class Gone(NamedTuple):
    """A state of the old version that the new one does not have."""

    keys: Keys
    path: str  # as pages write it
    instances: int  # that are in it now
    instead: Keys | None  # what may have taken its place


def gone_states(old: Graph, new: Graph, states: Mapping[str, int]) -> list[Gone]:
    """The old version's innermost states that are gone, those with most instances first.

    `states`: how many of its instances are in each stored state.
    """
    kept = {keys for keys, _ in _states(new)}
    before = {keys for keys, _ in _states(old)}
    old_leaves = [keys for keys, is_leaf in _states(old) if is_leaf]
    fresh = [keys for keys, is_leaf in _states(new) if is_leaf and keys not in before]
    counts = _instances_by_path(states)
    gone = [keys for keys in old_leaves if keys not in kept]
    found = [
        Gone(keys, (path := _written(keys)), counts.get(path, 0), _instead(keys, gone, fresh))
        for keys in gone
    ]
    return sorted(found, key=lambda one: -one.instances)  # keeps the order of the document


def draft_of(
    machine: str, old: MachineVersion, new: MachineVersion, gone: list[Gone] | None
) -> str:
    """`gone` is None if one of the versions can't be described."""
    start = STARTS_WITH.format(machine=_comment(machine), old=_named(old), new=_named(new))
    return start + "\n".join(_body(gone)) + "\n" + ENDS_WITH


def _body(gone: list[Gone] | None) -> Iterator[str]:
    if gone is None:
        yield "  return path; // which states both versions have is not known"
    elif not gone:
        yield "  return path; // the new version has all states of the old one"
    else:
        yield from _cases(gone)


def _cases(gone: list[Gone]) -> Iterator[str]:
    # A key may hold a dot: then only the whole path tells states apart.
    is_plain = all("." not in key for one in gone for key in one.keys)
    yield '  switch (path.join(".")) {' if is_plain else "  switch (JSON.stringify(path)) {"
    yield "    // The new version does not have these states: say which one takes their instances."
    for one in gone[:STATES_MAX]:
        written = ".".join(one.keys) if is_plain else _stringified(one.keys)
        question = f"To do: where do instances in {one.path} go?"
        yield f"    case {json.dumps(written)}:"
        if one.instead is not None:
            yield f"      // return {json.dumps(one.instead)};"
        yield f"      throw new Error({json.dumps(question)});"
    if len(gone) > STATES_MAX:
        yield f"    // … and {len(gone) - STATES_MAX} more"
    yield "    default:"
    yield "      return path; // both versions have it"
    yield "  }"


def _instead(keys: Keys, gone: list[Keys], fresh: list[Keys]) -> Keys | None:
    """The one new state beside it, if it is the only one that is gone there; else none."""
    beside = [other for other in fresh if other[:-1] == keys[:-1]]
    gone_beside = [other for other in gone if other[:-1] == keys[:-1]]
    if len(beside) == 1 and len(gone_beside) == 1:
        return beside[0]
    moved = [other for other in fresh if other[-1:] == keys[-1:]]
    return moved[0] if len(moved) == 1 else None


def _states(graph: Graph) -> Iterator[tuple[Keys, bool]]:
    """The keys of each state from the root, and whether it has no states inside."""
    keys: dict[int, Keys] = {}
    for state in graph.states.values():
        keys[state.number] = () if state.parent is None else (*keys[state.parent], state.key)
        if state.type != "history":
            yield keys[state.number], state.type in ("atomic", "final")


def _instances_by_path(states: Mapping[str, int]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for stored, count in states.items():
        for path in active_paths(json.loads(stored)["state"]):
            counts[path] = counts.get(path, 0) + count
    return counts


def _written(keys: Keys) -> str:
    return ".".join(key.replace(".", "\\.") for key in keys)


def _stringified(keys: Keys) -> str:
    """What JSON.stringify makes of a path."""
    return json.dumps(keys, ensure_ascii=False, separators=(",", ":"))


def _named(version: MachineVersion) -> str:
    name = _comment(version.client_info)
    return f"{name} ({version.public_id})" if name else version.public_id


def _comment(text: str) -> str:
    """What can't end a line of a comment."""
    return clean(" ".join(text.split()))[:NAME_CHARS_MAX]
