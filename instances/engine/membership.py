"""This process as one of the nodes that share a database: its row, its lease, and losing it.

    join ──▶ LIVE ──renewals fail for SUSPECT_S──▶ SUSPECT ──renewed──▶ LIVE
              │                                        │ LEASE_S - MARGIN_S after the last good one,
              │ leave: row deleted                     ▼ or a renewal finds the lease run out
              ▼                                      FENCED: runners killed, then join anew
            gone

The lease is for liveness only: others leave instances with running services to a node whose lease
is valid. What is written is protected by `seq` alone. Lease times are compared with the database's
clock; this node compares its monotonic clock with the moment at which it asked for the last
successful renewal, so it stops before anybody else may go on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from os import getpid
from typing import Protocol

from instances.engine.clocks import DatabaseClock
from instances.engine.postgres_session import (
    DatabaseError,
    Identity,
    Row,
    Session,
    conninfo_for_sessions,
)
from instances.engine.postgres_sql import DATABASE_NOW_MS, LEASE_FAR_MS, STATEMENT_NOW_MS

log = logging.getLogger("statebacked.engine")

LEASE_S = 10.0
RENEW_EVERY_S = 2.0
TRY_AGAIN_S = 0.25
MARGIN_S = 2.0
SUSPECT_S = LEASE_S / 2
LOOK_EVERY_S = 0.25

_LEASE_MS = int(LEASE_S * 1000)
# Both tell the database's time, and whether a worker is alive.
_WORKERS = f"""EXISTS (SELECT 1 FROM node w WHERE w.role = 'worker'
 AND w.lease_until > {STATEMENT_NOW_MS} AND w.lease_until <= {STATEMENT_NOW_MS} + {LEASE_FAR_MS})"""
JOIN = f"""INSERT INTO node (id, address, role, started_at, lease_until)
 VALUES ($1::text, $2::text, $3::text, {STATEMENT_NOW_MS}, {STATEMENT_NOW_MS} + {_LEASE_MS})
 RETURNING {DATABASE_NOW_MS}, {_WORKERS}"""
RENEW = f"""UPDATE node SET lease_until = {STATEMENT_NOW_MS} + {_LEASE_MS}
 WHERE id = $1::text AND lease_until > {STATEMENT_NOW_MS} RETURNING {DATABASE_NOW_MS}, {_WORKERS}"""
LEAVE = "DELETE FROM node WHERE id = $1::text"


class Host(Protocol):
    """What a node does as its lease comes and goes."""

    def on_joined(self, node_id: str) -> None:
        """It has a new id."""

    def on_renewed(self) -> None:
        """The lease lasts for another while."""

    def on_suspect(self) -> None:
        """The lease may end: start nothing new."""

    def on_live(self) -> None:
        """The lease is good again."""

    def on_fenced(self) -> None:
        """Others may have taken over: end everything that runs."""


class Membership:
    def __init__(
        self,
        conninfo: str,
        identity: Identity,
        clock: DatabaseClock,
        host: Host,
        *,
        address: str,
        role: str = "all",
    ) -> None:
        self.id = ""
        self.address = address
        self.role = role
        self.has_workers = False  # whether a node with that role was alive at the last renewal
        self._identity = identity
        self._clock = clock
        self._host = host
        # A connection of its own: neither load nor a full pool may stop the renewals.
        statements = {"join": JOIN, "renew": RENEW, "leave": LEAVE}
        limits = conninfo_for_sessions(conninfo)
        self._session = Session("lease", limits, statements, identity)
        self._renewed_at = 0.0
        self._state = "gone"
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Join. Raises DatabaseError."""
        await self._join()
        self._tasks = [asyncio.create_task(self._renew()), asyncio.create_task(self._look())]

    async def stop(self) -> None:
        """Leave, so that nobody waits for the lease to end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._session.run("leave", self.id.encode())
        except DatabaseError as error:
            log.warning("the node's row stays until its lease ends: %s", error)
        self._session.close()

    def fence(self) -> None:
        """End what runs, and become a new node as soon as the database answers."""
        if self._state == "fenced":
            return
        log.error("the lease of node %s has ended: its services are stopped", self.id)
        self._state = "fenced"
        # A connection that has seen nothing for so long may be dead without knowing it.
        self._session.disconnect()
        self._host.on_fenced()

    async def _join(self) -> None:
        # An id is never used twice, so what an earlier one owned stays with the dead.
        node_id = f"{socket.gethostname()}-{getpid()}-{secrets.token_hex(8)}"
        parameters = (node_id.encode(), self.address.encode(), self.role.encode())
        self._note(await self._timed("join", *parameters))
        self.id = node_id
        self._state = "live"
        self._host.on_joined(node_id)

    async def _renew(self) -> None:
        pause_s = RENEW_EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            # What fails, or finds the lease gone, is soon tried again.
            pause_s = TRY_AGAIN_S
            try:
                if self._state == "fenced":
                    self._identity.value = None  # whatever database it is by now
                    await self._join()
                    pause_s = RENEW_EVERY_S
                    self._host.on_live()
                    continue
                asked_at, rows = await self._timed("renew", self.id.encode())
            except DatabaseError as error:
                log.warning("the lease could not be renewed: %s", error)
                continue
            if self._state == "fenced":
                continue  # meanwhile
            if not rows:
                self.fence()
                continue
            pause_s = RENEW_EVERY_S
            self._note((asked_at, rows))
            if self._state == "suspect":
                self._state = "live"
                self._host.on_live()
            self._host.on_renewed()

    async def _timed(self, statement: str, *parameters: bytes) -> tuple[float, list[Row]]:
        asked_at = self._clock.monotonic()
        rows = await self._session.run(statement, *parameters)
        if rows:
            now_ms, has_workers = rows[0]
            self.has_workers = has_workers == b"t"
            self._clock.set(int(now_ms or 0), asked_at, self._clock.monotonic())
        return asked_at, rows

    def _note(self, answer: tuple[float, list[Row]]) -> None:
        self._renewed_at = answer[0]

    async def _look(self) -> None:
        """Notice in time that renewals do not come, whatever the connection does."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            age_s = self._clock.monotonic() - self._renewed_at
            if self._state == "fenced":
                continue
            if age_s > LEASE_S - MARGIN_S:
                self.fence()
            elif age_s > SUSPECT_S and self._state == "live":
                self._state = "suspect"
                self._host.on_suspect()
