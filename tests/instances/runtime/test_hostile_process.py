"""A process that does not keep to the protocol: a harness that customers' code has taken over."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from instances.runtime.bundle import BundleCode
from instances.runtime.errors import RunnerUnavailable
from tests.instances.runtime.engine import failure

# Everything that a harness does until its code is loaded; `BODY` is what it does then.
HARNESS = """
const encoder = new TextEncoder();
const write = (text) => {
  const bytes = encoder.encode(text);
  for (let n = 0; n < bytes.length; ) n += Deno.stdout.writeSync(bytes.subarray(n));
};
const buffer = new Uint8Array(65536);
write("READY\\n");
await Deno.stdin.read(buffer);
write('M\\t{"ok":true,"xstate":5}\\n');
const lines = async function* () {
  for (let n; (n = await Deno.stdin.read(buffer)) !== null; ) {
    yield* new TextDecoder().decode(buffer.subarray(0, n)).trimEnd().split("\\n");
  }
};
BODY
await Deno.stdin.read(buffer);
"""

FETCH_FLOOD = """
for (let n = 0; ; ) {
  let part = "";
  for (let i = 0; i < 1000; i++) {
    part += `F\\t${++n}\\t\\t{"method":"GET","url":"http://[::1]/","headers":[]}\\n`;
  }
  write(part);
}
"""


@pytest.fixture
def start_harness(start, tmp_path: Path) -> Callable:
    """An engine whose runners run `body` (or `program`) instead of the harness."""

    async def start_harness(body: str = "", program: str = HARNESS, **settings):
        (tmp_path / "importmap.json").write_text(json.dumps({"imports": {}}))
        (tmp_path / "main.js").write_text(program.replace("BODY", body))
        engine = await start(harness=tmp_path, **settings)
        engine.code[1] = BundleCode("", [])
        return engine

    return start_harness


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("write('M\\t{\"ok\":true}\\n')", "protocol"),
        ("write('READY\\n')", "protocol"),
        ("write('\\n')", "protocol"),
        ("write('F\\n')", "protocol"),
        ("write('F\\t1\\t\\tnonsense\\n')", "protocol"),
        ("write('F\\t1\\t\\t{\"method\":1}\\n')", "protocol"),
        ("write('F\\t../1\\t\\t{}\\n')", "protocol"),
        ("const part = 'x'.repeat(1 << 20); for (;;) write(part)", "flood"),
        ("const part = '1\\t0\\n'.repeat(1 << 16); for (;;) write(part)", "flood"),
        ("const part = 'P\\t1\\n'.repeat(1 << 16); for (;;) write(part)", "flood"),
        ("const part = 'G\\t\\tlog\\t[]\\n'.repeat(1 << 16); for (;;) write(part)", "flood"),
        (FETCH_FLOOD, "flood"),
        ("const part = new Uint8Array(1 << 20); for (;;) Deno.stderr.writeSync(part)", "flood"),
        ("Deno.exit(3)", "exited"),
    ],
)
async def test_runner_that_breaks_the_rules_is_ended(start_harness, body, reason):
    engine = await start_harness(body)

    runner = await engine.acquire(1)

    assert await engine.exit_of(runner) == reason


async def test_lines_are_passed_on_as_they_came(start_harness):
    # Also with bytes that are no text, ids that nobody asked for, and in pieces.
    engine = await start_harness(
        "write('99\\t0\\tgarbage\\nQ\\t5\\n'); write('X\\ty'); write('z\\n\\u0000\\n');"
    )

    await engine.acquire(1)
    lines = [await engine.notice(kind) for kind in ("99", "X", "\0")]

    assert lines == [["99", "0", "garbage"], ["X", "yz"], ["\0"]]


async def test_last_words_are_passed_on_before_the_exit(start_harness):
    engine = await start_harness("write('1\\t0\\n'.repeat(1000)); Deno.exit(0)")
    counts = []
    engine.pool._on_exit = lambda *_: counts.append(len(engine.notices))

    runner = await engine.acquire(1)
    await runner.exited

    assert counts == [1000]


async def test_forged_sign_of_life_does_not_count(start_harness):
    engine = await start_harness(
        "setTimeout(() => { for (;;) { write('P\\t1\\n'); for (let i = 0; i < 1e6; i++); } })"
    )
    runner = await engine.acquire(1)

    runner.probe()

    assert await engine.exit_of(runner) == "cpu"


async def test_answer_to_a_question_counts(start_harness):
    engine = await start_harness(
        "for await (const line of lines()) { write(`${line}\\n`); write('1\\t0\\n') }"
    )
    runner = await engine.acquire(1)

    runner.probe()

    assert await engine.notice("1") == ["1", "0"]
    assert engine.exits == []


async def test_bug_in_the_engine_costs_only_the_runner(start_harness, caplog):
    engine = await start_harness("write('1\\t0\\n')")
    engine.pool._on_lines = lambda runner, lines: 1 / 0

    runner = await engine.acquire(1)

    assert await engine.exit_of(runner) == "internal"
    assert "could not be handled" in caplog.text


async def test_process_that_never_gets_ready_is_given_up(start_harness):
    engine = await start_harness(program="setInterval(() => {}, 60_000)", start_limit_s=0.3)

    error = await failure(engine.acquiring(1))

    assert isinstance(error, RunnerUnavailable)
    assert str(error) == "a new runner did not get ready in time"


async def test_process_that_cannot_start_is_reported_with_its_words(start_harness, caplog):
    engine = await start_harness(program="throw new Error('no platform')")

    error = await failure(engine.acquiring(1))

    assert isinstance(error, RunnerUnavailable)
    assert "no platform" in caplog.text


async def test_process_ends_when_its_input_does(engine):
    # Should the kernel not do it: without an engine there is nothing to be done.
    runner = await engine.pool._spawn()

    runner._stdin.close()

    async with asyncio.timeout(5):
        assert await runner.exited == "exited"
