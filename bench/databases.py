"""What a bench site can stand on: SQLite, or Postgres from the wheel with fsync on."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg

DATABASES = ("sqlite", "postgres")

# Like a small server of its own; durable, unlike the one for the tests.
POSTGRES_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "max_connections": "100",
}


class Database(Protocol):
    label: str  # for people
    durability: str
    environment: dict[str, str]  # of a server that uses it

    def rows(self, query: str, *parameters: Any) -> list[Any]:
        """Read, or write where no server runs; parameters are written `?`."""

    def pid(self) -> int | None:
        """Of a server process of its own, if it has one."""


class Sqlite:
    """In the data directory of the only node."""

    label = "SQLite"
    durability = "SQLite WAL, synchronous=FULL"

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "db.sqlite3"
        self.environment = {"STATEBACKED_SQLITE_SYNCHRONOUS": "FULL"}

    def rows(self, query: str, *parameters: Any) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query, parameters).fetchall()

    def pid(self) -> int | None:
        return None


class Postgres:
    """A cluster that belongs to the benchmark alone."""

    label = "Postgres"
    durability = "Postgres, fsync=on"

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.directory = directory
        self.environment = {"DATABASE_URL": url}

    def rows(self, query: str, *parameters: Any) -> list[Any]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            text: Any = query.replace("?", "%s")
            cursor = connection.execute(text, parameters or None)
            return cursor.fetchall() if cursor.description is not None else []

    def pid(self) -> int | None:
        return int((self.directory / "postmaster.pid").read_text().split()[0])


@contextlib.contextmanager
def new_database(kind: str, directory: Path) -> Iterator[Database]:
    """An empty one; `directory` is the data directory of the first node."""
    if kind == "sqlite":
        yield Sqlite(directory)
        return
    # Not with the imports above: the server's wheel comes with the development requirements only.
    from tests.servers import new_postgres_database, running_postgres

    cluster = directory / "postgres"
    with running_postgres(cluster, **POSTGRES_SETTINGS) as server:
        yield Postgres(new_postgres_database(server, "bench"), cluster)
