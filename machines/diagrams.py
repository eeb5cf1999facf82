"""The definition and the drawing of a version: made when it is published, and kept.

A version never changes, so its definition does not; its drawing is made anew when the way of
drawing has changed. Whoever looks before it is made makes it.
"""

import gzip
import json
import logging
import queue
import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from django.db import connection
from django.utils.safestring import SafeString, mark_safe

from instances.runtime.bundle import BundleCode
from machines.flow import (
    CannotDraw,
    Direction,
    Drawing,
    FlowError,
    Graph,
    Run,
    TooLargeToDraw,
    describe,
    draw,
    draw_standalone,
    drawing_key,
)
from machines.flow.standalone import Theme
from machines.flow.tree import to_tree
from machines.models import Machine, MachineVersion, VersionCode, VersionDiagram
from machines.thumbs import Thumb, thumb_of

logger = logging.getLogger(__name__)

PROBLEM_CHARS_MAX = 500
WAITING_MAX = 100  # versions to be drawn; those beyond it are drawn when they are looked at

_describing = threading.Lock()
_drawing = threading.Lock()  # who asks for what is being drawn waits for it
_waiting: queue.Queue[int] = queue.Queue(WAITING_MAX)
_painter: threading.Thread | None = None


def prepare(version_id: int) -> None:
    """Describe and draw a version soon, in another thread, one after the other."""
    global _painter
    try:
        _waiting.put_nowait(version_id)
    except queue.Full:
        return
    if _painter is None:
        _painter = threading.Thread(target=_prepare_all, name="diagrams", daemon=True)
        _painter.start()


def _prepare_all() -> None:
    while True:
        version_id = _waiting.get()
        try:
            version = MachineVersion.objects.filter(pk=version_id).first()
            if version is not None:
                drawing_of(version)
        except Exception:  # the next one is to be drawn whatever has happened to this one
            logger.exception("Version %s could not be drawn ahead", version_id)
        finally:
            connection.close()


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
    if folded is not None:
        return _drawn(version, diagram, folded, outer)
    with _drawing:
        diagram.refresh_from_db()
        if diagram.drawing_key == _key(diagram):
            return _stored(diagram)  # None: it was too large when it was tried
        drawing = _drawn(version, diagram)
        if drawing is not None:
            _save(diagram, drawing)
        return drawing


def _drawn(
    version: MachineVersion,
    diagram: VersionDiagram,
    folded: Sequence[str] | None = None,
    outer: Run | None = None,
) -> Drawing | None:
    try:
        graph = Graph.decode(bytes(diagram.definition))
        if folded is not None:
            return draw(graph, folded=folded, outer=outer)
        return draw(graph, direction=_direction_before(version))
    except TooLargeToDraw as exc:
        logger.warning("%s can't be drawn: %s", version, exc)
        if folded is None:
            diagram.drawing_key, diagram.drawing = _key(diagram), b""
            diagram.save(update_fields=["drawing_key", "drawing"])
    except FlowError as exc:
        logger.warning("%s can't be drawn: %s", version, exc)
    return None


def _direction_before(version: MachineVersion) -> Direction | None:
    """That of the version before, so that a machine looks familiar after a change."""
    earlier = VersionDiagram.objects.filter(
        version__machine=version.machine_id, version__lt=version.pk
    ).exclude(drawing=b"")
    packed = earlier.order_by("-version").values_list("drawing", flat=True).first()
    return _decoded(packed).direction if packed is not None else None


def _stored(diagram: VersionDiagram) -> Drawing | None:
    if not diagram.drawing or diagram.drawing_key != _key(diagram):
        return None
    return _decoded(diagram.drawing)


def _decoded(packed: bytes | memoryview) -> Drawing:
    return msgspec.msgpack.decode(bytes(packed), type=Drawing)


def _key(diagram: VersionDiagram) -> str:
    """Empty, as of what was never drawn, where the program that draws is missing."""
    try:
        return drawing_key(bytes(diagram.definition))
    except CannotDraw as exc:
        logger.warning("Nothing can be drawn: %s", exc)
        return ""


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
    found = VersionDiagram.objects.filter(version=version).first()
    if found is not None:
        return found
    with _describing:  # a page's parts ask at once: the code is to be run for the first only
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


class Panel(NamedTuple):
    """What machines/_flow_panel.html shows; `svg` is empty of a machine too large to draw."""

    svg: SafeString
    tree: SafeString
    folded_json: str  # paths

    @property
    def is_folded(self) -> bool:
        return self.folded_json != "[]"


def panel_of(version: MachineVersion) -> Panel | None:
    """What a page shows of a version, or None if its code can't be described."""
    drawing = drawing_of(version)
    if drawing is not None:
        return _panel(drawing)
    diagram = diagram_of(version)
    try:
        tree = "" if diagram.problem else to_tree(Graph.decode(bytes(diagram.definition)))
    except FlowError as exc:
        logger.warning("%s has no tree: %s", version, exc)
        tree = ""
    # Our own markup, as below.
    return Panel(mark_safe(""), mark_safe(tree), "[]") if tree else None


def stored_panel(version_id: int) -> Panel | None:
    """The same if it was drawn already. Takes a millisecond: no code runs, nothing is drawn."""
    diagram = VersionDiagram.objects.filter(version=version_id).first()
    drawing = _stored(diagram) if diagram is not None else None
    return _panel(drawing) if drawing is not None else None


def _panel(drawing: Drawing) -> Panel:
    # Our own markup: both escape every text of the machine (machines/flow/svg.py, tree.py).
    return Panel(mark_safe(drawing.svg), mark_safe(drawing.tree), json.dumps(drawing.folded))


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


def _save(diagram: VersionDiagram, drawing: Drawing) -> None:
    diagram.drawing_key = _key(diagram)
    diagram.drawing = msgspec.msgpack.encode(drawing)
    diagram.thumb = thumb_of(drawing.svg)
    diagram.save(update_fields=["drawing_key", "drawing", "thumb"])
