"""Why an event of the timeline led to no transition, in words."""

from instances.engine.errors import InstancePaused, RejectedByAuthorizer
from instances.explain import code, why_refused, why_unchanged
from instances.models import Instance, UnheededEvent
from instances.pages.acting import services_of
from instances.pages.definitions import definition_of
from instances.pages.moment import moment_of
from instances.pages.stored_events import claims_of, event_type_of
from instances.pages.unheeded import notes_of
from statebacked_site.errors import NotFound

Outcome = UnheededEvent.Outcome


def reason_of(instance: Instance, note_id: int, *, sees_all: bool) -> str:
    """Why the event led to no transition, against the state in which it came. Raises NotFound.

    The machine's words stand in backticks. `sees_all`: whether the sender's claims may be told.
    """
    row = notes_of(instance.pk).filter(pk=note_id).first()
    if row is None:
        raise NotFound("There is no such note any more")
    if row.outcome == Outcome.DENIED:
        if not sees_all:
            return "Denied by `allowWrite`."
        return why_refused(RejectedByAuthorizer.code, "", claims_of(row.auth_context), "")
    if row.outcome == Outcome.PAUSED:
        return _why_paused(instance, row)
    moment = moment_of(instance, row.seq)
    return why_unchanged(
        definition_of(moment.version_id),
        moment.value,
        event_type_of(row.event),
        is_done=moment.is_done,
        services=_services(instance, row.seq),
    )


def _why_paused(instance: Instance, row: UnheededEvent) -> str:
    since = instance.paused_at
    if since is not None and since <= row.created_at:
        return why_refused(InstancePaused.code, "", {}, instance.slug, paused_at=since)
    return f"{code(instance.slug)} was paused then: it took no events until somebody resumed it."


def _services(instance: Instance, seq: int) -> list[str]:
    """Those that ran then, as far as it is known: that of earlier moments is not kept."""
    return services_of(instance.children) if seq == instance.seq else []
