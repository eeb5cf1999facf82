"""A step as the runner has answered it: whether it may be committed, and with which effects."""

from __future__ import annotations

import json

from instances.engine.errors import ContextTooLarge, EngineError, UnsupportedEffect
from instances.engine.operations import SETTLED, Activation, Kind, Operation, TimerRow

CONTEXT_BYTES_MAX = 400_000  # State Backed's limit: 400 kB of JSON
EFFECTS_PER_STEP = 1_000
DELAY_MS_MAX = 100 * 366 * 86_400_000  # a century: what a timer is bounded to
SELF_MADE_SPACING_MS = 10
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
    operation.timers = operation.cancels = None
    if operation.effects:
        error = _plan_effects(activation, operation, now_ms)
        if error is not None:
            return error
    if operation.kind <= Kind.MESSAGE:  # from outside
        activation.deadline_ms = now_ms + settle_limit_ms
    operation.deadline_ms = None if operation.children == SETTLED else activation.deadline_ms
    return None


def _plan_effects(activation: Activation, operation: Operation, now_ms: int) -> EngineError | None:
    """Set the operation's timers and cancels from what the runner declared."""
    effects = json.loads(operation.effects)
    if len(effects) > EFFECTS_PER_STEP:
        return UnsupportedEffect(f"one step may have {EFFECTS_PER_STEP} effects at most")
    timers: list[TimerRow] = []
    cancels: list[str] = []
    fired = operation.delivery.send_id if operation.delivery is not None else None
    for n, effect in enumerate(effects):
        if effect["t"] == "cancel":
            send_id = str(effect["id"])
            # XState cancels the latest one with that id, which may be of this very step.
            for i in range(len(timers) - 1, -1, -1):
                if timers[i].send_id == send_id:
                    del timers[i]
                    break
            else:
                # Leaving a state cancels its timers, also the one that is firing just now.
                if send_id != fired:
                    cancels.append(send_id)
        elif effect["t"] == "timer" and not effect.get("to"):
            delay_ms = min(max(float(effect["delay"]), 0.0), DELAY_MS_MAX)
            event = json.dumps(effect["event"], separators=(",", ":"))
            timers.append(TimerRow(n, str(effect["id"]), event, now_ms + round(delay_ms)))
        else:
            return UnsupportedEffect(
                "messages to other instances are not supported by this version of the server"
            )
    if operation.kind is Kind.TIMER:
        for timer in timers:
            timer.due_at_ms = _spaced_out(activation, timer.due_at_ms, now_ms)
    operation.timers = timers or None
    operation.cancels = cancels or None
    return None


def _spaced_out(activation: Activation, due_at_ms: int, now_ms: int) -> int:
    """When a timer that was set by a timer may fire: a hundred such a second, after a burst.

    A machine that wakes itself without end is slowed down, never cut off.
    """
    turn_ms = max(activation.self_made_ms, now_ms - 1_000) + SELF_MADE_SPACING_MS
    if due_at_ms - now_ms >= 1_000:
        return due_at_ms
    activation.self_made_ms = turn_ms
    return max(due_at_ms, turn_ms)
