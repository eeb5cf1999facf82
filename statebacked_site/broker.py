"""The way of deliveries to the workers: Celery's broker, asked by one thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.conf import settings

from instances.engine.dispatch import BrokerDown

ANSWER_SECONDS_MAX = 1.0  # a broker that stands still must not hold deliveries up


class CeleryBroker:
    """See `dispatch.Broker`. Connections and producers are kombu's, which has no types."""

    def __init__(self) -> None:
        # One thread: messages keep their order, and the connection has one user.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="broker")
        self._connection: Any = None
        self._producer: Any = None

    async def publish(self, delivery_ids: list[int]) -> int:
        def publish(producer: Any) -> int:
            from instances.tasks import deliver

            deliver.apply_async((delivery_ids,), producer=producer, retry=False)
            return _messages_waiting(producer)

        return await self._ask(publish)

    async def waiting(self) -> int:
        return await self._ask(_messages_waiting)

    def stop(self) -> None:
        self._thread.submit(self._disconnect)
        self._thread.shutdown()

    async def _ask(self, question: Callable[[Any], int]) -> int:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._run, question)

    def _run(self, question: Callable[[Any], int]) -> int:
        connection = self._connection or self._new_connection()
        try:
            if self._producer is None:
                self._producer = connection.Producer(auto_declare=False)
            return question(self._producer)
        except Exception as error:
            self._disconnect()
            raise BrokerDown(str(error) or type(error).__name__) from error

    def _new_connection(self) -> Any:
        from statebacked_site.celery import app

        connection = app.connection_for_write()
        limits = {"socket_timeout": ANSWER_SECONDS_MAX, "socket_connect_timeout": 1.0}
        connection.transport_options = {
            **connection.transport_options,
            **limits,
            "retry_on_timeout": False,
        }
        self._connection = connection
        return connection

    def _disconnect(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.collect()  # waits for nothing


def _messages_waiting(producer: Any) -> int:
    queue = settings.CELERY_TASK_DEFAULT_QUEUE
    # On Redis, declaring a queue creates nothing.
    return int(producer.channel.queue_declare(queue=queue).message_count)
