"""The outside world: an HTTP server that machines under test call, and that remembers it."""

import threading
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GATE_SECONDS_MAX = 120


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_arguments: Any) -> None:
        """Its clients are killed in the middle of requests: that is what is tested."""


class Recorder:
    """Counts requests by path. `/gate/<name>` answers when the test opens that gate."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._gates: dict[str, threading.Event] = {}
        self._server = _QuietServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def calls(self) -> Counter[str]:
        """How often each path was requested until now."""
        with self._lock:
            return Counter(self._calls)

    def was_called(self, path: str) -> bool:
        return self.calls()[path] > 0

    def open(self, gate: str) -> None:
        """Answer who waits at `/gate/<gate>`, now and later."""
        self._gate(f"/gate/{gate}").set()

    def close(self) -> None:
        with self._lock:
            gates = list(self._gates.values())
        for gate in gates:
            gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _gate(self, path: str) -> threading.Event:
        with self._lock:
            return self._gates.setdefault(path, threading.Event())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                self.do_GET()

            def do_GET(self) -> None:
                with recorder._lock:
                    recorder._calls[self.path] += 1
                if self.path.startswith("/gate/"):
                    recorder._gate(self.path).wait(GATE_SECONDS_MAX)
                with suppress(OSError):  # the other side may have been killed
                    self.send_response(200)
                    self.send_header("content-length", "2")
                    self.end_headers()
                    self.wfile.write(b"ok")

            def log_message(self, *_arguments: Any) -> None:
                """Silence: a test says itself what it saw."""

        return Handler
