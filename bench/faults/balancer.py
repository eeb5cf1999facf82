"""Which web nodes a load balancer would send requests to: it asks each of them all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Protocol, TypeVar

ASK_EVERY_S = 0.25
ANSWER_S = 1.0  # in which a node must answer; an answer is also believed for so long


class Named(Protocol):
    name: str


N = TypeVar("N", bound=Named)


class Balancer(Generic[N]):
    """A node is in rotation while its latest answer, ANSWER_S old at most, says that it is well."""

    def __init__(
        self,
        nodes: Iterable[N],
        ask: Callable[[N, float], Awaitable[bool]],
        clock: Callable[[], float],
    ) -> None:
        self._nodes = list(nodes)
        self._ask = ask  # the node, and the seconds that it has
        self._clock = clock
        self._well_at: dict[str, float] = {}

    async def run(self) -> None:
        """Ask until cancelled. One that is slow to answer keeps no other one from being asked."""
        async with asyncio.TaskGroup() as group:
            for node in self._nodes:
                group.create_task(self._watch(node))

    async def ask(self, node: N) -> None:
        """Ask once."""
        if await self._ask(node, ANSWER_S):
            self._well_at[node.name] = self._clock()
        else:
            self._well_at.pop(node.name, None)

    def in_rotation(self, node: N) -> bool:
        well_at = self._well_at.get(node.name)
        return well_at is not None and self._clock() - well_at <= ANSWER_S

    async def _watch(self, node: N) -> None:
        while True:
            await self.ask(node)
            await asyncio.sleep(ASK_EVERY_S)
