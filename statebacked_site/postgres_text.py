"""Text that Postgres has no place for: NUL characters and halves of surrogate pairs.

What is stored has passed a serializer that refuses them. They still come in what is looked up, such
as a name in an address; replaced, it is found as little as on SQLite, and nothing fails.
"""

import psycopg
from psycopg.types.string import StrDumperUnknown


class StorableText(StrDumperUnknown):
    def dump(self, obj: str) -> bytes:
        return storable(obj).encode("utf-8", "replace")


def storable(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def register() -> None:
    """For all connections that are made from now on."""
    psycopg.adapters.register_dumper(str, StorableText)
