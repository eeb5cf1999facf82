"""Sending an event with an explanation: `POST …/events?explain=1`, for admins.

The event goes the same way as any other. What is said besides comes from comparing the instance
before and after, so it may take in what somebody else does at the same moment.
"""

import json
from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse

from authz.callers import Caller
from authz.errors import MissingScope
from instances import lean
from instances.access import get_instance
from instances.event_bodies import parse_event
from instances.explain import why_refused, why_unchanged
from instances.models import Instance, Transition
from instances.pages.definitions import definition_of
from instances.pages.stored_events import event_type_of
from instances.pages.words import leaves_of
from statebacked_site.json_text import write_json


def send_explained(request: HttpRequest, caller: Caller, machine: str, slug: str) -> HttpResponse:
    """The answer of the event path, with an `explanation`: {"outcome", "text"}."""
    if "instances.admin" not in caller.scopes:
        raise MissingScope("An explanation needs the scope instances.admin")
    before = get_instance(caller, machine, slug)
    answer = lean.respond(request, operation="send", machine=machine, instance=slug)
    body = json.loads(answer.content)
    if answer.status_code == 200:
        explanation = _explain_answer(before, parse_event(request.body))
    else:
        explanation = _explain_refusal(answer.status_code, body, caller.auth_context, before)
    answer.content = write_json(body | {"explanation": explanation})
    return answer


def _explain_answer(before: Instance, event: str) -> Mapping[str, Any]:
    now = Instance.objects.filter(pk=before.pk).only("seq", "state", "version_id").first()
    upgraded = ""
    if now is not None and now.version_id != before.version_id:
        upgrade = (
            Transition.objects.filter(
                instance_id=before.pk, seq__gt=before.seq, kind=Transition.Kind.UPGRADE
            )
            .order_by("seq")
            .last()
        )
        if upgrade is not None:
            before = _upgraded(before, upgrade)
            upgraded = "The instance was upgraded to its desired version first. "
    if now is not None and now.seq != before.seq:
        left = ", ".join(f"`{leaf.path}`" for leaf in leaves_of(before.state))
        entered = ", ".join(f"`{leaf.path}`" for leaf in leaves_of(now.state))
        return {"outcome": "changed", "text": f"{upgraded}It went from {left} to {entered}."}
    state = json.loads(before.state)
    text = why_unchanged(
        definition_of(before.version_id),
        state["state"],
        event_type_of(event),
        is_done=state["done"],
        services=[str(child.get("src")) for child in json.loads(before.children)],
    )
    return {"outcome": "unchanged", "text": upgraded + text}


def _upgraded(instance: Instance, upgrade: Transition) -> Instance:
    """The instance as the upgrade right before its event has left it."""
    return Instance(
        pk=instance.pk, version_id=upgrade.version_id, seq=upgrade.seq, state=upgrade.state
    )


def _explain_refusal(
    status: int, error: Mapping[str, Any], claims: Mapping[str, Any], instance: Instance
) -> Mapping[str, Any]:
    outcome = "refused" if status < 500 else "failed"
    text = why_refused(
        error["code"], error["error"], claims, instance.slug, paused_at=instance.paused_at
    )
    return {"outcome": outcome, "text": text}
