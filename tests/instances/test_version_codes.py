"""Code is read once, and the longest unused goes where there is too much."""

import pytest

from instances import version_codes
from instances.engine.errors import Unavailable
from instances.runtime.bundle import BundleCode
from instances.version_codes import VersionCodes


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """Ids of the versions that the database was asked for, each of 10 characters."""
    ids: list[int] = []

    async def read(version_id: int) -> BundleCode:
        ids.append(version_id)
        if version_id < 0:
            raise Unavailable("away")
        return BundleCode(f"{version_id:10}", [])

    monkeypatch.setattr(version_codes, "_read", read)
    monkeypatch.setattr(version_codes, "KEPT_CHARACTERS", 25)
    return ids


async def test_code_is_read_once(asked):
    codes = VersionCodes()

    assert await codes.load(7) is await codes.load(7)
    assert asked == [7]


async def test_longest_unused_code_is_dropped(asked):
    codes = VersionCodes()
    for version_id in (1, 2, 1, 3):
        await codes.load(version_id)

    await codes.load(1)
    await codes.load(2)

    assert asked == [1, 2, 3, 2]


async def test_migrations_are_kept_beside_versions(asked, monkeypatch):
    async def read_migration(migration_id: int) -> BundleCode:
        return BundleCode("/* migration */", [])

    monkeypatch.setattr(version_codes, "_read_migration", read_migration)
    codes = VersionCodes()

    version, migration = await codes.load(7), await codes.load_migration(7)

    assert version is not migration
    assert await codes.load_migration(7) is migration
    assert await codes.load(7) is version


async def test_failure_is_not_kept(asked):
    codes = VersionCodes()

    for _ in range(2):
        with pytest.raises(Unavailable):
            await codes.load(-1)
    assert asked == [-1, -1]
