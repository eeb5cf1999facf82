"""A site of its own for a benchmark: as `manage.py up` starts it, with an empty database."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from bench import load
from bench.load import Measurement, Options
from bench.usage import memory_bytes, process_tree
from statebacked_site import bundling
from statebacked_site.running import running_url
from statebacked_site.site_client import SiteClient

PROJECT_ROOT = Path(__file__).resolve().parent.parent
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
TOKEN_SECONDS = 3600
PERSON = "bench"  # the `sub` of the token that all load is sent with


class CannotStart(Exception):
    """The server did not come up; the message holds what it wrote."""


class BenchSite:
    """A running server with nothing but benchmark data in it."""

    def __init__(self, url: str, data_dir: Path, process: subprocess.Popen[bytes]) -> None:
        self.data_dir = data_dir
        self.process = process
        self.port = urlsplit(url).port or 0
        access = json.loads(_manage_py("access_token", "--json", data_dir=data_dir))
        self._client = SiteClient(access["apiUrl"], access["accessToken"], access["orgId"])
        key = self._client.request("POST", "keys", {"name": "bench", "use": "production"})
        token = sign_token(key["id"], key["key"], {"sub": PERSON})
        self.headers = {
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
        }

    def deploy(self, machine: str, source: Path) -> None:
        """Create the machine with the bundle of `source` as its current version."""
        self._client.create_machine(machine)
        self._client.publish_version(machine, bundling.bundle(source), client_info=source.name)

    def create_instance(self, machine: str, slug: str) -> None:
        self._client.request("POST", f"machines/{machine}", {"slug": slug}, {"sub": PERSON})

    def public_context(self, machine: str, slug: str) -> Mapping[str, int]:
        answer = self._client.request("GET", f"machines/{machine}/i/{slug}", None, {"sub": PERSON})
        context: Mapping[str, int] = answer["publicContext"]
        return context

    def load(self, options: Options) -> Measurement:
        return load.run(options, port=self.port, server_pid=self.process.pid)

    def memory_bytes(self) -> tuple[int, int]:
        """(of the server itself, of all its runners)."""
        server, *runners = process_tree(self.process.pid)
        return memory_bytes([server]), memory_bytes(runners)

    def database(self) -> contextlib.closing[sqlite3.Connection]:
        """The site's database, to be read only: for what no API tells."""
        uri = f"{(self.data_dir / 'db.sqlite3').as_uri()}?mode=ro"
        return contextlib.closing(sqlite3.connect(uri, uri=True))


@contextlib.contextmanager
def running_site(parent_directory: Path) -> Iterator[BenchSite]:
    """Start a site in a fresh directory below `parent_directory`; stop and remove it at the end."""
    parent_directory.mkdir(parents=True, exist_ok=True)
    data_dir = Path(tempfile.mkdtemp(prefix="bench-", dir=parent_directory))
    log_path = data_dir / "server.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT_ROOT / "manage.py"), "up", "--port", "0"],
            env=_environment(data_dir),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield BenchSite(wait_until_ready(process, data_dir, log_path), data_dir, process)
    finally:
        _stop(process)
        shutil.rmtree(data_dir, ignore_errors=True)


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


def _manage_py(*arguments: str, data_dir: Path) -> str:
    command = [sys.executable, str(PROJECT_ROOT / "manage.py"), *arguments]
    return subprocess.run(
        command, env=_environment(data_dir), check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _environment(data_dir: Path) -> dict[str, str]:
    """The default settings: none of the caller's, so that figures can be compared."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STATEBACKED_") and name != "DATABASE_URL"
    }
    return {**kept, "STATEBACKED_DATA": str(data_dir), "STATEBACKED_SQLITE_SYNCHRONOUS": "FULL"}


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
