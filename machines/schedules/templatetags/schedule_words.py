"""{{ run|in_zone:zone }}, {{ schedule.payload|event_type }}"""

from datetime import datetime
from zoneinfo import ZoneInfo

from django import template

from instances import deliveries

register = template.Library()


@register.filter
def in_zone(moment_ms: int, zone: ZoneInfo) -> str:
    """`Mon 23 Nov 2026, 09:00 CET`"""
    return f"{datetime.fromtimestamp(moment_ms / 1_000, zone):%a %-d %b %Y, %H:%M %Z}"


@register.filter
def event_type(event: str) -> str:
    return deliveries.event_type(event)
