"""A real browser for a page of ours: served on 127.0.0.1 with a policy as strict as can be."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

PROJECT_ROOT = Path(__file__).resolve().parents[3]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
TIME_LIMIT_S = 60
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

# No inline script or style: what the site could do without.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " font-src 'self' data:; connect-src 'self'"
)

Answer = tuple[str, str]  # type, content
Route = Callable[[dict[str, list[str]]], Answer]


@dataclass(frozen=True)
class Outcome:
    result: Any  # what the page's script has sent
    log: str  # what the browser's console says


def run(routes: dict[str, Route]) -> Outcome:
    """Open `/` in the browser, and wait until its script sends the result."""
    assert CHROMIUM is not None
    received: queue.Queue[bytes] = queue.Queue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(routes, received))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with tempfile.TemporaryDirectory(prefix="flow-browser-", ignore_cleanup_errors=True) as scratch:
        log = Path(scratch) / "log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [
                    CHROMIUM,
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-background-networking",
                    "--disable-component-update",
                    "--disable-sync",
                    "--no-first-run",
                    f"--user-data-dir={scratch}/profile",
                    "--window-size=1200,800",
                    "--remote-debugging-port=0",  # without it, it would end at once
                    "--enable-logging=stderr",
                    f"http://127.0.0.1:{server.server_port}/",
                ],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        try:
            result = json.loads(received.get(timeout=TIME_LIMIT_S))
        except queue.Empty:
            pytest.fail(f"no result; the browser says:\n{_console(log)}")
        finally:
            process.terminate()
            process.wait()
            server.shutdown()
            thread.join()
            server.server_close()
        assert "error" not in result, result["error"]
        return Outcome(result, _console(log))


def _console(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if "CONSOLE" in line)


def _handler(
    routes: dict[str, Route], received: queue.Queue[bytes]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path in routes:
                query = parse_qs(parts.query, keep_blank_values=True)
                kind, content = routes[parts.path](query)
                self._answer(kind, content.encode())
            elif parts.path.startswith(("/static/", "/scripts/")):
                root = PROJECT_ROOT if parts.path.startswith("/static/") else Path(__file__).parent
                path = root / unquote(parts.path).lstrip("/")
                kind = TYPES.get(path.suffix, "application/octet-stream")
                self._answer(kind, path.read_bytes())
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            received.put(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer("text/plain", b"")

        def _answer(self, kind: str, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", POLICY)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args: object) -> None:
            pass

    return Handler


def page(body: str, script: str) -> dict[str, Route]:
    """A page with our style sheets and one of the scripts that lie in scripts/."""
    document = (
        '<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8">'
        "<title>Flow</title>"
        '<link rel="stylesheet" href="/static/site/tokens.css">'
        '<link rel="stylesheet" href="/static/flow/flow.css">'
        '<link rel="stylesheet" href="/page.css">'
        f'{body}<script type="module" src="/scripts/{script}"></script>'
    )
    return {
        "/": lambda _: ("text/html", document),
        "/page.css": lambda _: ("text/css", "[data-flow] { width: 900px; height: 600px; }"),
    }
