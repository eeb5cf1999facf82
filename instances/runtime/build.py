"""Bundle the runner program and the platform's copies of XState into `build/harness/`.

What lies there afterwards:

    main.js         the runner: one process, one machine version (docs/runner-protocol.md)
    runner.js       the same program as a class fed with lines, for tests in process
    platform/*.js   XState 4 and 5 as `npm:xstate`, `npm:xstate@4`, `npm:xstate@5` see them
    importmap.json  maps those names, and blocks every `node:` module for customers' code
    chunk-*.js      shared by all of the above: host and customers' code must use *one* copy of
                    XState 4, because its `spawn()` finds the current service in module state

How to start it (BUILD is the directory that `build_harness` returns):

    deno run --no-prompt --no-config --no-remote --no-npm --cached-only --no-lock
        --v8-flags=--max-old-space-size=128,--max-semi-space-size=4,--single-threaded-gc
        --import-map BUILD/importmap.json --allow-read=BUILD BUILD/main.js

with no other permission and an environment of NO_COLOR=1, DENO_NO_UPDATE_CHECK=1,
DENO_DIR=<scratch directory> and HOME=/nonexistent. The process writes `READY` when it is up.

`--allow-read` is needed only for a dynamic `import("npm:xstate")` inside customers' code. Use
absolute paths: the import map's scope holds for the `data:` module through which that code is
evaluated, so it reaches no built-in module whatever name it tries.

Nothing outside the standard library is imported here: set-up calls this before anything is
installed except npm's packages. Run it as `python -m instances.runtime.build`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "harness"
OUTPUT = Path("build") / "harness"
STAMP = "stamp"

ENTRY_POINTS = {
    "main": "main.ts",
    "runner": "runner.ts",
    "platform/xstate4": "platform/xstate4.ts",
    "platform/xstate4-actions": "platform/xstate4_actions.ts",
    "platform/xstate4-utils": "platform/xstate4_utils.ts",
    "platform/xstate5": "platform/xstate5.ts",
    "platform/blocked": "platform/blocked.ts",
}

PACKAGES = ("xstate", "xstate4", "esbuild")  # their versions are part of the stamp

# What customers' code may import, by every name that smply, the docs and older bundles use.
PLATFORM_MODULES = {
    "npm:xstate": "xstate4",
    "npm:xstate@4": "xstate4",
    "npm:xstate@5": "xstate5",
    "npm:xstate/lib/actions": "xstate4-actions",
    "npm:xstate/lib/actions.js": "xstate4-actions",
    "npm:xstate/lib/utils": "xstate4-utils",
    "npm:xstate/lib/utils.js": "xstate4-utils",
    "npm:xstate@4/lib/actions": "xstate4-actions",
    "npm:xstate@4/lib/actions.js": "xstate4-actions",
    "npm:xstate@4/lib/utils": "xstate4-utils",
    "npm:xstate@4/lib/utils.js": "xstate4-utils",
}

# `node:module`'s builtinModules of Deno 2.9. An import map has no wildcard for a scheme, so each
# name is listed; a test compares this list with the one of the Deno that is installed.
BUILTIN_MODULES = """
    _http_agent _http_common _http_outgoing _http_server _stream_duplex _stream_passthrough
    _stream_readable _stream_transform _stream_writable _tls_common _tls_wrap assert assert/strict
    async_hooks buffer child_process cluster console constants crypto dgram diagnostics_channel dns
    dns/promises domain events fs fs/promises http http2 https inspector inspector/promises module
    net os path path/posix path/win32 perf_hooks process punycode querystring readline
    readline/promises repl sea sqlite stream stream/consumers stream/promises stream/web
    string_decoder sys test test/reporters timers timers/promises tls trace_events tty url util
    util/types v8 vm wasi worker_threads zlib
