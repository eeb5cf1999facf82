"""The history of an instance as rows: what happened, who did it, from where to where.

A history may have 100,000 transitions and an event 500 kB, so rows come in blocks of a fixed number
of transitions, of which a page holds those that are seen, and they carry only the beginning of what
may be large. Rows that a filter lets through come in pages instead.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from django.db.models import Q, QuerySet
from django.db.models.functions import Length, Substr

from instances.deliveries import type_words
from instances.models import Transition, UnheededEvent
from instances.pages import unheeded
from instances.pages.lanes import Lane
from instances.pages.stored_events import NAME_CHARS_MAX, event_type_of, who
from instances.pages.unheeded import NO_NOTES, Notes
from instances.pages.words import Leaf, cut, duration, leaves_of, version_name
from machines.models import MachineVersion

BLOCK = 10  # transitions; static/instances/timeline.js knows it by data-size
BLOCKS_MAX = 12  # in one answer
ABOVE, BELOW = 6, 16  # rows that are seen around the chosen one
ROWS = 60  # of a page that is filtered
LOOKED_AT_MAX = 20_000  # transitions, for one page that is filtered
HEAD_CHARS = 4_000  # of an event, its report and effects
IDLE_MS = 60_000  # from here on the timeline says how long nothing happened
NAMES_SHOWN = 3
ERROR_CHARS_MAX = 300


KINDS = {
    Transition.Kind.INIT: ("plus", "created"),
    Transition.Kind.CLIENT: ("user", "client"),
    Transition.Kind.TIMER: ("clock", "timer"),
    Transition.Kind.MESSAGE: ("send", "message"),
    Transition.Kind.SERVICE: ("bolt", "service"),
    Transition.Kind.LOST_SERVICE: ("alert", "lost service"),
    Transition.Kind.UPGRADE: ("versions", "upgrade"),
    Transition.Kind.HTTP_API: ("http", "HTTP"),
}

Found = TypeVar("Found", Transition, UnheededEvent)

ERRORS = "errors"
IGNORED = "ignored"
SOURCES = {name: kind for kind, (_, name) in KINDS.items() if kind != Transition.Kind.INIT}


class Effects(NamedTuple):
    """What a transition caused, by name."""

    actions: list[str]
    started: list[str]
    stopped: list[str]
    timers: list[str]  # such as "reminder in 3 d"
    cancelled: list[str]
    sent: int  # messages to other instances
    kept: Sequence[str] = ()  # timers that have gone on into another version


class LaneCell(NamedTuple):
    """Where an instance is in one region of a parallel state."""

    names: str  # empty: not in this region
    has_moved: bool


class Row(NamedTuple):
    seq: int
    created_ms: int
    idle: str  # how long nothing happened before it; empty for not long
    kind: str
    icon: str
    event_type: str
    has_payload: bool
    left: list[Leaf]
    entered: list[Leaf]
    stayed: list[Leaf]  # where it is if it neither left nor entered a state
    who: str
    error: str  # what a service failed with
    effects: Effects
    duration_ms: float
    version_id: int
    lanes: list[LaneCell]
    from_version_id: int | None = None  # the one before, of an upgrade
    upgrade: str = ""  # the names of both versions
    notes: Notes = NO_NOTES  # what came after it and did nothing
    is_shown: bool = True  # False: a filter lets only its notes through

    def naming(self, people: Mapping[str, str]) -> "Row":
        """The same row, with better names for the senders if there are some."""
        notes = unheeded.named(self.notes, people)
        return self._replace(who=people.get(self.who, self.who), notes=notes)


class Block(NamedTuple):
    """The transitions number * BLOCK + 1 to (number + 1) * BLOCK, as far as they are there."""

    number: int
    rows: list[Row]  # newest first


class Filter(NamedTuple):
    """What rows to show; empty texts ask for nothing."""

    event: str = ""  # a type
    source: str = ""  # a name in SOURCES, ERRORS or IGNORED


class Matches(NamedTuple):
    rows: list[Row]  # newest first
    before: int | None  # where older ones may be found; None if all were looked at


def blocks_of(instance_id: int, numbers: Iterable[int], lanes: Sequence[Lane] = ()) -> list[Block]:
    """The blocks with these numbers, newest first."""
    blocks: list[Block] = []
    for first, last in _runs(sorted(set(numbers))):
        rows = _rows_between(instance_id, first * BLOCK, (last + 1) * BLOCK, lanes)
        by_number = {number: Block(number, []) for number in range(first, last + 1)}
        for row in rows:
            by_number[(row.seq - 1) // BLOCK].rows.append(row)
        blocks += by_number.values()
    return sorted(blocks, key=lambda block: -block.number)


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """First and last of the numbers that follow one another: each run is one query."""
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield numbers[start], numbers[end - 1]
            start = end


def blocks_around(seq: int, newest: int) -> list[int]:
    """The numbers of the blocks that are seen when `seq` is shown among its neighbours."""
    above, below = min(seq + ABOVE, newest), max(seq - BELOW, 1)
    return list(range((below - 1) // BLOCK, (above - 1) // BLOCK + 1))


def _rows_between(instance_id: int, after: int, last: int, lanes: Sequence[Lane]) -> list[Row]:
    # With `after` itself, which tells what the first of them left.
    found = list(_history(instance_id).filter(seq__gte=after, seq__lte=last).order_by("-seq"))
    earlier = {transition.seq + 1: transition for transition in found}
    noted = unheeded.notes_of(instance_id).filter(seq__gt=after, seq__lte=last)
    notes = unheeded.notes_by_seq(noted, last - after)
    return _with_versions(
        _row(transition, earlier.get(transition.seq), lanes)._replace(
            notes=notes.get(transition.seq, NO_NOTES)
        )
        for transition in found
        if transition.seq > after
    )


def _with_versions(rows: Iterable[Row]) -> list[Row]:
    """The rows of upgrades with what the versions are called."""
    rows = list(rows)
    upgrades = [row for row in rows if row.kind == KINDS[Transition.Kind.UPGRADE][1]]
    if not upgrades:
        return rows
    versions = MachineVersion.objects.in_bulk(
        {id_ for row in upgrades for id_ in (row.from_version_id, row.version_id) if id_}
    )
    named = {
        row.seq: f"{_version_name(versions, row.from_version_id)}"
        f" → {_version_name(versions, row.version_id)}"
        for row in upgrades
    }
    return [row._replace(upgrade=named.get(row.seq, "")) for row in rows]


def _version_name(versions: Mapping[int, MachineVersion], version_id: int | None) -> str:
    return version_name(versions.get(version_id or 0))


def matches_before(
    instance_id: int, wanted: Filter, before: int, lanes: Sequence[Lane] = ()
) -> Matches:
    """Rows older than `before` that the filter lets through.

    It looks at LOOKED_AT_MAX transitions at most, so it may find less than there is.
    """
    lowest = max(before - LOOKED_AT_MAX, 1)
    history = _history(instance_id)
    looked_at = history.filter(seq__gte=lowest, seq__lt=before)
    found = list(_candidates(looked_at, wanted).order_by("-seq")[: ROWS + 1])
    noted = unheeded.notes_of(instance_id).filter(seq__gte=lowest, seq__lt=before)
    notes = _notes_wanted(noted, wanted)
    seqs = sorted({*notes, *(transition.seq for transition in found)}, reverse=True)
    older = seqs[ROWS - 1] if len(seqs) > ROWS else lowest
    wanted_seqs = {transition.seq for transition in found if transition.seq >= older}
    around = {*notes, *wanted_seqs, *(seq - 1 for seq in wanted_seqs)}
    by_seq = {t.seq: t for t in history.filter(seq__in=[seq for seq in around if seq >= older - 1])}
    rows = []
    for seq in seqs[:ROWS]:
        transition = by_seq.get(seq)
        if transition is None:
            continue
        row = _row(transition, by_seq.get(seq - 1), lanes)
        is_shown = seq in wanted_seqs and _passes(row, wanted)
        row = row._replace(notes=notes.get(seq, NO_NOTES), is_shown=is_shown)
        if row.is_shown or row.notes.shown:
            rows.append(row)
    return Matches(_with_versions(rows), older if older > 1 else None)


def _notes_wanted(noted: QuerySet[UnheededEvent], wanted: Filter) -> dict[int, Notes]:
    """The notes that the filter lets through, of no more transitions than a page can have."""
    if wanted.source == ERRORS:
        noted = noted.exclude(outcome=UnheededEvent.Outcome.IGNORED)
    elif wanted.source != IGNORED and wanted.source:
        noted = noted.filter(kind=SOURCES[wanted.source])
    if not wanted.event:
        return unheeded.notes_by_seq(noted, ROWS + 1)
    found = unheeded.notes_by_seq(_of_type(noted, wanted.event), ROWS + 1)
    return {
        seq: notes._replace(shown=shown)
        for seq, notes in found.items()
        if (shown := [note for note in notes.shown if note.event_type == wanted.event])
    }


def _candidates(history: QuerySet[Transition], wanted: Filter) -> QuerySet[Transition]:
    """What the database can tell without reading JSON: some more may be left to refuse."""
    if wanted.source == IGNORED:
        return history.none()
    if wanted.event:
        history = _of_type(history, wanted.event)
    if wanted.source == ERRORS:
        history = history.filter(
            kind__in=[Transition.Kind.SERVICE, Transition.Kind.LOST_SERVICE],
            event__contains="error.",
        )
    elif wanted.source:
        history = history.filter(kind=SOURCES[wanted.source])
    return history


def _of_type(found: QuerySet[Found], event_type: str) -> QuerySet[Found]:
    # A client may have escaped any character of it.
    quoted = Q(event__contains=json.dumps(event_type, ensure_ascii=False))
    return found.filter(quoted | Q(event__contains="\\u"))


def _passes(row: Row, wanted: Filter) -> bool:
    if wanted.event and row.event_type != wanted.event:
        return False
    return wanted.source != ERRORS or is_error(row.event_type)


def _history(instance_id: int) -> QuerySet[Transition]:
    return (
        Transition.objects.filter(instance_id=instance_id)
        .defer("event", "context", "effects", "report")
        .annotate(
            event_head=Substr("event", 1, HEAD_CHARS),
            event_length=Length("event"),
            effects_head=Substr("effects", 1, HEAD_CHARS),
            report_head=Substr("report", 1, HEAD_CHARS),
        )
    )


def _row(transition: Any, before: Any | None, lanes: Sequence[Lane]) -> Row:
    icon, kind = KINDS[Transition.Kind(transition.kind)]
    now = leaves_of(transition.state)
    earlier = leaves_of(before.state) if before is not None else []
    left = [leaf for leaf in earlier if leaf not in now]
    entered = [leaf for leaf in now if leaf not in earlier]
    event_type = event_type_of(transition.event_head)
    idle_ms = transition.created_at - before.created_at if before is not None else 0
    return Row(
        seq=transition.seq,
        created_ms=transition.created_at,
        idle=duration(idle_ms) if idle_ms >= IDLE_MS else "",
        kind=kind,
        icon=icon,
        event_type=event_type,
        has_payload=transition.event_length > len(event_type) + len('{"type":""}'),
        left=left,
        entered=entered,
        stayed=[] if left or entered else now,
        who=who(transition.auth_context),
        error=error_of(transition.event_head) if is_error(event_type) else "",
        effects=effects_of(transition.report_head, transition.effects_head),
        duration_ms=transition.duration_us / 1_000,
        version_id=transition.version_id,
        from_version_id=before.version_id if before is not None else None,
        lanes=[_lane_cell(lane, earlier, now) for lane in lanes],
    )


def _lane_cell(lane: Lane, before: list[Leaf], now: list[Leaf]) -> LaneCell:
    here = _inside(lane, now)
    names = ", ".join(leaf.name for leaf in here)
    return LaneCell(names, has_moved=here != _inside(lane, before))


def _inside(lane: Lane, leaves: list[Leaf]) -> list[Leaf]:
    within = f"{lane.path}."
    return [leaf for leaf in leaves if leaf.path == lane.path or leaf.path.startswith(within)]


def is_error(event_type: str) -> bool:
    return event_type.startswith(("xstate.error.", "error."))


def error_of(event: str) -> str:
    """The message of a service's error event; XState 4 calls the error `data`."""
    told = _parsed(event, dict)
    error = told.get("error", told.get("data"))
    message = error.get("message") if isinstance(error, dict) else error
    return message[:ERROR_CHARS_MAX] if isinstance(message, str) else ""


