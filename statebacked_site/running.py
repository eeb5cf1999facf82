"""The record of the server that uses a data directory: its address, and that it is alive.

The server holds a lock on the record while it runs. The lock ends with the process whatever
kills it, so that nobody has to guess from a process id whether the record is true.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

RECORD_NAME = "server.json"


class AlreadyRunning(Exception):
    """Another server uses this data directory."""


class RunningServer:
    """The record of this process, while it holds the lock."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor  # None: another server of the directory has the record

    def announce(self, public_url: str) -> None:
        """Tell the other commands where the server is reached; call it when it serves."""
        if self._descriptor is None:
            return
        record = json.dumps({"url": public_url, "pid": os.getpid()}) + "\n"
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, record.encode(), 0)


@contextlib.contextmanager
def only_server(data_dir: Path, *, is_shared: bool = False) -> Iterator[RunningServer]:
    """Be the only server of `data_dir`; raises AlreadyRunning if there is one.

    `is_shared`: where the database is not in it there may be several; the first has the record.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(data_dir / RECORD_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if is_shared:
                yield RunningServer(None)
                return
            where = _recorded_url(descriptor) or "an address that is not known yet"
            raise AlreadyRunning(
                f"State Backed already runs at {where} with the data in {data_dir}."
            ) from None
        os.ftruncate(descriptor, 0)
        yield RunningServer(descriptor)
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def running_url(data_dir: Path) -> str | None:
    """Where the server of `data_dir` is reached, or None if none runs."""
    try:
        descriptor = os.open(data_dir / RECORD_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _recorded_url(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _recorded_url(descriptor: int) -> str | None:
    try:
        record = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return None  # It starts or stops just now.
    url = record.get("url") if isinstance(record, dict) else None
    return url if isinstance(url, str) else None
