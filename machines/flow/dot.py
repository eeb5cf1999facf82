"""Graphviz as a solver: nodes of given size in, places out.

It decides the rows, the order within a row and the places across, and sees numbers only: no text
of an author's ever reaches it. The binary is graphviz-pure, installed as a Python package; another
one would place things elsewhere, so none is looked for.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import graphviz

from machines.flow.errors import CannotDraw, TooLargeToDraw
from machines.flow.plan import End, Side

Run = Literal["TB", "LR"]  # the direction of the flow in a container

PACKAGE = "graphviz-pure"
CPU_S_MAX = 30  # more than any deadline
PX_PER_INCH = 72
NODE_GAP, WIRE_GAP = 26.0, 6.5  # px between nodes of a row; beside a wire that only passes
PASS_WIDTH = 4.0
PORT_SIZE = 2  # px along the border
PORT_DEPTH = 4


@dataclass(frozen=True)
class Node:
    """A box of fixed size, in px."""

    name: str
    width: float
    height: float
    ports: dict[str, tuple[Side, float]] = field(default_factory=dict)  # offset along the side
    ports_run: Run = "TB"  # sides are above and below, or left and right
    group: str = ""  # nodes of one group are kept in a straight line
    is_pass: bool = False  # not a box: a wire on its way through a row


@dataclass(frozen=True)
class Link:
    tail: End
    head: End
    weight: int
    keeps_row: bool = False  # only says that the tail stands before the head in their row


@dataclass(frozen=True)
class Source:
    """What is to be placed: one container's contents."""

    run: Run
    nodes: list[Node]
    links: list[Link]
    first_row: list[str]
    last_row: list[str]


@dataclass(frozen=True)
class Place:
    """A node's middle, along the flow and across it, in px."""

    u: float
    v: float


def place(sources: Iterable[Source], deadline: float) -> list[dict[str, Place]]:
    """Place the nodes of several graphs in one process.

    Raises CannotDraw, also if it is not done by `deadline` (of time.monotonic).
    """
    sources = list(sources)
    if not sources:
        return []
    answer = _run("".join(_digraph(source) for source in sources), deadline)
    return [
        _read(plain, source.run) for plain, source in zip(_graphs(answer), sources, strict=True)
    ]


