"""Times and numbers in templates: {{ version.created_at|ago }}, {{ timer.due_at|moment }}."""

import time
from datetime import datetime

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from statebacked_site import words

register = template.Library()


@register.filter
def ago(moment: datetime | int | None) -> SafeString | str:
    """A <time> that says how long ago, or in how long; its title says when exactly, in UTC."""
    if moment is None:
        return ""
    at = words.utc(moment)
    return format_html(
        '<time datetime="{}" title="{} UTC" data-ago>{}</time>',
        at.isoformat(timespec="milliseconds"),
        at.strftime("%-d %b %Y, %H:%M:%S"),
        words.ago(words.milliseconds(moment), time.time_ns() // 1_000_000),
    )


@register.filter
def moment(moment: datetime | int | None) -> SafeString | str:
    """A <time> that says when, in UTC."""
    if moment is None:
        return ""
    at = words.utc(moment)
    return format_html(
        '<time datetime="{}">{}</time>',
        at.isoformat(timespec="milliseconds"),
        at.strftime("%-d %b %Y, %H:%M:%S"),
    )


@register.filter
def count(number: int | None) -> str:
    return "" if number is None else words.count(number)


@register.filter
def duration(ms: int) -> str:
    return words.duration(ms)


@register.filter
def clock(moment_ms: int) -> str:
    """The time of day to the millisecond, in UTC."""
    at = words.utc(moment_ms)
    return f"{at:%H:%M:%S}.{moment_ms % 1000:03}"


@register.filter
def date_of(moment_ms: int) -> str:
    return f"{words.utc(moment_ms):%-d %b %Y, %H:%M:%S} UTC"


@register.filter
def number(exact: int) -> str:
    """`22,481`: a number that was counted to its end."""
    return f"{exact:,}"
