"""CPU time and memory of processes, from /proc (Linux)."""

import os
from collections.abc import Sequence
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
    """Seconds of CPU of all nodes and their database, by what the threads of the processes do."""

    loop: float  # the nodes' main threads: HTTP, tokens, engine
    writer: float  # the nodes' other threads; with SQLite, nearly all of it is the one that commits
    runners: float  # the sandboxed processes
    database: float  # the processes of a database server

    @property
    def total(self) -> float:
        return self.loop + self.writer + self.runners + self.database

    def __sub__(self, earlier: "ServerUsage") -> "ServerUsage":
        return ServerUsage(
            self.loop - earlier.loop,
            self.writer - earlier.writer,
            self.runners - earlier.runners,
            self.database - earlier.database,
        )


def server_usage(node_pids: Sequence[int], database_pid: int | None = None) -> ServerUsage:
    """What these servers have used since they started, with all processes that they started."""
    loop = writer = runners = database = 0.0
    for node_pid in node_pids:
        for pid in process_tree(node_pid):
            for thread_id, seconds in _threads(pid):
                if pid != node_pid:
                    runners += seconds
                elif thread_id == node_pid:
                    loop += seconds
                else:
                    writer += seconds
    if database_pid is not None:
        pids = process_tree(database_pid)
        database = sum(seconds for pid in pids for _, seconds in _threads(pid))
    return ServerUsage(loop, writer, runners, database)


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