def _run(text: str, deadline: float) -> str:
    with subprocess.Popen(
        [binary(), "-Tplain"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        # Not communicate(timeout=…): it sleeps for milliseconds while the process is ending.
        alarm = threading.Timer(max(0.0, deadline - time.monotonic()), process.kill)
        alarm.start()
        _bound_cpu(process.pid)
        try:
            plain, messages = process.communicate(text.encode())
        finally:
            alarm.cancel()
    if process.returncode in (-signal.SIGKILL, -signal.SIGXCPU):
        raise TooLargeToDraw("it takes too long to lay it out")
    if process.returncode != 0:
        message = messages.decode(errors="replace")[:500]
        raise CannotDraw(f"{PACKAGE} could not lay it out: {message}")
    return plain.decode()


def _bound_cpu(pid: int) -> None:
    """Have the system end the process, should this one die before its alarm goes off."""
    if hasattr(resource, "prlimit"):  # Linux
        with contextlib.suppress(ProcessLookupError):  # done already
            resource.prlimit(pid, resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))


@cache
def binary() -> Path:
    """The program of this Python environment. Raises CannotDraw."""
    path = Path(sysconfig.get_path("scripts")) / PACKAGE
    for candidate in (path, path.with_suffix(".exe")):
        if candidate.exists():
            return candidate
    raise CannotDraw(f"the Python package {PACKAGE} is missing")


@cache
def binary_version() -> str:
    """Part of what a stored drawing depends on."""
    try:
        return f"{PACKAGE}-{version(PACKAGE)}"
    except PackageNotFoundError as exc:
        raise CannotDraw(f"the Python package {PACKAGE} is missing") from exc


def _digraph(source: Source) -> str:
    """The graph in DOT. The statements are made here: quoting thousands of numbers takes long."""
    nodes = {node.name: node for node in source.nodes}
    body: list[str] = []
    for rank, names in (("source", source.first_row), ("sink", source.last_row)):
        if names:
            row = " ".join(_node(nodes[name], source.run) for name in names)
            body.append(f"{{rank={rank} {row}}}\n")
    in_rows = {*source.first_row, *source.last_row}
    body += [_node(node, source.run) + "\n" for node in source.nodes if node.name not in in_rows]
    body += [_edge(link, nodes) + "\n" for link in source.links]
    graph = graphviz.Digraph(
        graph_attr={
            "rankdir": source.run,
            "nodesep": _inches(WIRE_GAP),
            "ranksep": _inches(NODE_GAP),
            "splines": "none",
        },
        node_attr={"shape": "box", "fixedsize": "true", "margin": "0", "label": ""},
        body=body,
    )
    return str(graph.source)


def _node(node: Node, run: Run) -> str:
    across = PASS_WIDTH if node.is_pass else NODE_GAP - WIRE_GAP
    width = node.width + (across if run == "TB" else 0)
    height = node.height + (across if run == "LR" else 0)
    label = f" label={_port_table(node)}" if node.ports else ""
    group = f" group={node.group}" if node.group else ""
    return f"{node.name} [width={_inches(width)} height={_inches(height)}{group}{label}]"


def _edge(link: Link, nodes: dict[str, Node]) -> str:
    if link.keeps_row:
        # Graphviz ignores an edge within a row if it has no weight at all.
        return f"{link.tail.node} -> {link.head.node} [weight=1 style=invis]"
    tail, head = (_with_compass(end, nodes) for end in (link.tail, link.head))
    return f"{tail} -> {head} [weight={link.weight}]"


def _with_compass(end: End, nodes: dict[str, Node]) -> str:
    """An edge's end as DOT writes it: a port's edge arrives from outside."""
    if not end.port:
        return end.node
    node = nodes[end.node]
    side, _ = node.ports[end.port]
    compass = (
        {"source": "n", "sink": "s"} if node.ports_run == "TB" else {"source": "w", "sink": "e"}
    )
    return f"{end.node}:{end.port}:{compass[side]}"


def _port_table(node: Node) -> str:
    """An HTML label of the box's size, with a cell of PORT_SIZE for each port; numbers only."""
    vertical = node.ports_run == "TB"
    length = int(node.width if vertical else node.height)
    sides = {side: _side_cells(node, side, length, vertical) for side in ("source", "sink")}
    across = (int(node.height if vertical else node.width)) - 2 * PORT_DEPTH
    size = (length, across) if vertical else (across, length)
    middle = f'<TD FIXEDSIZE="TRUE" WIDTH="{size[0]}" HEIGHT="{size[1]}"></TD>'
    outer = [f"<TD>{_table(sides['source'])}</TD>", middle, f"<TD>{_table(sides['sink'])}</TD>"]
    rows = [f"<TR>{cell}</TR>" for cell in outer] if vertical else [f"<TR>{''.join(outer)}</TR>"]
    return f"<{_table(rows)}>"


def _side_cells(node: Node, side: Side, length: int, vertical: bool) -> list[str]:
    here = sorted((offset, port) for port, (where, offset) in node.ports.items() if where == side)
    cells: list[tuple[int, str]] = []  # length, port
    at = 0
    for offset, port in here:
        start = max(at, int(offset) - PORT_SIZE // 2)
        if start > at:
            cells.append((start - at, ""))
        cells.append((PORT_SIZE, f' PORT="{port}"'))
        at = start + PORT_SIZE
    if at < length:
        cells.append((length - at, ""))
    tags = [
        f'<TD{port} FIXEDSIZE="TRUE" WIDTH="{size if vertical else PORT_DEPTH}"'
        f' HEIGHT="{PORT_DEPTH if vertical else size}"></TD>'
        for size, port in cells
    ]
    return [f"<TR>{''.join(tags)}</TR>"] if vertical else [f"<TR>{tag}</TR>" for tag in tags]


def _table(rows: list[str]) -> str:
    plain = 'BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"'
    return f"<TABLE {plain}>{''.join(rows)}</TABLE>"


def _inches(px: float) -> str:
    return f"{px / PX_PER_INCH:.4f}"


def _graphs(text: str) -> list[list[str]]:
    """The lines of each graph in `plain` format, which ends each with "stop"."""
    graphs: list[list[str]] = [[]]
    for line in text.splitlines():
        if line == "stop":
            graphs.append([])
        else:
            graphs[-1].append(line)
    return graphs[:-1]


def _read(lines: list[str], run: Run) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for line in lines:
        kind, *words = line.split(" ")
        if kind == "node":
            x, y = float(words[1]) * PX_PER_INCH, -float(words[2]) * PX_PER_INCH
            places[words[0]] = Place(y, x) if run == "TB" else Place(x, y)
    return places
