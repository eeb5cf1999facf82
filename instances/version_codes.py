"""The code of versions and migrations, as runners load it. It never changes, so what was used last
is kept: a runner that ended is replaced at once, also while the database can't be asked."""

from __future__ import annotations

import gzip
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from instances.lookups import in_thread
from instances.runtime.bundle import BundleCode
from machines.models import Code, MigrationCode, VersionCode

KEPT_CHARACTERS = 32_000_000

Key = tuple[str, int]


class VersionCodes:
    def __init__(self) -> None:
        self._kept: OrderedDict[Key, BundleCode] = OrderedDict()  # the longest unused first
        self._characters = 0

    async def load(self, version_id: int) -> BundleCode:
        """Raises VersionCode.DoesNotExist, and Unavailable if the database can't be asked."""
        return await self._load(("version", version_id), _read)

    async def load_migration(self, migration_id: int) -> BundleCode:
        """Raises MigrationCode.DoesNotExist, and Unavailable if the database can't be asked."""
        return await self._load(("migration", migration_id), _read_migration)

    async def _load(self, key: Key, read: Callable[[int], Awaitable[BundleCode]]) -> BundleCode:
        code = self._kept.get(key)
        if code is not None:
            self._kept.move_to_end(key)
            return code
        code = await read(key[1])
        if self._kept.setdefault(key, code) is code:
            self._characters += len(code.commonjs)
        while self._characters > KEPT_CHARACTERS:
            _, dropped = self._kept.popitem(last=False)
            self._characters -= len(dropped.commonjs)
        return code


@in_thread
def _read(version_id: int) -> BundleCode:
    return _unpacked(VersionCode.objects.get(version_id=version_id))


@in_thread
def _read_migration(migration_id: int) -> BundleCode:
    return _unpacked(MigrationCode.objects.get(migration_id=migration_id))


def _unpacked(code: Code) -> BundleCode:
    return BundleCode(gzip.decompress(code.commonjs_gzip).decode(), list(code.externals))
