"""The graph of one machine: what extract.ts has read, typed and checked, and questions about it.

States and transitions are known by their numbers: their places in document order, a parent before
its children and the candidates of one event in the order in which XState tries them. A number
means the same in the stored JSON, in every drawing of the version, folded or not, and in what the
runtime says about an instance. To the outside a state is also known by its path: keys joined with
"." relative to the root, which has the path "".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import msgspec

from machines.flow.errors import CannotDescribe

STATES_MAX = 5_000
TRANSITIONS_MAX = 20_000
DEPTH_MAX = 40
KEY_CHARS_MAX = 200  # longer keys are cut, by the extractor too
PATHS_CHARS_MAX = 2_000_000  # of all states together

StateType = Literal["atomic", "compound", "parallel", "final", "history", "folded"]
TransitionKind = Literal[
    "event", "wildcard", "always", "after", "done", "error", "snapshot", "default"
]
StateValue = str | Mapping[str, "StateValue"]

NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Invocation(msgspec.Struct, frozen=True):
    id: str
    src: str  # the actor's name; "" if it is written in place


class State(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    number: int
    key: str
    id: str
    parent: int | None
    type: StateType  # "folded" only in drawings
    history: Literal["shallow", "deep"] | None = None
    initial: int | None = None  # its child, or in XState 4 a state deeper inside
    initial_actions: list[str] = []
    entry: list[str] = []
    exit: list[str] = []
    invoke: list[Invocation] = []
    tags: list[str] = []
    description: str | None = None
    meta: Any = None  # the author's JSON, of bounded size


class Transition(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    number: int
    source: int
    targets: list[int]
    kind: TransitionKind  # "default": where a history state leads to at first
    label: str  # the event without XState's decoration: "pay", "1000", the name of an actor
    event_type: str  # as XState says it: "pay", "xstate.after.1000.order.pending"
    guard: str | None = None
    is_else: bool = False  # unguarded, after guarded ones of the same event
    is_internal: bool = True  # its source is not left and entered again
    is_forbidden: bool = False  # has neither targets nor actions: the event is ignored here
    actions: list[str] = []
    description: str | None = None


class Definition(msgspec.Struct, frozen=True):
    """A graph as JSON: the extractor's answer, and what is stored with a version."""

    name: str
    xstate: Literal[4, 5]
    states: list[State]
    transitions: list[Transition]
    description: str | None = None


@dataclass(frozen=True)
class Graph:
    """A machine to be drawn. In a folded one, states are missing from `states`."""

    name: str
    xstate: Literal[4, 5]
    states: dict[int, State]
    transitions: list[Transition]
    description: str | None = None

    @classmethod
    def decode(cls, data: bytes | str) -> Graph:
        """From JSON, which may be hostile. Raises CannotDescribe."""
        try:
            definition = msgspec.json.decode(data, type=Definition)
            _check(definition)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
            raise CannotDescribe(f"the definition is not well-formed: {exc}") from exc
        states = {state.number: state for state in definition.states}
        return cls(
            definition.name,
            definition.xstate,
            states,
            definition.transitions,
            definition.description,
        )

    def encode(self) -> bytes:
        """The JSON that `decode` reads; the same machine always has the same."""
        definition = Definition(
            self.name, self.xstate, list(self.states.values()), self.transitions, self.description
        )
        return msgspec.json.encode(definition)

    @property
    def root(self) -> State:
        return self.states[0]

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """Every state's children in document order."""
        children: dict[int, list[int]] = {number: [] for number in self.states}
        for state in self.states.values():
            if state.parent is not None:
                children[state.parent].append(state.number)
        return children

    @cached_property
    def ancestors(self) -> dict[int, list[int]]:
        """Every state's proper ancestors, nearest first."""
        ancestors: dict[int, list[int]] = {}
        for state in self.states.values():
            parent = state.parent
            ancestors[state.number] = [] if parent is None else [parent, *ancestors[parent]]
        return ancestors

    @cached_property
    def paths(self) -> dict[int, str]:
        paths: dict[int, str] = {}
        for state in self.states.values():
            if state.parent is None:
                paths[state.number] = ""
            else:
                paths[state.number] = _joined(paths[state.parent], state.key)
        return paths

    def is_inside(self, state: int, outer: int) -> bool:
        return outer in self.ancestors[state]

    def child_towards(self, outer: int, state: int) -> int:
        """The child of `outer` that is or holds `state`."""
        chain = [state, *self.ancestors[state]]
        return chain[chain.index(outer) - 1]

    def common_ancestor(self, first: int, second: int) -> int:
        """The nearest state that properly holds both."""
        of_second = set(self.ancestors[second])
        return next(state for state in self.ancestors[first] if state in of_second)

    def is_region(self, state: int) -> bool:
        """Whether it is one of those that are active at once in a parallel state."""
        parent = self.states[state].parent
        return (
            parent is not None
            and self.states[parent].type == "parallel"
            and self.states[state].type != "history"
        )

    def folded(self, paths: Iterable[str]) -> Graph:
        """The same machine with these states closed; edges of hidden states move to them.

        A transition between hidden states of one closed state is left out. Unknown paths and states
        without children are ignored.
        """
        closed = {n for n in self._with_paths(paths) if n != 0 and self.children[n]}
        if not closed:
            return self
        stand_in: dict[int, int] = {}
        for number in self.states:
            outermost = [a for a in reversed(self.ancestors[number]) if a in closed]
            stand_in[number] = outermost[0] if outermost else number
        return Graph(
            self.name,
            self.xstate,
            {
                number: _closed(state) if number in closed else self._seen(state, stand_in)
                for number, state in self.states.items()
                if stand_in[number] == number
            },
            list(self._visible_transitions(stand_in)),
            self.description,
        )

    def _with_paths(self, paths: Iterable[str]) -> Iterator[int]:
        numbers = {path: number for number, path in self.paths.items()}
        return (numbers[path] for path in paths if path in numbers)

    @staticmethod
    def _seen(state: State, stand_in: dict[int, int]) -> State:
        if state.initial is None:
            return state
        return msgspec.structs.replace(state, initial=stand_in[state.initial])

    def _visible_transitions(self, stand_in: dict[int, int]) -> Iterator[Transition]:
        for transition in self.transitions:
            source = stand_in[transition.source]
            targets = list(dict.fromkeys(stand_in[target] for target in transition.targets))
            if source != transition.source and all(target == source for target in targets):
                continue
            yield msgspec.structs.replace(transition, source=source, targets=targets)


