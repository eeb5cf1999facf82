"""The way of news (`news.py`) between the processes of a site: Redis pub/sub.

Nothing here waits, nothing is kept for later, and a Redis that is down costs nobody anything.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable

import msgspec
import redis.asyncio as redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from instances.news import Message

log = logging.getLogger("statebacked.bus")

CONNECT_S = 2.0
ANSWER_S = 5.0
TRY_AGAIN_S = 0.5
WAITING_MAX = 10_000  # messages that a slow Redis may hold up; older ones are dropped
TOGETHER = 500

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class Bus:
    """One process's ear and mouth. Used on the engine's loop only."""

    def __init__(
        self,
        url: str,
        site: str,
        *,
        on_message: Callable[[Message], None],
        on_connected: Callable[[], None],
    ) -> None:
        self.process = secrets.token_hex(8)
        self.is_connected = False
        self._on_message = on_message
        self._on_connected = on_connected
        self._everybody = f"{site}:all"
        self._me = f"{site}:{self.process}"
        self._site = site
        self._client = redis.Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_S,
            socket_timeout=ANSWER_S,
            socket_keepalive=True,
            # A connection that is made anew in silence would hide that something was lost.
            retry=Retry(NoBackoff(), 0),
        )
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=WAITING_MAX)
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_told = False  # that Redis is away

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._send())]

    async def stop(self) -> None:
        """Send what waits, if that takes no time, and disconnect."""
        if self.is_connected and self._waiting:
            try:
                async with asyncio.timeout(1.0):
                    await self._publish()
            except (RedisError, OSError, TimeoutError):
                pass  # it would have been worth nothing but speed
        running = set(self._tasks)
        while running:
            # A library that turns an end into a time-out of its own has to be told again.
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=TRY_AGAIN_S)
        await self._client.aclose()

    def tell_all(self, message: Message) -> None:
        self._tell(self._everybody, message)

    def tell(self, process: str, message: Message) -> None:
        self._tell(f"{self._site}:{process}", message)

    def _tell(self, channel: str, message: Message) -> None:
        if self.is_connected:
            self._waiting.append((channel, _encode(message)))
            self._wake.set()

    # ------------------------------------------------------------------ Redis

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._waiting:
                    await self._publish()
            except (RedisError, OSError, TimeoutError):
                self._waiting.clear()  # the listener notices, too
                await asyncio.sleep(TRY_AGAIN_S)

    async def _publish(self) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for _ in range(min(len(self._waiting), TOGETHER)):
            pipeline.publish(*self._waiting.popleft())
        await pipeline.execute()

    async def _listen(self) -> None:
        while True:
            pubsub = self._client.pubsub(ignore_subscribe_messages=True)
            try:
                await pubsub.subscribe(self._everybody, self._me)
                await self._client.ping()
                self._connected()
                while True:
                    await self._hear(pubsub)
            except (RedisError, OSError, TimeoutError) as error:
                self._disconnected(error)
            finally:
                await pubsub.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(TRY_AGAIN_S)

    async def _hear(self, pubsub: PubSub) -> None:
        """One message, or none for a while: then see whether Redis is still there."""
        heard = await pubsub.get_message(timeout=ANSWER_S)
        if heard is None:
            await self._client.ping()
            return
        if heard["type"] != "message":
            return
        try:
            message = _decode(heard["data"])
        except msgspec.MsgspecError:
            return  # of a process with other code
        self._on_message(message)

    def _connected(self) -> None:
        if self._is_told:
            self._is_told = False
            log.warning("Redis is back: news comes at once again")
        self.is_connected = True
        self._on_connected()

    def _disconnected(self, error: Exception) -> None:
        self.is_connected = False
        self._waiting.clear()
        if not self._is_told:
            self._is_told = True
            log.warning("without Redis, news of other processes comes late: %s", error)
