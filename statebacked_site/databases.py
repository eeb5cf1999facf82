"""The databases that a site may use, as DATABASE_URL names them and as Django takes them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from statebacked_site.environment import InvalidVariable

POSTGRES_SCHEMES = ("postgres", "postgresql")
CONNECT_TIMEOUT_S = 3
PREPARING_LOCK = 0x5374_6174_6542  # any number that nobody else uses
WAIT_FOR_CONNECTION_S = 2.0
# A connection whose packets are lost ends after so long, also while it waits for an answer; a
# server that stands still acknowledges them.
NETWORK_LIMITS = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,  # milliseconds
}


class DatabaseUnusable(Exception):
    """The database that DATABASE_URL names does not answer; the message says why."""


def check_usable(database: Path | str) -> None:
    """Try one connection to Postgres, so that a wrong address is told at once and in a line."""
    if isinstance(database, Path):
        return
    import psycopg

    try:
        psycopg.connect(database, connect_timeout=CONNECT_TIMEOUT_S).close()
    except psycopg.OperationalError as exc:
        reason = str(exc).strip().splitlines()[0]
        raise DatabaseUnusable(f"The database of DATABASE_URL cannot be used: {reason}") from exc


def read_database_url(url: str) -> Path | str:
    """The SQLite file or the Postgres address of `url`; raises InvalidVariable for others."""
    # The message must not repeat the address: there may be a password in it.
    try:
        parts = urlsplit(url)
        host = parts.hostname
        port = parts.port
    except ValueError as exc:
        raise InvalidVariable(f"DATABASE_URL cannot be read: {exc}") from exc
    if parts.scheme in POSTGRES_SCHEMES:
        if not host or port == 0 or not parts.path.removeprefix("/"):
            raise InvalidVariable("DATABASE_URL must be postgres://user:password@host:5432/name")
        return url
    if parts.scheme != "sqlite":
        raise InvalidVariable(
            f"DATABASE_URL names a {parts.scheme or 'nameless'} database, but sqlite and postgres"
            " are supported: sqlite:////absolute/path/db.sqlite3 or"
            " postgres://user:password@host:5432/name"
        )
    # As elsewhere, three slashes start a relative path and four an absolute one.
    name = parts.path.removeprefix("/")
    if parts.netloc or parts.query or not name or name == ":memory:":
        raise InvalidVariable("DATABASE_URL must be sqlite:////absolute/path/db.sqlite3")
    return Path(name).absolute()


def sqlite_database(path: Path, synchronous: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {
            # A transaction that begins as a reader and then writes fails at once when another
            # writer came between; one that begins as a writer waits its turn.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": (
                "PRAGMA journal_mode=WAL;"
                f"PRAGMA synchronous={synchronous};"
                "PRAGMA temp_store=MEMORY;"
                "PRAGMA cache_size=-16000;"
            ),
        },
    }


@contextlib.contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Let no other server of the same Postgres database prepare it meanwhile."""
    from django.db import connection

    if connection.vendor != "postgresql":
        yield  # a SQLite file has one server
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [PREPARING_LOCK])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [PREPARING_LOCK])


def postgres_database(url: str, connections: int) -> dict[str, Any]:
    from psycopg.conninfo import conninfo_to_dict

    from statebacked_site import postgres_text

    postgres_text.register()
    parts: dict[str, Any] = conninfo_to_dict(url)
    name = parts.pop("dbname")
    return {
        "ENGINE": "statebacked_site.pooled_postgres",
        "NAME": name,
        "USER": parts.pop("user", ""),
        "PASSWORD": parts.pop("password", ""),
        "HOST": parts.pop("host"),
        "PORT": parts.pop("port", ""),
        # What else stands in the address, such as sslmode, is passed on to libpq.
        "OPTIONS": {
            "connect_timeout": CONNECT_TIMEOUT_S,
            **NETWORK_LIMITS,
            **parts,
            "application_name": "statebacked",
            # Django would set it on each new connection, and wait for the answer.
            "options": f"{parts.get('options', '')} -c TimeZone=UTC".strip(),
            # Each request has a thread of its own: without a pool each would connect anew.
            "pool": {"max_size": connections, "timeout": WAIT_FOR_CONNECTION_S},
        },
    }
