"""Fixtures for all tests; the settings they run under are in tests/settings.py."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Self

import pytest
from django.conf import settings

from tests.servers import Postgres, new_postgres_database, running_postgres

PROJECT_ROOT = Path(__file__).resolve().parent.parent
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60


@dataclass(frozen=True)
class Server:
    """A real server in a process of its own, with a data directory of its own."""

    url: str  # http://127.0.0.1:port
    api_url: str  # the same with /api
    org_id: str
    access_token: str  # an admin's
    data_dir: Path
    process: subprocess.Popen[str]
    welcome: str  # what it printed when it was ready

    @property
    def headers(self) -> dict[str, str]:
        return {
            "authorization": f"Bearer {self.access_token}",
            "x-statebacked-org-id": self.org_id,
        }


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The site as `manage.py up` starts it, shared by all tests of the run.

    Tests tell their machines apart by name.
    """
    with running_server(tmp_path_factory.mktemp("server") / "data") as started:
        yield started


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A Postgres server, shared by all tests of the run; each makes databases of its own."""
    if settings.POSTGRES is not None:
        yield settings.POSTGRES
        return
    with running_postgres(tmp_path_factory.mktemp("postgres") / "cluster") as server:
        yield server


class running_server:  # noqa: N801 (reads as a function where it is used)
    """Context manager: a server with the data in `data_dir` that has printed its welcome."""

    def __init__(self, data_dir: Path, *options: str, **variables: str) -> None:
        self.data_dir = data_dir
        self.options = options
        self.environment = site_environment(**variables, STATEBACKED_DATA=str(data_dir))

    def __enter__(self) -> Server:
        self.process = subprocess.Popen(
            [*manage_py("up", "--port", "0", *self.options), "--data", str(self.data_dir)],
            cwd=PROJECT_ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            return self._started()
        except BaseException:
            self._stop()
            raise

    def __exit__(self, *_exception: object) -> None:
        self._stop()

    def _started(self) -> Server:
        welcome = self._read_welcome()
        token = run_manage_py(
            "access_token", "--json", "--data", str(self.data_dir), env=self.environment
        )
        access = json.loads(token)
        return Server(
            url=access["apiUrl"].removesuffix("/api"),
            api_url=access["apiUrl"],
            org_id=access["orgId"],
            access_token=access["accessToken"],
            data_dir=self.data_dir,
            process=self.process,
            welcome=welcome,
        )

    def _read_welcome(self) -> str:
        """Everything up to the line about Ctrl-C; its output ends early if it cannot start."""
        assert self.process.stdout is not None
        lines: list[str] = []
        for line in self.process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                return "".join(lines)
        raise AssertionError(f"the server did not start:\n{''.join(lines)}")

    def _stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise


class running_worker:  # noqa: N801 (reads as a function where it is used)
    """Context manager: a worker of a site that has started; its output goes to `log`."""

    def __init__(self, data_dir: Path, log: Path, **variables: str) -> None:
        self.log = log
        self.command = [*manage_py("up", "--role", "worker"), "--data", str(data_dir)]
        self.environment = site_environment(**variables, STATEBACKED_DATA=str(data_dir))

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, cwd=PROJECT_ROOT, env=self.environment, stdout=log, stderr=log
            )
        give_up = time.monotonic() + START_SECONDS_MAX
        while "Ctrl-C" not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"the worker did not start:\n{self.log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_exception: object) -> None:
        """Let it drain; safe to call twice, and when it was killed."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise


def manage_py(*arguments: str) -> list[str]:
    return [sys.executable, str(PROJECT_ROOT / "manage.py"), *arguments]


def run_manage_py(*arguments: str, env: dict[str, str] | None = None) -> str:
    """What a command prints; fails with what it wrote to stderr if it fails."""
    if env is None:
        named = dict(pairwise(arguments)).get("--data")
        env = site_environment() if named is None else site_environment(STATEBACKED_DATA=named)
    result = subprocess.run(
        manage_py(*arguments),
        cwd=PROJECT_ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def site_environment(**variables: str) -> dict[str, str]:
    """This process's environment without settings of the site, and with `variables`.

    A site with a data directory has a database of its own where tests run on Postgres.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STATEBACKED_", "DJANGO_"))
        and name not in ("DATABASE_URL", "REDIS_URL")
    }
    data_dir = variables.get("STATEBACKED_DATA")
    if settings.POSTGRES is not None and data_dir is not None:
        kept["DATABASE_URL"] = database_of_site(settings.POSTGRES, data_dir)
    return kept | variables


@cache
def database_of_site(server: Postgres, data_dir: str) -> str:
    """The URL of the database that belongs to a data directory."""
    return new_postgres_database(
        server, f"site_{hashlib.sha256(data_dir.encode()).hexdigest()[:16]}"
    )
