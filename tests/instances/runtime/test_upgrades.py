"""Migrations: which may be published, which runner knows them, and what they do there."""

import asyncio
import json
import os
import signal

import pytest

from instances.runtime.bundle import BundleCode
from instances.runtime.errors import InvalidBundle, RunnerUnavailable
from tests.instances.runtime import machines
from tests.instances.runtime.engine import Engine, failure

# As smply bundles a file that imports types and a helper: an ES module with one list of exports.
BUNDLED = """
// src/migrations/add-total.ts
var STATES = { on: ["on"] };
var upgradeState = ([name]) => STATES[name];
var upgradeContext = (oldStates, newStates, context) => {
  console.log("upgrading", oldStates, newStates);
  return { n: context.n * 10 };
};
export {
  upgradeContext,
  upgradeState
};
"""

LOOPING = """
export const upgradeState = () => { for (;;) console.log("on and on"); };
export const upgradeContext = () => ({});
"""


async def with_counters(engine: Engine) -> Engine:
    """Versions 1 and 2 with the same machine, and migration 7 between them."""
    await engine.add_version(1, machines.COUNTER)
    engine.code[2] = engine.code[1]
    await engine.add_migration(7, BUNDLED)
    return engine


# ---------------------------------------------------------------------- publishing


async def test_sound_migration_is_converted(engine):
    info = await engine.pool.check_migration(BUNDLED.encode())

    assert info.xstate_major == 0
    assert info.externals == []
    assert "context.n * 10" in info.commonjs
    assert info.warnings == []


async def test_migration_may_use_xstate_and_export_an_object(engine):
    source = """
import { assign } from "npm:xstate@5";
export default { upgradeState: (path) => path, upgradeContext: () => ({ ok: typeof assign }) };
"""
    info = await engine.pool.check_migration(source.encode())

    assert info.externals == ["npm:xstate@5"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("export const upgradeState = (p) => p;", "does not export upgradeContext. Add: export"),
        ("export const upgradeContext = (a, b, c) => c;", "does not export upgradeState. Add: ex"),
        ("export const upgradeState = [], upgradeContext = 1;", "a function as upgradeState"),
        ("export default 1;", "does not export upgradeState"),
        (machines.COUNTER, "does not export upgradeState"),
        ("export const upgradeState = nope;", "ReferenceError: nope is not defined"),
        ("function f() { null.x }\nf();", "(reading 'x') (in f)"),
        ("export const upgradeState = (;", "machine.js:1:29"),
        ("import x from 'lodash'; export { x };", "cannot import 'lodash'"),
        ("export const upgradeState = await 1;", "Top-level await"),
    ],
)
async def test_migration_that_does_not_load_is_refused_with_the_reason(engine, source, words):
    with pytest.raises(InvalidBundle) as caught:
        await engine.pool.check_migration(source.encode())

    assert words in str(caught.value)
    assert "/tmp" not in str(caught.value)


async def test_machine_is_no_worse_for_being_checked_as_a_bundle(engine):
    with pytest.raises(InvalidBundle, match="does not export allowRead"):
        await engine.pool.check_bundle(BUNDLED.encode())


# ---------------------------------------------------------------------- which runner knows what


async def test_instance_goes_from_one_version_to_the_next(engine):
    await with_counters(engine)
    old = await engine.create(1)
    context = (await engine.send(old, "add")).context
    description = await engine.describe(old)
    runner = await engine.acquiring_upgrader(2, 7)

    instance, answering = engine.upgrading(runner, [7], description, context)
    answer = await answering
    engine.commit(instance)

    assert old.runner is not runner
    assert (answer.code, answer.context, answer.fields[6]) == (0, {"n": 10}, "[]")
    assert json.loads((await engine.notice("G"))[3])[0] == "upgrading"
    assert (await engine.send(instance, "add")).context == {"n": 11}


async def test_runner_that_knows_the_migration_is_handed_out_at_once(engine):
    await with_counters(engine)
    runner = await engine.acquiring_upgrader(2, 7)

    again = engine.acquiring_upgrader(2, 7, 7)

    assert again.done()
    assert again.result() is runner
    assert engine.migration_loads == [7]


async def test_migration_is_told_once_however_many_ask_at_the_same_time(engine):
    await with_counters(engine)
    sent: list[bytes] = []
    runner = await engine.acquire(2)
    send = runner.send

    def note_and_send(line: bytes) -> None:
        sent.append(line)
        send(line)

    runner.send = note_and_send

    runners = await asyncio.gather(*(engine.acquiring_upgrader(2, 7) for _ in range(5)))

    assert set(runners) == {runner}
    assert [line[:4] for line in sent] == [b"I\t7\t"]


async def test_only_what_the_runner_does_not_know_is_read(engine):
    await with_counters(engine)
    engine.migrations[8] = engine.migrations[7]
    await engine.acquiring_upgrader(2, 7)

    runner = await engine.acquiring_upgrader(2, 7, 8)

    assert engine.migration_loads == [7, 8]
    assert runner.migrations == {7, 8}


