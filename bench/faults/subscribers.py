"""Subscribers of instances: each follows all registers by one connection, and makes a new one when
that ends. What they are told never goes back, and reaches the last state soon after the end."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable, Sequence

import aiohttp

from bench.faults.client import Target
from bench.faults.history import Seen

CONNECT_AGAIN_S = 0.3
ASK_AGAIN_S = 2.0  # for instances that were created meanwhile
HEARTBEAT_S = 5.0  # a connection to a node that stands still is given up


class Subscribers:
    def __init__(
        self,
        nodes: Sequence[Target],
        headers: dict[str, str],
        clock: Callable[[], float],
        slugs: Callable[[], Iterable[str]],
    ) -> None:
        self.seen: list[Seen] = []
        self.nodes = nodes
        self._headers = headers
        self._clock = clock
        self._slugs = slugs  # of the instances to follow by now
        self._connections = itertools.count(1)

    async def run(self, number: int) -> None:
        """Follow until cancelled, beginning at that node."""
        async with aiohttp.ClientSession(headers=self._headers) as session:
            for attempt in itertools.count(number):
                node = self.nodes[attempt % len(self.nodes)]
                try:
                    await self._follow(session, node)
                except (aiohttp.ClientError, OSError, TimeoutError):
                    pass  # as a browser does, which knows no reason either
                await asyncio.sleep(CONNECT_AGAIN_S)

    def latest(self) -> dict[str, int]:
        """The last ts that was told of each instance."""
        found: dict[str, int] = {}
        for seen in self.seen:
            found[seen.slug] = max(seen.ts, found.get(seen.slug, 0))
        return found

    async def _follow(self, session: aiohttp.ClientSession, node: Target) -> None:
        token = self._headers["authorization"].removeprefix("Bearer ")
        org = self._headers["x-statebacked-org-id"]
        url = f"{node.api_url}/rt?token={token}&x-statebacked-org-id={org}"
        connection = next(self._connections)
        asked: set[str] = set()
        async with session.ws_connect(url, heartbeat=HEARTBEAT_S) as socket:
            while True:
                for slug in set(self._slugs()) - asked:
                    asked.add(slug)
                    await socket.send_json(
                        {
                            "type": "subscribe-to-instance",
                            "requestId": slug,
                            "machineName": "subject",
                            "machineInstanceName": slug,
                        }
                    )
                try:
                    message = await socket.receive(ASK_AGAIN_S)
                except TimeoutError:
                    continue
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                told = json.loads(message.data)
                if told["type"] == "instance-update":
                    slug, ts = told["machineInstanceName"], told["ts"]
                    self.seen.append(Seen(connection, slug, ts, self._clock()))
                elif told["type"] == "error":
                    asked.discard(told.get("requestId", ""))  # unavailable: ask again
                    await asyncio.sleep(CONNECT_AGAIN_S)
