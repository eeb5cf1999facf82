"""The Redis server of a site, as REDIS_URL names it and as Celery takes it."""

import hashlib
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from statebacked_site.environment import InvalidVariable

SCHEMES = ("redis", "rediss", "unix")
EXAMPLE = "redis://:password@host:6379/0, rediss://… with TLS or unix:///path/redis.sock?db=0"


def read_redis_url(url: str) -> str:
    """`url`, which may be empty; raises InvalidVariable if it is none of Redis."""
    if not url:
        return ""
    # The message must not repeat the address: there may be a password in it.
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise InvalidVariable(f"REDIS_URL cannot be read: {exc}") from exc
    if parts.scheme not in SCHEMES:
        raise InvalidVariable(f"REDIS_URL must be {EXAMPLE}")
    if parts.scheme == "unix":
        database = parts.query.removeprefix("db=") if parts.query else "0"
        if host or not parts.path.startswith("/") or not database.isdecimal():
            raise InvalidVariable("REDIS_URL must be unix:///path/redis.sock?db=0")
        return url
    database = parts.path.removeprefix("/") or "0"
    if not host or port == 0 or parts.query or not database.isdecimal():
        raise InvalidVariable(f"REDIS_URL must be {EXAMPLE}")
    return url


def celery_broker_url(url: str) -> str:
    """The same server in Celery's words."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    password = f":{quote(unquote(parts.password), safe='')}@" if parts.password else ""
    database = parts.query.removeprefix("db=") or "0"
    return f"redis+socket://{password}{parts.path}?virtual_host={database}"


def site_tag(secret_key: str, database: Path | str) -> str:
    """A short name that all processes of a site share, and no other site on the same Redis has.

    Only the name of the database counts: its processes may reach it by different addresses.
    """
    name = str(database) if isinstance(database, Path) else urlsplit(database).path
    hashed = hashlib.sha256(f"statebacked site\0{secret_key}\0{name}".encode())
    return hashed.hexdigest()[:12]
