"""What Linux says about a process: None where there is no /proc, or no such process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Bytes. `pss` shares pages that several processes map out among them; `rss` counts all."""

    rss: int
    pss: int


def cpu_seconds(pid: int) -> float | None:
    """User and system time of all threads since the process started."""
    stat = _read(pid, "stat")
    if stat is None:
        return None
    # The second field is the program's name in parentheses, in which anything may stand.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def data_bytes(pid: int) -> int | None:
    """Private writable memory that is mapped: what RLIMIT_DATA bounds."""
    return _sizes(pid, "status").get("VmData")


def memory(pid: int) -> Memory | None:
    """Memory in use. Costs a fraction of a millisecond: the kernel walks the page table."""
    sizes = _sizes(pid, "smaps_rollup")
    if "Rss" not in sizes or "Pss" not in sizes:
        return None
    return Memory(rss=sizes["Rss"], pss=sizes["Pss"])


def _sizes(pid: int, file: str) -> dict[str, int]:
    """The lines of the form `Name:   123 kB`, in bytes."""
    lines = (line.split() for line in (_read(pid, file) or "").splitlines())
    return {
        words[0].removesuffix(":"): int(words[1]) * 1024
        for words in lines
        if len(words) == 3 and words[2] == "kB"
    }


def _read(pid: int, file: str) -> str | None:
    try:
        return (PROC / str(pid) / file).read_text()
    except OSError:
        return None
