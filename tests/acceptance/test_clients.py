"""The published npm packages work against this site as they are."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.load import NODE
from statebacked_site import bundling
from tests.acceptance.conftest import EXAMPLES, MACHINES, Deploy
from tests.acceptance.following import assert_followed
from tests.acceptance.site import Site, types
from tests.conftest import PROJECT_ROOT, run_manage_py

SCENARIOS = Path(__file__).with_name("clients") / "client.mjs"
SMPLY = PROJECT_ROOT / "node_modules" / "smply" / "dist" / "index.js"
SECONDS_MAX = 60

REJECTED = {
    "name": "RejectedByMachineAuthorizerError",
    "status": 403,
    "code": "rejected-by-machine-authorizer",
}


def run_scenario(site: Site, scenario: str, **config: object) -> dict[str, Any]:
    """What a scenario of clients/client.mjs found."""
    config |= {"apiHost": site.api_url, "token": site.access_token, "orgId": site.org_id}
    result = subprocess.run(
        [str(NODE), str(SCENARIOS), scenario, json.dumps(config)],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_client_gets_from_nothing_to_a_running_instance(site: Site, tmp_path: Path):
    bundle = tmp_path / "toggler.js"
    bundle.write_bytes(bundling.bundle(EXAMPLES / "toggler.ts"))

    seen = run_scenario(site, "admin", machine="client-toggler", bundle=str(bundle))

    versions = [seen["plain"]["machineVersionId"], seen["zipped"]["machineVersionId"]]
    assert all(version.startswith("ver_") for version in versions)
    assert seen["instance"]["state"] == "off"
    assert seen["instance"]["publicContext"] == {"toggleCount": 0}
    assert seen["toggled"]["states"] == ["on"]
    assert seen["actor"] is True
    assert seen["toggledAgain"]["publicContext"] == {"toggleCount": 2}
    for name in ("read", "again"):
        assert seen[name]["ts"] == seen["toggledAgain"]["ts"]
        assert seen[name]["state"] == "off"
    assert seen["other"]["publicContext"] == {"toggleCount": 0}

    transitions = seen["transitions"]["transitions"]
    assert [t["event"]["type"] for t in transitions] == ["toggle", "toggle", "xstate.init"]
    assert [t["state"] for t in transitions] == ["off", "on", "off"]
    assert types(site.history("client-toggler", "first")) == ["xstate.init", "toggle", "toggle"]

    admin = seen["admin"]
    assert admin["context"] == {"public": {"toggleCount": 2}}
    assert admin["status"] == "running"
    assert admin["machineVersion"]["id"] == versions[1]
    assert {i["slug"] for i in seen["instances"]["instances"]} == {"first", "second"}
    assert {v["id"]: v["clientInfo"] for v in seen["versions"]["versions"]} == dict(
        zip(versions, ["plain", "gzipped"], strict=True)
    )
    assert "client-toggler" in {m["slug"] for m in seen["machines"]["machines"]}
    assert seen["machine"]["machine"]["currentVersion"]["id"] == versions[1]
    assert site.org_id in {org["id"] for org in seen["orgs"]["orgs"]}

    seen = run_scenario(site, "dangerous", machine="client-toggler")

    assert seen["whilePaused"] == {"name": "ConflictError", "status": 409, "code": "invalid-state"}
    assert seen["resumed"]["publicContext"] == {"toggleCount": 3}
    assert seen["withInstances"] == {
        "name": "ConflictError",
        "status": 409,
        "code": "invalid-state",
    }
    for name in ("duplicate", "duplicateMachine"):
        assert seen[name] == {"name": "ConflictError", "status": 409, "code": "conflict"}
    for name in ("deleted", "deletedMachine"):
        assert seen[name] == {"name": "NotFoundError", "status": 404, "code": "not-found"}


PARCEL = ("parcel-xstate5.ts", "parcel-v2.ts", "parcel-to-v2.ts")


def test_client_upgrades_an_instance(site: Site, tmp_path: Path):
    bundles = [tmp_path / f"{name}.js" for name in PARCEL]
    for bundle, name in zip(bundles, PARCEL, strict=True):
        bundle.write_bytes(bundling.bundle(MACHINES / name))

    seen = run_scenario(site, "upgrades", machine="client-parcel", bundles=[*map(str, bundles)])

    no_path = {"name": "NoMigrationPathError", "status": 400, "code": "no-migration-path"}
    assert seen["tooEarly"] == no_path
    assert seen["refused"]["code"] == "invalid-parameter"
    migrations = [seen["plain"], seen["zipped"]]
    assert all(m["machineVersionMigrationId"].startswith("mig_") for m in migrations)
    assert seen["desired"] is None
    assert seen["pending"]["machineVersion"]["id"] == seen["ids"]["from"]
    assert seen["pending"]["desiredMachineVersion"]["id"] == seen["ids"]["to"]
    assert seen["upgraded"]["state"] == {"packed": {"box": "open", "label": "blank"}}
    assert seen["upgraded"]["publicContext"] == {"owner": "", "touched": 10, "upgraded": True}
    assert seen["admin"]["machineVersion"]["id"] == seen["ids"]["to"]
    assert "desiredMachineVersion" not in seen["admin"]
    events = [t["event"] for t in seen["transitions"]["transitions"]]
    assert [event["type"] for event in events] == ["touch", "statebacked.upgrade", "xstate.init"]
    assert events[1] == {"type": "statebacked.upgrade", **seen["ids"]}
    assert seen["noPath"] == no_path
    assert seen["unknown"] == {"name": "NotFoundError", "status": 404, "code": "not-found"}
    listed = site.request("GET", "/machines/client-parcel/migrations").json["migrations"]
    assert [m["id"] for m in listed] == [m["machineVersionMigrationId"] for m in migrations[::-1]]


def test_tokens_signed_with_a_key_act_for_end_users(site: Site, deploy: Deploy):
    seen = run_scenario(site, "endUser", machine=deploy("counter.ts"))

    assert seen["created"]["publicContext"] == {"count": 0}
    assert seen["counted"]["publicContext"] == {"count": 1}
    assert seen["rejected"] == REJECTED
    assert seen["reset"]["publicContext"] == {"count": 0}
    assert seen["missingScope"]["code"] == "missing-scope"
    assert seen["notFound"]["status"] == 404
    key = seen["key"]
    assert key["id"].startswith("sbk_")
    assert key["key"].startswith("sbsec_")
    [listed] = [k for k in seen["keys"]["keys"] if k["id"] == key["id"]]
    assert key["key"] not in json.dumps(listed)
    # The key is gone, and at once so are its tokens.
    assert seen["afterwards"]["status"] == 403
    assert types(site.history("counter", "mine")) == ["xstate.init", "increment", "reset"]


def test_client_hears_of_every_change(site: Site, deploy: Deploy):
    seen = run_scenario(site, "subscriber", machine=deploy("toggler.ts"))

    heard = seen["heard"]
    assert [state["publicContext"]["toggleCount"] for state in heard] == [0, 1, 2]
    assert [state["state"] for state in heard] == ["off", "on", "off"]
    assert heard[0]["ts"] < heard[1]["ts"] < heard[2]["ts"]


def test_client_follows_others_timers_and_messages(site: Site, deploy: Deploy):
    seen = run_scenario(
        site,
        "follower",
        toggler=deploy("toggler.ts"),
        alarm=deploy("alarm-xstate5.ts"),
        family=deploy("family-xstate5.ts"),
        order=deploy("order.ts"),
        slug="followed",
    )

    assert_followed(seen)


class Smply:
    """The published command line, signed in to a site."""

    def __init__(self, site: Site, home: Path) -> None:
        self.site = site
        self.environment = {**site.environment, "HOME": str(home), "NO_COLOR": "1"}
        run_manage_py("smply_login", env=self.environment)

    def run(self, *arguments: str) -> str:
        """What a command prints; fails with its message if it fails."""
        result = self.attempt(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """The JSON at the end of what a command prints."""
        printed = self.run(*arguments)
        return json.loads(printed[min(i for i in map(printed.find, "{[") if i >= 0) :])

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(NODE), str(SMPLY), "--api-url", self.site.api_url, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )


@pytest.fixture
def smply(site: Site, tmp_path: Path) -> Smply:
    home = tmp_path / "home"
    home.mkdir()
    return Smply(site, home)


def test_smply_deploys_and_uses_a_machine(site: Site, smply: Smply):
    source = str(EXAMPLES / "counter.ts")
    machine = ["-m", "smply-counter"]
    ada = ["--auth-context", '{"sub": "ada"}']

    created = smply.json("machines", "create", *machine, "--node", source)
    second = smply.json(
        "machine-versions", "create", *machine, "-r", "0.0.2", "--node", source, "--make-current"
    )
    context = ["-c", '{"owner": "ada", "max": 5}']
    instance = smply.json("instances", "create", *machine, "-i", "visits", *context, *ada)
    sent = smply.json(
        "instances", "send-event", *machine, "-i", "visits", "-e", '{"type":"increment"}', *ada
    )
    got = smply.json("instances", "get", *machine, "-i", "visits")
    transitions = smply.json("instances", "list-transitions", *machine, "-i", "visits")
    refused = smply.attempt(
        "instances",
        "send-event",
        *machine,
        "-i",
        "visits",
        "-e",
        "reset",
        "--auth-context",
        '{"sub": "grace"}',
    )

    assert created["currentVersion"]["machineVersionId"].startswith("ver_")
    assert instance["publicContext"] == {"count": 0}
    assert sent["publicContext"] == {"count": 1}
    assert got["context"] == {"owner": "ada", "max": 5, "public": {"count": 1}}
    assert got["machineVersion"]["id"] == second["machineVersionId"]
    assert [t["event"]["type"] for t in transitions] == ["increment", "xstate.init"]
    assert refused.returncode == 1
    assert "rejected-by-machine-authorizer" in refused.stderr
    listed = smply.json("instances", "list", *machine)
    assert [(i["name"], i["status"]) for i in listed] == [("visits", "running")]
    versions = smply.json("machine-versions", "list", *machine)
    assert {v["clientInfo"] for v in versions} == {"0.0.1", "0.0.2"}
    machines = {m["name"]: m for m in smply.json("machines", "list")}
    assert machines["smply-counter"]["currentVersion"]["id"] == second["machineVersionId"]
    assert types(site.history("smply-counter", "visits")) == ["xstate.init", "increment"]


def test_smply_upgrades_an_instance(site: Site, smply: Smply, tmp_path: Path):
    machine = ["-m", "smply-parcel"]
    ada = ["--auth-context", '{"sub": "ada"}']
    old, new, migration = (str(MACHINES / name) for name in PARCEL)
    bundle = tmp_path / "migration.js"
    bundle.write_bytes(bundling.bundle(MACHINES / PARCEL[2]))

    smply.json("machines", "create", *machine, "--node", old)
    [first] = smply.json("machine-versions", "list", *machine)
    smply.json("instances", "create", *machine, "-i", "one", "-c", "{}", *ada)
    second = smply.json(
        "machine-versions", "create", *machine, "-r", "2", "--node", new, "--make-current"
    )
    # Its `-t` never comes there: the whole program has one of its own, for an access token.
    ids = ["-f", first["id"], "--to", second["machineVersionId"]]
    desire = ["instances", "set-desired-version", *machine, "-i", "one", "-v", ids[3]]
    too_early = smply.attempt(*desire)
    built = smply.json("migrations", "create", *machine, *ids, "--node", migration)
    given = smply.json("migrations", "create", *machine, *ids, "--js", str(bundle))
    desired = smply.run(*desire)
    pending = smply.json("instances", "get", *machine, "-i", "one")
    sent = smply.json("instances", "send-event", *machine, "-i", "one", "-e", "touch", *ada)

    assert too_early.returncode == 1
    assert "no-migration-path" in too_early.stderr
    assert built["machineVersionMigrationId"].startswith("mig_")
    assert given["machineVersionMigrationId"] != built["machineVersionMigrationId"]
    assert "Successfully set desired version" in desired
    assert pending["desiredMachineVersion"]["id"] == second["machineVersionId"]
    assert sent["publicContext"]["upgraded"] is True
    assert types(site.history("smply-parcel", "one")) == [
        "xstate.init",
        "statebacked.upgrade",
        "touch",
    ]


def test_smply_says_what_is_wrong_with_a_migration(site: Site, smply: Smply, tmp_path: Path):
    source = str(MACHINES / PARCEL[0])
    smply.json("machines", "create", "-m", "smply-wrong", "--node", source)
    second = smply.json("machine-versions", "create", "-m", "smply-wrong", "-r", "2", "-n", source)
    versions = smply.json("machine-versions", "list", "-m", "smply-wrong")
    [first] = [v["id"] for v in versions if v["id"] != second["machineVersionId"]]
    broken = tmp_path / "broken.js"
    broken.write_text("export const upgradeState = (path) => path;\n")

    refused = smply.attempt(
        *("migrations", "create", "-m", "smply-wrong", "-f", first),
        *("--to", second["machineVersionId"], "-j", str(broken)),
    )

    assert refused.returncode == 1
    assert "upgradeContext" in refused.stderr
    answer = site.request("GET", "/machines/smply-wrong/migrations")
    assert answer.json == {"migrations": []}


def test_smply_manages_keys_and_lists_orgs(site: Site, smply: Smply):
    key = smply.json("keys", "create", "-n", "laptop", "--use", "ci")
    listed = {k["id"]: k for k in smply.json("keys", "list")}
    deleted = smply.run("keys", "delete", "-k", key["id"])
    listed_afterwards = {k["id"] for k in smply.json("keys", "list")}
    orgs = smply.json("orgs", "list")

    assert key["key"].startswith("sbsec_")
    assert listed[key["id"]]["name"] == "laptop"
    assert key["key"] not in json.dumps(listed)
    assert "Successfully deleted" in deleted
    assert key["id"] not in listed_afterwards
    assert [org["id"] for org in orgs] == [site.org_id]


def test_smply_says_what_is_wrong_with_a_bundle(site: Site, smply: Smply, tmp_path: Path):
    bundle = tmp_path / "broken.js"
    bundle.write_text("export default {};\nexport const allowRead = () => true;\n")
    smply.json("machines", "create", "-m", "smply-broken")

    refused = smply.attempt(
        *("machine-versions", "create", "-m", "smply-broken", "-r", "1", "-j", str(bundle)),
        "--skip-validation",
    )

    assert refused.returncode == 1
    assert "allowWrite" in refused.stderr
    assert smply.json("machine-versions", "list", "-m", "smply-broken") == []
