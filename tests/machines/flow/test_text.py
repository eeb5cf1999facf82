import json
import re
from pathlib import Path

import pytest

from machines.flow import measure_fonts
from machines.flow.svg import TEXT_CLASSES
from machines.flow.text import Style, clean, duration, is_measured, width, wrap
from machines.flow.words import STYLES
from tests.machines.flow import geometry
from tests.machines.flow.fonts import text_width

TITLE = Style("sans", 13, 600)
CODE = Style("mono", 11)
CSS = Path(__file__).resolve().parents[3] / "static" / "flow" / "flow.css"


def test_clean_leaves_one_harmless_line():
    assert clean(" two\n words\t") == "two words"
    assert clean("\u202eevil\x00\u200b") == "\ufffdevil\ufffd\ufffd"
    assert clean("\u2028 \n") == "(empty)"
    assert clean("x" * 10_000) == "x" * 159 + "…"
    assert clean("Z" + "\u0316" * 100) == "Z\u0316\u0316"


def test_widths_are_those_of_the_fonts():
    for text, style in [("awaitingPayment", TITLE), ("isOwner && !isLocked", CODE)]:
        real = text_width(text, style.face, style.size, style.weight)

        assert real is not None
        assert real <= width(text, style) <= real * 1.03


def test_the_table_of_widths_is_up_to_date():
    assert json.loads(measure_fonts.TARGET.read_text("utf-8")) == measure_fonts.measure()


def test_unknown_characters_are_known_to_be_guessed():
    assert is_measured("é…→", TITLE)
    assert not is_measured("界", TITLE)
    assert not is_measured("→", CODE)


@pytest.mark.parametrize(
    "text", ["isOwner and (isAdmin or not isLocked)", "A" * 300, "a-b_c.d/e" * 9]
)
@pytest.mark.parametrize("room", [40.0, 90.0, 190.0])
def test_wrapped_lines_fit(text, room):
    lines = wrap(text, CODE, room)

    assert len(lines) <= 3
    assert all(width(line, CODE) <= room for line in lines)


def test_lines_break_at_spaces_first():
    assert wrap("in lock.open and isOwner", CODE, 90) == ["in lock.open", "and isOwner"]


def test_long_words_break_where_their_parts_end():
    assert wrap("SOME_EVENT.withManyParts", CODE, 100) == ["SOME_EVENT.", "withManyParts"]
    assert wrap("checkPasswordAndToken", CODE, 100) == ["checkPassword", "AndToken"]


@pytest.mark.parametrize(
    ("delay", "words"),
    [
        ("0", "0 ms"),
        ("1500", "1.5 s"),
        ("90000", "1.5 min"),
        ("86400000", "1 day"),
        ("2592000000", "30 days"),
        ("untilReminder", "untilReminder"),
        ("9" * 40, "9" * 40),
        ("²", "²"),
    ],
)
def test_durations_are_said_as_people_do(delay, words):
    assert duration(delay) == words


def test_the_style_sheet_sets_texts_as_they_were_measured():
    rules = {
        selector.strip(): declarations
        for selector, declarations in re.findall(
            r"^([^{}/]+)\{([^}]*)\}", CSS.read_text(), re.MULTILINE
        )
    }
    for role, css_class in TEXT_CLASSES.items():
        style = STYLES[role]
        declarations = "".join(
            rules[selector]
            for selector in (
                ".flow ." + css_class.split(" ", maxsplit=1)[0],
                ".flow ." + css_class.replace(" ", "."),
            )
        )
        sizes = re.findall(r"font-size: ([\d.]+)px", declarations)
        weights = re.findall(r"font-weight: (\d+)", declarations) or ["400"]

        assert (float(sizes[-1]), int(weights[-1])) == (style.size, style.weight)
        assert ("var(--mono)" in declarations) == (style.face == "mono")
        assert geometry.STYLES[css_class] == tuple(style)
