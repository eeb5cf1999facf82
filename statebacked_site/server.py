"""The web server: uvicorn in this process, with the engine and its timers behind the same loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import resource
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn
from django.conf import settings

from instances.engine import door
from statebacked_site.joined_writes import JoinedWritesProtocol

BACKLOG = 1024
ANSWER_SECONDS_MAX = 2  # to send the last answers after the application has stopped
KEEP_ALIVE_SECONDS = 75
OPEN_FILES_WANTED = 65_536
PORTS_TRIED = 50  # when another port is suggested


class CannotListen(Exception):
    """The address cannot be listened on; the message says which one can."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on `host` and `port` (0: any free one). Raises CannotListen.

    Who connects before the server is ready waits and is answered then.
    """
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as exc:
        raise CannotListen(f"--host {host}: {exc.strerror}") from exc
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        # Linux lets two sockets with SO_REUSEADDR bind and refuses only the second listen.
        listener.listen(BACKLOG)
    except PermissionError as exc:
        listener.close()
        raise CannotListen(
            f"Port {port} needs root on this machine. Use one above 1023: --port 8000"
        ) from exc
    except OSError as exc:
        listener.close()
        raise CannotListen(_why_not(host, port, exc)) from exc
    return listener


def _why_not(host: str, port: int, exc: OSError) -> str:
    if exc.errno != errno.EADDRINUSE:
        return f"Cannot listen on {host} port {port}: {exc.strerror or exc}"
    free = _free_port_after(host, port)
    advice = f" Port {free} is free: --port {free}" if free is not None else ""
    return f"Port {port} is in use by another program.{advice}"


def _free_port_after(host: str, port: int) -> int | None:
    for candidate in range(port + 1, min(port + PORTS_TRIED, 65_536)):
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind((host, candidate))
            return candidate
    return None


def serve(listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, then drain; `on_ready` is called when events are accepted.

    The application starts and stops the engine, the timers and the runners (ASGI lifespan).
    Exits with status 3 if it does not start.
    """
    make_server(listener, "statebacked_site.asgi:application", on_ready).run(sockets=[listener])


def make_server(
    listener: socket.socket, application: str, on_ready: Callable[[], None]
) -> DrainingServer:
    """A server of an ASGI application (`module:name`) that has not started yet."""
    _allow_many_connections()
    settings.NODE_ADDRESS = settings.NODE_ADDRESS or _address(listener)
    config = uvicorn.Config(
        application,
        loop="uvloop",
        http=JoinedWritesProtocol,
        ws="websockets-sansio",
        lifespan="on",
        access_log=False,
        log_config=None,  # settings.LOGGING holds for uvicorn too
        log_level=settings.LOG_LEVEL.lower(),
        server_header=False,
        proxy_headers=False,  # addresses are built from STATEBACKED_URL, never from headers
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    return DrainingServer(config, on_ready)


def _address(listener: socket.socket) -> str:
    """Where other nodes reach what listens here."""
    host, port, *_ = listener.getsockname()
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class DrainingServer(uvicorn.Server):
    """uvicorn's server, except for how it starts and ends.

    uvicorn sends itself the signal that stopped it once more when it is done, which turns a clean
    stop into a death by signal; a second signal skips the application's shutdown, which would
    leave runners behind; and it waits for requests before it tells the application to stop, while
    requests here wait for instances that settle only because the application stops. So every way
    out ends with the application's shutdown, which comes first, and with status 0.
    """

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit:
            return
        # What exists by now stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            door.node().hurry()
        else:
            self.should_exit = True
            sys.stderr.write("\nStopping: events in progress are finished first (25 s at most).\n")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, let the engine settle and stop, and send the last answers."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self.lifespan.shutdown()
        try:
            await asyncio.wait_for(self._wait_tasks_to_complete(), ANSWER_SECONDS_MAX)
        except TimeoutError:
            for task in self.server_state.tasks:
                task.cancel()


def _allow_many_connections() -> None:
    """Raise the soft limit of open files as far as the system allows; each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
