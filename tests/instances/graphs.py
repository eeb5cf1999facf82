"""Small machines' definitions, as the extractor would answer them."""

import json
from typing import Any

from instances.explain import Definition
from machines.flow.model import Graph


def order_definition() -> Definition:
    """draft → (place, if hasStock) placed → (pay) paid; `ping` is ignored in draft; any: cancel."""
    return definition(
        [("draft", "root"), ("placed", "root"), ("paid", "root"), ("cancelled", "root")],
        [
            event("draft", "place", "placed", guard="hasStock"),
            event("draft", "ping", isForbidden=True),
            event("placed", "pay", "paid"),
            event("placed", "note", actions=["assign"]),
            event("root", "cancel", "cancelled"),
        ],
    )


def parallel_definition() -> Definition:
    """Two regions, `delivery` and `payment`, of two states each."""
    return definition(
        [
            ("delivery", "root", "compound"),
            ("packed", "delivery"),
            ("sent", "delivery"),
            ("payment", "root", "compound"),
            ("open", "payment"),
            ("captured", "payment"),
        ],
        [event("packed", "send", "sent"), event("open", "capture", "captured")],
        root_type="parallel",
    )


def definition(
    states: list[tuple[str, ...]], transitions: list[dict[str, Any]], root_type: str = "compound"
) -> Definition:
    """`states`: (key, key of the parent, type). Keys must be unique here."""
    numbers = {"root": 0}
    rows: list[dict[str, Any]] = [
        {"number": 0, "key": "order", "id": "order", "parent": None, "type": root_type}
    ]
    for key, parent, *kind in states:
        numbers[key] = len(rows)
        rows.append(
            {
                "number": numbers[key],
                "key": key,
                "id": key,
                "parent": numbers[parent],
                "type": kind[0] if kind else "atomic",
            }
        )
    for number, transition in enumerate(transitions):
        transition["number"] = number
        transition["source"] = numbers[transition["source"]]
        transition["targets"] = [numbers[key] for key in transition["targets"]]
    text = json.dumps({"name": "order", "xstate": 5, "states": rows, "transitions": transitions})
    return Definition(Graph.decode(text))


def event(source: str, event_type: str, *targets: str, **more: Any) -> dict[str, Any]:
    return {
        "source": source,
        "targets": list(targets),
        "kind": "event",
        "label": event_type,
        "eventType": event_type,
    } | more
