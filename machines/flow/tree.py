"""A drawing's twin: the same machine as a tree of states, for keyboards and screen readers.

It always shows the whole machine, also where the drawing is folded. Each transition is an item with
a sentence. One item is in the tab order, and arrow keys move on from it (flow's tree.js).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from html import escape

from machines.flow.model import Graph, State, Transition
from machines.flow.svg import PREFIX, attribute
from machines.flow.text import clean, duration

OPEN_STATES_MAX = 60  # a larger machine is shown with its upper levels open only
OPEN_DEPTH = 1


def to_tree(graph: Graph) -> str:
    return "".join(_Writer(graph).tree())


def sentence(graph: Graph, transition: Transition) -> str:
    """ "on pay, if cardIsValid, go to paid, and do sendReceipt"."""
    parts = [_when(transition)]
    if transition.guard:
        parts.append(f"if {clean(transition.guard)}")
    if transition.is_else:
        parts.append("otherwise")
    parts.append(_where(graph, transition))
    if transition.actions:
        parts.append("and do " + ", ".join(clean(action) for action in transition.actions))
    return ", ".join(parts)


def _when(transition: Transition) -> str:
    label = clean(transition.label) if transition.label else ""
    match transition.kind:
        case "event":
            return f"on {label or '(empty)'}"
        case "wildcard":
            return "on any other event" if label == "*" else f"on {label}"
        case "after":
            return f"after {duration(label)}"
        case "always":
            return "always"
        case "done":
            return f"when {label} is done" if label else "when done"
        case "error":
            return f"when {label} fails" if label else "on an error"
        case "snapshot":
            return f"on an update of {label}" if label else "on an update"
        case "default":
            return "at first"


def _where(graph: Graph, transition: Transition) -> str:
    if transition.is_forbidden:
        return "it is ignored"
    if not transition.targets:
        return "stay"
    if transition.targets == [transition.source]:
        return "stay" if transition.is_internal else "enter it again"
    names = (clean(graph.paths[target] or graph.name) for target in transition.targets)
    return "go to " + " and ".join(names)


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._is_small = len(graph.states) <= OPEN_STATES_MAX
        self._transitions: dict[int, list[Transition]] = defaultdict(list)
        for transition in graph.transitions:
            self._transitions[transition.source].append(transition)

    def tree(self) -> Iterator[str]:
        name = escape(clean(self._graph.name), quote=True)
        yield f'<ul role="tree" class="flow-tree" aria-label="States of {name}">'
        yield from self._state(self._graph.root, 1, 1, 1)
        yield "</ul>"

    def _state(self, state: State, level: int, size: int, position: int) -> Iterator[str]:
        graph = self._graph
        transitions, children = self._transitions[state.number], graph.children[state.number]
        expanded = ""
        if transitions or children:
            is_open = self._is_small or level <= OPEN_DEPTH
            expanded = f' aria-expanded="{"true" if is_open else "false"}"'
        name = clean(state.key if state.parent is not None else graph.name)
        yield (
            f'<li role="treeitem" tabindex="{0 if level == 1 else -1}" aria-level="{level}"'
            f' aria-setsize="{size}" aria-posinset="{position}"{expanded} aria-selected="false"'
            f' data-node="{attribute(graph.paths[state.number])}"'
            f' data-for="{PREFIX}-s{state.number}">'
            f'<span class="flow-tree-name">{escape(name)}</span>'
        )
        note = self._note(state)
        if note:
            yield f' <span class="flow-tree-note">{escape(note)}</span>'
        if state.description:
            description = escape(clean(state.description))
            yield f' <span class="flow-tree-description">{description}</span>'
        if expanded:
            yield '<ul role="group">'
            size = len(transitions) + len(children)
            for place, transition in enumerate(transitions, start=1):
                yield self._transition(transition, level + 1, size, place)
            for place, child in enumerate(children, start=len(transitions) + 1):
                yield from self._state(graph.states[child], level + 1, size, place)
            yield "</ul>"
        yield "</li>"

    def _note(self, state: State) -> str:
        """What the drawing shows by its shape."""
        notes = []
        if state.type == "parallel":
            notes.append("parallel")
        elif state.type == "final":
            notes.append("final")
        elif state.type == "history":
            notes.append(f"{state.history} history")
        if state.parent is not None and self._graph.states[state.parent].initial == state.number:
            notes.append("initial")
        notes += [f"runs {clean(one.src or one.id)}" for one in state.invoke]
        notes += [f"#{clean(tag)}" for tag in state.tags]
        return ", ".join(notes)

    def _transition(self, transition: Transition, level: int, size: int, position: int) -> str:
        return (
            f'<li role="treeitem" tabindex="-1" class="flow-tree-edge" aria-level="{level}"'
            f' aria-setsize="{size}" aria-posinset="{position}" aria-selected="false"'
            f' data-transition="{transition.number}">'
            f"{escape(sentence(self._graph, transition))}</li>"
        )
