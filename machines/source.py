"""A machine's source file as people paste or upload it: TypeScript or JavaScript, one file.

It becomes the ES module that publishing takes: types are removed, and `xstate` is the platform's
XState 5. esbuild reads nothing but what it is given: every import stays an import.
"""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from machines.errors import InvalidBundle
from machines.gzip_code import SOURCE_BYTES_MAX
from statebacked_site.bundling import esbuild_program
from statebacked_site.errors import TooLarge, Unavailable

TIME_LIMIT_S = 20.0
MEMORY_SOFT = "300MiB"
MESSAGE_CHARS_MAX = 2_000
EXCERPT_LINES = 3  # around the line of an error
EXCERPT_CHARS_MAX = 300  # of a line

_TYPESCRIPT = (".ts", ".mts", ".cts", ".tsx")
_PLACE = re.compile(r"(?:machine|source)\.[jt]s:(\d+):(\d+)")


class Line(NamedTuple):
    number: int
    text: str
    is_wrong: bool


class Problem(NamedTuple):
    """What is wrong with code, for the person who wrote it."""

    message: str
    details: str  # the rest of what the compiler said, or empty
    excerpt: list[Line]  # the source around it, if the message names a place in it


def compile_source(text: str, file_name: str) -> bytes:
    """The ES module for a source. Raises InvalidBundle with the compiler's message, TooLarge.

    Without a telling `file_name` JavaScript is tried first: it is what it says, and TypeScript
    would read some of it otherwise.
    """
    source = text.encode()
    if len(source) > SOURCE_BYTES_MAX:
        raise TooLarge(f"The code is larger than {SOURCE_BYTES_MAX >> 20} MB", "file")
    if not text.strip():
        raise InvalidBundle("There is no code yet: choose a file or paste it.", "code")
    if file_name.endswith(_TYPESCRIPT):
        return _esbuild(source, "tsx" if file_name.endswith("x") else "ts")
    try:
        return _esbuild(source, "js")
    except InvalidBundle:
        if file_name.endswith((".js", ".mjs")):
            raise
    return _esbuild(source, "ts")


def problem_of(error: InvalidBundle, source: str) -> Problem:
    """`error` with the lines of `source` that it is about."""
    message, _, details = str(error).partition("\n")
    place = _PLACE.search(str(error))
    if place is None:
        return Problem(message, details, [])
    return Problem(message, "", _excerpt(source, int(place[1])))


def _excerpt(source: str, wrong: int) -> list[Line]:
    lines = source.splitlines()
    first = max(1, wrong - EXCERPT_LINES)
    shown = lines[first - 1 : wrong + EXCERPT_LINES]
    return [
        Line(number, text[:EXCERPT_CHARS_MAX], number == wrong)
        for number, text in enumerate(shown, first)
    ]


def _esbuild(source: bytes, loader: str) -> bytes:
    command = [
        str(esbuild_program()),
        "--bundle",
        "--format=esm",
        "--platform=browser",
        "--external:*",
        "--alias:xstate=npm:xstate@5",
        "--charset=utf8",
        "--tsconfig-raw={}",
        f"--loader={loader}",
        f"--sourcefile=source.{'js' if loader == 'js' else 'ts'}",
        "--log-level=error",
        "--log-limit=3",
        "--color=false",
    ]
    environment = {"GOMEMLIMIT": MEMORY_SOFT, "GOMAXPROCS": "1"}
    try:
        result = subprocess.run(
            command,
            input=source,
            capture_output=True,
            env=environment,
            cwd=Path("/"),
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise InvalidBundle(f"The code could not be read within {TIME_LIMIT_S:.0f} s") from exc
    except OSError as exc:
        raise Unavailable(f"The compiler could not be started: {exc.strerror}") from exc
    if result.returncode != 0:
        raise InvalidBundle(_tidy(result.stderr.decode(errors="replace")))
    # In front of the code stands a comment with the name that we have given it.
    return result.stdout.removeprefix(b"// source.ts\n").removeprefix(b"// source.js\n")


def _tidy(messages: str) -> str:
    """esbuild's errors without its marks and blank lines."""
    text = re.sub(r"^\S \[ERROR\] ", "", messages, flags=re.MULTILINE)
    text = re.sub(r"\n\s*\n", "\n", text).strip()
    return text[:MESSAGE_CHARS_MAX] or "The code is too large or nested too deeply"
