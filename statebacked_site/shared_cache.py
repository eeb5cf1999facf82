"""A cache that all processes of a site share, in Redis; this process's own while Redis is away.

It counts what must not be tried too often. A count that is kept by each process alone is worse than
a shared one and better than none, or than a sign-in that fails because Redis does.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

log = logging.getLogger("statebacked.site")

T = TypeVar("T")

ANSWER_S = 1.0
TRY_AGAIN_S = 5.0


class JsonSerializer:
    """Django would pickle: whoever can write to Redis could then run code here."""

    def dumps(self, value: Any) -> bytes:
        return json.dumps(value).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


class SharedCache(BaseCache):
    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        options = {
            "serializer": JsonSerializer,
            "socket_timeout": ANSWER_S,
            "socket_connect_timeout": ANSWER_S,
            "retry": Retry(NoBackoff(), 0),
        }
        self._own = LocMemCache("in place of Redis", params)
        self._shared = RedisCache(server, {**params, "OPTIONS": options})
        self._away_until = 0.0

    def _either(self, ask: Callable[[BaseCache], T]) -> T:
        if time.monotonic() >= self._away_until:
            try:
                return ask(self._shared)
            except (RedisError, OSError) as error:
                log.warning("counts are kept by each process while Redis is away: %s", error)
                self._away_until = time.monotonic() + TRY_AGAIN_S
        return ask(self._own)

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> bool:
        return self._either(lambda cache: cache.add(key, value, timeout, version))

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return self._either(lambda cache: cache.get(key, default, version))

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> None:
        self._either(lambda cache: cache.set(key, value, timeout, version))

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        return self._either(lambda cache: cache.touch(key, timeout, version))

    def delete(self, key: Any, version: Any = None) -> bool:
        return self._either(lambda cache: cache.delete(key, version))

    def incr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """Counts from 0 what is not there: it may have been counted on the other side before."""

        def count(cache: BaseCache) -> int:
            cache.add(key, 0, version=version)
            return cache.incr(key, delta, version)

        return self._either(count)

    def has_key(self, key: Any, version: Any = None) -> bool:
        return self._either(lambda cache: cache.has_key(key, version))

    def clear(self) -> None:
        self._either(lambda cache: cache.clear())
