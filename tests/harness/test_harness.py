"""The runner program: its tests in TypeScript, and what only a real process can show.

The TypeScript tests drive the same class as the process does, in one Deno process per file. To run
one by hand, or to replay a seed of the property test:

    python -m tests.harness.test_harness property.test.ts --seed=5:1234
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import IO

import pytest

from instances.runtime.build import BUILTIN_MODULES, build_harness
from tests.harness.bundles import OUTPUT, PROJECT_ROOT, bundle_all

TEST_FILES = sorted(path.name for path in Path(__file__).parent.glob("*.test.ts"))
TIME_LIMIT_S = 240
LINE_BYTES = 3 << 20

ENV = {"NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1", "HOME": "/nonexistent"}
SHUT = ["--no-prompt", "--no-config", "--no-remote", "--no-npm", "--cached-only", "--no-lock"]


def deno() -> str:
    """The program of the package `deno`, beside the Python that runs this."""
    return str(Path(sys.executable).with_name("deno"))


@pytest.fixture(scope="session")
def deno_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("deno"))


@pytest.fixture(scope="session")
def harness() -> Path:
    bundle_all()
    return build_harness(PROJECT_ROOT)


def run_test_file(name: str, harness: Path, deno_dir: str, *arguments: str) -> str:
    """Run one file of tests; return what it wrote, raise AssertionError with it on a failure."""
    result = subprocess.run(
        [
            deno(),
            "test",
            *SHUT,
            "--no-check",
            f"--import-map={harness / 'importmap.json'}",
            f"--allow-read={PROJECT_ROOT}",
            str(Path(__file__).parent / name),
            "--",
            *arguments,
        ],
        cwd=PROJECT_ROOT,
        env={**ENV, "DENO_DIR": deno_dir},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.parametrize("name", TEST_FILES)
def test_typescript(name: str, harness: Path, deno_dir: str) -> None:
    run_test_file(name, harness, deno_dir)


@pytest.mark.parametrize("command", ["check --no-remote", "lint", "fmt --check"])
def test_sources_pass(command: str, deno_dir: str) -> None:
    name, *options = command.split()
    result = subprocess.run(
        [deno(), name, "--quiet", *options, "--config=deno.json", "."],
        cwd=PROJECT_ROOT / "instances" / "runtime" / "harness",
        env={**ENV, "DENO_DIR": deno_dir},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr


def test_every_builtin_module_is_blocked(deno_dir: str) -> None:
    code = "console.log((await import('node:module')).builtinModules.join(' '))"
    names = subprocess.run(
        [deno(), "eval", "--no-config", code],
        env={**ENV, "DENO_DIR": deno_dir},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=True,
    ).stdout.split()

    assert {name.removeprefix("node:") for name in names} <= set(BUILTIN_MODULES)


def test_two_builds_at_once_give_the_same(tmp_path: Path) -> None:
    for name in ("node_modules", "instances"):
        (tmp_path / name).symlink_to(PROJECT_ROOT / name)

    with ThreadPool(4) as pool:
        built = pool.map(build_harness, [tmp_path] * 4)

    assert set(built) == {tmp_path / "build" / "harness"}
    assert (built[0] / "main.js").is_file()
    assert sorted(path.name for path in (tmp_path / "build").iterdir()) == ["harness"]


class Runner:
    """A real process, with lines in and out."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin: IO[bytes] = process.stdin
        self._stdout: IO[bytes] = process.stdout

    def say(self, *fields: str) -> None:
        self._stdin.write("\t".join(fields).encode() + b"\n")
        self._stdin.flush()

    def hear(self) -> str:
        line = self._stdout.readline()
        assert line, f"the process ended with {self.process.wait()}"
        return line.decode().removesuffix("\n")

    def hear_until(self, start: str) -> str:
        while not (line := self.hear()).startswith(start):
            pass
        return line

    def close_input(self) -> None:
        self._stdin.close()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()


@contextlib.contextmanager
def running(harness: Path, deno_dir: str) -> Iterator[Runner]:
    process = subprocess.Popen(
        [
            deno(),
            "run",
            *SHUT,
            "--v8-flags=--max-old-space-size=128,--max-semi-space-size=4,--single-threaded-gc",
            f"--import-map={harness / 'importmap.json'}",
            f"--allow-read={harness}",
            str(harness / "main.js"),
        ],
        env={**ENV, "DENO_DIR": deno_dir},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    runner = Runner(process)
    try:
        assert runner.hear() == "READY"
        yield runner
    finally:
        runner.stop()


@pytest.fixture
def attacker(harness: Path, deno_dir: str) -> Iterator[Runner]:
    """A runner with an instance `a` of the machine in machines/attack.mjs."""
    manifest = json.loads((OUTPUT / "manifest.json").read_text())
    bundle = next(entry for entry in manifest if entry["machine"] == "attack")
    cjs = (OUTPUT / bundle["file"]).read_text()
    with running(harness, deno_dir) as runner:
        runner.say("M", json.dumps({"cjs": cjs, "externals": bundle["externals"]}))
        assert json.loads(runner.hear()[2:])["ok"] is True
        runner.say("C", "a", "1", "name", "{}", "{}", "")
        assert runner.hear_until("1\t").split("\t")[1] == "0"
        yield runner


def log_after(runner: Runner, event: dict[str, object]) -> list[str]:
    """Send an event whose action logs; return the first line that it logs."""
    runner.say("S", "a", "2", json.dumps(event), "{}")
    assert runner.hear_until("2\t").split("\t")[1] == "5"
    runner.say("K", "a")
    line = runner.hear_until("G\t")
    texts: list[str] = json.loads(line.split("\t")[3])
    return texts


def test_customers_code_gets_nowhere(attacker: Runner) -> None:
    assert log_after(attacker, {"type": "ATTACK"}) == ["got"]


def test_customers_code_finds_the_web_standards(attacker: Runner) -> None:
    assert log_after(attacker, {"type": "WEB"}) == ["missing", "function"]


def test_errors_that_nobody_catches_are_logged(attacker: Runner) -> None:
    assert "stray promise" in log_after(attacker, {"type": "STRAY"})[1]
    assert "stray timer" in json.loads(attacker.hear_until("G\t").split("\t")[3])[1]
    attacker.say("P", "9")
    assert attacker.hear() == "P\t9"


def test_a_line_of_megabytes_arrives_whole(attacker: Runner) -> None:
    text = "é" * LINE_BYTES

    assert log_after(attacker, {"type": "BIG", "text": text}) == ["length", str(LINE_BYTES)]


def test_it_ends_with_its_input(attacker: Runner) -> None:
    attacker.close_input()

    assert attacker.process.wait(timeout=10) == 0


if __name__ == "__main__":
    bundle_all()
    with tempfile.TemporaryDirectory() as directory:
        sys.stdout.write(
            run_test_file(sys.argv[1], build_harness(PROJECT_ROOT), directory, *sys.argv[2:])
        )
