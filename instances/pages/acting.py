"""What people do with an instance on its page: the API's operations, by the same door.

All of it blocks until the engine has answered.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from authz.callers import AUTH_CONTEXT_BYTES_MAX, OWN_CLAIMS
from instances.engine import door
from instances.engine.errors import EngineError, InstancePaused, RejectedByAuthorizer
from instances.engine.operations import Code
from instances.engine.preview import Preview, preview
from instances.engine.store import InstanceRow
from instances.event_bodies import parse_create, parse_event
from instances.explain import Definition, why_refused, why_unchanged
from instances.models import Instance, Transition
from instances.pages.context_tree import Line, tree_of
from instances.pages.stored_events import event_type_of
from instances.pages.timeline import Effects, effects_of
from instances.pages.words import Leaf, leaves, leaves_of
from machines.models import Machine, MachineVersion
from statebacked_site.errors import DomainError, InvalidParameter
from statebacked_site.json_text import JsonText, MalformedJson, parse_json, write_json

PAYLOAD_CHARS_MAX = 400_000


class Outcome(NamedTuple):
    """What an event did, or would do."""

    kind: str  # changed, unchanged, refused or failed
    why: str  # a sentence with the machine's words in backticks; empty for changed
    event_type: str
    before: list[Leaf]
    after: list[Leaf]
    value: Any | None  # the state value that it leads to
    is_done: bool
    changes: list[Line]  # in the context
    effects: Effects | None
    services: list[str]  # that run, or would run, afterwards
    logs: list[tuple[str, str]]
    duration_ms: float


def event_json(event_type: str, payload: str) -> str:
    """One line of JSON for the engine. `payload` is the text of an object, or empty.

    Raises InvalidParameter.
    """
    if not event_type:
        raise InvalidParameter("Choose an event, or write the type of one", "event")
    members: dict[str, Any] = {}
    if payload.strip():
        try:
            members = parse_json(payload[:PAYLOAD_CHARS_MAX])
        except MalformedJson as exc:
            raise InvalidParameter(f"The payload is not valid JSON: {exc}", "payload") from exc
        if not isinstance(members, dict):
            raise InvalidParameter("The payload must be a JSON object", "payload")
    event = {"type": event_type} | {k: v for k, v in members.items() if k != "type"}
    return parse_event(write_json({"event": event}))


def claims_json(text: str) -> dict[str, Any]:
    """The claims that somebody is to act with. Raises InvalidParameter."""
    try:
        claims = parse_json(text or "{}")
    except MalformedJson as exc:
        raise InvalidParameter(f"The claims are not valid JSON: {exc}", "claims") from exc
    if not isinstance(claims, dict):
        raise InvalidParameter("The claims must be a JSON object", "claims")
    if len(write_json(claims)) > AUTH_CONTEXT_BYTES_MAX:
        raise InvalidParameter(
            f"The claims have more than {AUTH_CONTEXT_BYTES_MAX} bytes", "claims"
        )
    return {name: claim for name, claim in claims.items() if name not in OWN_CLAIMS}


def create(
    machine: Machine, slug: str, context: str, version_id: int, claims: Mapping[str, Any]
) -> None:
    """Create an instance. Raises InvalidParameter and what the engine refuses with."""
    text = context.strip() or "{}"
    try:
        parse_json(text)
    except MalformedJson as exc:
        raise InvalidParameter(f"The context is not valid JSON: {exc}", "context") from exc
    slug, one_line, _ = parse_create(write_json({"slug": slug, "context": JsonText(text.encode())}))
    key = (machine.pk, slug)
    auth = write_json(claims).decode()

    async def creating() -> bytes:
        node = door.node()
        reply: asyncio.Future[bytes] = node.loop.create_future()
        node.engine.create(key, version_id, one_line, auth, reply)
        return await reply

    door.run(creating())


def send(
    instance: Instance, event: str, claims: Mapping[str, Any], definition: Definition | None
) -> Outcome:
    """Send an event, and say what it did. What fails is an outcome too, not an exception."""
    auth = write_json(claims).decode()

    async def sending() -> bytes:
        node = door.node()
        reply: asyncio.Future[bytes] = node.loop.create_future()
        node.engine.send((instance.machine_id, instance.slug), event, auth, reply)
        return await reply

    try:
        door.run(sending())
    except EngineError as error:
        return _refused(instance, event, claims, error)
    return after_sending(instance, event, definition)


def after_sending(instance: Instance, event: str, definition: Definition | None) -> Outcome:
    """What an event did that was answered with success; `instance` is as it was before."""
    now = Instance.objects.filter(pk=instance.pk).first() or instance
    if now.seq == instance.seq:
        return _unchanged(instance, event, definition)
    first = (
        Transition.objects.filter(instance_id=instance.pk, seq__gt=instance.seq)
        .only("report", "effects", "duration_us", "instance_id", "seq")
        .order_by("seq")
        .first()
    )
    state = json.loads(now.state)
    return Outcome(
        kind="changed",
        why="",
        event_type=event_type_of(event),
        before=leaves_of(instance.state),
        after=leaves_of(now.state),
        value=state["state"],
        is_done=state["done"],
        changes=tree_of(now.context, instance.context).changes,
        effects=effects_of(first.report, first.effects) if first else None,
        services=services_of(now.children),
        logs=[],
        duration_ms=first.duration_us / 1_000 if first else 0,
    )


def try_out(
    instance: Instance, event: str, claims: Mapping[str, Any], definition: Definition | None
) -> Outcome:
    """What the event would do now. Nothing is kept."""
    auth = write_json(claims).decode()
    if instance.status == Instance.Status.PAUSED:
        return _refused(instance, event, claims, InstancePaused(f"{instance.slug} is paused"))
    row = InstanceRow(
        instance.pk,
        instance.version_id,
        instance.status,
        instance.seq,
        instance.ts,
        instance.state,
        instance.extra,
        instance.context,
        instance.children,
    )

    async def trying() -> Preview:
        return await preview(door.node(), row, instance.slug, event, auth)

    try:
        answer = door.run(trying())
    except EngineError as error:
        return _refused(instance, event, claims, error)
    return _previewed(instance, event, claims, definition, answer)


def _previewed(
    instance: Instance,
    event: str,
    claims: Mapping[str, Any],
    definition: Definition | None,
    answer: Preview,
) -> Outcome:
    if answer.code == Code.UNCHANGED:
        return _unchanged(instance, event, definition)._replace(logs=answer.logs)
    if answer.code == Code.DENIED:
        denied = RejectedByAuthorizer("the machine's authorizer said no")
        outcome = _refused(instance, event, claims, denied)
        if answer.state:
            outcome = outcome._replace(why=f"{outcome.why} It threw {_error_text(answer.state)}")
        return outcome._replace(logs=answer.logs)
    if not answer.has_changed:
        why = f"The machine throws {_error_text(answer.state)}"
        return _nothing(instance, event, "failed", why)._replace(logs=answer.logs)
    state = json.loads(answer.state)
    return Outcome(
        kind="changed",
        why="",
        event_type=event_type_of(event),
        before=leaves_of(instance.state),
        after=leaves(state["state"]),
        value=state["state"],
        is_done=state["done"],
        changes=tree_of(answer.context, instance.context).changes,
        effects=effects_of(answer.report, answer.effects),
        services=services_of(answer.children),
        logs=answer.logs,
        duration_ms=answer.duration_us / 1_000,
    )


def _error_text(error: str) -> str:
    try:
        thrown = json.loads(error)
        text = f"{thrown.get('name', 'Error')}: {thrown.get('message', '')}"
    except (ValueError, AttributeError):
        text = "an error"
    return f"`{text[:500].replace('`', 'ˋ')}`"


def _unchanged(instance: Instance, event: str, definition: Definition | None) -> Outcome:
    state = json.loads(instance.state)
    why = why_unchanged(
        definition,
        state["state"],
        event_type_of(event),
        is_done=state["done"],
        services=services_of(instance.children),
    )
    return _nothing(instance, event, "unchanged", why)


def _refused(
    instance: Instance, event: str, claims: Mapping[str, Any], error: EngineError
) -> Outcome:
    kind = "refused" if error.status < 500 else "failed"
    why = why_refused(error.code, str(error), claims, instance.slug, paused_at=instance.paused_at)
    return _nothing(instance, event, kind, why)


def _nothing(instance: Instance, event: str, kind: str, why: str) -> Outcome:
    here = leaves_of(instance.state)
    return Outcome(
        kind=kind,
        why=why,
        event_type=event_type_of(event),
        before=here,
        after=here,
        value=None,
        is_done=instance.state.endswith('"done":true}'),
        changes=[],
        effects=None,
        services=[],
        logs=[],
        duration_ms=0,
    )


def services_of(children: str) -> list[str]:
    """Names of the services that run, from the instance's column."""
    return [str(child.get("src") or child.get("id")) for child in json.loads(children or "[]")]


def chosen_version(machine: Machine, public_id: str) -> int:
    """The id of a version of the machine; by default of its current one."""
    if not public_id:
        if machine.current_version_id is None:
            raise InvalidParameter("The machine has no version yet", "version")
        return machine.current_version_id
    version = MachineVersion.objects.filter(machine=machine, public_id=public_id).first()
    if version is None:
        raise InvalidParameter("The machine has no such version", "version")
    return version.pk


def is_complaint(error: DomainError) -> bool:
    """Whether the person can mend it in the form."""
    return error.status < 500
