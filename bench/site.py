"""A site of its own for a benchmark: as `manage.py up` starts it, with an empty database."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench import load
from bench.databases import Database, new_database
from bench.load import Measurement, Options
from bench.usage import ServerUsage, memory_bytes, process_tree, server_usage
from statebacked_site import bundling
from statebacked_site.running import running_url
from statebacked_site.site_client import SiteClient

PROJECT_ROOT = Path(__file__).resolve().parent.parent
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
TOKEN_SECONDS = 3600
SECRET_KEY = "that all nodes of a benchmark share"
PERSON = "bench"  # the `sub` of the token that all load is sent with


class CannotStart(Exception):
    """The server did not come up; the message holds what it wrote."""


@dataclass
class Node:
    """One server process of the site."""

    data_dir: Path
    process: subprocess.Popen[bytes]
    url: str

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0


class BenchSite:
    """One or more running servers on one database, with nothing but benchmark data in it."""

    def __init__(self, nodes: Sequence[Node], database: Database) -> None:
        self.nodes = nodes
        self.database = database
        first = nodes[0]
        arguments = ("access_token", "--json")
        access = json.loads(_manage_py(*arguments, data_dir=first.data_dir, database=database))
        self.org_id: str = access["orgId"]
        self.access_token: str = access["accessToken"]
        self._client = SiteClient(access["apiUrl"], access["accessToken"], access["orgId"])
        key = self._client.request("POST", "keys", {"name": "bench", "use": "production"})
        self.token = sign_token(key["id"], key["key"], {"sub": PERSON})
        self.headers = {
            "authorization": f"Bearer {self.token}",
            "content-type": "application/json",
        }

    @property
    def url(self) -> str:
        return self.nodes[0].url

    @property
    def process(self) -> subprocess.Popen[bytes]:
        return self.nodes[0].process

    def deploy(self, machine: str, source: Path) -> None:
        """Create the machine with the bundle of `source` as its current version."""
        self._client.create_machine(machine)
        self.publish(machine, source)

    def publish(self, machine: str, source: Path) -> None:
        """Make the bundle of `source` the machine's current version."""
        self._client.publish_version(machine, bundling.bundle(source), client_info=source.name)

    def request(self, method: str, path: str, body: object, act: object = None) -> Any:
        """A request to the API; with `act`, for the end user with these claims."""
        return self._client.request(method, path, body, act)

    def create_instance(self, machine: str, slug: str) -> None:
        self._client.request("POST", f"machines/{machine}", {"slug": slug}, {"sub": PERSON})

    def public_context(self, machine: str, slug: str) -> Mapping[str, int]:
        answer = self._client.request("GET", f"machines/{machine}/i/{slug}", None, {"sub": PERSON})
        context: Mapping[str, int] = answer["publicContext"]
        return context

    def load(self, options: Options, *, nodes: int | None = None) -> Measurement:
        """Send a load to the first `nodes` servers, or to all."""
        ports = [node.port for node in self.nodes[:nodes]]
        return load.run(options, ports=ports, usage=self.usage)

    def usage(self) -> ServerUsage:
        return server_usage([node.process.pid for node in self.nodes], self.database.pid())

    def memory_bytes(self) -> tuple[int, int]:
        """(of the servers themselves, of all their runners)."""
        servers = [node.process.pid for node in self.nodes]
        everything = [pid for server in servers for pid in process_tree(server)]
        runners = [pid for pid in everything if pid not in servers]
        return memory_bytes(servers), memory_bytes(runners)

    def manage(self, *arguments: str) -> str:
        """What a command of the site prints."""
        return _manage_py(*arguments, data_dir=self.nodes[0].data_dir, database=self.database)


@contextlib.contextmanager
def running_site(
    parent_directory: Path, kind: str = "sqlite", *, nodes: int = 1
) -> Iterator[BenchSite]:
    """Start a site in a fresh directory below `parent_directory`; stop and remove it at the end."""
    with contextlib.ExitStack() as stack:
        directory, database = stack.enter_context(fresh_database(parent_directory, kind))
        started = []
        for number in range(nodes):
            data_dir = directory if number == 0 else directory / f"node-{number}"
            started.append(stack.enter_context(running_node(data_dir, database)))
        yield BenchSite(started, database)


@contextlib.contextmanager
def fresh_database(parent_directory: Path, kind: str) -> Iterator[tuple[Path, Database]]:
    """A data directory and an empty database, for servers that come and go."""
    parent_directory.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=parent_directory))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        yield directory, stack.enter_context(new_database(kind, directory))


@contextlib.contextmanager
def running_node(data_dir: Path, database: Database, *options: str) -> Iterator[Node]:
    """A server; it is stopped at the end."""
    data_dir.mkdir(exist_ok=True)
    log_path = data_dir / "server.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT_ROOT / "manage.py"), "up", "--port", "0", *options],
            env=environment_of(data_dir, database),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Node(data_dir, process, wait_until_ready(process, data_dir, log_path))
    finally:
        _stop(process)


def wait_until_ready(process: subprocess.Popen[bytes], data_dir: Path, log_path: Path) -> str:
    """The site's URL, once it answers."""
    give_up = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < give_up and process.poll() is None:
        url = running_url(data_dir)
        if url is not None and _is_healthy(url):
            return url
        time.sleep(0.05)
    raise CannotStart(f"the server did not start:\n{log_path.read_text()}")


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _manage_py(*arguments: str, data_dir: Path, database: Database) -> str:
    command = [sys.executable, str(PROJECT_ROOT / "manage.py"), *arguments]
    environment = environment_of(data_dir, database)
    return subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def environment_of(data_dir: Path, database: Database) -> dict[str, str]:
    """The default settings: none of the caller's, so that figures can be compared."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STATEBACKED_") and name not in ("DATABASE_URL", "REDIS_URL")
    }
    return {
        **kept,
        "STATEBACKED_DATA": str(data_dir),
        "STATEBACKED_SECRET_KEY": SECRET_KEY,
        **database.environment,
    }


def sign_token(key_id: str, secret: str, act: Mapping[str, object]) -> str:
    """A token for the end user with the authContext `act`, such as `@statebacked/token` signs."""
    claims = {
        "aud": "https://api.statebacked.dev/",
        "exp": int(time.time()) + TOKEN_SECONDS,
        "act": act,
    }
    head = _base64url(json.dumps({"alg": "HS256", "typ": "JWT", "kid": key_id}).encode())
    signed = f"{head}.{_base64url(json.dumps(claims).encode())}"
    signature = hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)
    return f"{signed}.{_base64url(signature)}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
