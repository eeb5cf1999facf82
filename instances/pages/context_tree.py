"""A JSON value as the lines of a tree, with what changed since the value before."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

LINES_MAX = 2_000
DEPTH_MAX = 32
TEXT_CHARS_MAX = 400
OPEN_DEPTH = 2  # containers above this level are open at first; so are those with a change inside

_MISSING = object()


class Line(NamedTuple):
    level: int  # 1 for the outermost keys
    key: str
    path: str  # JSONPath
    kind: str  # object, array, string, number, boolean, null
    text: str  # the value, or for a container how much it holds
    was: str  # the value before, if it changed
    change: str  # "", add, del, chg; "in" for a container with a change inside
    is_container: bool
    is_open: bool
    is_public: bool
    is_hidden: bool = False


class Tree(NamedTuple):
    lines: list[Line]
    is_cut: bool  # there are more lines than a page takes
    changes: list[Line]  # added, deleted and changed values only


def tree_of(context: str, before: str | None) -> Tree:
    """`context` and the one before it as JSON texts; without one before, nothing is marked."""
    value = json.loads(context)
    earlier = json.loads(before) if before is not None else value
    lines: list[Line] = []
    is_cut = False
    for line in _lines(value, earlier, 1, "$"):
        if len(lines) == LINES_MAX:
            is_cut = True
            break
        lines.append(line)
    changes = [line for line in lines if line.change in ("add", "del", "chg")]
    return Tree(_with_hidden(lines), is_cut, changes)


def _lines(value: Any, before: Any, level: int, path: str) -> Iterator[Line]:
    for key, now, earlier in _members(value, before):
        below = f"{path}[{key}]" if isinstance(value, list) else _path(path, key)
        yield from _line(key, now, earlier, level, below)


def _members(value: Any, before: Any) -> Iterator[tuple[str, Any, Any]]:
    """(key, value now, value before) of a container; a removed one stands where it stood."""
    if isinstance(value, dict):
        earlier = before if isinstance(before, dict) else {}
        for key in dict.fromkeys([*earlier, *value]):
            yield key, value.get(key, _MISSING), earlier.get(key, _MISSING)
    elif isinstance(value, list):
        earlier_list = before if isinstance(before, list) else []
        for index in range(max(len(value), len(earlier_list))):
            yield str(index), _at(value, index), _at(earlier_list, index)
    else:
        yield "", value, before


def _at(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else _MISSING


def _line(key: str, now: Any, before: Any, level: int, path: str) -> Iterator[Line]:
    change = _change(now, before)
    shown = before if now is _MISSING else now
    is_container = isinstance(shown, dict | list) and bool(shown) and level < DEPTH_MAX
    yield Line(
        level=level,
        key=key,
        path=path,
        kind=_kind(shown),
        text=_text(shown, is_container),
        was=_text(before, isinstance(before, dict | list)) if change == "chg" else "",
        change=change,
        is_container=is_container,
        is_open=level < OPEN_DEPTH or change == "in",
        is_public=path == "$.public",
    )
    if is_container:
        # Of what is new or gone as a whole, the parts are not marked one by one.
        inner_before = before if change in ("", "in") else shown
        yield from _lines(shown, inner_before, level + 1, path)


def _change(now: Any, before: Any) -> str:
    if now is _MISSING:
        return "del"
    if before is _MISSING:
        return "add"
    if now == before and type(now) is type(before):
        return ""
    if isinstance(now, dict) and isinstance(before, dict):
        return "in"
    if isinstance(now, list) and isinstance(before, list):
        return "in"
    return "chg"


def _kind(value: Any) -> str:
    match value:
        case dict():
            return "object"
        case list():
            return "array"
        case str():
            return "string"
        case bool():
            return "boolean"
        case None:
            return "null"
    return "number"


def _text(value: Any, is_container: bool) -> str:
    if is_container:
        count = len(value)
        what = "item" if isinstance(value, list) else "key"
        return f"{count} {what}{'' if count == 1 else 's'}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:TEXT_CHARS_MAX]}…"


def _path(parent: str, key: str) -> str:
    if key.isidentifier():
        return f"{parent}.{key}"
    return f"{parent}[{json.dumps(key, ensure_ascii=False)}]"


def _with_hidden(lines: list[Line]) -> list[Line]:
    """The lines, those inside a closed container marked as hidden."""
    closed_at: int | None = None  # level of the outermost closed container that we are in
    result = []
    for line in lines:
        if closed_at is not None and line.level <= closed_at:
            closed_at = None
        result.append(line._replace(is_hidden=closed_at is not None))
        if closed_at is None and line.is_container and not line.is_open:
            closed_at = line.level
    return result
