"""A site with something on every page, some of it hostile."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import Server, run_manage_py, running_server

MACHINES = Path(__file__).with_name("machines")
EXAMPLES = Path(__file__).parents[2] / "machines" / "examples"
ADMIN, READER, LONER = "admin@localhost", "reader@example.com", "loner@example.com"
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>\u202e{{ 7|add:7 }}\U0001f469'
LONG_NAME = "x" * 128  # the longest name of an instance
HOSTILE_EVENTS = (
    '"><script>alert(1)</script><img src=x onerror=alert(1)>',
    "<svg onload=alert(1)><style>*{display:none}</style></svg>",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J",
    "\u202eevil\u2066 مرحبا בעולם",
    "👩‍👩‍👧‍👦👍🏽🇩🇪",
    "A" * 10_000,
    "go",
    "not handled " + "B" * 2_000,
)
MIGRATION = """\
export function upgradeState(path, context) {
  if (path[0] !== "pending") return path;
  return ["waiting", path[1] === "withManager" ? "withDirector" : path[1]];
}
export function upgradeContext(oldPaths, newPaths, context) {
  return { ...context, reminders: 0 };
}
"""
MIGRATIONS = {
    "approval": MIGRATION,
    "hostile": MIGRATION.replace(
        "return path", f"throw new Error({json.dumps(HOSTILE)}); return path"
    ),
}
SEED = f"""
import gzip, re
from time import time
from authz.models import Membership, Org, User
from instances.models import DeadLetter, Instance
from machines.models import MachineVersion, MachineVersionMigration, MigrationCode
first = Org.objects.get()
reader = User.objects.create_user({READER!r}, name={HOSTILE!r})
Membership.objects.create(org=first, user=reader, role="read")
User.objects.create_user({LONER!r})
for name in ("Nothing here yet", {HOSTILE!r} + "W" * 100):
    org = Org.objects.create(name=name)
    Membership.objects.create(org=org, user=User.objects.get(email={ADMIN!r}), role="admin")
    print(org.public_id)
now_ms = int(time() * 1000)
for number, instance in enumerate(Instance.objects.filter(machine__slug="hostile")):
    DeadLetter.objects.create(
        id=1_000_000 + number, org_id=first.pk, kind=0, target_machine_id=instance.machine_id,
        target_slug=instance.slug, source_id=instance.pk, source_seq=1, source_n=number,
        event={json.dumps({"type": HOSTILE + "W" * 5_000, "data": HOSTILE})!r}, due_at=now_ms,
        attempts=7, created_at=now_ms, died_at=now_ms, reason={HOSTILE!r} + "E" * 5_000,
    )
MachineVersion.objects.filter(machine__slug="hostile").update(client_info={HOSTILE!r} + "V" * 100)
author = User.objects.get(email={READER!r})
for machine, source in {MIGRATIONS!r}.items():
    old, new = MachineVersion.objects.filter(machine__slug=machine).order_by("id")
    commonjs = re.sub(r"export function (\\w+)", r"exports.\\1 = function", source)
    code = dict(
        source_gzip=gzip.compress(source.encode()), source_sha256="", source_bytes=len(source),
        commonjs_gzip=gzip.compress(commonjs.encode()), externals=[],
    )
    for _ in range(2):
        migration = MachineVersionMigration.objects.create(
            machine_id=old.machine_id, from_version=old, to_version=new, created_by=author
        )
        MigrationCode.objects.create(migration=migration, **code)
    print(migration.public_id)
"""


@dataclass(frozen=True)
class Filled:
    """The site, and where some of its content is."""

    server: Server
    empty_org: str
    hostile_org: str
    versions: dict[str, str]  # the current version of a machine
    key: str
    schedule: str
    migrations: dict[str, str]  # the newest migration of a machine
    old_versions: dict[str, str]  # the version that it leads from

    def call(self, method: str, path: str, body: Any = None, **claims: str) -> Any:
        """The answer's JSON; raises urllib.error.HTTPError."""
        headers = {**self.server.headers, "content-type": "application/json"}
        if claims:
            headers["x-statebacked-act"] = json.dumps(claims)
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.server.api_url}/{path}"
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read() or b"null")

    def sign_in_link(self, email: str) -> str:
        """The path of a new link that signs the person in; empty for nobody."""
        if not email:
            return ""
        data_dir = str(self.server.data_dir)
        shown = run_manage_py("sign_in_link", "--email", email, "--data", data_dir)
        return urllib.parse.urlsplit(shown.strip()).path


