"""`manage.py deploy` and `deploy_migration`, with the example that docs/upgrades.md follows."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import EXAMPLES
from tests.acceptance.site import CLIENT, INIT, UPGRADE, Site
from tests.conftest import PROJECT_ROOT, manage_py

TICKETS = EXAMPLES / "upgrade"
OLD, NEW = str(TICKETS / "ticket.ts"), str(TICKETS / "ticket-v2.ts")
MIGRATION = str(TICKETS / "ticket-to-v2.ts")
BAD_MIGRATION = "export const upgradeContext = (_old, _new, context) => context;\n"


class Shell:
    """Runs commands beside a site, as somebody in its checkout does."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            manage_py(*arguments),
            cwd=PROJECT_ROOT,
            env=self.site.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *arguments: str) -> str:
        result = self.attempt(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout


@pytest.fixture
def shell(site: Site) -> Shell:
    return Shell(site)


def migrations_of(site: Site, machine: str) -> list[tuple[str, str]]:
    """From and to, the newest first."""
    listed = site.request("GET", f"/machines/{machine}/migrations").json["migrations"]
    return [(m["fromMachineVersion"]["id"], m["toMachineVersion"]["id"]) for m in listed]


def version_in(printed: str) -> str:
    found = re.search(r"its current version is (ver_[\w-]+)", printed)
    assert found is not None, printed
    return found[1]


def test_a_version_is_deployed_with_its_migration(site: Site, shell: Shell):
    machine = "deployed-ticket"
    old = version_in(shell.run("deploy", OLD, "--machine", machine))
    site.create(machine, "waits", {"subject": "It does not start"})
    site.send(machine, "waits", "answer")

    printed = shell.run("deploy", NEW, "--machine", machine, "--migration", MIGRATION)

    new = version_in(printed)
    assert migrations_of(site, machine) == [(old, new)]
    assert f"leads from {old} to {new}" in printed
    [upgrade_all] = [line for line in printed.splitlines() if "/upgrades" in line]
    assert site.versions(machine, "waits") == (old, None)
    # What it prints does what it says.
    answer = shell.run("api", "POST", f"machines/{machine}/upgrades", f'{{"to": "{new}"}}')
    assert upgrade_all.endswith(f'api POST machines/{machine}/upgrades \'{{"to": "{new}"}}\'')
    assert '"changed": 1' in answer
    upgraded = site.send(machine, "waits", "escalate").json
    assert upgraded["state"] == {"active": "waiting"}
    assert upgraded["publicContext"] == {
        "subject": "It does not start",
        "answers": 1,
        "priority": "high",
    }
    kinds = [row.kind for row in site.history(machine, "waits")]
    assert kinds == [INIT, CLIENT, UPGRADE, CLIENT]


def test_without_a_version_there_is_nothing_to_migrate_from(site: Site, shell: Shell):
    for machine in ("no-ticket", "empty-ticket"):
        if machine == "empty-ticket":
            site.request("POST", "/machines", {"slug": machine})

        refused = shell.attempt("deploy", NEW, "--machine", machine, "--migration", MIGRATION)

        assert refused.returncode == 1
        assert "no such machine" in refused.stderr or "no version yet" in refused.stderr
    assert site.request("GET", "/machines/no-ticket").status == 404
    assert site.request("GET", "/machines/empty-ticket/v").json == {"versions": []}


def test_a_migration_that_does_not_bundle_deploys_nothing(site: Site, shell: Shell, tmp_path: Path):
    machine = "unbundled-ticket"
    old = version_in(shell.run("deploy", OLD, "--machine", machine))
    broken = tmp_path / "broken.ts"
    broken.write_text("export const upgradeState = (")

    for migration in (broken, tmp_path / "missing.ts"):
        refused = shell.attempt("deploy", NEW, "--machine", machine, "--migration", str(migration))

        assert refused.returncode == 1
        assert migration.name in refused.stderr
        assert "Traceback" not in refused.stderr
    versions = site.request("GET", f"/machines/{machine}/v").json["versions"]
    assert [version["id"] for version in versions] == [old]


def test_a_migration_that_is_refused_can_be_deployed_later(
    site: Site, shell: Shell, tmp_path: Path
):
    machine = "late-ticket"
    old = version_in(shell.run("deploy", OLD, "--machine", machine))
    bad = tmp_path / "bad.ts"
    bad.write_text(BAD_MIGRATION)

    refused = shell.attempt("deploy", NEW, "--machine", machine, "--migration", str(bad))

    assert refused.returncode == 1
    assert "upgradeState" in refused.stderr
    assert migrations_of(site, machine) == []
    [advice] = [line for line in refused.stderr.splitlines() if "deploy_migration" in line]
    words = advice.split("manage.py ")[1].split()
    arguments = [MIGRATION if word == "FILE" else word for word in words]
    printed = shell.run(*arguments)
    new = version_in(refused.stdout)
    assert migrations_of(site, machine) == [(old, new)]
    assert f"leads from {old} to {new}" in printed

    # Without being told it is from the version before the current one.
    shell.run("deploy_migration", MIGRATION, "--machine", machine)
    back = shell.run(
        *("deploy_migration", MIGRATION, "--machine", machine, "--from", new, "--to", old)
    )
    assert migrations_of(site, machine) == [(new, old), (old, new), (old, new)]
    assert f"leads from {new} to {old}" in back


def test_a_migration_alone_needs_two_versions(site: Site, shell: Shell):
    machine = "single-ticket"
    only = version_in(shell.run("deploy", OLD, "--machine", machine))

    for options, problem in (
        ([], "say --from"),
        (["--from", only], "is the version that the migration is from"),
        (["--from", "ver_x"], "no such version"),
        (["--to", "ver_x"], "say --from"),
    ):
        refused = shell.attempt("deploy_migration", MIGRATION, "--machine", machine, *options)
        assert refused.returncode == 1
        assert problem in refused.stderr
    assert migrations_of(site, machine) == []
