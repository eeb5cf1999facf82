"""One engine per SQLite file: an exclusive lock beside it, held as long as the process lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class EngineLocked(Exception):
    """Another process runs the engine on this database."""


class EngineLock:
    """Held from `acquire` to `release`; the kernel frees it when the process dies."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".engine")
        self._file: int | None = None

    def acquire(self) -> None:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = os.read(file, 100).decode(errors="replace").strip()
            os.close(file)
            by = f" by process {holder}" if holder else ""
            raise EngineLocked(
                f"the database {self.path.with_suffix('')} is in use{by}: "
                "stop that server first, or give this one another --data directory"
            ) from exc
        os.ftruncate(file, 0)
        os.write(file, str(os.getpid()).encode())
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