def active_paths(value: StateValue) -> list[str]:
    """The paths of all active states, from XState's state value; the root's "" comes first."""
    return ["", *_active_below("", value)]


def _active_below(path: str, value: StateValue) -> Iterator[str]:
    if isinstance(value, str):
        yield _joined(path, value)
        return
    for key, below in value.items():
        child = _joined(path, key)
        yield child
        yield from _active_below(child, below)


def _joined(path: str, key: str) -> str:
    """XState escapes dots in keys as well. What XML can't hold becomes U+FFFD."""
    name = NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", key[:KEY_CHARS_MAX]).replace(".", "\\.")
    return f"{path}.{name}" if path else name


def _closed(state: State) -> State:
    return msgspec.structs.replace(state, type="folded", initial=None)


def _check(definition: Definition) -> None:
    """Raise ValueError unless numbers, parents and targets make sense."""
    states, transitions = definition.states, definition.transitions
    if len(states) > STATES_MAX or len(transitions) > TRANSITIONS_MAX:
        raise ValueError(f"more than {STATES_MAX} states or {TRANSITIONS_MAX} transitions")
    _check_tree(states)
    for position, state in enumerate(states):
        if state.initial is not None and not _holds(states, position, state.initial):
            raise ValueError(f"the initial state of state {position} is not inside it")
    for position, transition in enumerate(transitions):
        _check_transition(position, transition, states)


def _check_tree(states: Sequence[State]) -> None:
    if not states or states[0].parent is not None or states[0].type == "history":
        raise ValueError("the first state must be the root")
    depths = [0]
    path_lengths = [0]
    inner: set[int] = set()  # states that have a child other than history
    for position, state in enumerate(states):
        if state.number != position or state.type == "folded":
            raise ValueError(f"state {position} has a wrong number or type")
        if position == 0:
            continue
        parent = state.parent
        if parent is None or not 0 <= parent < position:
            raise ValueError(f"the parent of state {position} does not come before it")
        if states[parent].type not in ("compound", "parallel"):
            raise ValueError(f"the parent of state {position} can't have children")
        depths.append(depths[parent] + 1)
        path_lengths.append(path_lengths[parent] + len(state.key) + 1)
        if state.type != "history":
            inner.add(parent)
    if max(depths) > DEPTH_MAX:
        raise ValueError(f"states are nested more than {DEPTH_MAX} deep")
    if sum(path_lengths) > PATHS_CHARS_MAX:
        raise ValueError("the names of its states are too long")
    for position, state in enumerate(states):
        if state.type in ("compound", "parallel") and position not in inner:
            raise ValueError(f"state {position} has no states inside")


def _check_transition(position: int, transition: Transition, states: Sequence[State]) -> None:
    if transition.number != position:
        raise ValueError(f"transition {position} has the number {transition.number}")
    for number in (transition.source, *transition.targets):
        if not 0 <= number < len(states):
            raise ValueError(f"transition {position} names the unknown state {number}")
    if (transition.kind == "default") != (states[transition.source].type == "history"):
        raise ValueError(f"transition {position} is of the wrong kind for its source")
    if transition.kind == "default" and not transition.targets:
        raise ValueError(f"default transition {position} leads nowhere")


def _holds(states: Sequence[State], outer: int, inner: int) -> bool:
    if not 0 <= inner < len(states):
        return False
    at = states[inner].parent
    while at is not None and at != outer:
        at = states[at].parent
    return at == outer
