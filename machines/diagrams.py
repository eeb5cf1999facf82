"""The definition and the drawing of a version: made when they are first looked at, and kept.

A version never changes, so its definition does not; its drawing is made anew when the way of
drawing has changed.
"""

import gzip
import logging
from collections.abc import Iterable, Sequence

import msgspec
from django.utils.safestring import SafeString, mark_safe

from instances.runtime.bundle import BundleCode
from machines.flow import (
    Drawing,
    FlowError,
    Graph,
    Run,
    TooLargeToDraw,
    describe,
    draw,
    draw_standalone,
    drawing_key,
    stored_or_drawn,
)
from machines.flow.standalone import Theme
from machines.models import Machine, MachineVersion, VersionCode, VersionDiagram
from machines.thumbs import Thumb, thumb_of

logger = logging.getLogger(__name__)

PROBLEM_CHARS_MAX = 500


def drawing_of(
    version: MachineVersion, folded: Sequence[str] | None = None, outer: Run | None = None
) -> Drawing | None:
    """The drawing of a version, or None if there can be none.

    `folded`: paths of states to close; None closes what makes a large machine readable, and this
    drawing is kept. `outer`: which way the outermost container runs, so that a picture does not
    turn over when a state is opened. Blocks for a few tenths of a second when the version was never
    looked at: its code runs in a sandbox of its own.
    """
    diagram = diagram_of(version)
    if diagram.problem:
        return None
    definition = bytes(diagram.definition)
    key = drawing_key(definition, None, None, None)
    if diagram.drawing_key == key and not diagram.drawing and folded is None:
        return None  # it was too large when it was tried
    try:
        if folded is not None:
            return draw(Graph.decode(definition), folded=folded, outer=outer)
        return stored_or_drawn(
            definition,
            load=lambda key: bytes(diagram.drawing) if diagram.drawing_key == key else None,
            save=lambda key, packed: _save(diagram, key, packed),
        )
    except TooLargeToDraw as exc:
        logger.warning("%s can't be drawn: %s", version, exc)
        if folded is None:
            diagram.drawing_key, diagram.drawing = key, b""
            diagram.save(update_fields=["drawing_key", "drawing"])
        return None
    except FlowError as exc:
        logger.warning("%s can't be drawn: %s", version, exc)
        return None


def file_of(version: MachineVersion, theme: Theme) -> str | None:
    """The drawing as an SVG that needs no style sheet of ours."""
    diagram = diagram_of(version)
    if diagram.problem:
        return None
    try:
        return draw_standalone(Graph.decode(bytes(diagram.definition)), theme)
    except FlowError as exc:
        logger.warning("%s can't be drawn: %s", version, exc)
        return None


def diagram_of(version: MachineVersion) -> VersionDiagram:
    """The version's row, with its definition or with the problem that keeps it from having one."""
    return VersionDiagram.objects.filter(version=version).first() or _described(version)


def thumbs_of(machines: Iterable[Machine]) -> dict[int, Thumb | None]:
    """The thumbnails that are stored, by machine; None where the version can't be drawn.

    A machine is missing whose current version nobody has looked at since it was deployed.
    """
    by_version = {machine.current_version_id: machine.pk for machine in machines}
    stored = VersionDiagram.objects.filter(version_id__in=filter(None, by_version))
    return {
        by_version[version_id]: thumb or None
        for version_id, thumb, problem in stored.values_list("version_id", "thumb", "problem")
        if thumb or problem
    }


def svg_of(drawing: Drawing) -> SafeString:
    # Our own markup: the drawing escapes every text of the machine (machines/flow/svg.py).
    return mark_safe(drawing.svg)


def tree_of(drawing: Drawing) -> SafeString:
    # As above (machines/flow/tree.py).
    return mark_safe(drawing.tree)


def _described(version: MachineVersion) -> VersionDiagram:
    code = VersionCode.objects.get(version=version)
    definition, problem = b"", ""
    try:
        commonjs = gzip.decompress(bytes(code.commonjs_gzip)).decode()
        definition = describe(BundleCode(commonjs, list(code.externals))).encode()
    except (FlowError, EOFError) as exc:
        problem = str(exc)[:PROBLEM_CHARS_MAX] or "the code holds no machine"
    # Of two who look at the same moment, one makes the row.
    diagram, _ = VersionDiagram.objects.get_or_create(
        version=version, defaults={"definition": definition, "problem": problem}
    )
    return diagram


def _save(diagram: VersionDiagram, key: str, packed: bytes) -> None:
    diagram.drawing_key = key
    diagram.drawing = packed
    diagram.thumb = thumb_of(msgspec.msgpack.decode(packed, type=Drawing).svg)
    diagram.save(update_fields=["drawing_key", "drawing", "thumb"])
