"""The code of a version for reading: lines of marked words.

The marks are those of a glance: comments, strings, numbers and keywords. No parser stands behind
them, and every character of the source is kept.
"""

import gzip
import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from machines.models import Code, MachineVersion, VersionCode

LINES_SHOWN_MAX = 5_000
LINE_CHARS_MAX = 2_000

_KEYWORDS = (
    "as async await break case catch class const continue default delete do else export extends"
    " false finally for from function if import in instanceof interface let new null of return"
    " static super switch this throw true try type typeof undefined var void while yield"
).split()
_TOKENS = re.compile(
    r"""(?P<c>//[^\n]*|/\*.*?\*/)"""
    r"""|(?P<s>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)"""
    r"""|(?P<d>\b\d[\w.]*)"""
    rf"""|(?P<k>\b(?:{"|".join(_KEYWORDS)})\b(?!\s*:))"""
    r"""|(?P<f>\b[A-Za-z_$][\w$]*(?=\())""",
    re.DOTALL,
)


class Word(NamedTuple):
    kind: str  # class of the mark, or empty
    text: str


def highlighted(version: MachineVersion) -> list[list[Word]]:
    """The lines of the code that was deployed, at most LINES_SHOWN_MAX."""
    code = VersionCode.objects.filter(version=version).only("source_gzip").first()
    return highlighted_text(source_of(code)) if code is not None else []


def source_of(code: Code) -> str:
    """The code as it was uploaded."""
    if not code.source_gzip:
        return ""
    return gzip.decompress(bytes(code.source_gzip)).decode(errors="replace")


def highlighted_text(source: str) -> list[list[Word]]:
    """At most LINES_SHOWN_MAX lines; none of an empty text."""
    return list(islice(lines_of(source), LINES_SHOWN_MAX)) if source else []


def lines_of(source: str) -> Iterator[list[Word]]:
    line: list[Word] = []
    for word in _words(source):
        first, *others = word.text.split("\n")
        line.append(Word(word.kind, first[:LINE_CHARS_MAX]))
        for text in others:
            yield line
            line = [Word(word.kind, text[:LINE_CHARS_MAX])]
    yield line


def _words(source: str) -> Iterator[Word]:
    at = 0
    for match in _TOKENS.finditer(source):
        if match.start() > at:
            yield Word("", source[at : match.start()])
        yield Word(match.lastgroup or "", match.group())
        at = match.end()
    yield Word("", source[at:])
