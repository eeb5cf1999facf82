"""The picture of an instance's machine, and what of it to light up."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple

from django.utils.safestring import SafeString, mark_safe

from instances.explain import Definition
from instances.pages.definitions import definition_of
from instances.pages.moment import Moment
from machines.diagrams import drawing_of
from machines.flow import CannotDraw, active_paths, draw
from machines.flow.tree import to_tree
from machines.models import MachineVersion
from statebacked_site.errors import InvalidParameter

FOLDS_MAX = 500
FOLDED_KEPT = 32

_folded: OrderedDict[tuple[int, frozenset[str]], str] = OrderedDict()


class Picture(NamedTuple):
    """`svg` is empty if the machine could not be drawn; its tree then stands alone."""

    version_id: int
    svg: SafeString
    tree: SafeString
    folded: list[str]  # paths


def picture_of(version_id: int) -> Picture | None:
    """None if the definition can't be read. Takes some tenths of a second the first time."""
    definition = definition_of(version_id)
    version = MachineVersion.objects.filter(pk=version_id).first()
    if definition is None or version is None:
        return None
    # Our own markup: the drawing and the tree escape every text of the machine (machines/flow).
    drawing = drawing_of(version)
    if drawing is None:
        return Picture(version_id, mark_safe(""), mark_safe(to_tree(definition.graph)), [])
    return Picture(version_id, mark_safe(drawing.svg), mark_safe(drawing.tree), drawing.folded)


def folded_svg(version_id: int, paths: Iterable[str]) -> str:
    """The drawing with these states closed, in its usual direction. Raises InvalidParameter."""
    definition = definition_of(version_id)
    version = MachineVersion.objects.filter(pk=version_id).first()
    drawing = drawing_of(version) if version is not None else None
    if definition is None or drawing is None:
        raise InvalidParameter("This version can't be drawn", "fold")
    closed = frozenset(paths) & frozenset(definition.graph.paths.values())
    if len(closed) > FOLDS_MAX:
        raise InvalidParameter(f"At most {FOLDS_MAX} states can be closed", "fold")
    key = (version_id, closed)
    if key not in _folded:
        try:
            svg = draw(definition.graph, folded=closed, direction=drawing.direction).svg
        except CannotDraw as exc:
            raise InvalidParameter(str(exc), "fold") from exc
        if len(_folded) >= FOLDED_KEPT:
            _folded.popitem(last=False)
        _folded[key] = svg
    return _folded[key]


def lights_of(definition: Definition | None, moment: Moment, *, is_past: bool) -> dict[str, Any]:
    """What to light up: the active states, the transition just taken, and the events possible next.

    States are told by their paths and transitions by their numbers; `next` says the type of each
    transition's event.
    """
    lights: dict[str, Any] = {
        "seq": moment.seq,
        "version": moment.version_id,
        "active": active_paths(moment.value),
        "taken": None,
        "next": {},
        "past": is_past,
    }
    if definition is not None:
        lights["taken"] = definition.taken(moment.before, moment.event_type, moment.value)
        if not moment.is_done and not is_past:
            lights["next"] = {
                transition.number: handling.event_type
                for handling in definition.handling(moment.value)
                for transition in handling.transitions
            }
    return lights
