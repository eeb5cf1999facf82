"""Events that led to no transition, as rows of the timeline (why, tells reasons.py).

Such a note belongs to the transition after which its event came. Of those that have many, only the
latest are shown, with the number of the others.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from django.db.models import Count, QuerySet, Sum
from django.db.models.functions import Substr

from instances.models import Transition, UnheededEvent
from instances.pages.stored_events import event_type_of, who

SHOWN = 20  # notes of one transition
FETCHED = 400  # in one query
COUNTED_MAX = 1_000
EVENT_CHARS = 500  # of an event, to find its type in

Outcome = UnheededEvent.Outcome
WORDS = {
    Outcome.IGNORED: ("minus", "ignored"),
    Outcome.DENIED: ("lock", "denied"),
    Outcome.PAUSED: ("pause", "paused"),
}
SENT_BY = {
    Transition.Kind.CLIENT: "",
    Transition.Kind.TIMER: "timer",
    Transition.Kind.MESSAGE: "message",
}


class Note(NamedTuple):
    id: int
    created_ms: int
    icon: str
    word: str
    event_type: str
    source: str  # empty for clients
    who: str
    more: int  # events like it right after it that were only counted


class Notes(NamedTuple):
    """What came after one transition without leading to the next."""

    shown: list[Note]  # newest first
    more: int  # that are not shown
    is_more_cut: bool  # there are more than that


NO_NOTES = Notes([], 0, is_more_cut=False)


def notes_of(instance_id: int) -> QuerySet[UnheededEvent]:
    return UnheededEvent.objects.filter(instance_id=instance_id)


def notes_by_seq(found: QuerySet[UnheededEvent], seqs_max: int) -> dict[int, Notes]:
    """What is `found` by transition, of the newest `seqs_max` that have any.

    One query where few events were ignored. Each takes a bounded number of rows, and goes on below
    the transitions that are complete.
    """
    by_seq: dict[int, list[UnheededEvent]] = {}
    rest = found
    while len(by_seq) < seqs_max:
        rows = list(
            rest.defer("event")
            .annotate(event_head=Substr("event", 1, EVENT_CHARS))
            .order_by("-seq", "-id")[:FETCHED]
        )
        for row in rows:
            by_seq.setdefault(row.seq, []).append(row)
        if len(rows) < FETCHED:
            break
        lowest = rows[-1].seq
        if len(by_seq[lowest]) < SHOWN and lowest != rows[0].seq:
            del by_seq[lowest]  # perhaps not all of it: it comes again
            rest = found.filter(seq__lte=lowest)
        else:
            rest = found.filter(seq__lt=lowest)
    newest = sorted(by_seq, reverse=True)[:seqs_max]
    return {seq: _notes(found, seq, by_seq[seq]) for seq in newest}


def _notes(found: QuerySet[UnheededEvent], seq: int, rows: Sequence[UnheededEvent]) -> Notes:
    shown = [_note(row) for row in rows[:SHOWN]]
    if len(rows) <= SHOWN:
        return Notes(shown, 0, is_more_cut=False)
    counted = found.filter(seq=seq).order_by("-id")[: COUNTED_MAX + 1]
    total = counted.aggregate(rows=Count("pk"), more=Sum("more"))
    more = total["rows"] + total["more"] - len(shown) - sum(note.more for note in shown)
    return Notes(shown, more, is_more_cut=total["rows"] > COUNTED_MAX)


def _note(row: UnheededEvent) -> Note:
    icon, word = WORDS[Outcome(row.outcome)]
    return Note(
        id=row.pk,
        created_ms=row.created_at,
        icon=icon,
        word=word,
        event_type=event_type_of(row.event_head),  # type: ignore[attr-defined]  # annotated
        source=SENT_BY.get(Transition.Kind(row.kind), ""),
        who=who(row.auth_context),
        more=row.more,
    )


def named(notes: Notes, people: Mapping[str, str]) -> Notes:
    """With better names for the senders where there are some."""
    return notes._replace(
        shown=[note._replace(who=people.get(note.who, note.who)) for note in notes.shown]
    )


def nameless(notes: Notes) -> Notes:
    return notes._replace(shown=[note._replace(who="") for note in notes.shown])
