"""What members see who may not administer instances: what clients see, and no more.

The API gives the whole context, events and their senders for the scope instances.admin only; the
pages keep to it.
"""

from instances.engine.json_texts import public_of
from instances.pages.acting import Outcome
from instances.pages.context_tree import Line
from instances.pages.moment import Moment
from instances.pages.timeline import Row
from instances.pages.unheeded import nameless
from statebacked_site.json_text import write_json

PUBLIC_PATH = "$.public"


def public_context(context: str) -> str:
    """The context with its public part alone."""
    public = public_of(context)
    return f'{{"public":{public}}}' if public else "{}"


def public_moment(moment: Moment) -> Moment:
    before = moment.context_before
    return moment._replace(
        context=public_context(moment.context),
        context_before=public_context(before) if before is not None else None,
        event=write_json({"type": moment.event_type}).decode(),
        is_event_cut=False,
        who="",
        claims={},
        request_key=None,
    )


def public_row(row: Row) -> Row:
    return row._replace(who="", error="", notes=nameless(row.notes))


def public_outcome(outcome: Outcome) -> Outcome:
    """Without private changes, and without what the machine said when it failed."""
    changes = public_lines(outcome.changes)
    if outcome.kind == "failed":
        outcome = outcome._replace(why="The machine failed while it processed the event.")
    return outcome._replace(changes=changes)


def public_lines(lines: list[Line]) -> list[Line]:
    """Those of the public part of a context."""
    inside = (f"{PUBLIC_PATH}.", f"{PUBLIC_PATH}[")
    return [line for line in lines if line.path == PUBLIC_PATH or line.path.startswith(inside)]
