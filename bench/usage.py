"""CPU time and memory of processes, from /proc (Linux)."""

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

Thread = tuple[int, int]  # pid, thread id


def process_tree(root_pid: int) -> list[int]:
    """`root_pid` and all its descendants that run now."""
    children: dict[int, list[int]] = {}
    for directory in PROC.glob("[0-9]*"):
        parent = _parent(directory)
        if parent is not None:
            children.setdefault(parent, []).append(int(directory.name))
    found = [root_pid]
    for pid in found:  # grows while it is walked
        found += children.get(pid, [])
    return found


def _parent(directory: Path) -> int | None:
    try:
        # The name of the program stands in parentheses and may contain anything.
        return int((directory / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None  # it has just ended


@dataclass(frozen=True)
class ServerUsage:
    """Seconds of CPU of the server, by what the threads of its processes do."""

    loop: float  # the main thread: HTTP, tokens, engine
    writer: float  # the server's other threads; nearly all of it is the one that commits
    runners: float  # the sandboxed processes

    @property
    def total(self) -> float:
        return self.loop + self.writer + self.runners

    def __sub__(self, earlier: "ServerUsage") -> "ServerUsage":
        return ServerUsage(
            self.loop - earlier.loop, self.writer - earlier.writer, self.runners - earlier.runners
        )


def server_usage(server_pid: int) -> ServerUsage:
    """What the server has used since it started, with all processes that it started."""
    loop = writer = runners = 0.0
    for pid in process_tree(server_pid):
        for thread_id, seconds in _threads(pid):
            if pid != server_pid:
                runners += seconds
            elif thread_id == server_pid:
                loop += seconds
            else:
                writer += seconds
    return ServerUsage(loop, writer, runners)


def _threads(pid: int) -> list[tuple[int, float]]:
    """(thread id, seconds on a processor) of each thread of a process."""
    found = []
    for task in (PROC / str(pid) / "task").glob("*"):
        try:
            nanoseconds = int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue  # the thread has just ended
        found.append((int(task.name), nanoseconds / 1e9))
    return found


def machine_usage() -> float:
    """Seconds of CPU that everything on this machine has used since it was started."""
    fields = [int(field) for field in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / TICKS_PER_SECOND


def memory_bytes(pids: list[int]) -> int:
    """Memory of processes; pages that several share are counted once (PSS)."""
    return sum(_pss_bytes(pid) for pid in pids)


def _pss_bytes(pid: int) -> int:
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0  # it has just ended
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
