"""From an uploaded ES module to the script that a runner evaluates.

Deno's module loader parses every module with a parser of its own before V8 sees it: 10 MB of
source then take seconds and most of a gigabyte. A CommonJS script that is evaluated takes a tenth
of both, so a bundle is converted once, when it becomes a version, by esbuild in a process of its
own. Nothing of the bundle is run here.

esbuild reads no file: every import is external to it, and those that a runner does not provide are
refused here.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from instances.runtime.build import PLATFORM_MODULES
from instances.runtime.errors import InvalidBundle, RunnerUnavailable
from instances.runtime.sandbox import before_exec, set_limit

SOURCE_BYTES_MAX = 10 << 20
CONVERSIONS_AT_ONCE = 2
TIME_LIMIT_S = 20.0
MEMORY_SOFT = "600MiB"  # from here on esbuild's garbage collector works harder
MEMORY_MAX_BYTES = 1536 << 20
MESSAGE_CHARS_MAX = 2_000
WARNINGS_MAX = 10

# Above this size white space is removed: nobody reads such a bundle's stack traces line by line,
# and esbuild's own indentation could double it.
KEEP_WHITE_SPACE_BYTES = 2 << 20

FILE_NAME = "machine.js"  # as what esbuild's messages and stack traces refer to the bundle


@dataclass(frozen=True)
class BundleCode:
    """What a runner needs to load a version."""

    commonjs: str
    externals: list[str]  # specifiers of `require` that the platform provides: "npm:xstate@5"


@dataclass(frozen=True)
class BundleInfo:
    """A bundle that was converted and has loaded."""

    commonjs: str
    externals: list[str]
    xstate_major: int  # 4 or 5, or 0 for a migration
    warnings: list[str] = field(default_factory=list)  # for its author


@dataclass(frozen=True)
class ConvertedBundle:
    """A bundle that was converted, but not loaded yet."""

    code: BundleCode
    warnings: list[str]


class _Import(msgspec.Struct):
    path: str
    kind: str


class _Input(msgspec.Struct):
    imports: list[_Import]


class _Metafile(msgspec.Struct):
    inputs: dict[str, _Input]


class BundleConverter:
    """Runs esbuild, CONVERSIONS_AT_ONCE at a time."""

    def __init__(self, esbuild: Path) -> None:
        self._esbuild = esbuild
        self._slots = asyncio.Semaphore(CONVERSIONS_AT_ONCE)

    async def convert(self, source: bytes) -> ConvertedBundle:
        """Convert an ES module (UTF-8).

        Raises InvalidBundle with a message for its author, and RunnerUnavailable if esbuild can't
        be started.
        """
        if len(source) > SOURCE_BYTES_MAX:
            raise InvalidBundle(
                f"the bundle has {len(source):,} bytes; the limit is {SOURCE_BYTES_MAX >> 20} MB"
            )
        text = _decode(source)
        async with self._slots:
            with tempfile.TemporaryDirectory(prefix="bundle-") as directory:
                messages = await self._run_esbuild(text.encode(), Path(directory))
                commonjs, imports = await asyncio.to_thread(_read_output, Path(directory))
        warnings = _tidy(messages)
        for one in imports:
            if one.path in PLATFORM_MODULES:
                continue
            if one.kind == "import-statement":
                raise InvalidBundle(_missing_import(text, one.path))
            warnings.append(f"{one.path!r} can't be loaded: it will fail when the code gets there")
        externals = sorted({one.path for one in imports} & PLATFORM_MODULES.keys())
        return ConvertedBundle(BundleCode(commonjs, externals), warnings[:WARNINGS_MAX])

    async def _run_esbuild(self, source: bytes, directory: Path) -> str:
        """Write out.js and meta.json into `directory`; return esbuild's warnings."""
        try:
            process = await asyncio.create_subprocess_exec(
                self._esbuild,
                "--bundle",
                "--format=cjs",
                "--platform=browser",
                "--external:*",
                "--tsconfig-raw={}",
                "--charset=utf8",
                '--define:process.env.NODE_ENV="production"',
                *(["--minify-whitespace"] if len(source) > KEEP_WHITE_SPACE_BYTES else []),
                f"--sourcefile={FILE_NAME}",
                "--outfile=out.js",
                "--metafile=meta.json",
                "--log-level=warning",
                "--log-limit=5",
                "--color=false",
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=PIPE,
                cwd=directory,
                env={"GOMEMLIMIT": MEMORY_SOFT, "GOMAXPROCS": "1"},
                start_new_session=True,
                preexec_fn=before_exec(),
            )
        except OSError as exc:
            raise RunnerUnavailable(f"the bundler could not be started: {exc.strerror}") from exc
        try:
            set_limit(process.pid, "RLIMIT_DATA", MEMORY_MAX_BYTES)
            async with asyncio.timeout(TIME_LIMIT_S):
                _, stderr = await process.communicate(source)
        except TimeoutError as exc:
            raise InvalidBundle(
                f"the bundle could not be converted within {TIME_LIMIT_S:.0f} s"
            ) from exc
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        messages = stderr.decode(errors="replace")
        if process.returncode != 0:
            raise InvalidBundle(_explain(messages))
        return messages


def _decode(source: bytes) -> str:
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidBundle(f"the bundle is not UTF-8 text (byte {exc.start})") from exc


def _read_output(directory: Path) -> tuple[str, list[_Import]]:
    commonjs = (directory / "out.js").read_text()
    metafile = msgspec.json.decode((directory / "meta.json").read_bytes(), type=_Metafile)
    return commonjs, [one for entry in metafile.inputs.values() for one in entry.imports]


def _explain(messages: str) -> str:
    """esbuild's errors as a message: text, line and column, source line."""
    errors = [part for part in _tidy(messages, "[ERROR]") if part]
    if not errors:
        # Go's runtime gave up: nested too deeply, or too large for the memory bound.
        return "the bundle could not be converted: it is too large or nested too deeply"
    text = "\n\n".join(errors)[:MESSAGE_CHARS_MAX]
    if "Top-level await" in text:
        text += "\n\nMove the `await` into a function: a bundle has to load synchronously."
    return text


def _tidy(messages: str, kind: str = "[WARNING]") -> list[str]:
    """esbuild's messages of one kind, without its marks and blank lines."""
    parts = re.split(r"^\S \[(?=(?:ERROR|WARNING)\] )", messages, flags=re.MULTILINE)
    return [
        re.sub(r"\n\s*\n", "\n", part.removeprefix(kind[1:])).strip()
        for part in parts
        if part.startswith(kind[1:])
    ]


def _missing_import(text: str, path: str) -> str:
    """Say where `path` is imported, and what to do about it."""
    statement = re.search(
        r"""\b(?:from|import)\s*(?P<quote>["'])""" + re.escape(path) + r"(?P=quote)", text
    )
    where = ""
    if statement is not None:
        line = text.count("\n", 0, statement.start()) + 1
        column = statement.start() - (text.rfind("\n", 0, statement.start()) + 1)
        where = f"{FILE_NAME}:{line}:{column}: "
    return (
        f"{where}cannot import {path!r}: a bundle has to contain all of its code. "
        "Only npm:xstate, npm:xstate@4 and npm:xstate@5 are provided."
    )
