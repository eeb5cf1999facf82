"""How a runner's process is confined: what Deno may do, what it finds, and what the kernel bounds.

Deno denies files, network, environment and subprocesses unless told otherwise; only the directory
of the harness may be read. V8 bounds the JavaScript heap, the kernel the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from instances.runtime import procfs

if TYPE_CHECKING:
    from instances.runtime.settings import RuntimeSettings

log = logging.getLogger("statebacked.runtime")

FILES_MAX = 256
PR_SET_PDEATHSIG = 1  # from linux/prctl.h

V8_FLAGS = (
    "--max-semi-space-size=4",  # halves the resident size for 15 % of CPU time
    "--single-threaded-gc",
)


def command(settings: RuntimeSettings) -> list[str]:
    """How instances/runtime/build.py says that the harness is to be started."""
    v8_flags = (f"--max-old-space-size={settings.heap_max_mb}", *V8_FLAGS)
    return [
        str(settings.deno),
        "run",
        "--no-prompt",
        "--no-config",
        "--no-remote",
        "--no-npm",
        "--cached-only",
        "--no-lock",
        f"--v8-flags={','.join(v8_flags)}",
        f"--import-map={settings.harness / 'importmap.json'}",
        f"--allow-read={settings.harness}",
        str(settings.harness / "main.js"),
    ]


def environment(settings: RuntimeSettings) -> dict[str, str]:
    """All that the process finds in its environment: nothing of the server's."""
    return {
        "NO_COLOR": "1",
        "DENO_NO_UPDATE_CHECK": "1",
        "DENO_DIR": str(settings.deno_dir.absolute()),
        "HOME": "/nonexistent",
    }


def before_exec() -> Callable[[], None]:
    """What a new process has to call before it becomes another program.

    It inherits no file but its pipes (uvloop closes none, and servers make the sockets that they
    listen on inheritable), and the kernel kills it with us; the thread that starts it counts as
    its parent. It is a fork of a process with threads: nothing may be imported or locked there, so
    everything is looked up here.
    """
    if sys.platform != "linux":
        warn_once("this system can't end runners together with a server that is killed")
        return functools.partial(_keep_files, "/dev/fd")
    return functools.partial(_become_child, _libc().prctl, os.getpid())


def _become_child(prctl: Callable[..., int], parent: int) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)
    _keep_files("/proc/self/fd")


def _keep_files(directory: str) -> None:
    """Have all files closed at exec. Not now: the new pipes may still be among them."""
    for name in os.listdir(directory):  # noqa: PTH208 (nothing but system calls here)
        with contextlib.suppress(OSError):  # the directory's own is closed by now
            if int(name) > 2:
                os.set_inheritable(int(name), False)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def bound_files(pid: int) -> None:
    """No core dumps (they would hold customers' data), and few open files."""
    set_limit(pid, "RLIMIT_CORE", 0)
    set_limit(pid, "RLIMIT_NOFILE", FILES_MAX)


def bound_memory(pid: int, off_heap_max_bytes: int) -> None:
    """Bound what V8's heap limit does not: ArrayBuffers, WebAssembly, native memory.

    Only once the process is up: V8 reserves address space when it starts, and the kernel counts it.
    """
    now = procfs.data_bytes(pid)
    if now is None:
        warn_once("on this system only the JavaScript heap of runners is bounded")
        return
    set_limit(pid, "RLIMIT_DATA", now + off_heap_max_bytes)


def set_limit(pid: int, name: str, value: int) -> None:
    """Set a resource limit of another process, where the system can; it may have ended."""
    if sys.platform == "linux":
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, getattr(resource, name), (value, value))


@cache
def warn_once(message: str) -> None:
    log.warning(message)
