"""What a machine's code has, and what it has not."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.conftest import MACHINES
from tests.acceptance.recorder import Recorder
from tests.acceptance.site import Site

FORBIDDEN = ("Deno", "process", "require", "Worker", "localStorage", "prompt", "close")
OBJECTS = ("crypto", "WebAssembly")
MODULES = ("node:fs", "node:child_process", "npm:lodash", "https://example.com/x.js")


@pytest.fixture
def strict_site(tmp_path: Path) -> Iterator[Site]:
    """A site with the default settings: nothing private may be reached."""
    site = Site(tmp_path / "data")
    site.start()
    site.deploy("prisoner", MACHINES / "prisoner.ts")
    site.create("prisoner", "one")
    yield site
    assert site.stop() == 0


def test_code_has_web_standards_and_no_way_out(strict_site: Site, recorder: Recorder):
    found = strict_site.send("prisoner", "one", "look").json["publicContext"]

    assert {found[name] for name in FORBIDDEN} == {"undefined"}
    assert {name: found[name] for name in MODULES} == dict.fromkeys(MODULES, "refused")
    for name in OBJECTS:
        assert found[name] == "object"
    others = found.keys() - {*FORBIDDEN, *MODULES, *OBJECTS, "sha256"}
    assert len(others) == 14
    assert {found[name] for name in others} == {"function"}
    assert found["sha256"] == "186"  # 0xba: it really computes

    port = urlsplit(recorder.url).port
    own_port = urlsplit(strict_site.url).port
    hosts = ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "[::ffff:127.0.0.1]"]
    urls = [
        *(f"http://{host}:{port}/reached" for host in hosts),
        f"http://127.0.0.1:{own_port}/healthz",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://192.168.0.1/",
        "http://[fd00::1]/",
        "file:///etc/passwd",
    ]
    answer = strict_site.send("prisoner", "one", {"type": "reach", "urls": urls})

    assert answer.json["publicContext"] == dict.fromkeys(urls, "refused")
    assert not recorder.calls()
