"""The Postgres of a fault run: it can be crashed, starved of room and of connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg

from bench.usage import process_tree
from tests.servers import Postgres, new_postgres_database

NAME = "faults"
DISK = "2g"  # of memory, at most, where the file system can be a small one of its own
FILE_BYTES_FULL = 1_000_000  # what a file may have while the disk counts as full
ANSWER_S = 30.0
PAGE_BYTES = 4096
SHRINK_TRIES = 20

# What only the run looks at: triggers write down what happened to each delivery, and which node
# committed with which services alive. They see exactly what was committed.
AUDIT = """
CREATE TABLE faults_delivery (n bigserial, id bigint, fate text, xid bigint, kind int,
  due_at bigint, send_id text, source_id bigint);
CREATE FUNCTION faults_note_delivery() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE d delivery;
BEGIN
  IF TG_OP = 'INSERT' THEN d := NEW; ELSE d := OLD; END IF;
  INSERT INTO faults_delivery (id, fate, xid, kind, due_at, send_id, source_id)
  VALUES (d.id, CASE TG_OP WHEN 'INSERT' THEN 'created' ELSE 'deleted' END,
    pg_current_xact_id()::text::bigint, d.kind, d.due_at, coalesce(d.send_id, ''),
    coalesce(d.source_id, 0));
  RETURN NULL;
END $$;
CREATE TRIGGER faults_delivery AFTER INSERT OR DELETE ON delivery
  FOR EACH ROW EXECUTE FUNCTION faults_note_delivery();
CREATE TABLE faults_owner (n bigserial, instance_id bigint, seq bigint, owner text, children text);
CREATE FUNCTION faults_note_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO faults_owner (instance_id, seq, owner, children)
  VALUES (NEW.id, NEW.seq, coalesce(NEW.owner, ''), NEW.children);
  RETURN NULL;
END $$;
CREATE TRIGGER faults_owner AFTER INSERT OR UPDATE ON instance
  FOR EACH ROW WHEN (NEW.owner IS NOT NULL) EXECUTE FUNCTION faults_note_owner();
"""


class Database:
    """`url` leads to it directly; nodes reach it through their proxies."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.is_small_disk = False
        self._limited: list[int] = []
        self.server = Postgres(
            directory / "cluster",
            max_connections="100",
            fsync="on",
            max_wal_size="256MB",
            min_wal_size="32MB",
        )

    def start(self) -> None:
        self.directory.mkdir(parents=True)
        self.is_small_disk = _mount(self.directory)
        self.server.create()
        self.server.start()
        self.url = new_postgres_database(self.server, NAME)

    @property
    def port(self) -> int:
        return self.server.port

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            for pid in process_tree(self._pid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGQUIT)
            give_up = time.monotonic() + ANSWER_S
            while (self.server.directory / "postmaster.pid").exists():
                if time.monotonic() > give_up or not self.is_running():
                    break
                time.sleep(0.05)

    def give_back(self, path: Path) -> None:
        """Copy the server's log and give the directory back."""
        with contextlib.suppress(OSError):
            shutil.copyfile(self.server.directory / "server.log", path)
        if self.is_small_disk:
            subprocess.run(["umount", "--lazy", str(self.directory)], check=False)

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.url, autocommit=True, connect_timeout=3)

    def watch(self) -> None:
        """Have everything noted that `AUDIT` notes; call it once the tables are there."""
        with self.connect() as database:
            database.execute(AUDIT)

    # ------------------------------------------------------------------ faults

    def restart(self, mode: str) -> None:
        """`fast` or `immediate`."""
        self.server.stop(mode)
        self.server.start()

    def kill(self) -> None:
        """kill -9 of the postmaster and all its children, as a power cut of the host would."""
        pids = process_tree(self._pid())
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        give_up = time.monotonic() + ANSWER_S
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < give_up:
            time.sleep(0.02)
        self.ensure_running()

    def kill_backend(self) -> bool:
        """kill -9 of one connection's process: the server ends all and recovers."""
        for pid in process_tree(self._pid())[1:]:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                if NAME.encode() in words:
                    os.kill(pid, signal.SIGKILL)
                    return True
        return False

    def fill_disk(self) -> None:
        """Not one more page fits."""
        if self.is_small_disk:
            for page in range(1, SHRINK_TRIES + 1):
                # It grows all the time, and can't be made smaller than what it holds.
                used = shutil.disk_usage(self.directory).used
                with contextlib.suppress(subprocess.CalledProcessError):
                    _remount(self.directory, str(used + page * PAGE_BYTES))
                    return
            raise OSError("the small file system can't be shrunk")
        self._limited = process_tree(self._pid())
        for pid in self._limited:
            _limit_files(pid, FILE_BYTES_FULL)

    def empty_disk(self) -> None:
        if self.is_small_disk:
            _remount(self.directory, DISK)
        else:
            # Also those that were started meanwhile have the limit of the one that started them.
            for pid in {*self._limited, *self._tree()}:
                _limit_files(pid, resource.RLIM_INFINITY)
        self.ensure_running()

    def ensure_running(self) -> None:
        """Start it if it has ended, and wait until it answers."""
        give_up = time.monotonic() + ANSWER_S
        while time.monotonic() < give_up:
            if not self.is_running():
                with contextlib.suppress(Exception):
                    self.server.start()
            with contextlib.suppress(psycopg.Error), self.connect():
                return
            time.sleep(0.1)
        raise TimeoutError(f"Postgres does not come back; see {self.server.directory}/server.log")

    def is_running(self) -> bool:
        try:
            state = Path(f"/proc/{self._pid()}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state != "Z"

    def _pid(self) -> int:
        return int((self.server.directory / "postmaster.pid").read_text().split("\n", 1)[0])

    def _tree(self) -> list[int]:
        try:
            return process_tree(self._pid())
        except OSError:
            return []


async def hold_all_connections(database: Database, seconds: float) -> int:
    """Take every connection that the server has left, for so long; returns how many."""
    held: list[psycopg.AsyncConnection[tuple[object, ...]]] = []
    try:
        with contextlib.suppress(psycopg.Error):
            while True:
                url = database.url
                held.append(await psycopg.AsyncConnection.connect(url, connect_timeout=2))
        await asyncio.sleep(seconds)
    finally:
        for connection in held:
            await connection.close()
    return len(held)


async def hold_locks(database: Database, seconds: float) -> None:
    """Hold the rows of some instances, as a careless administrator does."""
    with contextlib.suppress(psycopg.Error):
        connection = await psycopg.AsyncConnection.connect(database.url, connect_timeout=2)
        async with connection:
            await connection.execute(
                "SELECT id FROM instance WHERE status = 0 ORDER BY random() LIMIT 5 FOR UPDATE"
            )
            await asyncio.sleep(seconds)


def _mount(directory: Path) -> bool:
    """Give the directory a small file system of its own; False where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "tmpfs", str(directory)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _remount(directory: Path, size: str) -> None:
    command = ["mount", "-o", f"remount,size={size}", str(directory)]
    subprocess.run(command, check=True, capture_output=True)


def _limit_files(pid: int, size: int) -> None:
    with contextlib.suppress(OSError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
