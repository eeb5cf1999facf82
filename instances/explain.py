"""Why an event did what it did, in sentences: the machine's definition against an instance's state.

A sentence quotes the machine's own words in backticks: "`pay` is not handled in `draft`; it is
handled in `placed`." Pages turn them into <code> (templatetags/instance_words.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instances.engine.errors import (
    InstancePaused,
    MachineThrew,
    MigrationFailed,
    RejectedByAuthorizer,
)
from machines.flow.model import Graph, StateValue, Transition, active_paths
from statebacked_site.words import utc

STATES_NAMED_MAX = 3
CLAIM_CHARS_MAX = 60


@dataclass(frozen=True)
class Handling:
    """An event that some state handles, and by which transitions."""

    event_type: str
    transitions: tuple[Transition, ...]


class Definition:
    """A machine's graph with the questions that pages ask about one of its states."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._numbers = {path: number for number, path in graph.paths.items()}

    def active(self, value: StateValue) -> set[int]:
        """Numbers of the active states; states that this version does not have are left out."""
        return {self._numbers[path] for path in active_paths(value) if path in self._numbers}

    def events(self) -> list[str]:
        """The types of all events that somebody may send, in document order."""
        return list(
            dict.fromkeys(t.event_type for t in self.graph.transitions if t.kind == "event")
        )

    def handling(self, value: StateValue) -> list[Handling]:
        """The events that the active states handle, guards not asked; innermost states first."""
        found: dict[str, list[Transition]] = {}
        active = self.active(value)
        for transition in self._innermost_first(self.graph.transitions):
            if (
                transition.kind == "event"
                and transition.source in active
                and not transition.is_forbidden
            ):
                found.setdefault(transition.event_type, []).append(transition)
        return [Handling(event_type, tuple(ts)) for event_type, ts in found.items()]

    def candidates(self, value: StateValue, event_type: str) -> list[Transition]:
        """The transitions of active states that the event may select, innermost states first."""
        active = self.active(value)
        found = [
            transition
            for transition in self.graph.transitions
            if transition.source in active
            and transition.kind != "default"
            and _selects(transition, event_type)
        ]
        return self._innermost_first(found)

    def _innermost_first(self, transitions: Iterable[Transition]) -> list[Transition]:
        return sorted(transitions, key=lambda t: -len(self.graph.ancestors[t.source]))

    def handled_in(self, event_type: str) -> list[str]:
        """Paths of the states that handle the event."""
        sources = [
            t.source
            for t in self.graph.transitions
            if t.kind == "event" and t.event_type == event_type and not t.is_forbidden
        ]
        return [self.path(source) for source in dict.fromkeys(sources)]

    def taken(self, before: StateValue | None, event_type: str, after: StateValue) -> int | None:
        """The number of the transition that most likely led from one state to the next.

        The runner does not say which it was: guards may have chosen among several that look alike.
        """
        if before is None:
            return None
        now = self.active(after)
        entered = now - self.active(before)
        best = None
        for transition in self.candidates(before, event_type):
            if not transition.targets:
                best = best if best is not None else transition.number
            elif entered.intersection(transition.targets):
                return transition.number
            elif now.issuperset(transition.targets) and best is None:
                best = transition.number
        return best

    def not_begun(self, before: StateValue, after: StateValue) -> list[tuple[str, str]]:
        """What an upgrade leaves undone, since it enters no state: (state, "invoke" or "always").

        Of states that are active afterwards and have not been before, under the same path.
        """
        same = set(active_paths(before))
        fresh = [number for number in self.active(after) if self.graph.paths[number] not in same]
        invoking = {number for number in fresh if self.graph.states[number].invoke}
        passing = {t.source for t in self.graph.transitions if t.kind == "always"}
        return [
            (self.path(number), "invoke" if number in invoking else "always")
            for number in sorted(fresh)
            if number in invoking or number in passing
        ]

    def path(self, number: int) -> str:
        return self.graph.paths[number] or self.graph.name

    def target_paths(self, transition: Transition) -> list[str]:
        return [self.path(target) for target in transition.targets]


