"""Which version has a runner, and which runner has to go."""

import asyncio
import os
import signal

import pytest

from instances.runtime.bundle import BundleCode
from instances.runtime.errors import BundleFailed, RunnerUnavailable
from tests.instances.runtime import machines
from tests.instances.runtime.engine import Engine, failure


async def with_counters(engine: Engine, *versions: int) -> Engine:
    await engine.add_version(versions[0], machines.COUNTER)
    for version in versions[1:]:
        engine.code[version] = engine.code[versions[0]]
    return engine


async def test_runner_answers_steps_of_its_version(engine):
    await with_counters(engine, 1)
    instance = await engine.create(1)

    answer = await engine.send(instance, "add")

    assert answer.code == 0
    assert answer.context == {"n": 1}


async def test_running_version_is_handed_out_at_once(engine):
    await with_counters(engine, 1)
    runner = await engine.acquire(1)

    again = engine.acquiring(1)

    assert again.done()
    assert again.result() is runner


async def test_version_is_started_once_however_many_ask(engine):
    await with_counters(engine, 1)

    runners = await asyncio.gather(*(engine.acquiring(1) for _ in range(20)))

    assert len(set(runners)) == 1
    assert engine.loads == 1


async def test_standby_process_takes_the_code_of_the_version_that_needs_one(start):
    engine = await with_counters(await start(standby=1), 1)
    (standby,) = engine.pool._standby

    runner = await engine.acquire(1)

    assert runner is standby


async def test_standby_is_filled_up_after_a_start(start):
    engine = await with_counters(await start(standby=1), 1)

    await engine.acquire(1)
    await asyncio.gather(*engine.pool._tasks)

    assert engine.pool.figures().standby == 1


async def test_full_pool_ends_the_runner_that_was_unused_for_longest(start):
    engine = await with_counters(await start(processes_max=3), 1, 2, 3, 4)
    first, second, third = [await engine.acquire(version) for version in (1, 2, 3)]
    await engine.acquire(1)

    await engine.acquire(4)

    oldest = min((first, second, third), key=lambda runner: runner.last_used)
    assert await engine.exit_of(oldest) == "retired"
    assert engine.pool.figures().processes == 3


async def test_full_pool_of_busy_runners_refuses_after_a_while(start):
    engine = await with_counters(await start(processes_max=2, acquire_wait_s=0.2), 1, 2, 3, 4)
    engine.releases = False
    await engine.acquire(1)
    await engine.acquire(2)

    errors = [await failure(engine.acquiring(version)) for version in (3, 4)]

    for error in errors:
        assert isinstance(error, RunnerUnavailable)
        assert error.retry_after_s == 1
    assert len(engine.retired) == 1  # not one for each that was refused


async def test_runners_are_ended_until_the_others_fit_into_memory(start):
    engine = await with_counters(await start(memory_max_bytes=1), 1, 2, 3)
    runners = [await engine.acquire(version) for version in (1, 2, 3)]

    await engine.pool.sample()

    assert len(engine.retired) == 2
    assert engine.acquiring(3).result() is runners[2]


async def test_idle_runner_is_ended(start):
    engine = await with_counters(await start(idle_s=0.0), 1)
    runner = await engine.acquire(1)
    runner.last_used -= 1

    await engine.pool.sample()

    assert await engine.exit_of(runner) == "retired"


async def test_runner_that_owes_an_answer_is_not_idle(start):
    engine = await with_counters(await start(idle_s=0.0), 1)
    runner = await engine.acquire(1)
    runner.last_used -= 1
    runner.waiting = lambda: True

    await engine.pool.sample()

    assert engine.retired == []


async def test_large_runner_is_replaced(start):
    engine = await with_counters(await start(rss_max_bytes=1), 1)
    runner = await engine.acquire(1)

    await engine.pool.sample()

    assert engine.retired == [runner]
    assert await engine.acquire(1) is not runner


async def test_old_runner_is_replaced(start):
    engine = await with_counters(await start(age_max_s=0.0), 1)
    runner = await engine.acquire(1)

    await engine.pool.sample()

    assert engine.retired == [runner]
    assert await engine.acquire(1) is not runner


async def test_tainted_runner_is_replaced(engine):
    await engine.add_version(1, machines.running("Object.prototype.oops = 1"))
    engine.releases = False
    instance = await engine.create(1)

    await engine.send(instance, "go")

    assert await engine.acquire(1) is not instance.runner
    assert engine.retired == [instance.runner]


async def test_retiring_runner_goes_on_until_it_is_released(start):
    engine = await with_counters(await start(), 1)
    engine.releases = False
    instance = await engine.create(1)
    engine.pool.retire(instance.runner)

    answer = await engine.send(instance, "add")
    engine.pool.release(instance.runner)

    assert instance.runner.retiring
    assert answer.context == {"n": 1}
    assert await engine.exit_of(instance.runner) == "retired"


async def test_retiring_runner_that_is_never_released_is_ended(start):
    engine = await with_counters(await start(retire_s=0.1), 1)
    engine.releases = False
    runner = await engine.acquire(1)

    engine.pool.retire(runner)

    assert await engine.exit_of(runner) == "retired"


async def test_releasing_a_runner_that_is_not_retiring_does_nothing(engine):
    await with_counters(engine, 1)
    instance = await engine.create(1)

    engine.pool.release(instance.runner)

    assert (await engine.send(instance, "add")).code == 0


async def test_killed_runner_is_reported_once_and_replaced(engine):
    await with_counters(engine, 1)
    runner = await engine.acquire(1)

    os.kill(runner.pid, signal.SIGKILL)

    assert await engine.exit_of(runner) == "killed"
    instance = await engine.create(1)
    assert instance.runner.pid != runner.pid
    assert (await engine.send(instance, "add")).code == 0


async def test_runner_that_is_being_killed_is_not_handed_out(engine):
    await with_counters(engine, 1)
    runner = await engine.acquire(1)

    runner.kill("cpu")
    instance = await engine.create(1)

    assert instance.runner is not runner
    assert await engine.exit_of(runner) == "cpu"
    assert engine.acquiring(1).result() is instance.runner


async def test_code_that_no_longer_loads_is_an_error_for_all_who_wait(engine):
    engine.code[1] = BundleCode("throw new TypeError('no')", [])

    errors = [await failure(future) for future in [engine.acquiring(1), engine.acquiring(1)]]

    assert [type(error) for error in errors] == [BundleFailed] * 2
    assert str(errors[0]).startswith("TypeError: no")


async def test_code_that_cannot_be_read_is_a_passing_trouble(engine):
    error = await failure(engine.acquiring(404))

    assert isinstance(error, RunnerUnavailable)


async def test_missing_deno_is_reported_when_the_pool_starts(start, tmp_path):
    with pytest.raises(RunnerUnavailable, match="No such file"):
        await start(standby=1, deno=tmp_path / "deno")


async def test_stopping_ends_all_runners_and_refuses_new_ones(start):
    engine = await with_counters(await start(standby=1), 1, 2)
    runner = await engine.acquire(1)

    await engine.pool.stop()

    assert await engine.exit_of(runner) == "stopped"
    assert engine.pool.figures().processes == 0
    assert isinstance(await failure(engine.acquiring(2)), RunnerUnavailable)
