"""What the runtime has to be told. Plain values: nothing here knows Django."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import deno

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class RuntimeSettings:
    """Where the programs are, and the bounds of the runner pool."""

    deno: Path
    esbuild: Path
    harness: Path  # the directory that build_harness() returns
    deno_dir: Path  # scratch directory of Deno; shared by all runners, written by Deno only

    processes_max: int = 64
    memory_max_bytes: int = 1024 * MEGABYTE  # of all runners, as proportional set size
    standby: int = 2  # processes that are up and hold no code yet
    starts_at_once: int = 4
    acquire_wait_s: float = 2.0  # for a slot, when the pool is full

    idle_s: float = 300.0
    age_max_s: float = 3600.0
    rss_max_bytes: int = 220 * MEGABYTE  # recycled above
    retire_s: float = 95.0  # a retiring runner's activations settle within 90 s
    memory_sample_s: float = 10.0

    heap_max_mb: int = 128
    off_heap_max_bytes: int = 176 * MEGABYTE  # beyond what the started process has
    start_limit_s: float = 10.0
    load_limit_s: float = 5.0

    egress_allow: tuple[IPv4Network | IPv6Network, ...] = ()

    @staticmethod
    def find_programs(project_root: Path) -> tuple[Path, Path]:
        """The Deno of this Python environment and the project's esbuild; never one on the PATH.

        Raises FileNotFoundError, saying which is missing.
        """
        modules = project_root / "node_modules"
        # node_modules/.bin/esbuild may be a script that needs Node: the native program is better.
        for candidate in sorted(modules.glob("@esbuild/*/bin/esbuild")):
            if os.access(candidate, os.X_OK):
                return Path(deno.find_deno_bin()), candidate
        raise FileNotFoundError(f"esbuild is missing in {modules}: install the npm packages first")