def _selects(transition: Transition, event_type: str) -> bool:
    if transition.kind == "wildcard":
        prefix = transition.event_type.removesuffix("*")
        return event_type.startswith(prefix) or event_type == prefix.removesuffix(".")
    return transition.event_type == event_type


def why_unchanged(
    definition: Definition | None,
    value: StateValue,
    event_type: str,
    *,
    is_done: bool,
    services: Sequence[str] = (),
) -> str:
    """Why an event that was accepted led to no transition."""
    event = code(event_type)
    if is_done:
        return f"{event} did nothing: the machine has reached its final state and takes no events."
    if definition is None:
        return f"{event} changed nothing in {_leaf_codes(value)}."
    candidates = definition.candidates(value, event_type)
    sentence = _why_not_selected(definition, value, event_type, candidates)
    if services:
        names = _listed([code(name) for name in services])
        sentence += f" The instance has not settled: it waits for the service {names}."
    return sentence


def _why_not_selected(
    definition: Definition, value: StateValue, event_type: str, candidates: list[Transition]
) -> str:
    event = code(event_type)
    here = _leaf_codes(value)
    forbidding = next((t for t in candidates if t.is_forbidden), None)
    if forbidding is not None:
        source = code(definition.path(forbidding.source))
        return f"{source} says that {event} is to be ignored there."
    if any(t.guard is None for t in candidates):
        return f"{event} is handled in {here}, but it changed neither the state nor the context."
    if candidates:
        guards = list(dict.fromkeys(t.guard for t in candidates if t.guard))
        words = "guard" if len(guards) == 1 else "guards"
        verb = "was" if len(guards) == 1 else "were"
        return f"{words.capitalize()} {_listed([code(guard) for guard in guards])} {verb} false."
    elsewhere = definition.handled_in(event_type)
    if not elsewhere:
        return f"{event} is not handled by any state of this version."
    return f"{event} is not handled in {here}; it is handled in {_some(elsewhere)}."


def why_refused(
    code_: str,
    message: str,
    claims: Mapping[str, Any],
    slug: str,
    paused_at: int | None = None,
) -> str:
    """Why an event was not taken at all, from the code and message of its error.

    `paused_at`: since when the instance is paused, in ms, if it is known.
    """
    match code_:
        case RejectedByAuthorizer.code:
            return f"Denied by `allowWrite` for {claims_text(claims)}."
        case InstancePaused.code:
            since = f" since {utc(paused_at):%-d %b %Y, %H:%M:%S} UTC" if paused_at else ""
            return f"{code(slug)} is paused{since}: it takes no events until somebody resumes it."
        case MachineThrew.code:
            return f"The machine threw while it processed the event: {code(message)}"
        case MigrationFailed.code:
            return f"The upgrade to the desired version failed: {code(message)}"
        case _:
            return f"{message[:1].upper()}{message[1:].rstrip('.')}."


def claims_text(claims: Mapping[str, Any]) -> str:
    """Such as "`sub=u_17`, `role=courier`"."""
    if not claims:
        return "somebody without claims"
    texts = [
        code(f"{name}={value if isinstance(value, str | int | bool) else '…'}"[:CLAIM_CHARS_MAX])
        for name, value in list(claims.items())[:STATES_NAMED_MAX]
    ]
    return ", ".join(texts)


def _leaf_codes(value: StateValue) -> str:
    paths = active_paths(value)
    leaves = [
        path for path in paths if path and not any(other.startswith(f"{path}.") for other in paths)
    ]
    return _listed([code(leaf) for leaf in leaves]) if leaves else "its only state"


def _some(paths: Sequence[str]) -> str:
    named = [code(path) for path in paths[:STATES_NAMED_MAX]]
    rest = len(paths) - len(named)
    return f"{', '.join(named)} and {rest} more" if rest else _listed(named)


def _listed(items: Iterable[str]) -> str:
    *firsts, last = items
    return f"{', '.join(firsts)} and {last}" if firsts else last


def code(text: str) -> str:
    """`text` as a machine's word in a sentence. It can't end the quotation."""
    return f"`{text.replace('`', 'ˋ')}`"
