"""The outside world: what machines call. It remembers every call, and asks the database at once
whether the transition that caused it is there.

`/effect?slug=…&n=…&kind=…` is answered at once, or after `hold` milliseconds, with `status`;
`/gate?…` when the run opens the gate `n`, or after a while.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import psycopg
from aiohttp import web

from bench.faults.history import Effect

GATE_S = 20.0
LOOKING_UP_S = 60.0
SOON_S = 0.25  # a look that came later than this after the call proves little
CONNECTIONS = 3

FIND = """SELECT 1 FROM transition t JOIN instance i ON i.id = t.instance_id
 WHERE i.slug = %s AND t.event LIKE %s LIMIT 1"""


@dataclass
class _Call:
    n: str
    slug: str
    kind: str
    at: float
    ended: float = 0.0
    committed: Literal["before", "unclear", "after", "never"] = "never"


class EffectRecorder:
    """`database` is asked directly, past every proxy; `clock` gives the run's time."""

    def __init__(self, database: str, clock: Callable[[], float]) -> None:
        self.port = 0
        self._database = database
        self._clock = clock
        self._calls: list[_Call] = []
        self._gates: dict[str, asyncio.Event] = {}
        self._arrived: dict[str, asyncio.Event] = {}
        self._looking: set[asyncio.Task[None]] = set()
        self._free: asyncio.Queue[psycopg.AsyncConnection[tuple[int]] | None] = asyncio.Queue()
        for _ in range(CONNECTIONS):
            self._free.put_nowait(None)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/effect", self._on_effect)
        app.router.add_post("/gate", self._on_gate)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Open all gates and finish looking."""
        for gate in self._gates.values():
            gate.set()
        if self._looking:
            await asyncio.wait(self._looking, timeout=LOOKING_UP_S)
        await self._runner.cleanup()
        while not self._free.empty():
            connection = self._free.get_nowait()
            if connection is not None:
                await connection.close()

    def url(self, slug: str, n: str, kind: str, *, hold_ms: int = 0, status: int = 200) -> str:
        query = f"slug={slug}&n={n}&kind={kind}&hold={hold_ms}&status={status}"
        return f"http://127.0.0.1:{self.port}/effect?{query}"

    def gate_url(self, slug: str, n: str) -> str:
        return f"http://127.0.0.1:{self.port}/gate?slug={slug}&n={n}&kind=service"

    def open_gate(self, n: str) -> None:
        self._event(self._gates, n).set()

    async def arrived(self, n: str, within_s: float) -> bool:
        """Whether the call of `n` is here, at the latest after so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event(self._arrived, n).wait(), within_s)
        return self._event(self._arrived, n).is_set()

    def effects(self) -> list[Effect]:
        return [Effect(c.n, c.slug, c.kind, c.at, c.ended, c.committed) for c in self._calls]

    # ------------------------------------------------------------------

    def _event(self, events: dict[str, asyncio.Event], n: str) -> asyncio.Event:
        return events.setdefault(n, asyncio.Event())

    async def _on_effect(self, request: web.Request) -> web.Response:
        call = self._record(request)
        try:
            await asyncio.sleep(int(request.query.get("hold", "0")) / 1000)
        finally:
            call.ended = self._clock()
        return web.Response(status=int(request.query.get("status", "200")), text="noted")

    async def _on_gate(self, request: web.Request) -> web.Response:
        call = self._record(request)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._event(self._gates, call.n).wait(), GATE_S)
        finally:
            call.ended = self._clock()
        return web.Response(text="open")

    def _record(self, request: web.Request) -> _Call:
        query = request.query
        call = _Call(query["n"], query["slug"], query["kind"], self._clock())
        self._calls.append(call)
        self._event(self._arrived, call.n).set()
        task = asyncio.create_task(self._look_up(call))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)
        return call

    async def _look_up(self, call: _Call) -> None:
        """Find out whether the transition was there when the call came.

        There within a moment: it was. There only after an outage of the database: nobody knows.
        Not there in a database that answered: the call came before its commit.
        """
        give_up = self._clock() + LOOKING_UP_S
        was_missing = False
        while self._clock() < give_up:
            try:
                is_there = await self._is_there(call)
            except psycopg.Error:
                await asyncio.sleep(0.2)
                continue
            if is_there:
                is_soon = self._clock() - call.at <= SOON_S
                known: Literal["before", "unclear"] = "before" if is_soon else "unclear"
                call.committed = "after" if was_missing else known
                return
            was_missing = True
            if self._clock() - call.at > SOON_S:
                await asyncio.sleep(1.0)

    async def _is_there(self, call: _Call) -> bool:
        connection = await self._free.get()
        try:
            if connection is None or connection.closed:
                connection = await psycopg.AsyncConnection.connect(
                    self._database, autocommit=True, connect_timeout=2
                )
            cursor = await connection.execute(FIND, (call.slug, f'%"n":"{call.n}"%'))
            return await cursor.fetchone() is not None
        except psycopg.Error:
            if connection is not None:
                await connection.close()
                connection = None
            raise
        finally:
            self._free.put_nowait(connection)
