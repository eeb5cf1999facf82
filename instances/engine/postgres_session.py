"""One connection to Postgres on the event loop: prepared statements through libpq, no thread.

Parameters are binary; text comes back as bytes. A session connects when it is first used and again
after it was cut. The outcome of a statement is one of three things, and callers must tell them
apart: it ran, it certainly did not (`Refused`, `NotConnected`), or nobody knows (`ConnectionCut`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import psycopg
from psycopg import pq

from instances.engine.postgres_opening import CannotOpen, finish, open_connection

log = logging.getLogger("statebacked.store")

CONNECT_TIMEOUT_S = 3
STATEMENT_TIMEOUT_MS = 5_000
LOCK_TIMEOUT_MS = 2_000
ANSWER_TIMEOUT_S = 7.0  # beyond the server's own limit: the network or the server stands still
# A server that is away costs an attempt next to nothing, and one that is back is wanted at once.
RECONNECT_AFTER_S = (0.05, 0.1, 0.2)
OPENING_THREADS = 8
# After which packets that nobody acknowledges end a connection. Their sender would wait longer and
# longer before it tries again, also when the network is back; a new connection does not.
LOST_AFTER_MS = 3_000

# A fail-over may have lost what the old server acknowledged last: it changes one of these. The
# timeline is asked of a server that writes; one that does not write is of no use here.
IDENTITY = b"""SELECT (SELECT system_identifier FROM pg_control_system()) || '/' ||
 left(pg_walfile_name(pg_current_wal_lsn()), 8)"""

TEXT_OID = 25
BIGINT_OID = 20

Row = tuple[bytes | None, ...]
Parameter = bytes | None


class DatabaseError(Exception):
    """A statement did not give a result."""


class NotConnected(DatabaseError):
    """There is no connection: the statement was not sent."""


class Refused(DatabaseError):
    """The database answered with an error: the statement had no effect."""


class ConnectionCut(DatabaseError):
    """The connection ended before the answer: the statement may have had its effect."""


@dataclass
class Identity:
    """Which database this process works with; shared by its sessions."""

    value: bytes | None = None
    on_change: Callable[[], None] = lambda: None

    def check(self, value: bytes) -> None:
        if self.value is None:
            self.value = value
        elif self.value != value:
            self.on_change()
            raise NotConnected("the database is another one than before")


class Session:
    """A connection with the statements that it prepares; one statement at a time."""

    def __init__(
        self, name: str, conninfo: str, statements: Mapping[str, str], identity: Identity
    ) -> None:
        self.name = name
        self.conninfo = conninfo
        self.statements = statements
        self.identity = identity
        self._pg: pq.abc.PGconn | None = None
        # A descriptor of our own for its socket: libpq closes its one when the connection is cut,
        # and the loop must be told before.
        self._socket = -1
        self._answer: asyncio.Future[list[Row]] | None = None
        self._result: pq.abc.PGresult | None = None  # came, but not yet the end of its statement
        self._failures = 0
        self._retry_at = 0.0
        self._closed = False

    async def run(self, statement: str, *parameters: Parameter) -> list[Row]:
        """The rows that a prepared statement returns. Raises DatabaseError."""
        assert self._answer is None, "a session runs one statement at a time"
        if self._pg is None:
            await self._connect()
        pg = self._pg
        assert pg is not None
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Row]] = loop.create_future()
        self._answer = answer
        patience = loop.call_later(ANSWER_TIMEOUT_S, self._cut, "no answer in time")
        try:
            pg.send_query_prepared(statement.encode(), parameters, [1] * len(parameters))
            self._flush()
            return await answer
        except psycopg.Error as error:
            self._cut(str(error))
            raise ConnectionCut(str(error)) from error
        except asyncio.CancelledError:
            self._cut("given up")
            raise
        finally:
            self._answer = None
            patience.cancel()

    def disconnect(self) -> None:
        """End the connection; the next statement makes a new one, perhaps to another server."""
        self._cut("disconnected")

    def close(self) -> None:
        self._closed = True
        self._cut("closed")

    # ------------------------------------------------------------------ connecting

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        if self._closed or loop.time() < self._retry_at:
            raise NotConnected("the database can't be reached")
        try:
            # In a thread: looking up a host name and the handshake take time. The loop's shared
            # ones may all be waiting for something else.
            pg, identity = await loop.run_in_executor(_opening_threads(), self._open)
        except DatabaseError:
            wait_s = RECONNECT_AFTER_S[min(self._failures, len(RECONNECT_AFTER_S) - 1)]
            self._failures += 1
            self._retry_at = loop.time() + wait_s
            raise
        try:
            if self._closed:
                raise NotConnected("closed")
            self.identity.check(identity)
        except NotConnected:
            pg.finish()
            raise
        self._failures = 0
        self._pg = pg
        self._socket = os.dup(pg.socket)
        loop.add_reader(self._socket, self._readable)

    def _open(self) -> tuple[pq.abc.PGconn, bytes]:
        """A new connection with its statements prepared, and the identity of its database."""
        pg: pq.abc.PGconn | None = None
        try:
            pg = open_connection(self.conninfo, CONNECT_TIMEOUT_S)
            give_up = time.monotonic() + CONNECT_TIMEOUT_S
            pg.send_query(IDENTITY)
            identity = finish(pg, "identity", give_up).get_value(0, 0) or b""
            for name, text in self.statements.items():
                pg.send_prepare(name.encode(), text.encode())
                finish(pg, name, give_up)
        except (CannotOpen, psycopg.Error) as error:
            if pg is not None:
                pg.finish()
            raise NotConnected(_message(str(error))) from error
        return pg, identity

    # ------------------------------------------------------------------ the wire

    def _flush(self) -> None:
        pg = self._pg
        if pg is None:
            return
        loop = asyncio.get_running_loop()
        if pg.flush() == 1:
            loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        pg = self._pg
        if pg is None:
            return
        try:
            if pg.flush() == 0:
                asyncio.get_running_loop().remove_writer(self._socket)
        except psycopg.Error as error:
            self._cut(str(error))

    def _readable(self) -> None:
        pg = self._pg
        if pg is None:
            return
        try:
            pg.consume_input()
            # The statement has ended only when libpq has nothing more: after an error that may
            # come in a packet of its own, and until then the connection takes no other statement.
            while True:
                if pg.is_busy():
                    return
                more = pg.get_result()
                if more is None:
                    break
                if self._result is None:
                    self._result = more
        except psycopg.Error as error:
            self._cut(str(error))
            return
        result, self._result = self._result, None
        if pg.status != pq.ConnStatus.OK or (result is not None and _ends_connection(result)):
            self._cut(_message(pg.get_error_message()))
        elif result is not None and self._answer is not None and not self._answer.done():
            self._give(self._answer, result)

    def _give(self, answer: asyncio.Future[list[Row]], result: pq.abc.PGresult) -> None:
        if result.status == pq.ExecStatus.TUPLES_OK:
            value, columns = result.get_value, range(result.nfields)
            answer.set_result(
                [tuple([value(row, column) for column in columns]) for row in range(result.ntuples)]
            )
        elif result.status == pq.ExecStatus.COMMAND_OK:
            answer.set_result([])
        else:
            answer.set_exception(Refused(_message(result.get_error_message())))

    def _cut(self, reason: str) -> None:
        """End the connection; a statement that waits for its answer may have had its effect."""
        pg, self._pg = self._pg, None
        self._result = None
        if pg is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            os.close(self._socket)
            pg.finish()
        if self._answer is not None and not self._answer.done():
            log.warning("connection %s to the database was cut: %s", self.name, reason)
            self._answer.set_exception(ConnectionCut(reason))


@cache
def _opening_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(OPENING_THREADS, thread_name_prefix="postgres-opening")


def conninfo_for_sessions(conninfo: str) -> str:
    """`conninfo` with the limits that the engine's own connections have."""
    from psycopg.conninfo import make_conninfo

    return make_conninfo(
        conninfo,
        application_name="statebacked-engine",
        client_encoding="UTF8",
        connect_timeout=CONNECT_TIMEOUT_S,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
        tcp_user_timeout=LOST_AFTER_MS,
        options=(
            f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
            " -c synchronous_commit=on -c default_transaction_isolation=read\\ committed"
            # Planning anew costs more than running. All that is asked for is found by an index,
            # which a plan made for empty tables would not know.
            " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off"
        ),
    )


def _ends_connection(result: pq.abc.PGresult) -> bool:
    """Whether it is the server's last word. It may have come after a commit."""
    severity = result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
    return severity in (b"FATAL", b"PANIC")


def _message(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "the connection was cut"


# ---------------------------------------------------------------------- parameters in binary form


def bigint(value: int) -> bytes:
    return struct.pack(">q", value)


def bigints(values: Sequence[int]) -> bytes:
    """An array of bigint: dimensions, no nulls, type, length, lower bound, then (size, value)."""
    count = len(values)
    fields = [8] * (2 * count)
    fields[1::2] = values
    return struct.pack(">iiiii" + "iq" * count, 1, 0, BIGINT_OID, count, 1, *fields)


def texts(values: Sequence[str]) -> bytes:
    """An array of text. Raises UnicodeEncodeError for what UTF-8 can't say."""
    parts = [struct.pack(">iiiii", 1, 0, TEXT_OID, len(values), 1)]
    for value in values:
        encoded = value.encode()
        parts.append(len(encoded).to_bytes(4, "big"))
        parts.append(encoded)
    return b"".join(parts)