async def test_next_process_of_the_version_is_told_again(engine):
    await with_counters(engine)
    first = await engine.acquiring_upgrader(2, 7)
    os.kill(first.pid, signal.SIGKILL)
    await engine.exit_of(first)

    second = await engine.acquiring_upgrader(2, 7)

    assert second is not first
    assert engine.migration_loads == [7, 7]
    _, answering = engine.upgrading(
        second, [7], '{"leaves":[["on"]],"history":[],"timers":[],"kept":{}}', {"n": 2}
    )
    assert (await answering).context == {"n": 20}


@pytest.mark.parametrize("end", ["killed", "retired"])
async def test_runner_that_ends_while_the_code_is_read_is_replaced(engine, end):
    await with_counters(engine)
    first = await engine.acquire(2)
    engine.reading.clear()
    acquiring = engine.acquiring_upgrader(2, 7)
    await asyncio.sleep(0)
    if end == "killed":
        first.kill("cpu")
    else:
        engine.pool.retire(first)

    engine.reading.set()
    runner = await acquiring

    assert runner is not first
    assert runner.migrations == {7}


async def test_version_whose_runners_end_all_the_time_is_given_up(engine):
    await with_counters(engine)
    load_migration = engine.pool._load_migration

    async def load_and_kill(migration_id: int) -> BundleCode:
        for runner in list(engine.pool._alive):
            runner.kill("cpu")
        return await load_migration(migration_id)

    engine.pool._load_migration = load_and_kill

    error = await failure(engine.acquiring_upgrader(2, 7))

    assert isinstance(error, RunnerUnavailable)
    assert len(engine.migration_loads) < 10


async def test_code_that_cannot_be_read_is_a_passing_trouble(engine):
    await with_counters(engine)

    error = await failure(engine.acquiring_upgrader(2, 404))

    assert isinstance(error, RunnerUnavailable)
    assert (await engine.acquiring_upgrader(2, 7)).migrations == {7}


async def test_version_that_cannot_be_started_is_told_as_ever(engine):
    error = await failure(engine.acquiring_upgrader(404, 7))

    assert isinstance(error, RunnerUnavailable)
    assert engine.migration_loads == []


async def test_pool_that_stops_refuses(engine):
    await with_counters(engine)
    await engine.acquire(2)
    engine.reading.clear()
    acquiring = engine.acquiring_upgrader(2, 7)
    await asyncio.sleep(0)

    await engine.pool.stop()

    assert isinstance(await failure(acquiring), RunnerUnavailable)


# ---------------------------------------------------------------------- what customers' code does


async def test_migration_that_loops_ends_its_runner(engine):
    await with_counters(engine)
    await engine.add_migration(9, LOOPING)
    description = await engine.describe(await engine.create(1))
    runner = await engine.acquiring_upgrader(2, 9)
    runner.waiting = lambda: True

    _, answering = engine.upgrading(runner, [9], description, {})

    assert await engine.exit_of(runner) in ("cpu", "flood")
    assert not answering.done()


async def test_migration_that_eats_memory_ends_its_runner(engine):
    await with_counters(engine)
    await engine.add_migration(
        9,
        "const a = []; export const upgradeContext = () => ({});"
        "export const upgradeState = () => { for (;;) a.push(new Array(1e5).fill(.5)); };",
    )
    description = await engine.describe(await engine.create(1))
    runner = await engine.acquiring_upgrader(2, 9)

    engine.upgrading(runner, [9], description, {})

    assert await engine.exit_of(runner) == "memory"


async def test_migration_that_no_longer_loads_fails_its_upgrades(engine):
    await with_counters(engine)
    engine.migrations[9] = BundleCode("throw new TypeError('no')", [])
    description = await engine.describe(await engine.create(1))
    runner = await engine.acquiring_upgrader(2, 9, 7)

    _, failing = engine.upgrading(runner, [9], description, {})
    _, working = engine.upgrading(runner, [7], description, {"n": 1})

    answer = await failing
    assert (answer.code, answer.error["message"]) == (3, "no")
    assert (await working).context == {"n": 10}


async def test_migration_that_spoils_the_process_has_it_replaced(engine):
    await with_counters(engine)
    await engine.add_migration(
        9,
        "export const upgradeState = (path) => { Object.prototype.oops = 1; return path; };"
        "export const upgradeContext = (a, b, context) => context;",
    )
    engine.releases = False
    description = await engine.describe(await engine.create(1))
    runner = await engine.acquiring_upgrader(2, 9)

    _, answering = engine.upgrading(runner, [9], description, {"n": 1})

    assert (await answering).code in (0, 3)  # XState itself may stumble over it
    assert await engine.acquire(2) is not runner
