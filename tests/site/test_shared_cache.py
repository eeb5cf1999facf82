from collections.abc import Iterator

import pytest

from statebacked_site.shared_cache import SharedCache
from tests.servers import Redis, running_redis


@pytest.fixture
def redis(tmp_path) -> Iterator[Redis]:
    with running_redis(tmp_path / "redis") as server:
        yield server


def test_processes_count_together(redis):
    first, second = SharedCache(redis.url, {}), SharedCache(redis.url, {})

    assert first.add("guesses", 0, 60)
    assert not second.add("guesses", 0, 60)
    assert [first.incr("guesses"), second.incr("guesses"), first.incr("guesses")] == [1, 2, 3]
    second.set("list", [1.5, 2])
    assert first.get("list") == [1.5, 2]
    assert first.delete("guesses")
    assert second.get("guesses") is None


def test_each_process_counts_alone_while_redis_is_away(redis):
    cache = SharedCache(redis.url, {})
    cache.add("guesses", 0, 60)
    cache.incr("guesses")

    redis.stop()

    assert [cache.incr("guesses"), cache.incr("guesses")] == [1, 2]
    assert cache.get("guesses") == 2