def effects_of(report: str, effects: str) -> Effects:
    """From the two columns; what was cut off or is none of the words we know is left out."""
    named = _parsed(report, dict)
    told = [effect for effect in _parsed(effects, list) if isinstance(effect, dict)]
    return Effects(
        actions=_names(named.get("actions")),
        started=_names(named.get("started")),
        stopped=_names(named.get("stopped")),
        timers=[_set_timer(effect) for effect in told if effect.get("t") == "timer"],
        cancelled=[_timer_name(effect) for effect in told if effect.get("t") == "cancel"],
        sent=sum(effect.get("t") == "send" for effect in told),
        kept=[_timer_name(effect) for effect in told if effect.get("t") == "rename"],
    )


def _parsed(text: str, kind: type[Any]) -> Any:
    try:
        value = json.loads(text) if text else kind()
    except ValueError:
        return kind()
    return value if isinstance(value, kind) else kind()


def _names(value: Any) -> list[str]:
    names = [
        str(item.get("src") or item.get("id") or item.get("type")) if isinstance(item, dict)
        else str(item)
        for item in value or []
    ]  # fmt: skip
    more = len(names) - NAMES_SHOWN
    shown = [cut(name, NAME_CHARS_MAX) for name in names[:NAMES_SHOWN]]
    return [*shown, *([f"{more} more"] if more > 0 else [])]


def _timer_name(effect: Mapping[str, Any]) -> str:
    """The event of a timer, or of `after` the state that waits."""
    event = effect.get("event")
    name = event.get("type") if isinstance(event, dict) else None
    return cut(timer_name(str(name or effect.get("id") or "timer")), NAME_CHARS_MAX)


def _set_timer(effect: Mapping[str, Any]) -> str:
    name = _timer_name(effect)
    if name.startswith("after "):
        return name  # says how long already
    return f"{name} in {duration(float(effect.get('delay') or 0))}"


def timer_name(event_type: str) -> str:
    """`after 1 d in pending` of a delayed transition, or else the event's type."""
    words = type_words(event_type)
    state = words.state.partition(".")[2] or words.state  # without the id of the machine
    return f"{words.text} in {state}" if words.state else words.text
