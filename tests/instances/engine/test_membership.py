"""How soon a lease is renewed after the database was away."""

import asyncio

import pytest

from instances.engine import membership
from instances.engine.clocks import DatabaseClock
from instances.engine.membership import Membership
from instances.engine.postgres_session import Identity, NotConnected, Row

FAR_S = 3600.0


class Host:
    def __init__(self) -> None:
        self.renewed = asyncio.Event()

    def on_renewed(self) -> None:
        self.renewed.set()

    def on_joined(self, node_id: str) -> None: ...
    def on_suspect(self) -> None: ...
    def on_live(self) -> None: ...
    def on_fenced(self) -> None: ...


class Session:
    """Answers everything but the first renewal, after which the next regular one is far away."""

    def __init__(self, *_arguments: object) -> None:
        self.renewals = 0

    async def run(self, statement: str, *_parameters: bytes) -> list[Row]:
        self.renewals += statement == "renew"
        if statement == "renew" and self.renewals == 1:
            membership.RENEW_EVERY_S = FAR_S
            raise NotConnected("the database can't be reached")
        return [(b"1000", b"f")]

    def close(self) -> None: ...
    def disconnect(self) -> None: ...


async def test_renewal_that_failed_is_tried_again_soon(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(membership, "RENEW_EVERY_S", 0.01)
    monkeypatch.setattr(membership, "Session", Session)
    host = Host()
    node = Membership("", Identity(), DatabaseClock(asyncio.get_running_loop()), host, address="")
    await node.start()

    async with asyncio.timeout(5):
        await host.renewed.wait()

    await node.stop()
