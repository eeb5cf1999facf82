"""A real site in a process of its own, which tests may kill and start again."""

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg

from bench.site import sign_token, wait_until_ready
from bench.usage import process_tree
from statebacked_site import bundling
from statebacked_site.site_client import SiteClient
from tests.acceptance.http_client import Answer, HttpClient
from tests.acceptance.polling import eventually
from tests.conftest import manage_py, run_manage_py, site_environment

STOP_SECONDS_MAX = 60

# Values of Transition.kind.
INIT, CLIENT, TIMER, MESSAGE, SERVICE, LOST_SERVICE, UPGRADE = range(7)


@dataclass(frozen=True)
class HistoryRow:
    """One transition as the database has it."""

    seq: int
    kind: int
    event: dict[str, Any]
    state: Any  # the value alone
    context: dict[str, Any]
    ts: int
    created_at: int  # ms

    @property
    def type(self) -> str:
        return str(self.event["type"])


class Site:
    """`manage.py up` with the data in `data_dir`; `variables` are environment variables for it."""

    def __init__(self, data_dir: Path, **variables: str) -> None:
        self.data_dir = data_dir
        self.environment = site_environment(**variables, STATEBACKED_DATA=str(data_dir))
        self.log_path = data_dir.with_name(f"{data_dir.name}.log")
        self.url = ""
        self.org_id = ""
        self.access_token = ""
        self._process: subprocess.Popen[bytes] | None = None

    # --- The process ---------------------------------------------------------------------

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the site was not started"
        return self._process

    def start(self) -> None:
        """Start the server and return when it serves. The port is another one each time."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                manage_py("up", "--port", "0"),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.url = wait_until_ready(self.process, self.data_dir, self.log_path)
        if not self.access_token:
            access = json.loads(run_manage_py("access_token", "--json", env=self.environment))
            self.org_id, self.access_token = access["orgId"], access["accessToken"]

    def kill(self) -> list[int]:
        """Kill the server as a power cut would end it; returns the processes it leaves behind."""
        runners = process_tree(self.process.pid)[1:]
        self.process.kill()
        self.process.wait()
        return runners

    def stop(self) -> int:
        """Stop it as an operator does; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def restart(self) -> None:
        """Kill it and start it again with the same data."""
        self.kill()
        self.start()

    def runners(self) -> list[int]:
        """Process ids of the sandboxed processes."""
        return process_tree(self.process.pid)[1:]

    def kill_runners(self) -> None:
        """Everything that is loaded is gone, as after a crash of the sandboxed processes."""
        runners = self.runners()
        for pid in runners:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(map(is_running, runners)), what="the runners have ended")

    # --- Clients -------------------------------------------------------------------------

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    def client(self, token: str | None = None) -> HttpClient:
        """A client of the API with its own connection; with an admin's access token by default."""
        headers = {
            "authorization": f"Bearer {token or self.access_token}",
            "x-statebacked-org-id": self.org_id,
        }
        return HttpClient(self.api_url, headers)

    def request(self, method: str, path: str, body: object = None, **options: Any) -> Answer:
        """One request on a connection of its own; options are those of HttpClient.request."""
        client = self.client()
        try:
            return client.request(method, path, body, **options)
        finally:
            client.close()

    def key(self, **body: object) -> tuple[str, str]:
        """(id, secret) of a new key."""
        answer = self.request("POST", "/keys", {"name": "a key", **body})
        assert answer.status in (200, 201), answer.text
        return answer.json["id"], answer.json["key"]

    def user_token(self, **act: object) -> str:
        """A token for an end user with the authContext `act`."""
        return sign_token(*self.key(use="production"), act)

    # --- Machines and instances ----------------------------------------------------------

    def deploy(self, machine: str, source: Path) -> str:
        """Make the bundle of `source` the machine's current version; returns the version's id."""
        client = SiteClient(self.api_url, self.access_token, self.org_id)
        client.create_machine(machine)
        return client.publish_version(machine, _bundle(source), client_info=source.name)

    def deploy_migration(
        self, machine: str, source: Path, from_version: str, to_version: str
    ) -> str:
        """Make a migration of the bundle of `source`; returns its id."""
        client = SiteClient(self.api_url, self.access_token, self.org_id)
        return client.publish_migration(machine, _bundle(source), from_version, to_version)

    def create(
        self, machine: str, slug: str, context: object = None, *, act: object = None
    ) -> Answer:
        body = {"slug": slug} if context is None else {"slug": slug, "context": context}
        return self.request("POST", f"/machines/{machine}", body, act=act)

    def send(self, machine: str, slug: str, event: object, *, act: object = None) -> Answer:
        path = f"/machines/{machine}/i/{slug}/events"
        return self.request("POST", path, {"event": event}, act=act)

    def set_desired_version(self, machine: str, slug: str, version: str) -> Answer:
        path = f"/machines/{machine}/i/{slug}/v"
        return self.request("PUT", path, {"targetMachineVersionId": version})

    def versions(self, machine: str, slug: str) -> tuple[str, str | None]:
        """The ids of the version that an instance is on, and of the one it is to upgrade to."""
        answer = self.request("GET", f"/machines/{machine}/i/{slug}/admin")
        assert answer.status == 200, answer.text
        desired = answer.json.get("desiredMachineVersion")
        return answer.json["machineVersion"]["id"], desired and desired["id"]

    def state(self, machine: str, slug: str, *, act: object = None) -> Answer:
        return self.request("GET", f"/machines/{machine}/i/{slug}", act=act)

    def context(self, machine: str, slug: str) -> dict[str, Any]:
        """The whole context, as an admin sees it."""
        answer = self.request("GET", f"/machines/{machine}/i/{slug}/admin")
        assert answer.status == 200, answer.text
        context: dict[str, Any] = answer.json["context"]
        return context

    # --- What is stored ------------------------------------------------------------------

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        url = self.environment.get("DATABASE_URL")
        if url is not None:
            with psycopg.connect(url) as database:
                return database.execute(sql.replace("?", "%s"), parameters or None).fetchall()
        uri = f"{(self.data_dir / 'db.sqlite3').as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def execute(self, sql: str, *parameters: object) -> None:
        """Change what is stored, behind the server's back."""
        url = self.environment.get("DATABASE_URL")
        if url is not None:
            with psycopg.connect(url) as database:
                database.execute(sql.replace("?", "%s"), parameters or None)
            return
        with closing(sqlite3.connect(self.data_dir / "db.sqlite3", timeout=10)) as file, file:
            file.execute(sql, parameters)

    def history(self, machine: str, slug: str) -> list[HistoryRow]:
        """All transitions of an instance, the first one first."""
        rows = self.query(
            """
            SELECT t.seq, t.kind, t.event, t.state, t.context, t.ts, t.created_at
            FROM transition AS t
            JOIN instance ON instance.id = t.instance_id
            JOIN machines_machine AS machine ON machine.id = instance.machine_id
            WHERE machine.slug = ? AND instance.slug = ?
            ORDER BY t.seq
            """,
            machine,
            slug,
        )
        return [
            HistoryRow(
                seq=seq,
                kind=kind,
                event=json.loads(event),
                state=json.loads(state)["state"],
                context=json.loads(context),
                ts=ts,
                created_at=created_at,
            )
            for seq, kind, event, state, context, ts, created_at in rows
        ]

    def log(self, slug: str) -> list[str]:
        """What instances of that name wrote to their consoles. Logs are stored twice a second."""
        query = "SELECT message FROM log_entry WHERE instance_slug = ? ORDER BY id"
        return [message for (message,) in self.query(query, slug)]

    def pending_timers(self) -> int:
        return int(self.query("SELECT count(*) FROM delivery")[0][0])


@cache
def _bundle(source: Path) -> bytes:
    return bundling.bundle(source)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # ended, but nobody has asked for its exit status yet


def types(history: list[HistoryRow]) -> list[str]:
    """The types of the events, in order."""
    return [row.type for row in history]


def assert_is_linear(history: list[HistoryRow]) -> None:
    """The history is 1..n without a gap, and its times grow."""
    assert [row.seq for row in history] == list(range(1, len(history) + 1))
    times = [row.ts for row in history]
    assert all(earlier < later for earlier, later in pairwise(times))


def act(person: str, **claims: object) -> Mapping[str, object]:
    """An authContext."""
    return {"sub": person, **claims}
