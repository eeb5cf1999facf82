"""Carries out the planned faults, and measures how soon events are accepted again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from bench.faults import database as databases
from bench.faults.balancer import Balancer
from bench.faults.client import Clients
from bench.faults.cluster import Cluster, Node
from bench.faults.effects import EffectRecorder
from bench.faults.history import Fault, Operation, Recovery
from bench.faults.schedule import OF_ALL, OF_DATABASE, Planned

PROBES = 6  # instances that only probes use
PREPARED_WITHIN_S = 1.5
RECOVERED_WITHIN_S = 30.0
TRY_EVERY_S = 0.03
PROBE_TIMEOUT_S = 5.0
SETTLING_S = 30.0  # until the request that waits for a gate is given up
DELAY_S = 0.06
LEAVES_UNSETTLED = ("kill-web", "stop-long", "partition-postgres-long")
# After these the node itself is gone, or stands still; its settled instances go on elsewhere.
TAKES_NODE = (*LEAVES_UNSETTLED, "stop-short", "partition-postgres", "stall-postgres")
EVERYWHERE = ("postgres", "all")  # targets whose faults every node feels
AFTER_OTHERS_S = 2.0
AFTER_S = {"kill-web": 8.0, "restart-web": 8.0, "stop-long": 4.0, "partition-postgres-long": 4.0}
TAKES_DATABASE = ("restart-postgres", "crash-postgres", "kill-postgres", "kill-backend")


What = Literal["settled", "unsettled", "runner", "database"]


class Injector:
    def __init__(
        self,
        cluster: Cluster,
        clients: Clients,
        effects: EffectRecorder,
        balancer: Balancer[Node],
        clock: Callable[[], float],
        note: Callable[[str], None],
    ) -> None:
        self.cluster = cluster
        self.balancer = balancer
        self.clients = clients
        self.effects = effects
        self.clock = clock
        self.note = note
        self.faults: list[Fault] = []
        self.recoveries: list[Recovery] = []
        self.skipped: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._lasting: dict[Planned, float] = {}
        # Instances for probes that stay settled, and those that are left with a service.
        self._probes: asyncio.Queue[str] = asyncio.Queue()
        self._gated: asyncio.Queue[str] = asyncio.Queue()

    async def prepare(self) -> None:
        """Create the instances that probes use."""
        for number in range(2 * PROBES):
            slug = f"probe-{number}-0"
            await self.clients.create("probe", slug)
            (self._probes if number < PROBES else self._gated).put_nowait(slug)

    async def run(self, plan: list[Planned]) -> None:
        """Do everything at its time; returns when the last fault has ended."""
        for planned in plan:
            await asyncio.sleep(max(0.0, planned.at - self.clock()))
            task = self._later(self._do(planned))
            if planned.kind in OF_DATABASE:
                # The next one must find the server up again.
                await asyncio.wait({task}, timeout=databases.ANSWER_S)
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _do(self, planned: Planned) -> None:
        node = next((n for n in self.cluster.nodes if n.name == planned.target), None)
        if node is not None and not node.is_running():
            self.skipped.append(planned.kind)
            return
        probe = await self._prepare_probe(planned, node)
        started = self.clock()
        self.note(f"{started:7.2f}  {planned.kind} {planned.target} {planned.seconds:.2f} s")
        self._lasting[planned] = started
        try:
            async with asyncio.TaskGroup() as group:
                if probe is not None and node is not None:
                    group.create_task(self._measure(planned, node, started, *probe))
                await self._inflict(planned, node)
                self.faults.append(Fault(started, self.clock(), planned.kind, planned.target))
            if planned.kind in TAKES_DATABASE:
                self._later(self._measure_database(planned))
        finally:
            del self._lasting[planned]
            if probe is not None and probe[1]:
                self.effects.open_gate(probe[1])
                self._gated.put_nowait(probe[0])
            elif probe is not None:
                self._probes.put_nowait(probe[0])

    def _later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.note(f"{self.clock():7.2f}  failed: {task.exception()!r}")
            self.skipped.append("failed")

    # ------------------------------------------------------------------ faults

    async def _inflict(self, planned: Planned, node: Node | None) -> None:
        kind, seconds = planned.kind, planned.seconds
        if node is None:
            await self._inflict_on_servers(kind, seconds)
        elif kind in ("kill-web", "kill-worker"):
            node.send(signal.SIGKILL)
        elif kind == "restart-web":
            node.send(signal.SIGTERM)
        elif kind.startswith(("stop-short", "stop-long", "stop-worker")):
            node.send(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            node.send(signal.SIGCONT)
        elif kind in ("kill-runner", "stop-runner"):
            await self._inflict_on_runners(kind, seconds, node)
        else:
            await self._inflict_on_wire(kind, seconds, node)

    async def _inflict_on_runners(self, kind: str, seconds: float, node: Node) -> None:
        runners = node.runners()
        signals = [signal.SIGKILL] if kind == "kill-runner" else [signal.SIGSTOP, signal.SIGCONT]
        for number, each in enumerate(signals):
            if number:
                await asyncio.sleep(seconds)
            for pid in runners:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, each)

    async def _inflict_on_wire(self, kind: str, seconds: float, node: Node) -> None:
        proxy = node.redis if "redis" in kind else node.postgres
        if kind.startswith("cut"):
            proxy.cut()
        elif kind.startswith("stall"):
            proxy.stall()
            await asyncio.sleep(seconds)
            proxy.heal()
        elif kind.startswith("swallow"):
            # What was asked is done, but nobody hears of it: every commit's outcome is unknown.
            proxy.swallows = True
            await asyncio.sleep(seconds)
            proxy.cut()
            proxy.heal()
        elif kind.startswith("delay"):
            proxy.delay_s = DELAY_S
            await asyncio.sleep(seconds)
            proxy.heal()
        else:
            assert kind.startswith("partition"), kind
            proxy.refuses = True
            proxy.cut()
            await asyncio.sleep(seconds)
            proxy.heal()

    async def _inflict_on_servers(self, kind: str, seconds: float) -> None:
        database, redis = self.cluster.database, self.cluster.redis
        if kind == "restart-postgres":
            await asyncio.to_thread(database.restart, "fast")
        elif kind == "crash-postgres":
            await asyncio.to_thread(database.restart, "immediate")
        elif kind == "kill-postgres":
            await asyncio.to_thread(database.kill)
        elif kind == "kill-backend":
            await asyncio.to_thread(database.kill_backend)
            await asyncio.to_thread(database.ensure_running)
        elif kind == "exhaust-connections":
            holding = asyncio.create_task(databases.hold_all_connections(database, seconds))
            await asyncio.sleep(0.5)
            self.cluster.webs[0].postgres.cut()  # who needs a new connection now gets none
            await holding
        elif kind == "lock-rows":
            await databases.hold_locks(database, seconds)
        elif kind == "fill-disk":
            await asyncio.to_thread(database.fill_disk)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(database.empty_disk)
        elif kind == "flush-redis":
            await redis.flush()
        elif kind == "kill-redis":
            await asyncio.to_thread(redis.kill)
            await asyncio.sleep(seconds)
            redis.start()
        else:
            assert kind in OF_ALL, kind
            for node in self.cluster.nodes:
                node.postgres.cut()

    # ------------------------------------------------------------------ recovery

    async def _prepare_probe(self, planned: Planned, node: Node | None) -> tuple[str, str] | None:
        """Use an instance on the node that is about to fail: (instance, its gate or empty).

        With a gate it is unsettled: a service waits at the gate.
        """
        kind = planned.kind
        if node is None or kind not in (*TAKES_NODE, "kill-runner"):
            return None
        if not self.balancer.in_rotation(node):
            return None  # a node that answers nothing leaves nothing behind
        n = self.clients.new_n("q")
        is_gated = kind in LEAVES_UNSETTLED and sum(n.encode()) % 2 == 0
        probes = self._gated if is_gated else self._probes
        if probes.empty():
            return None
        slug = probes.get_nowait()
        if not is_gated:
            if (await self._send_probe(slug, node.number)).outcome == "ok":
                return slug, ""
        else:
            event = {"type": "pay", "n": n, "url": self.effects.gate_url(slug, n)}
            sending = self._later(self._pay(slug, event, node.number))
            if await self.effects.arrived(n, PREPARED_WITHIN_S):
                return slug, n
            self.effects.open_gate(n)
            await sending
        probes.put_nowait(slug)
        return None

    async def _pay(self, slug: str, event: dict[str, Any], node: int) -> None:
        await self.clients.send("probe", slug, event, node=node, tries=1, timeout_s=SETTLING_S)

    async def _send_probe(self, slug: str, node: int) -> Operation:
        event = {"type": "append", "n": self.clients.new_n("q")}
        return await self.clients.send(
            "probe", slug, event, node=node, tries=1, timeout_s=PROBE_TIMEOUT_S
        )

    async def _measure(
        self, planned: Planned, node: Node, started: float, slug: str, gate: str
    ) -> None:
        """Send until an event is accepted: by another node, or by the one whose runners died."""
        is_runner = planned.kind == "kill-runner"
        at = node if is_runner else self._healthy_web(node)
        while self.clock() - started < RECOVERED_WITHIN_S:
            if (await self._send_probe(slug, at.number)).outcome == "ok":
                break
            await asyncio.sleep(TRY_EVERY_S)
            if not is_runner:
                at = self._healthy_web(node)
        what: What = "runner" if is_runner else "unsettled" if gate else "settled"
        self._recovered(what, planned, started, at)

    async def _measure_database(self, planned: Planned) -> None:
        """From the end of the outage: how soon some event is accepted."""
        back = self.clock()
        slug = await self._probes.get()
        while True:
            at = self._healthy_web(None)
            if (await self._send_probe(slug, at.number)).outcome == "ok":
                break
            if self.clock() - back >= RECOVERED_WITHIN_S:
                break
            await asyncio.sleep(TRY_EVERY_S)
        self._probes.put_nowait(slug)
        self._recovered("database", planned, back, at)

    def _healthy_web(self, victim: Node | None) -> Node:
        """A web node that is in rotation, as a load balancer would choose one; if none is, any.

        Best one that nothing has happened to lately.
        """
        others = [node for node in self.cluster.webs if node is not victim]
        chosen = [node for node in others if self.balancer.in_rotation(node)] or others
        now = self.clock()
        undisturbed = [node for node in chosen if not self._is_disturbed(node.name, now, now)]
        return (undisturbed or chosen)[0]

    def _recovered(self, what: What, planned: Planned, since: float, at: Node) -> None:
        now = self.clock()
        # A lease ends by itself: what happens meanwhile matters only if it has not passed by then.
        looked_at = max(since, now - AFTER_OTHERS_S) if what == "unsettled" else since
        disturbed = any(
            self._is_disturbed(name, looked_at, now, but=planned) for name in (at.name, *EVERYWHERE)
        )
        self.recoveries.append(Recovery(what, planned.kind, since, now - since, disturbed))

    def _is_disturbed(
        self, target: str, since: float, now: float, but: Planned | None = None
    ) -> bool:
        """Whether another fault of that target lasted, or had after-effects, in this time."""
        if any(fault.target == target and fault != but for fault in self._lasting):
            return True
        return any(
            fault.target == target
            and fault.at < now
            and fault.ended + AFTER_S.get(fault.kind, AFTER_OTHERS_S) > since
            and (but is None or (fault.kind, fault.target) != (but.kind, but.target))
            for fault in self.faults[-20:]
        )
