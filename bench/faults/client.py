"""Clients of the API, which write down what they were told."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import aiohttp

from bench.faults.history import Operation, Outcome

TIMEOUT_S = 6.0
SETTLING_TIMEOUT_S = 20.0  # of what starts a service
TRIES = 6
AVOID_S = 1.0  # a node that could not be reached, as a load balancer does
DIFFERENT_NODE = 0.15  # share of requests that go to another node than their instance's

UNKNOWN_STATUSES = (504,)


class CannotGoOn(Exception):
    """The run itself is wrong, not the site."""


class Target(Protocol):
    """A web node as clients know it."""

    number: int

    @property
    def api_url(self) -> str: ...


class Clients:
    """All clients of a run: one pool of connections, one list of operations."""

    def __init__(
        self,
        nodes: Sequence[Target],
        headers: dict[str, str],
        clock: Callable[[], float],
        seed: int,
    ) -> None:
        self.nodes = nodes
        self.operations: list[Operation] = []
        self.clock = clock
        self.random = random.Random(seed)
        self._headers = headers
        self._avoided: dict[int, float] = {}
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            headers=self._headers,
            json_serialize=functools.partial(json.dumps, separators=(",", ":")),
        )

    async def stop(self) -> None:
        await self._session.close()

    def new_n(self, letter: str) -> str:
        """A name that no other event has, nor is the beginning of another's."""
        return f"{letter}{next(self._numbers):07d}"

    # ------------------------------------------------------------------ operations

    async def send(
        self,
        workload: str,
        slug: str,
        event: dict[str, Any],
        *,
        with_key: bool = False,
        node: int | None = None,
        tries: int = TRIES,
        timeout_s: float = TIMEOUT_S,
    ) -> Operation:
        """Send an event, again where that is safe: what was refused, and with a key everything.

        Returns its last try.
        """
        n = event["n"]
        headers = {"idempotency-key": n} if with_key else {}
        path = f"/machines/{_machine(slug)}/i/{slug}/events"
        for attempt in range(tries):
            operation = await self._request(
                "POST",
                path,
                {"event": event},
                headers,
                Operation(n, workload, slug, event["type"], 0, 0, 0, "unknown"),
                node if node is not None else self._pick(slug, attempt),
                timeout_s,
            )
            operation.request_key = with_key
            if operation.outcome == "ok" or not _may_try_again(operation):
                break
            await asyncio.sleep(0.05 + self.random.random() * 0.3)
        return operation

    async def read(self, workload: str, slug: str, node: int | None = None) -> Operation:
        operation = Operation("", workload, slug, "read", 0, 0, 0, "unknown")
        path = f"/machines/{_machine(slug)}/i/{slug}"
        at = node if node is not None else self._pick(slug, 0)
        return await self._request("GET", path, None, {}, operation, at, TIMEOUT_S)

    async def create(self, workload: str, slug: str) -> Operation:
        """Create an instance; tried until it is there."""
        body = {"slug": slug}
        attempt = 0
        while True:
            operation = Operation("", workload, slug, "create", 0, 0, 0, "unknown")
            headers = {"idempotency-key": f"create-{slug}"}
            path = f"/machines/{_machine(slug)}"
            at = self._pick(slug, attempt)
            await self._request("POST", path, body, headers, operation, at, TIMEOUT_S)
            if operation.outcome == "ok":
                return operation
            if 400 <= operation.status < 500 and operation.status != 429:
                raise CannotGoOn(f"{slug} can't be created: {operation.status} {operation.code}")
            attempt += 1
            await asyncio.sleep(0.2)

    async def set_status(self, workload: str, slug: str, status: str) -> Operation:
        """`paused` or `running`; tried until it is certain."""
        kind = "pause" if status == "paused" else "resume"
        path = f"/machines/{_machine(slug)}/i/{slug}/status"
        attempt = 0
        while True:
            operation = Operation("", workload, slug, kind, 0, 0, 0, "unknown")
            at = self._pick(slug, attempt)
            body = {"status": status}
            await self._request("PUT", path, body, {}, operation, at, TIMEOUT_S)
            if operation.outcome == "ok":
                return operation
            attempt += 1
            await asyncio.sleep(0.2)

    async def upgrade(self, workload: str, slug: str, version: str, version_id: str) -> Operation:
        """Set the desired version; tried until it is certain."""
        path = f"/machines/{_machine(slug)}/i/{slug}/v"
        body = {"targetMachineVersionId": version_id}
        attempt = 0
        while True:
            operation = Operation("", workload, slug, "upgrade", 0, 0, 0, "unknown", value=version)
            at = self._pick(slug, attempt)
            await self._request("PUT", path, body, {}, operation, at, TIMEOUT_S)
            if operation.outcome == "ok":
                return operation
            attempt += 1
            await asyncio.sleep(0.2)

    # ------------------------------------------------------------------

    def _pick(self, slug: str, attempt: int) -> int:
        """Usually the same node for the same instance; another one when that did not do."""
        count = len(self.nodes)
        first = sum(slug.encode()) % count
        if attempt or self.random.random() < DIFFERENT_NODE:
            first = self.random.randrange(count)
        now = self.clock()
        for step in range(count):
            number = (first + step) % count
            if self._avoided.get(number, 0.0) <= now:
                return number
        return first

    async def _request(
        self,
        method: str,
        path: str,
        body: Any,
        headers: dict[str, str],
        operation: Operation,
        node: int,
        timeout_s: float,
    ) -> Operation:
        operation.node = node
        operation.started = self.clock()
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            url = f"{self.nodes[node].api_url}{path}"
            async with self._session.request(
                method, url, json=body, headers=headers, timeout=timeout
            ) as answer:
                content = await answer.json() if await answer.read() else None
                operation.status = answer.status
                operation.replayed = "idempotent-replayed" in answer.headers
        except aiohttp.ClientConnectorError:
            operation.outcome, operation.code = "refused", "no-connection"  # nothing was sent
            self._avoided[node] = self.clock() + AVOID_S
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            operation.outcome, operation.code = "unknown", type(error).__name__
            self._avoided[node] = self.clock() + AVOID_S
        else:
            _note_answer(operation, content)
        operation.ended = self.clock()
        self.operations.append(operation)
        return operation


def _note_answer(operation: Operation, content: Any) -> None:
    if operation.status < 300:
        operation.outcome = "ok"
        if isinstance(content, dict) and "ts" in content:
            operation.ts = int(content["ts"])
            operation.value = str(content.get("publicContext", {}).get("value", ""))
        return
    operation.code = str(content.get("code", "")) if isinstance(content, dict) else ""
    outcome: Outcome = "unknown" if operation.status in UNKNOWN_STATUSES else "refused"
    operation.outcome = outcome


def _may_try_again(operation: Operation) -> bool:
    """What certainly had no effect, for reasons of the site's own; with a key also the rest."""
    if operation.outcome == "unknown":
        return operation.request_key
    return operation.status in (0, 429, 503)


def _machine(slug: str) -> str:
    """The machine that an instance is of: all but those of the bank are of one."""
    return "bank" if slug.startswith("bank-") else "subject"
