"""A drawing as a thumbnail: its boxes and lines without any word, lit where instances are."""

from collections.abc import Iterator, Mapping
from typing import Any, TypedDict
from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"
BOXES_MAX = 40
WIRES_MAX = 60
MARGIN = 6.0
# Shares of the instances from which on a state is lit more.
LIT = ((0.5, "lit-3"), (0.15, "lit-2"), (0.0, "lit-1"))


class Box(TypedDict):
    path: str
    x: float
    y: float
    width: float
    height: float
    is_leaf: bool


class Thumb(TypedDict):
    view: str  # viewBox
    boxes: list[Box]
    wires: list[str]  # path data


def thumb_of(svg: str) -> Thumb:
    """From a drawing of ours (machines/flow/svg.py)."""
    root = ElementTree.fromstring(svg)
    found = list(_boxes(root))
    # A machine without states is one box.
    boxes = [box for box in found if box["path"]][:BOXES_MAX] or found
    wires = [
        path.attrib["d"]
        for path in root.iter(f"{SVG}path")
        if "flow-wire" in path.get("class", "").split()
    ]
    return {"view": _view(boxes), "boxes": boxes, "wires": wires[:WIRES_MAX]}


def _boxes(root: ElementTree.Element) -> Iterator[Box]:
    for group in root.iter(f"{SVG}g"):
        kinds = group.get("class", "").split()
        rect = next((r for r in group.iter(f"{SVG}rect") if r.get("class") == "flow-box"), None)
        if "flow-state" not in kinds or rect is None:
            continue
        yield {
            "path": group.get("data-node", ""),
            "x": float(rect.attrib["x"]),
            "y": float(rect.attrib["y"]),
            "width": float(rect.attrib["width"]),
            "height": float(rect.attrib["height"]),
            "is_leaf": not {"is-compound", "is-parallel"} & set(kinds),
        }


def _view(boxes: list[Box]) -> str:
    """The viewBox that holds the boxes, with a margin."""
    left = min(box["x"] for box in boxes) - MARGIN
    top = min(box["y"] for box in boxes) - MARGIN
    right = max(box["x"] + box["width"] for box in boxes) + MARGIN
    bottom = max(box["y"] + box["height"] for box in boxes) + MARGIN
    return f"{left:.1f} {top:.1f} {right - left:.1f} {bottom - top:.1f}"


def lit(thumb: Mapping[str, Any], paths: Mapping[str, int], total: int) -> dict[str, Any] | None:
    """`thumb` for a template, each leaf with the class that says how many of all are in it."""
    if not thumb:
        return None
    boxes = [
        {**box, "kind": _kind(box, paths.get(box["path"], 0), total)} for box in thumb["boxes"]
    ]
    return {"view": thumb["view"], "boxes": boxes, "wires": thumb["wires"]}


def _kind(box: Mapping[str, Any], number: int, total: int) -> str:
    if not box["is_leaf"]:
        return "nest"
    if not number:
        return "leaf"
    return "leaf " + next(name for share, name in LIT if number / total >= share)
