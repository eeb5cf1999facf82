"""How pages write times, sizes and states."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from machines.flow.text import clean
from machines.models import MachineVersion

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
VERSION_CHARS_MAX = 24


class Leaf(NamedTuple):
    """An active state that has no states inside: its path, and the two parts that are shown."""

    path: str
    parents: str  # with the dot after it, or empty
    name: str  # its key without what could disturb the text around it


def leaves_of(stored_state: str) -> list[Leaf]:
    """The active leaves of an instance's `state` column, in the order of the state value."""
    return leaves(json.loads(stored_state)["state"])


def leaves(value: Any) -> list[Leaf]:
    return [_leaf(keys) for keys in _leaf_keys(value, ())]


def _leaf_keys(value: Any, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, str):
        yield (*above, value)
    elif isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _leaf_keys(below, (*above, key))
    else:
        yield above  # a machine without states, or a state whose insides are not told


def _leaf(keys: tuple[str, ...]) -> Leaf:
    path = ".".join(key.replace(".", "\\.") for key in keys)
    parents = ".".join(clean(key) for key in keys[:-1])
    return Leaf(path, f"{parents}." if parents else "", clean(keys[-1]) if keys else "")


def duration(ms: float) -> str:
    """Such as `2 d 4 h`, `1.2 s` or `0.3 ms`."""
    if ms < 10:
        return f"{ms:.1f} ms"
    if ms < 1_000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1_000:.1f} s"
    parts = []
    rest = int(ms)
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1_000, UTC)


def size(byte_count: int) -> str:
    """Such as `312 B` or `3.1 kB`; a kB has 1,000 bytes."""
    return f"{byte_count} B" if byte_count < 1_000 else f"{byte_count / 1_000:,.1f} kB"


def version_name(version: MachineVersion | None) -> str:
    """What its publisher called it, or the beginning of its id."""
    if version is None:
        return "unknown"
    return cut(version.client_info or version.public_id, VERSION_CHARS_MAX)


def cut(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else f"{text[: chars_max - 1]}…"
