"""A line that customers' code wrote, as pages show it: long ones folded, what was sought marked."""

from typing import NamedTuple

from instances.models import LogEntry

MESSAGE_CHARS_MAX = 20_000
MESSAGE_CHARS_AT_ONCE = 800  # the rest of a longer one is folded


class Line(NamedTuple):
    """What site/_log_message.html shows, and what a page shows beside it."""

    entry: LogEntry
    machine: str
    level: str
    parts: list[tuple[str, bool]]  # of the message, and whether each was searched for
    rest: list[tuple[str, bool]]  # the same of what is folded

    @property
    def rest_chars(self) -> int:
        return sum(len(part) for part, _is_wanted in self.rest)

    @property
    def is_rest_wanted(self) -> bool:
        return any(is_wanted for _part, is_wanted in self.rest)


def line_of(entry: LogEntry, machine: str, text: str = "") -> Line:
    """The line, with `text` marked in it; `machine` is the name of the one whose code wrote it."""
    return Line(
        entry,
        machine,
        "info" if entry.level == "log" else entry.level,
        marked(entry.message[:MESSAGE_CHARS_AT_ONCE], text),
        marked(entry.message[MESSAGE_CHARS_AT_ONCE:MESSAGE_CHARS_MAX], text),
    )


def marked(message: str, text: str) -> list[tuple[str, bool]]:
    """`message` in parts, those that are `text` in any case apart."""
    if not text or len(message.lower()) != len(message):
        return [(message, False)]
    parts = []
    at = 0
    lower, wanted = message.lower(), text.lower()
    while (found := lower.find(wanted, at)) >= 0:
        parts += [(message[at:found], False), (message[found : found + len(wanted)], True)]
        at = found + len(wanted)
    parts.append((message[at:], False))
    return [(part, is_wanted) for part, is_wanted in parts if part]
