"""An instance at one moment of its life: now, or after any transition of its history."""

import json
from typing import Any, NamedTuple

from instances.models import Instance, Transition
from instances.pages.stored_events import claims_of, event_type_of, who
from instances.pages.timeline import KINDS, Effects, effects_of
from instances.pages.words import Leaf, leaves
from statebacked_site.errors import NotFound

EVENT_CHARS_SHOWN = 20_000
SEQ_MAX = 2**63 - 1


class Moment(NamedTuple):
    """`seq` is the transition that led to it; `is_now` if it is the present state."""

    seq: int
    is_now: bool
    value: Any  # state value
    before: Any | None  # state value before the transition
    leaves: list[Leaf]
    tags: list[str]
    is_done: bool
    context: str
    context_before: str | None
    kind: str
    icon: str
    event: str
    event_type: str
    is_event_cut: bool
    who: str
    claims: dict[str, Any]
    effects: Effects
    duration_ms: float
    created_ms: int
    next_ms: int | None  # when it ended
    version_id: int
    request_key: str | None


def moment_of(instance: Instance, at: int | None) -> Moment:
    """The moment after transition `at`, or the present one. Raises NotFound.

    An instance may have no history: it is then told from its row alone.
    """
    seq = instance.seq if at is None else at
    if not 0 < seq <= SEQ_MAX:
        raise NotFound(f"The history begins with transition 1, and there is no {seq}")
    near = {
        transition.seq: transition
        for transition in Transition.objects.filter(
            instance_id=instance.pk, seq__in=[seq - 1, seq, seq + 1]
        ).defer("commit_id", "ts")
    }
    transition = near.get(seq)
    if transition is None:
        if at is not None and at != instance.seq:
            raise NotFound(f"There is no transition {at} of {instance.slug}")
        transition = _from_row(instance)
    return _moment(transition, near.get(seq - 1), near.get(seq + 1))


def _from_row(instance: Instance) -> Transition:
    return Transition(
        instance_id=instance.pk,
        seq=instance.seq,
        kind=Transition.Kind.INIT,
        event='{"type":"xstate.init"}',
        state=instance.state,
        context=instance.context,
        duration_us=0,
        version_id=instance.version_id,
        created_at=instance.ts,
    )


def _moment(now: Transition, before: Transition | None, after: Transition | None) -> Moment:
    state = json.loads(now.state)
    icon, kind = KINDS[Transition.Kind(now.kind)]
    return Moment(
        seq=now.seq,
        is_now=after is None,
        value=state["state"],
        before=json.loads(before.state)["state"] if before is not None else None,
        leaves=leaves(state["state"]),
        tags=[str(tag) for tag in state["tags"]],
        is_done=state["done"],
        context=now.context,
        context_before=before.context if before is not None else None,
        kind=kind,
        icon=icon,
        event=now.event[:EVENT_CHARS_SHOWN],
        event_type=event_type_of(now.event),
        is_event_cut=len(now.event) > EVENT_CHARS_SHOWN,
        who=who(now.auth_context),
        claims=dict(claims_of(now.auth_context)),
        effects=effects_of(now.report, now.effects),
        duration_ms=now.duration_us / 1_000,
        created_ms=now.created_at,
        next_ms=after.created_at if after is not None else None,
        version_id=now.version_id,
        request_key=now.request_key,
    )