@contextmanager
def filled_site(data_dir: Path) -> Iterator[Filled]:
    """A server with the demo, a hostile machine, people of each role, and an empty org."""
    with running_server(data_dir, "--demo") as server:
        assert server.process.stdout is not None
        summary = server.process.stdout.readline()
        assert "The demo is ready" in summary, summary
        deploy(server, MACHINES / "hostile.ts")
        site = Filled(
            server, "", "", versions={}, key="", schedule="", migrations={}, old_versions={}
        )
        site.call("POST", "machines", {"slug": "bare"})
        people = {"requester": "ada", "approver": "grace", "manager": "mary"}
        for slug in ("pending", "upgraded", "third"):
            site.call("POST", "machines/approval", {"slug": slug, "context": people}, sub="ada")
        key = site.call("POST", "keys", {"name": HOSTILE, "use": "production"})["id"]
        schedule = _fill_with_hostile(site)
        old_versions = current_versions(site)
        _deploy_second_versions(server)
        printed = run_manage_py("shell", "-v", "0", "-c", SEED, "--data", str(data_dir))
        empty_org, hostile_org, *migrations = printed.split()
        _upgrade_some(site)
        yield Filled(
            server,
            empty_org,
            hostile_org,
            current_versions(site),
            key,
            schedule,
            dict(zip(MIGRATIONS, migrations, strict=True)),
            old_versions,
        )


def deploy(server: Server, source: Path, *arguments: str) -> None:
    run_manage_py("deploy", str(source), "--data", str(server.data_dir), *arguments)


def current_versions(site: Filled) -> dict[str, str]:
    return {
        machine["slug"]: machine["currentVersion"]["id"]
        for machine in site.call("GET", "machines")["machines"]
        if machine.get("currentVersion")
    }


def _deploy_second_versions(server: Server) -> None:
    """Versions in which some states are called otherwise."""
    for source, renamed in (
        (EXAMPLES / "approval.ts", {"pending": "waiting", "withManager": "withDirector"}),
        (EXAMPLES / "toggler.ts", {}),
        (MACHINES / "hostile.ts", {'"A".repeat': '"Z".repeat'}),
    ):
        code = source.read_text()
        for old, new in renamed.items():
            code = code.replace(old, new)
        changed = server.data_dir / f"{source.stem}-2.ts"
        changed.write_text(code)
        deploy(server, changed, "--machine", source.stem)


def _upgrade_some(site: Filled) -> None:
    """One instance that waits for its next event, one that has had it, and a hostile one."""
    new = current_versions(site)
    for machine, slug in (("approval", "pending"), ("approval", "upgraded"), ("hostile", "second")):
        body = {"targetMachineVersionId": new[machine]}
        site.call("PUT", f"machines/{machine}/i/{slug}/v", body)
    event = {"event": {"type": "withdraw", "by": "ada"}}
    site.call("POST", "machines/approval/i/upgraded/events", event, sub="ada")


def _fill_with_hostile(site: Filled) -> str:
    """Returns the id of a schedule."""
    for slug in (LONG_NAME, "second"):
        site.call("POST", "machines/hostile", {"slug": slug})
    for event in HOSTILE_EVENTS:
        site.call("POST", f"machines/hostile/i/{LONG_NAME}/events", {"event": event}, sub=HOSTILE)
    site.call("PUT", "machines/hostile/i/second/status", {"status": "paused"})
    for body in (
        {"cron": "30 2 1 * *", "create": {"slug": "x" * 110 + "-{date}"}, "paused": True},
        {"cron": "0 0 29 2 *", "send": {"slug": LONG_NAME, "event": {"type": HOSTILE_EVENTS[5]}}},
        {"cron": "*/5 * * * *", "send": {"slug": "none", "event": {"type": HOSTILE}}},
    ):
        schedule = site.call("POST", "machines/hostile/schedules", body)
    return str(schedule["id"])
