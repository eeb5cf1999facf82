"""Describes a machine: runs its code once, in a sandboxed process, and reads the definition.

The process is a Deno like a runner's, with the same flags, the same copies of XState and no more
permission. It lives for one bundle. Its code is extract.ts; this module builds it, starts it,
bounds its time, memory and output, and takes what it says for hostile.
"""

from __future__ import annotations

import hashlib
import os
import selectors
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import msgspec

from instances.runtime import sandbox
from instances.runtime.build import build_harness
from instances.runtime.bundle import BundleCode
from instances.runtime.settings import RuntimeSettings
from machines.flow.errors import CannotDescribe
from machines.flow.model import Graph

TIME_LIMIT_S = 5.0
HEAP_MAX_MB = 128
OFF_HEAP_MAX_BYTES = 176 << 20
OUTPUT_BYTES_MAX = 8 << 20
PIECE_BYTES = 64 << 10

SOURCE = Path(__file__).parent / "extract.ts"
OUTPUT = Path("build") / "flow"

READY = b"READY\n"


@dataclass(frozen=True)
class Extractor:
    """Where the programs are, and how the definition of a machine is read with them."""

    deno: Path
    harness: Path  # the runner's build: the copies of XState and the import map
    script: Path  # what build_extractor() returns
    deno_dir: Path  # scratch directory of Deno

    def describe(self, code: BundleCode) -> Graph:
        """Read the definition from a version's code. Blocks for about 0.1 s, at most 5 s.

        Raises CannotDescribe if the code can't be loaded in time or exports no machine.
        """
        request = msgspec.json.encode({"cjs": code.commonjs, "externals": code.externals})
        answer = _decode(self._run(request))
        if not bytes(answer.definition):
            raise CannotDescribe(answer.problem or "the code gave no answer")
        return Graph.decode(bytes(answer.definition))

    def _run(self, request: bytes) -> bytes:
        try:
            process = subprocess.Popen(
                self._command(),
                env={
                    "NO_COLOR": "1",
                    "DENO_NO_UPDATE_CHECK": "1",
                    "DENO_DIR": str(self.deno_dir.absolute()),
                    "HOME": "/nonexistent",
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                start_new_session=True,
            )
        except OSError as exc:
            raise CannotDescribe(f"the sandbox could not be started: {exc.strerror}") from exc
        try:
            return _converse(process, request, time.monotonic() + TIME_LIMIT_S)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _command(self) -> list[str]:
        """As instances/runtime/build.py says that its programs are to be started."""
        v8_flags = ",".join((f"--max-old-space-size={HEAP_MAX_MB}", *sandbox.V8_FLAGS))
        return [
            str(self.deno),
            "run",
            "--no-prompt",
            "--no-config",
            "--no-remote",
            "--no-npm",
            "--cached-only",
            "--no-lock",
            f"--v8-flags={v8_flags}",
            f"--import-map={self.harness / 'importmap.json'}",
            f"--allow-read={self.harness}",
            str(self.script),
        ]


class _Answer(msgspec.Struct):
    definition: msgspec.Raw = msgspec.Raw()  # empty if there is none
    problem: str | None = None


def _decode(line: bytes) -> _Answer:
    try:
        return msgspec.json.decode(line, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise CannotDescribe("the code interfered with the process that reads it") from exc


def _converse(process: subprocess.Popen[bytes], request: bytes, deadline: float) -> bytes:
    """Write the request once the process is up, and return the line that it answers."""
    assert process.stdin is not None
    assert process.stdout is not None
    unsent = memoryview(b"")
    received = bytearray()
    is_up = False
    os.set_blocking(process.stdin.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not (is_up and received.endswith(b"\n")):
            remaining = deadline - time.monotonic()
            events = selector.select(remaining) if remaining > 0 else []
            if not events:
                raise CannotDescribe(
                    f"the code did not load within {TIME_LIMIT_S:.0f} s"
                    " (an endless loop outside of functions?)"
                )
            for key, _ in events:
                if key.fileobj is process.stdout:
                    _receive(process.stdout, received)
                else:
                    unsent = _send(process.stdin, unsent)
                    if not unsent:
                        selector.unregister(process.stdin)
                        process.stdin.close()
            if not is_up and received.startswith(READY):
                is_up = True
                del received[: len(READY)]
                # Not before: V8 reserves address space when it starts, and the kernel counts it.
                sandbox.bound_files(process.pid)
                sandbox.bound_memory(process.pid, OFF_HEAP_MAX_BYTES)
                unsent = memoryview(request)
                selector.register(process.stdin, selectors.EVENT_WRITE)
    return bytes(received)


def _receive(pipe: IO[bytes], received: bytearray) -> None:
    piece = os.read(pipe.fileno(), PIECE_BYTES)
    if not piece:
        raise CannotDescribe("the process ended while it read the code (too much memory?)")
    received += piece
    if len(received) > OUTPUT_BYTES_MAX:
        raise CannotDescribe(f"the definition has more than {OUTPUT_BYTES_MAX >> 20} MB")


def _send(pipe: IO[bytes], unsent: memoryview) -> memoryview:
    """What remains to be written; nothing if the process does not want it."""
    try:
        return unsent[os.write(pipe.fileno(), unsent[:PIECE_BYTES]) :]
    except BlockingIOError:
        return unsent
    except BrokenPipeError:
        return memoryview(b"")


def build_extractor(project_root: Path, esbuild: Path) -> Path:
    """Translate extract.ts for Deno unless that was done, and return the result.

    Its name holds a hash of the source, so several processes may build at once, and a checkout of
    another commit does not meet an older one's program. Raises CannotDescribe.
    """
    source = SOURCE.read_bytes()
    target = project_root / OUTPUT / f"extract-{hashlib.sha256(source).hexdigest()[:16]}.js"
    if target.exists():
        return target
    result = subprocess.run(
        [str(esbuild), "--loader=ts", "--format=esm", "--target=es2023", "--log-level=warning"],
        input=source,
        capture_output=True,
        check=False,
    )
    if result.returncode != 0:
        raise CannotDescribe(f"extract.ts does not compile: {result.stderr.decode()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as staging:
        staging.write(result.stdout)
    Path(staging.name).chmod(0o644)
    Path(staging.name).replace(target)
    return target


def describe(code: BundleCode) -> Graph:
    """Read the definition from a version's code, with the programs of this site.

    Blocks for about 0.1 s, at most 5 s. Raises CannotDescribe.
    """
    return _site_extractor().describe(code)


@cache
def _site_extractor() -> Extractor:
    from django.conf import settings

    deno, esbuild = RuntimeSettings.find_programs(settings.BASE_DIR)
    return Extractor(
        deno=deno,
        harness=build_harness(settings.BASE_DIR),
        script=build_extractor(settings.BASE_DIR, esbuild),
        deno_dir=settings.DATA_DIR / "deno",
    )
