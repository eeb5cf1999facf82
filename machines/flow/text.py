"""Text of unknown origin: made harmless, measured, and broken into lines.

Everything that an author wrote passes `clean` before it is measured or drawn. Widths are those of
the fonts that the pages ship, so that the browser agrees with us.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

TEXT_CHARS_MAX = 160
MARKS_MAX = 2  # combining marks on one letter; more would pile up into the lines above
SLACK = 1.02  # browsers round glyphs and kern pairs

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ELLIPSIS = "…"
ZERO_WIDTH_JOINER = "\N{ZERO WIDTH JOINER}"

# For what the fonts lack, in thousandths of the size. Such text is squeezed or stretched to the
# width that we assumed (SVG's textLength), so these need not be right, only plausible.
NARROW_GUESS, WIDE_GUESS = 640, 1050

_WIDTHS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "font_widths.json").read_text("utf-8")
)
_MONO = frozenset(_WIDTHS["mono"]["characters"])


class Style(NamedTuple):
    """How a text is set. flow.css repeats these numbers; a test compares them."""

    face: Literal["sans", "mono"]
    size: float  # px
    weight: int = 400


def clean(text: str) -> str:
    """One line, at most TEXT_CHARS_MAX characters, and nothing that hides or moves other text.

    Control, format (bidi, zero-width), private and unassigned characters become U+FFFD.
    """
    kept: list[str] = []
    marks = 0
    for char in unicodedata.normalize("NFC", text[: TEXT_CHARS_MAX * 4]):
        category = unicodedata.category(char)
        marks = marks + 1 if category[0] == "M" else 0
        if char.isspace():
            kept.append(" ")
        elif marks > MARKS_MAX or char == ZERO_WIDTH_JOINER:
            continue
        else:
            kept.append(REPLACEMENT if category[0] == "C" else char)
    line = re.sub(" +", " ", "".join(kept)).strip() or "(empty)"
    return line if len(line) <= TEXT_CHARS_MAX else line[: TEXT_CHARS_MAX - 1] + ELLIPSIS


def is_measured(text: str, style: Style) -> bool:
    """Whether the fonts have every character; otherwise the width is a guess."""
    table = _MONO if style.face == "mono" else _WIDTHS["sans"]["400"]
    return all(char in table for char in text)


@lru_cache(maxsize=20_000)
def width(text: str, style: Style) -> float:
    """In px."""
    if style.face == "mono":
        advance = _WIDTHS["mono"]["width"]
        total = sum(advance if char in _MONO else _guess(char) for char in text)
    else:
        table = _WIDTHS["sans"][str(style.weight)]
        total = sum(table[char] if char in table else _guess(char) for char in text)
    return float(total * style.size / 1000 * SLACK)


def _guess(char: str) -> int:
    if unicodedata.category(char)[0] == "M":
        return 0
    is_wide = unicodedata.east_asian_width(char) in "WF" or ord(char) > 0x1F000
    return WIDE_GUESS if is_wide else NARROW_GUESS


# Where a word that is too long for a line is broken if possible: before a camelCase hump, and after
# a separator.
_PART = re.compile(r"[^_\-./]*?[a-zß-ÿ](?=[A-Z])|[^_\-./]+[_\-./]*|[_\-./]+")
TAIL_CHARS_MIN = 3  # a part is not broken so that fewer letters are left


def wrap(text: str, style: Style, width_max: float, lines_max: int = 3) -> list[str]:
    """`text` in lines of at most `width_max` px, broken at spaces, in words where that must be.

    What does not fit into `lines_max` lines is cut off with an ellipsis.
    """
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if width(longer, style) <= width_max:
            lines[-1] = longer
        elif width(word, style) <= width_max:
            lines.append(word)
        else:
            _add_long_word(lines, word, style, width_max)
        if len(lines) > lines_max:
            return [*lines[: lines_max - 1], _shortened(lines[lines_max - 1], style, width_max)]
    return lines


def _add_long_word(lines: list[str], word: str, style: Style, width_max: float) -> None:
    if lines[-1]:
        lines.append("")
    for part in _PART.findall(word):
        if lines[-1] and width(lines[-1] + part, style) > width_max:
            lines.append("")
        rest = part
        while not lines[-1] and width(rest, style) > width_max and len(rest) > 1:
            at = _break_at(rest, style, width_max)
            lines[-1:] = [rest[:at] + "-", ""]
            rest = rest[at:]
        lines[-1] += rest


def _break_at(part: str, style: Style, width_max: float) -> int:
    """How many characters of a part that is too long fit into a line, with a hyphen."""
    fits = 1
    while fits < len(part) - 1 and width(part[: fits + 1] + "-", style) <= width_max:
        fits += 1
    return max(1, min(fits, len(part) - TAIL_CHARS_MIN))


def _shortened(line: str, style: Style, width_max: float) -> str:
    """A last line that says that there would be more."""
    line = line.removesuffix("-")
    while width(line + ELLIPSIS, style) > width_max:
        line = line[:-1]
    return line.rstrip() + ELLIPSIS


def duration(delay: str) -> str:
    """Milliseconds as people say them, "86400000" → "1 day"; a named delay stays as it is."""
    if not (delay.isascii() and delay.isdigit() and len(delay) <= 15):
        return delay
    milliseconds = int(delay)
    for unit, size in (("day", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if milliseconds >= size:
            amount = f"{milliseconds / size:.2f}".rstrip("0").rstrip(".")
            plural = "s" if unit == "day" and amount != "1" else ""
            return f"{amount} {unit}{plural}"
    return f"{milliseconds} ms"