""".split()


class HarnessBuildError(Exception):
    """The bundler is missing, or refused the sources; the message says what to do."""


def build_harness(project_root: Path) -> Path:
    """Build the runner unless it is up to date, and return the directory it lies in.

    Safe to call from several processes at once: each builds into a directory of its own and puts
    it in place by renaming; who comes second finds the first one's result, which is the same.
    """
    project_root = project_root.resolve()
    output = project_root / OUTPUT
    stamp = _stamp(project_root)
    if _is_current(output, stamp):
        return output

    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix="harness-", dir=output.parent))
    try:
        _bundle(project_root, staging)
        (staging / "importmap.json").write_text(json.dumps(import_map(), indent=1))
        (staging / STAMP).write_text(stamp)
        staging.chmod(0o755)  # mkdtemp makes it private; a runner may have another uid
        _put_in_place(staging, output, stamp)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return output


def import_map() -> dict[str, object]:
    """The import map: the platform's names everywhere, no built-in module for customers' code.

    Customers' code has a `data:` module as its referrer (load.ts), hence the scope.
    """
    platform = {name: f"./platform/{file}.js" for name, file in PLATFORM_MODULES.items()}
    blocked = {
        prefix + name: "./platform/blocked.js"
        for name in BUILTIN_MODULES
        for prefix in ("node:", "")
    }
    return {"imports": platform, "scopes": {"data:text/": {**blocked, **platform}}}


def _stamp(project_root: Path) -> str:
    """A hash of everything that the output depends on."""
    digest = hashlib.sha256()
    for path in (Path(__file__), *sorted(SOURCES.rglob("*.ts"))):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    for package in PACKAGES:
        manifest = project_root / "node_modules" / package / "package.json"
        try:
            version = json.loads(manifest.read_text())["version"]
        except FileNotFoundError as exc:
            raise HarnessBuildError(
                f"node_modules/{package} is missing: install the packages of package.json first"
            ) from exc
        digest.update(f"{package}@{version}\0".encode())
    return digest.hexdigest()


def _is_current(output: Path, stamp: str) -> bool:
    try:
        return (output / STAMP).read_text() == stamp
    except FileNotFoundError:
        return False


def _bundle(project_root: Path, target: Path) -> None:
    result = subprocess.run(
        [
            _esbuild(project_root),
            *(f"{name}={SOURCES / file}" for name, file in ENTRY_POINTS.items()),
            "--bundle",
            "--splitting",
            "--format=esm",
            "--platform=neutral",
            "--main-fields=module,main",
            "--conditions=module",
            "--target=es2023",
            "--external:node:async_hooks",
            # Inlined, the module through which code is evaluated would have a file as its referrer,
            # and the import map's scope for `data:` would not hold for that code.
            "--external:data:*",
            '--define:process.env.NODE_ENV="production"',
            "--chunk-names=chunk-[hash]",
            "--log-level=warning",
            f"--outdir={target}",
        ],
        cwd=project_root,
        env={**os.environ, "NODE_PATH": str(project_root / "node_modules")},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise HarnessBuildError(f"esbuild could not bundle the harness:\n{result.stderr}")


def _esbuild(project_root: Path) -> str:
    """The bundler's native program.

    `node_modules/.bin/esbuild` is a script that needs `node` on the PATH unless the package's
    install script has run, so the platform package's binary is preferred.
    """
    modules = project_root / "node_modules"
    for candidate in (
        *sorted(modules.glob("@esbuild/*/bin/esbuild")),
        modules / ".bin" / "esbuild",
    ):
        if os.access(candidate, os.X_OK):
            return str(candidate)
    raise HarnessBuildError("esbuild is missing: install the packages of package.json first")


def _put_in_place(staging: Path, output: Path, stamp: str) -> None:
    """Rename `staging` to `output`; a directory can only replace an empty or missing one.

    1. Move an outdated build aside. A crash here leaves no build: the next call makes one.
    2. Rename. It fails if another process was faster; its build is then the same as ours.
    """
    if output.exists() and not _is_current(output, stamp):
        outdated = Path(tempfile.mkdtemp(prefix="harness-old-", dir=output.parent))
        try:
            output.rename(outdated / "harness")
        except FileNotFoundError:
            pass  # another process moved it
        shutil.rmtree(outdated, ignore_errors=True)
    try:
        staging.rename(output)
    except OSError:
        if not _is_current(output, stamp):
            raise


if __name__ == "__main__":
    print(build_harness(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd()))
