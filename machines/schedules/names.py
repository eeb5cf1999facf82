"""Names of instances that a schedule creates: `report-{date}` becomes `report-2026-11-21`."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

from statebacked_site.errors import InvalidParameter
from statebacked_site.identifiers import SLUG

PARTS = {"{date}": "%Y-%m-%d", "{time}": "%H%M", "{week}": "%G-W%V", "{month}": "%Y-%m"}
_PART = re.compile(r"\{[^{}]*\}")


def checked_template(template: str) -> str:
    """Raises InvalidParameter where it could not become the name of an instance."""
    unknown = [part for part in _PART.findall(template) if part not in PARTS]
    if unknown:
        known = ", ".join(PARTS)
        raise InvalidParameter(f"slug: {unknown[0][:50]} is none of {known}", "slug")
    if not SLUG.match(name_at(template, 0, ZoneInfo("UTC"))):
        raise InvalidParameter(
            "slug: must become 1 to 128 letters, digits, underscores or dashes", "slug"
        )
    return template


def name_at(template: str, moment_ms: int, zone: ZoneInfo) -> str:
    """The name at a moment, in the schedule's own time zone."""
    at = datetime.fromtimestamp(moment_ms / 1_000, zone)
    return _PART.sub(lambda part: at.strftime(PARTS.get(part[0], part[0])), template)
