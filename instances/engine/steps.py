"""A step as the runner has answered it: whether it may be committed, and with which effects."""

from __future__ import annotations

import json
from typing import Any

from instances.engine.errors import ContextTooLarge, EngineError, UnsupportedEffect
from instances.engine.json_texts import storable
from instances.engine.operations import (
    SETTLED,
    Activation,
    DeliveryKind,
    Kind,
    MessageRow,
    Operation,
    Rename,
    TimerRow,
    Upgrade,
)

CONTEXT_BYTES_MAX = 400_000  # State Backed's limit: 400 kB of JSON
EFFECTS_PER_STEP = 1_000
EVENT_BYTES_MAX = 400_000  # of a message
NAME_LENGTH_MAX = 128  # of machines and instances
DELAY_MS_MAX = 100 * 366 * 86_400_000  # a century: what a timer is bounded to
SELF_MADE_SPACING_MS = 10
SELF_MADE_BURST_MS = 1_000  # that much may come at once
SHORT_DELAY_MS = 1_000  # what comes later than this begins a new chain
# Messages of which each led to the next, since something happened outside: machines that send to
# each other for longer than this are taken for a loop, and each such chain gets a hundred a second.
LOOP_HOPS = 10_000
STATE_PREFIX = '{"state":'


class ProtocolViolation(Exception):
    """A runner said something that the protocol does not know: it is killed."""


def check_step(
    activation: Activation, operation: Operation, now_ms: int, settle_limit_ms: int
) -> EngineError | None:
    """Why this step must not be committed; sets its timers, cancels and settle deadline."""
    context = operation.context
    size = len(context) if context.isascii() else len(context.encode())
    if size > CONTEXT_BYTES_MAX:
        return ContextTooLarge(
            f"the context would have {size:,} bytes of JSON; {CONTEXT_BYTES_MAX:,} are allowed"
        )
    if not operation.state.startswith(STATE_PREFIX) or "\0" in context:
        raise ProtocolViolation("not a state")
    operation.timers = operation.messages = operation.cancels = None
    if operation.kind is Kind.UPGRADE and operation.children != SETTLED:
        raise ProtocolViolation("an upgrade that starts services")
    if operation.kind <= Kind.MESSAGE:
        activation.hops = operation.delivery.hops if operation.delivery is not None else 0
    if operation.effects:
        error = _plan_effects(activation, operation, now_ms)
        if error is not None:
            return error
    if operation.kind <= Kind.MESSAGE:  # from outside
        activation.deadline_ms = now_ms + settle_limit_ms
    operation.deadline_ms = None if operation.children == SETTLED else activation.deadline_ms
    return None


def _plan_effects(activation: Activation, operation: Operation, now_ms: int) -> EngineError | None:
    """Set the operation's timers, messages and cancels from what the runner declared."""
    effects = json.loads(operation.effects)
    if len(effects) > EFFECTS_PER_STEP:
        return UnsupportedEffect(f"one step may have {EFFECTS_PER_STEP} effects at most")
    timers: list[TimerRow] = []
    messages: list[MessageRow] = []
    cancels: list[str] = []
    if isinstance(operation, Upgrade):
        operation.renames.clear()
    fired = operation.delivery.send_id if operation.delivery is not None else None
    for n, effect in enumerate(effects):
        kind = effect["t"]
        if kind == "cancel":
            send_id = str(effect["id"])
            # XState cancels the latest one with that id, which may be of this very step (what an
            # upgrade cancels is of the version before). Leaving a state cancels its timers, also
            # the one that is firing just now.
            is_upgrade = operation.kind is Kind.UPGRADE
            if is_upgrade or not _is_taken_back(send_id, timers, messages):
                if send_id != fired:
                    cancels.append(send_id)
        elif kind == "rename" and isinstance(operation, Upgrade):
            names = str(effect["id"]), str(effect["to"])
            operation.renames.append(Rename(n, *names, _text(effect["event"])))
        elif kind == "timer" and not effect.get("to"):
            delay_ms = _delay_ms(effect)
            hops = activation.hops + 1 if delay_ms < SHORT_DELAY_MS else 0
            timers.append(
                TimerRow(n, str(effect["id"]), _text(effect["event"]), now_ms + delay_ms, hops)
            )
        elif kind != "stop":  # a persistent instance goes on when it is no longer listened to
            message = _message(activation, n, effect)
            if len(message.event) > EVENT_BYTES_MAX:
                return UnsupportedEffect(f"a message may have {EVENT_BYTES_MAX:,} bytes at most")
            _set_due_time(activation, message, effect, now_ms)
            messages.append(message)
    if operation.kind is Kind.TIMER:
        for timer in timers:
            timer.due_at_ms = _spaced_out(activation, timer.due_at_ms, now_ms)
    operation.timers = timers or None
    operation.messages = messages or None
    operation.cancels = cancels or None
    return None


