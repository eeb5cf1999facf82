"""No runner outlives the server, on either event loop, whatever it is doing."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.instances.runtime import machines

ORPHAN_LIMIT_S = 2.0

# Starts a standby process and a runner in an endless loop, says their pids, and waits.
SERVER = """
import asyncio, sys
from pathlib import Path
import uvloop
from instances.runtime.settings import RuntimeSettings
from tests.instances.runtime.engine import Engine

async def main(deno, esbuild, harness, deno_dir, source):
    settings = RuntimeSettings(Path(deno), Path(esbuild), Path(harness), Path(deno_dir), standby=1)
    engine = Engine(settings)
    await engine.pool.start()
    await engine.add_version(1, source)
    instance = await engine.create(1)
    await asyncio.gather(*engine.pool._tasks)
    engine.sending(instance, "go")
    await asyncio.sleep(0)
    print(*(runner.pid for runner in engine.pool._alive), flush=True)
    await asyncio.sleep(3600)

loop, *arguments = sys.argv[1:]
factory = uvloop.new_event_loop if loop == "uvloop" else None
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main(*arguments))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can promise it")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_killed_server_leaves_no_runner_behind(settings, loop):
    programs = (settings.deno, settings.esbuild, settings.harness, settings.deno_dir)
    arguments = [loop, *map(str, programs), machines.running("for (;;) {}")]
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, *arguments],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[3],
    )
    with server:
        pids = [int(word) for word in server.stdout.readline().split()]
        handles = [os.pidfd_open(pid) for pid in pids]

        server.send_signal(signal.SIGKILL)

    assert len(handles) == 2
    for handle in handles:
        # The handle of a process becomes readable when the process ends.
        assert select.select([handle], [], [], ORPHAN_LIMIT_S)[0]
        os.close(handle)
