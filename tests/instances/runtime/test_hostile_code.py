"""Customers' code that loops, eats memory, floods, or tries to get out."""

import asyncio

import pytest

from instances.runtime import output, procfs
from tests.instances.runtime import machines

MEGABYTE = 1 << 20


async def test_endless_loop_is_ended_and_harms_no_other_version(engine):
    await engine.add_version(1, machines.running("for (;;) {}"))
    await engine.add_version(2, machines.COUNTER)
    stuck, other = await engine.create(1), await engine.create(2)
    stuck.runner.waiting = lambda: True  # as the engine says while it is owed an answer

    lost = engine.sending(stuck, "go")
    answers = [await engine.send(other, "add") for _ in range(20)]

    assert answers[-1].context == {"n": 20}
    assert await engine.exit_of(stuck.runner) == "cpu"
    assert not lost.done()


async def test_endless_loop_of_a_service_is_found_though_nothing_is_owed(engine):
    await engine.add_version(1, machines.serving("await null; for (;;) {}"))
    instance = await engine.create(1)
    await engine.send(instance, "go")
    engine.commit(instance)
    await engine.notice("K")

    await engine.pool.sample()

    assert await engine.exit_of(instance.runner) == "cpu"


async def test_slow_but_sound_runner_is_not_ended(engine):
    await engine.add_version(
        1, machines.running("const end = Date.now() + 1500; while (Date.now() < end);")
    )
    instance = await engine.create(1)
    instance.runner.waiting = lambda: True

    answer = await engine.send(instance, "go")

    assert answer.code == 0
    assert engine.exits == []


async def test_full_heap_ends_the_runner(engine):
    await engine.add_version(
        1,
        machines.running(
            "const all = []; for (let i = 0; i < 400; i++) all.push(new Array(1e5).fill(i + 0.5));"
        ),
    )
    instance = await engine.create(1)

    engine.sending(instance, "go")

    assert await engine.exit_of(instance.runner) == "memory"


@pytest.mark.parametrize(
    "allocate",
    [
        "globalThis.all = []; for (let i = 0; i < 30; i++) all.push(new Uint8Array(1e7).fill(1));",
        "new Uint8Array(3e8).fill(1);",
        "new Uint8Array(new WebAssembly.Memory({ initial: 5000 }).buffer).fill(1);",
    ],
    ids=["many buffers", "one buffer", "WebAssembly memory"],
)
async def test_memory_outside_of_the_heap_is_bounded(engine, allocate):
    await engine.add_version(1, machines.running(allocate))
    instance = await engine.create(1)

    answer = await engine.send(instance, "go")

    assert answer.code == 3
    assert answer.error["name"] == "RangeError"
    memory = procfs.memory(instance.runner.pid)
    assert memory is not None
    assert memory.rss < 260 * MEGABYTE


async def test_code_cannot_end_its_process_or_start_another(engine):
    await engine.add_version(
        1,
        machines.running(
            """
            const found = ["Deno", "process", "Worker", "close", "require", "Buffer"]
              .filter((name) => name in globalThis);
            const got = (0, eval)("typeof require") + typeof globalThis.constructor
              .constructor("return this")().Deno;
            return [found, got];
            """
        ),
    )
    instance = await engine.create(1)

    answer = await engine.send(instance, "go")

    assert answer.context["result"] == [[], "undefinedundefined"]


@pytest.mark.parametrize(
    "specifier", ["node:child_process", "child_process", "node:fs", "file:///etc/passwd"]
)
async def test_code_cannot_import_what_the_platform_does_not_provide(engine, specifier):
    await engine.add_version(1, machines.serving("return Object.keys(await import(input.what))"))

    event = await engine.run_service(1, what=specifier)

    assert event["type"] == "xstate.error.actor.service"


async def test_log_lines_beyond_the_limit_are_dropped_and_counted(engine):
    lines = 10 * output.LOG_LINES_PER_WINDOW
    await engine.add_version(
        1,
        machines.serving(
            f"for (let i = 0; i < {lines}; i++) {{ console.log(i); if (i % 100 === 0) await null }}"
        ),
    )

    await engine.run_service(1)
    while (note := await engine.notice("G"))[2] != "warn":
        logged = note

    assert note[1] == ""
    assert "log lines were dropped" in note[3]
    assert int(logged[3][2:-2]) < lines - 1


async def test_runner_that_floods_with_log_lines_is_ended(engine):
    await engine.add_version(
        1,
        machines.serving(
            """
            const text = "x".repeat(1000);
            for (;;) { for (let i = 0; i < 500; i++) console.log(text); await null }
            """
        ),
    )
    instance = await engine.create(1)
    await engine.send(instance, "go")

    engine.commit(instance)

    assert await engine.exit_of(instance.runner) == "flood"


async def test_runner_that_does_not_read_is_congested_until_it_does(engine):
    await engine.add_version(
        1, machines.running("const end = Date.now() + 300; while (Date.now() < end);")
    )
    instance = await engine.create(1)

    busy = engine.sending(instance, "go")
    for _ in range(100):
        engine.sending(instance, "nop", filler="x" * 100_000)
    await asyncio.sleep(0)  # the lines of a tick are written together
    was_congested = instance.runner.congested
    await busy
    await engine.send(instance, "nop")

    assert was_congested
    assert not instance.runner.congested