def _is_taken_back(send_id: str, timers: list[TimerRow], messages: list[MessageRow]) -> bool:
    """Remove the latest of these with that id."""
    latest = max((t.n for t in timers if t.send_id == send_id), default=-1)
    latest = max((m.n for m in messages if m.send_id == send_id), default=latest)
    timers[:] = [timer for timer in timers if timer.n != latest]
    messages[:] = [message for message in messages if message.n != latest]
    return latest >= 0


def _message(activation: Activation, n: int, effect: dict[str, Any]) -> MessageRow:
    """The row for a message, a spawn or the end of this instance. Raises what MALFORMED names."""
    kind = effect["t"]
    if kind == "spawn":
        source = effect["src"]
        event = {
            "type": "statebacked.spawn",
            "id": str(effect["id"]),
            "context": effect.get("input"),
            "machineVersionId": source.get("machineVersionId"),
        }
        given = {name: value for name, value in event.items() if value is not None}
        return MessageRow(n, DeliveryKind.SPAWN, *_address(source), _text(given), 0)
    if kind == "done":
        parent_id, child_id = activation.parent or (0, "")
        event = {"type": "statebacked.child-done", "id": child_id}
        if "output" in effect:
            event["output"] = effect["output"]
        return MessageRow(n, DeliveryKind.CHILD_DONE, "", "", _text(event), 0, parent_id=parent_id)
    if kind not in ("send", "timer"):
        raise ProtocolViolation(f"unknown effect {kind!r:.50}")
    send_id = str(effect["id"]) if kind == "timer" else None
    text = _text(effect["event"])
    return MessageRow(n, DeliveryKind.MESSAGE, *_address(effect["to"]), text, 0, send_id=send_id)


def _address(reference: dict[str, Any]) -> tuple[str, str]:
    """Machine and instance that a reference names; what can be no name stays one that can't."""
    names = [storable(str(reference[n])) for n in ("machineName", "machineInstanceName")]
    machine, slug = (
        name if len(name) <= NAME_LENGTH_MAX else f"{name[:NAME_LENGTH_MAX]}\u2026"
        for name in names
    )
    return machine or "?", slug or "?"


def _set_due_time(
    activation: Activation, message: MessageRow, effect: dict[str, Any], now_ms: int
) -> None:
    """When it is to be delivered: never before an earlier message of the same sender.

    Machines that send to each other without end are slowed down, never cut off.
    """
    if effect["t"] == "timer":
        delay_ms = _delay_ms(effect)
        message.hops = activation.hops + 1 if delay_ms < SHORT_DELAY_MS else 0
        message.due_at_ms = max(activation.sent_ms, now_ms) + delay_ms
    else:
        message.hops = activation.hops + 1
        message.due_at_ms = max(activation.sent_ms, now_ms)
    if message.hops > LOOP_HOPS:
        message.due_at_ms = max(message.due_at_ms, now_ms + SELF_MADE_SPACING_MS)
    if effect["t"] != "timer":
        activation.sent_ms = message.due_at_ms


def _delay_ms(effect: dict[str, Any]) -> int:
    return round(min(max(float(effect["delay"]), 0.0), DELAY_MS_MAX))


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _spaced_out(activation: Activation, due_at_ms: int, now_ms: int) -> int:
    """When a timer that was set by a timer may fire: a hundred such a second, after a burst.

    A machine that wakes itself without end is slowed down, never cut off.
    """
    turn_ms = max(activation.self_made_ms, now_ms - SELF_MADE_BURST_MS) + SELF_MADE_SPACING_MS
    if due_at_ms - now_ms >= 1_000:
        return due_at_ms
    activation.self_made_ms = turn_ms
    return max(due_at_ms, turn_ms)
