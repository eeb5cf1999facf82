"""A machine as Mermaid's `stateDiagram-v2`, for READMEs, issues and chats.

What Mermaid lacks is put into words: history states are states with a name, several targets are
several arrows.
"""

from __future__ import annotations

from collections.abc import Iterator

from machines.flow.model import Graph, State, Transition
from machines.flow.text import clean, duration

INDENT = "  "


def to_mermaid(graph: Graph) -> str:
    lines = ["stateDiagram-v2"]
    children = graph.children[0]
    if children:
        lines += _contents(graph, 0, INDENT)
    else:
        lines.append(f"{INDENT}{_declaration(graph.name, 0)}")
        lines.append(f"{INDENT}[*] --> s0")
    root_transitions = [t for t in graph.transitions if t.source == 0]
    if root_transitions and children:
        # Mermaid has no frame around everything: what every state can do is a note beside it.
        first = graph.states[children[0]]
        lines.append(f"{INDENT}note right of {_id(first.number)}")
        lines += [f"{INDENT * 2}{_everywhere(graph, one)}" for one in root_transitions]
        lines.append(f"{INDENT}end note")
    for transition in graph.transitions:
        lines += [f"{INDENT}{line}" for line in _arrows(graph, transition)]
    return "\n".join(lines) + "\n"


def _contents(graph: Graph, container: int, indent: str) -> Iterator[str]:
    state = graph.states[container]
    is_first = True
    for child in graph.children[container]:
        if state.type == "parallel" and graph.is_region(child) and not is_first:
            yield f"{indent}--"
        is_first = False
        yield from _state(graph, graph.states[child], indent)
    if state.initial is not None:
        yield f"{indent}[*] --> {_id(graph.child_towards(container, state.initial))}"


def _state(graph: Graph, state: State, indent: str) -> Iterator[str]:
    yield f"{indent}{_declaration(_name(state), state.number)}"
    if graph.children[state.number]:
        yield f"{indent}state {_id(state.number)} {{"
        yield from _contents(graph, state.number, indent + INDENT)
        yield f"{indent}}}"
    elif state.type == "final":
        yield f"{indent}{_id(state.number)} --> [*]"


def _declaration(name: str, number: int) -> str:
    return f'state "{_escaped(name)}" as {_id(number)}'


def _name(state: State) -> str:
    if state.type != "history":
        return state.key
    return f"{state.key} (H*)" if state.history == "deep" else f"{state.key} (H)"


def _arrows(graph: Graph, transition: Transition) -> Iterator[str]:
    if transition.source == 0 or transition.is_forbidden:
        return
    label = _label(transition)
    for target in transition.targets or [transition.source]:
        yield f"{_id(transition.source)} --> {_id(target)}" + (f" : {label}" if label else "")


def _everywhere(graph: Graph, transition: Transition) -> str:
    names = ", ".join(_escaped(graph.paths[t] or graph.name) for t in transition.targets)
    label = _label(transition) or "always"
    return f"{label} → {names}" if names else label


def _label(transition: Transition) -> str:
    """UML's notation: event [guard] / actions."""
    label = transition.label
    match transition.kind:
        case "after":
            label = f"after {duration(label)}"
        case "done" | "error" | "snapshot":
            label = f"{transition.kind} {label}".strip()
        case "always" | "default":
            label = ""
    parts = [_escaped(label)] if label else []
    if transition.guard:
        parts.append(f"[{_escaped(transition.guard)}]")
    elif transition.is_else:
        parts.append("[else]")
    if transition.actions:
        parts.append("/ " + ", ".join(_escaped(action) for action in transition.actions))
    return " ".join(parts)


def _id(number: int) -> str:
    return f"s{number}"


def _escaped(text: str) -> str:
    """Everything that Mermaid, or the HTML that it makes, could take for syntax, as an entity."""
    return "".join(
        char if char.isalnum() or char in " _-.,!?/*+=()" else f"#{ord(char)};"
        for char in clean(text)
    )
