"""Servers run on asyncio's own event loop or on uvloop; they differ in how a process ends."""

import asyncio
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from instances.runtime.settings import RuntimeSettings
from tests.instances.runtime import machines
from tests.instances.runtime.engine import Engine

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


async def lives_of_runners(settings: RuntimeSettings) -> list[str]:
    """Why four runners ended: killed from outside, by memory, released, and at the end."""
    engine = Engine(settings)
    await engine.pool.start()
    await engine.add_version(1, machines.COUNTER)
    await engine.add_version(
        2, machines.running("for (const a = []; ; ) a.push(new Array(1e5).fill(0.5))")
    )
    reasons = []

    killed = await engine.create(1)
    os.kill(killed.runner.pid, signal.SIGKILL)
    reasons.append(await engine.exit_of(killed.runner))

    greedy = await engine.create(2)
    engine.sending(greedy, "go")
    reasons.append(await engine.exit_of(greedy.runner))

    released = await engine.create(1)
    assert (await engine.send(released, "add")).context == {"n": 1}
    engine.pool.retire(released.runner)
    reasons.append(await engine.exit_of(released.runner))

    last = await engine.create(1)
    await engine.pool.stop()
    reasons.append(await engine.exit_of(last.runner))
    return reasons


@pytest.mark.parametrize("loop", LOOPS)
def test_ends_of_runners_are_told_alike(settings, loop):
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        reasons = runner.run(lives_of_runners(replace(settings, standby=1)))

    assert reasons == ["killed", "memory", "retired", "stopped"]


async def files_of_a_runner(settings: RuntimeSettings) -> tuple[set[str], set[str]]:
    """What a new runner has open, and what this process has."""
    engine = Engine(settings)
    await engine.pool.start()
    (runner,) = engine.pool._alive
    theirs, ours = open_files(runner.pid), open_files(os.getpid())
    await engine.pool.stop()
    return theirs, ours


def open_files(pid: int) -> set[str]:
    links = Path(f"/proc/{pid}/fd").iterdir()
    return {str(link.readlink()) for link in links if link.is_symlink()}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("loop", LOOPS)
def test_runner_inherits_no_file_of_the_server(settings, tmp_path, loop):
    with socket.socket() as listening, (tmp_path / "secret").open("w") as file:
        os.set_inheritable(listening.fileno(), True)  # as servers do
        os.set_inheritable(file.fileno(), True)
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            theirs, ours = runner.run(files_of_a_runner(replace(settings, standby=1)))
        inheritable = {
            str(Path(f"/proc/self/fd/{f.fileno()}").readlink()) for f in (listening, file)
        }

    assert inheritable <= ours
    assert theirs.isdisjoint(inheritable)
