"""Opens a connection to Postgres from a thread, and never longer than it may take.

libpq's own `connect` waits with Python's lock held: while a database does not answer, no thread of
the process would run, the engine's loop included. So nothing here waits but in `select`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator

from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

# One round trip. A packet that got lost while the network was away is sent again only after a
# second or two: then a new attempt is as good, and finds the network that came back.
TCP_S = 1.0
READ, WRITE = pq.PollingStatus.READING, pq.PollingStatus.WRITING


class CannotOpen(Exception):
    """There is no connection; the message says why."""


def open_connection(conninfo: str, seconds: float) -> pq.abc.PGconn:
    """A connection to the first address that answers; each has so many seconds.

    Raises CannotOpen.
    """
    problem = "the name of the database's host has no address"
    for address in _addresses(conninfo):
        pg: pq.abc.PGconn = pq.PGconn.connect_start(address.encode())
        try:
            _shake_hands(pg, time.monotonic() + seconds)
            pg.nonblocking = 1
        except CannotOpen as error:
            pg.finish()
            problem = str(error)
        except BaseException:
            pg.finish()
            raise
        else:
            return pg
    raise CannotOpen(problem)


def finish(pg: pq.abc.PGconn, what: str, give_up: float) -> pq.abc.PGresult:
    """The result of what was just sent. Raises CannotOpen and psycopg.Error."""
    while pg.flush() == 1:
        _wait(pg.socket, WRITE, give_up)
    found: pq.abc.PGresult | None = None
    while True:
        while pg.is_busy():
            _wait(pg.socket, READ, give_up)
            pg.consume_input()
        more = pg.get_result()
        if more is None:
            break
        found = found or more
    if found is None or found.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        raise CannotOpen(f"{what}: {found.get_error_message() if found else 'no answer'}")
    return found


def _shake_hands(pg: pq.abc.PGconn, give_up: float) -> None:
    status: int = WRITE
    tcp_give_up = min(give_up, time.monotonic() + TCP_S)
    while pg.status != pq.ConnStatus.BAD:
        if status == pq.PollingStatus.OK:
            return
        if status == pq.PollingStatus.FAILED:
            break
        is_connecting = pg.status == pq.ConnStatus.STARTED
        _wait(pg.socket, status, tcp_give_up if is_connecting else give_up)
        status = pg.connect_poll()
    raise CannotOpen(pg.get_error_message())


def _wait(descriptor: int, status: int, give_up: float) -> None:
    """Until the socket can be read, or written. Raises CannotOpen when it takes too long."""
    wanted = select.POLLIN if status == READ else select.POLLOUT
    poll = select.poll()
    poll.register(descriptor, wanted)
    if not poll.poll(max(0.0, give_up - time.monotonic()) * 1000):
        raise CannotOpen("the database does not answer in time")


def _addresses(conninfo: str) -> Iterator[str]:
    """`conninfo` for each host that it names, and for each address of that host."""
    parameters = conninfo_to_dict(conninfo)
    host = str(parameters.get("host") or "")
    if not host or "hostaddr" in parameters:
        yield conninfo
        return
    hosts = host.split(",")
    ports = str(parameters.get("port") or "").split(",")
    for n, name in enumerate(hosts):
        port = ports[n] if len(ports) > 1 else ports[0]
        alone = {"host": name, **({"port": port} if port else {})}
        if name.startswith(("/", "@")):
            yield make_conninfo(conninfo, **alone)
            continue
        with contextlib.suppress(OSError):
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            for address in dict.fromkeys(str(each[4][0]) for each in found):
                yield make_conninfo(conninfo, hostaddr=address, **alone)
