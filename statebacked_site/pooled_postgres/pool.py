"""The connections to Postgres that the requests of this process share, each for itself.

psycopg_pool is not used, because it stands still for seconds after connections were cut. It pauses
for one second and then two between dead connections that it finds, so that ten take three requests
and six seconds; it checks without a limit, so that a network which stands still holds every
request; it leaves who waits waiting when an attempt to connect has failed, and tries again a second
later at best, once at a time.

P1  Whoever needs a connection looks for it in its own thread and waits for no other's attempt.
P2  It has one, or an error, within the time that it may take: NoConnection means that the database
    was asked for nothing.
P3  A connection that does not answer takes all idle ones with it: they went the same way.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from instances.engine.postgres_opening import CannotOpen, finish, open_connection

Connection = psycopg.Connection[Any]

CHECK_S = 1.0  # in which a connection that was idle must answer
TRY_AGAIN_S = 0.1
IDLE_S = 600.0  # after which a connection that nobody needs is closed
LIFETIME_S = 3600.0  # the server's memory of a connection only grows


class NoConnection(psycopg.OperationalError):
    """There was no connection to be had: nothing was asked of the database."""


class Pool:
    """What Django needs of a pool, by the names that it uses."""

    def __init__(
        self,
        parameters: dict[str, Any],
        configure: Callable[[Connection], object],
        *,
        max_size: int,
        timeout: float,
    ) -> None:
        self.max_size = max_size
        self.timeout = timeout  # seconds
        own = ("autocommit", "context", "cursor_factory", "prepare_threshold")
        self._own = {name: parameters[name] for name in own if name in parameters}
        libpq = {name: value for name, value in parameters.items() if name not in own}
        self._conninfo = make_conninfo(**libpq)
        self._configure = configure
        self._places = threading.BoundedSemaphore(max_size)
        # The latest is taken first, so that those that are not needed grow old.
        self._idle: deque[tuple[Connection, float]] = deque()
        self._is_closed = False

    def open(self) -> None:
        """Nothing: connections are opened as they are needed."""

    def getconn(self) -> Connection:
        """A connection that has just answered. Raises NoConnection."""
        give_up = time.monotonic() + self.timeout
        if not self._places.acquire(timeout=self.timeout):
            raise NoConnection(f"all {self.max_size} connections are in use")
        try:
            connection = self._find(give_up)
        except BaseException:
            self._places.release()
            raise
        handed_out: Any = connection  # its type knows no other pool than psycopg's own
        handed_out._pool = self  # where Django gives it back
        return connection

    def putconn(self, connection: Connection) -> None:
        """Take a connection back; one that is in the middle of something is closed."""
        connection._pool = None
        now = time.monotonic()
        is_free = connection.pgconn.transaction_status == TransactionStatus.IDLE
        if is_free and now < connection._expire_at and not self._is_closed:
            self._idle.append((connection, now))
        else:
            connection.close()
        self._places.release()
        self._close_idle(before=now - IDLE_S)

    def close(self) -> None:
        """Close what is idle now, and the others when they come back."""
        self._is_closed = True
        self._close_idle()

    # ------------------------------------------------------------------

    def _find(self, give_up: float) -> Connection:
        while True:
            connection = self._idle_one(give_up)
            if connection is not None:
                return connection
            try:
                return self._connect(give_up)
            except (CannotOpen, psycopg.Error) as error:
                # The server may be about to start, or another request to give its connection back.
                if time.monotonic() + TRY_AGAIN_S >= give_up:
                    raise NoConnection(f"no connection: {error}") from error
            time.sleep(TRY_AGAIN_S)

    def _idle_one(self, give_up: float) -> Connection | None:
        try:
            connection, _ = self._idle.pop()
        except IndexError:
            return None
        try:
            connection.pgconn.send_query(b"SELECT 1")
            finish(connection.pgconn, "check", min(give_up, time.monotonic() + CHECK_S))
        except (CannotOpen, psycopg.Error):
            connection.close()
            self._close_idle()  # P3
            return None
        return connection

    def _connect(self, give_up: float) -> Connection:
        # psycopg's own `connect` can't be told to take less than two seconds.
        now = time.monotonic()
        pg = open_connection(self._conninfo, max(TRY_AGAIN_S, give_up - now))
        connection = psycopg.Connection(pg)
        try:
            connection.autocommit = self._own.get("autocommit", True)
            connection.prepare_threshold = self._own.get("prepare_threshold")
            if "cursor_factory" in self._own:
                connection.cursor_factory = self._own["cursor_factory"]
            if "context" in self._own:
                connection._adapters = AdaptersMap(self._own["context"].adapters)
            self._configure(connection)
        except BaseException:
            connection.close()
            raise
        connection._expire_at = now + LIFETIME_S
        return connection

    def _close_idle(self, before: float = float("inf")) -> None:
        """Close those that came back before then; another thread may take some meanwhile."""
        with suppress(IndexError):
            while self._idle[0][1] < before:
                connection, _ = self._idle.popleft()
                connection.close()
