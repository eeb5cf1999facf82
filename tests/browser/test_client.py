"""The published client in a page of another origin, as a customer's app has it."""

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from statebacked_site import bundling
from tests.acceptance.conftest import MACHINES
from tests.acceptance.following import assert_followed
from tests.browser.chromium import Tab
from tests.browser.content import Filled
from tests.conftest import run_manage_py

SCRIPT = Path(__file__).with_name("client_page.mjs")
PAGE = b"<!doctype html><title>Shop</title><script src=/app.js></script>"


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    """The address of a page that has the client, on a port of its own."""
    command = [str(bundling.esbuild_program()), str(SCRIPT), "--bundle", "--log-level=error"]
    script = subprocess.run(command, capture_output=True, check=True).stdout
    contents = {"/": (PAGE, "text/html"), "/app.js": (script, "text/javascript")}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content, content_type = contents.get(self.path, (b"", "text/plain"))
            self.send_response(200 if content else 404)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_client_follows_others_timers_and_messages(browser: Any, site: Filled, shop: str):
    server = site.server
    for machine in ("alarm-xstate5", "family-xstate5"):
        source = str(MACHINES / f"{machine}.ts")
        run_manage_py("deploy", source, "--data", str(server.data_dir))
    tab = Tab(browser, shop)
    tab.page.goto(shop)

    seen = tab.page.evaluate(
        "(config) => follow(config)",
        {
            "apiHost": server.api_url,
            "token": server.access_token,
            "orgId": server.org_id,
            "toggler": "toggler",
            "alarm": "alarm-xstate5",
            "family": "family-xstate5",
            "order": "order",
            "slug": "followed",
        },
    )
    tab.close()

    assert_followed(seen)
    assert tab.problems == []
