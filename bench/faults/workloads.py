"""What the clients of a fault run do. Each workload is a few sessions that go on until the end.

Instances are named `<workload>-<slot>-<generation>` and followed by a fresh one after a while, so
that histories stay short and new instances are created all the time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from bench.faults.client import SETTLING_TIMEOUT_S, Clients
from bench.faults.effects import EffectRecorder

WITH_KEY = 0.4  # share of events that have an Idempotency-Key
PAUSE_S = 0.1  # between two operations of a session, on average


@dataclass(frozen=True)
class Scale:
    """How many sessions each workload has."""

    registers: int = 4  # instances; with three sessions each
    lists: int = 4  # two sessions each
    gates: int = 2  # three sessions each
    payers: int = 4  # instances; with a session each, and one that disturbs them all
    ladders: int = 3
    paused: int = 1  # instances; with two sessions each, and one that pauses them
    accounts: int = 8  # of the bank
    tellers: int = 3  # sessions
    upgraders: int = 2  # sessions that move instances of the others from version to version


class Slot:
    """A name for an instance that is followed by another one after `uses`."""

    def __init__(self, clients: Clients, workload: str, number: int, uses: int) -> None:
        self.workload = workload
        self.slug = ""
        self.slugs: list[str] = []  # all that it has had
        self._clients = clients
        self._number = number
        self._uses = uses
        self._left = 0
        self._generation = 0
        self._lock = asyncio.Lock()

    async def take(self) -> str:
        async with self._lock:
            if self._left == 0:
                slug = f"{self.workload}-{self._number}-{self._generation}"
                await self._clients.create(self.workload, slug)
                self._generation += 1
                self._left = self._uses
                self.slug = slug
                self.slugs.append(slug)
            self._left -= 1
            return self.slug


class Load:
    """All sessions; `run` goes on until it is cancelled or `stop` was called."""

    def __init__(
        self,
        clients: Clients,
        effects: EffectRecorder,
        scale: Scale,
        seed: int,
        versions: dict[str, str],
    ) -> None:
        self.clients = clients
        self.versions = versions  # ids of the versions between which instances are moved, by name
        self.effects = effects
        self.scale = scale
        self.random = random.Random(seed)
        self._ended = asyncio.Event()
        self._registers = [Slot(clients, "register", n, 800) for n in range(scale.registers)]

    def stop(self) -> None:
        self._ended.set()

    async def open_accounts(self) -> None:
        """Create the accounts of the bank."""
        for number in range(self.scale.accounts):
            await self.clients.create("bank", account(number))

    async def finish(self) -> None:
        """When all faults are over: an event for each instance whose services may be lost, and a
        read of each instance from each node, which must agree."""
        slugs = {operation.slug for operation in self.clients.operations}
        for slug in sorted(slugs):
            if slug.startswith(("service-", "probe-")):
                event = {"type": "append", "n": self.clients.new_n("z")}
                await self.clients.send(
                    "finish", slug, event, tries=40, timeout_s=SETTLING_TIMEOUT_S
                )
            for node in self.clients.nodes:
                await self.clients.read("finish", slug, node.number)

    async def run(self) -> None:
        """Until `stop`; raises what a session raised."""
        async with asyncio.TaskGroup() as group:
            for session in self._sessions():
                group.create_task(session)

    def followed(self) -> list[str]:
        """The instances that subscribers follow."""
        return [slug for slot in self._registers for slug in slot.slugs]

    def _sessions(self) -> list[Coroutine[Any, Any, None]]:
        scale = self.scale
        registers = self._registers
        lists = [Slot(self.clients, "append", n, 150) for n in range(scale.lists)]
        gates = [Slot(self.clients, "gate", n, 300) for n in range(scale.gates)]
        tills = [Slot(self.clients, "service", n, 60) for n in range(scale.payers)]
        ladders = [Slot(self.clients, "ladder", n, 12) for n in range(scale.ladders)]
        paused = [Slot(self.clients, "paused", n, 200) for n in range(scale.paused)]
        return [
            *(self._register(slot) for slot in registers for _ in range(3)),
            *(self._append(slot) for slot in lists for _ in range(2)),
            *(self._gate(slot) for slot in gates for _ in range(3)),
            *(self._pay(slot) for slot in tills),
            self._disturb(tills),
            *(self._climb(slot) for slot in ladders),
            *(self._append(slot) for slot in paused for _ in range(2)),
            *(self._pause(slot) for slot in (*paused, *ladders[:1])),
            *(self._transfer() for _ in range(scale.tellers)),
            *(
                self._upgrade([*registers, *lists, *gates, *tills, *ladders, *paused])
                for _ in range(scale.upgraders)
            ),
        ]

    async def _again(self, pause_s: float = PAUSE_S) -> bool:
        """Wait a little; False when the run has ended."""
        try:
            pause = self.random.random() * 2 * pause_s
            await asyncio.wait_for(self._ended.wait(), pause)
        except TimeoutError:
            return True
        return False

    def _has_key(self) -> bool:
        return self.random.random() < WITH_KEY

    # ------------------------------------------------------------------ sessions

    async def _register(self, slot: Slot) -> None:
        """Reads and writes of one value, which must look as if they came one after the other."""
        clients = self.clients
        while await self._again():
            slug = await slot.take()
            if self.random.random() < 0.5:
                await clients.read(slot.workload, slug)
            else:
                event = {"type": "write", "n": clients.new_n("w")}
                await clients.send(slot.workload, slug, event, with_key=self._has_key())

    async def _append(self, slot: Slot) -> None:
        """Events that the context keeps; some tell the outside world, some must be refused."""
        clients = self.clients
        while await self._again():
            slug = await slot.take()
            dice = self.random.random()
            kind = "boom" if dice < 0.03 else "forbid" if dice < 0.06 else "append"
            event = {"type": kind, "n": clients.new_n("a")}
            if kind == "append" and dice < 0.3:
                event["url"] = self.effects.url(slug, event["n"], "action")
            await clients.send(slot.workload, slug, event, with_key=self._has_key())

    async def _gate(self, slot: Slot) -> None:
        """Who may enter depends on the state: a refusal must not come from an old one."""
        clients = self.clients
        while await self._again():
            slug = await slot.take()
            dice = self.random.random()
            kind = "close" if dice < 0.15 else "open" if dice < 0.35 else "enter"
            event = {"type": kind, "n": clients.new_n("g")}
            await clients.send(slot.workload, slug, event, with_key=self._has_key())

    async def _pay(self, slot: Slot) -> None:
        """Services that call the outside world, most of them for a moment, some for seconds."""
        clients = self.clients
        while await self._again():
            slug = await slot.take()
            n = clients.new_n("p")
            is_long = self.random.random() < 0.1
            hold_ms = self.random.randint(1000, 3000) if is_long else self.random.randint(0, 80)
            status = 500 if self.random.random() < 0.1 else 200
            url = self.effects.url(slug, n, "service", hold_ms=hold_ms, status=status)
            event = {"type": "pay", "n": n, "url": url}
            has_key = self._has_key()
            await clients.send(
                slot.workload, slug, event, with_key=has_key, timeout_s=SETTLING_TIMEOUT_S
            )

    async def _disturb(self, slots: list[Slot]) -> None:
        """Events from any node for instances that may have services running."""
        clients = self.clients
        while await self._again():
            slot = self.random.choice(slots)
            if not slot.slug:
                continue
            event = {"type": "append", "n": clients.new_n("d")}
            node = self.random.randrange(len(clients.nodes))
            await clients.send(
                slot.workload, slot.slug, event, node=node, timeout_s=SETTLING_TIMEOUT_S
            )

    async def _climb(self, slot: Slot) -> None:
        """Timers that set timers."""
        clients = self.clients
        while await self._again(0.4):
            slug = await slot.take()
            n = clients.new_n("c")
            event = {
                "type": "climb",
                "n": n,
                "ladder": n,
                "k": 0,
                "rungs": self.random.randint(1, 4),
                "delayMs": self.random.choice((20, 100, 400, 1500)),
                "url": self.effects.url(slug, n, "action"),
            }
            await clients.send(slot.workload, slug, event, with_key=self._has_key())

    async def _pause(self, slot: Slot) -> None:
        while await self._again(4.0):
            if not slot.slug:
                continue
            slug = slot.slug
            await self.clients.set_status(slot.workload, slug, "paused")
            await asyncio.sleep(0.3 + self.random.random())
            await self.clients.set_status(slot.workload, slug, "running")

    async def _upgrade(self, slots: list[Slot]) -> None:
        """Instances go from version to version and back while events come."""
        while await self._again(0.5):
            slot = self.random.choice(slots)
            if slot.slug:
                version = self.random.choice(list(self.versions))
                await self.clients.upgrade(
                    slot.workload, slot.slug, version, self.versions[version]
                )

    async def _transfer(self) -> None:
        """Money goes from one instance to another by a message."""
        clients = self.clients
        while await self._again():
            source, target = self.random.sample(range(self.scale.accounts), 2)
            event = {
                "type": "transfer",
                "n": clients.new_n("t"),
                "to": account(target),
                "amount": self.random.randint(1, 20),
            }
            slug = account(source)
            await clients.send("bank", slug, event, with_key=self._has_key())


def account(number: int) -> str:
    return f"bank-{number}"
