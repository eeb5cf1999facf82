"""What templates of instances write: {{ sentence|codes }}, {{ row.duration_ms|took }}."""

import re
from datetime import UTC, datetime

from django import template
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from instances.pages import words
from instances.pages.timeline import Effects, timer_name

register = template.Library()

_QUOTED = re.compile("`([^`]*)`")
_NUMBERED = re.compile(r"^\d+\.(?:[^.]*\.)?(?=.)")
_INVOKED = re.compile(
    r"(?:xstate\.)?(done|error)\.(?:invoke|actor|platform|state)\.(.+)", re.DOTALL
)


@register.filter
def codes(sentence: str) -> SafeString:
    """A sentence with the words in backticks as <code>; everything in it is escaped first."""
    return mark_safe(_QUOTED.sub(r"<code>\1</code>", escape(sentence)))


@register.filter
def event_name(event_type: str) -> str:
    """XState's own event types in words: `charge done` for `xstate.done.actor.charge`."""
    match = _INVOKED.fullmatch(event_type)
    if match is not None:
        # A service without a name of its own is called by XState "0.order.charging".
        name = _NUMBERED.sub("", match[2])
        return f"{name} {'done' if match[1] == 'done' else 'failed'}"
    if event_type == "xstate.init":
        return "created"
    if event_type == "statebacked.upgrade":
        return "upgrade"
    return timer_name(event_type)


@register.filter
def service_name(name: str) -> str:
    """XState's made-up id of a service without its number: `charging` for `0.order.charging`."""
    return _NUMBERED.sub("", name)


@register.filter
def took(ms: float) -> str:
    return words.duration(ms)


@register.filter
def byte_size(count: int) -> str:
    return words.size(count)


@register.filter
def clock(ms: int) -> str:
    """The time of the day; the day as well if it is not today."""
    at = words.moment(ms)
    if at.date() == datetime.now(UTC).date():
        return at.strftime("%H:%M:%S")
    return at.strftime("%-d %b %H:%M")


@register.filter
def clock_ms(ms: int) -> str:
    return words.moment(ms).strftime("%H:%M:%S.%f")[:-3]


@register.filter
def has_effects(effects: Effects) -> bool:
    return any(effects)
