"""A Celery worker as a node of the site: the engine beside the tasks, in a thread of its own.

The worker's main thread is Celery's. The engine has a loop, a listener at which other nodes reach
it, and runners of its own; tasks hand work to it. It starts before the worker takes tasks and stops
after the worker has taken its last one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.exceptions import SecurityWarning
from django.conf import settings

from instances.engine import door
from statebacked_site import server

log = logging.getLogger("statebacked.engine")

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 40  # instances have 25 s to settle, and then what is queued is written


class CannotHost(Exception):
    """The worker can't host the engine; the message says why."""


class EngineStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """The part of the worker that is the node."""

    requires = ("celery.worker.components:Pool",)
    on_ready: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._server: server.DrainingServer | None = None
        self._thread: threading.Thread | None = None
        self._is_stopping = False

    def start(self, worker: Any) -> None:
        check_settings()
        _check_pool(worker.pool_cls)
        settings.NODE_ROLE = "worker"
        listener = server.bind(*settings.WORKER_LISTEN)
        ready = threading.Event()
        self._server = server.make_server(
            listener, "statebacked_site.worker_asgi:application", ready.set
        )
        self._thread = threading.Thread(
            target=self._serve, args=(self._server, listener, ready), name="engine", daemon=True
        )
        self._thread.start()
        ready.wait(START_SECONDS_MAX)
        if not door.is_ready():
            raise CannotHost("The engine did not start; what stopped it is told above")
        self.on_ready()

    def stop(self, worker: Any) -> None:
        """Let instances settle, stop the rest and write everything; safe to call twice."""
        self._is_stopping = True
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(STOP_SECONDS_MAX)

    def terminate(self, worker: Any) -> None:
        """The same without waiting for instances to settle."""
        with contextlib.suppress(door.EngineNotRunning):
            door.node().hurry()
        self.stop(worker)

    def _serve(
        self, engine_server: server.DrainingServer, listener: socket.socket, ready: threading.Event
    ) -> None:
        try:
            engine_server.run(sockets=[listener])
        except SystemExit:
            log.error("the engine of this worker did not start")
        finally:
            started = ready.is_set()
            ready.set()
            if started and not self._is_stopping:
                log.error("the engine of this worker has ended: the worker stops")
                os.kill(os.getpid(), signal.SIGTERM)


def check_settings() -> None:
    """Raises CannotHost for a site that has no workers."""
    if not isinstance(settings.DATABASE, str) or not settings.REDIS_URL:
        raise CannotHost("A worker needs Postgres and Redis: set DATABASE_URL and REDIS_URL")


def _check_pool(pool: type) -> None:
    if pool.__module__.rpartition(".")[2] not in ("thread", "solo"):
        raise CannotHost(
            "A worker's tasks run in the process of its engine: leave out --pool, or --pool threads"
        )


def run(on_ready: Callable[[], None]) -> int:
    """Work until SIGINT or SIGTERM, then drain; the exit status. `on_ready` is called when the
    engine runs; the broker may be away still."""
    from statebacked_site.celery import app

    # Who runs this as root may do so: customers' code is elsewhere, and tasks are never pickled.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    EngineStep.on_ready = staticmethod(on_ready)
    celery_worker = app.Worker(
        quiet=True, loglevel=settings.LOG_LEVEL, without_gossip=True, without_mingle=True
    )
    celery_worker.start()
    return celery_worker.exitcode or 0
