"""Runners that are data: they speak the protocol of docs/runner-protocol.md for the machine of
`machine.py`, and enter in the diary when an effect happens and a service starts and ends.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.instances.engine.simulation import machine, versions
from tests.instances.engine.simulation.clock import World
from tests.instances.engine.simulation.machine import Json, Kill, Step

if TYPE_CHECKING:
    from tests.instances.engine.simulation.node import SimulatedNode

STATE = '{"state":"counting","tags":[],"done":false}'
STATE_DONE = '{"state":"counting","tags":[],"done":true}'
ERROR = json.dumps({"name": "Error", "message": "no", "stack": "at x"})
WATCHDOG_S = 8.0


@dataclass(slots=True)
class Live:
    """An activation in a runner."""

    aid: str
    context: Json
    children: list[Json]
    after: list[tuple[Any, ...]] = field(default_factory=list)
    held: list[tuple[str, ...]] | None = None  # steps that wait for `K`
    gate: list[int] = field(default_factory=list)  # steps whose requests wait for `K`
    inbox: dict[str, Json] = field(default_factory=dict)
    services: set[str] = field(default_factory=set)  # those that run


class SimulatedRunner:
    """See `runners.RunnerProcess`."""

    def __init__(self, world: World, pool: SimulatedPool, version_id: int) -> None:
        self.world, self.pool, self.version_id = world, pool, version_id
        self.xstate_major = 5
        self.retiring = False
        self.waiting: Callable[[], bool] = lambda: False
        self.is_alive = True
        self.live: dict[str, Live] = {}
        self._free_at = 0.0
        self._heard_at: float | None = None  # a sign of life of the server
        self._numbers = itertools.count(1)
        self._said: list[bytes] = []

    # What the engine calls.
    def send(self, line: bytes) -> None:
        world = self.world
        self._free_at = max(self._free_at, world.time) + world.random.uniform(0.00003, 0.0006)
        world.call_in(self._free_at - world.time, self._take, line)

    def kill(self, reason: str) -> None:
        if not self.is_alive:
            return
        self.is_alive = False
        for live in self.live.values():
            self._end_services(live)
        self.live.clear()
        self.pool.died(self, reason)

    # The program.
    def _take(self, line: bytes) -> None:
        if self.is_alive:
            self._handle(tuple(line.decode().rstrip("\n").split("\t")))

    def _handle(self, fields: tuple[str, ...]) -> None:
        kind = fields[0]
        if kind == "A":
            self._on_sign_of_life()
            return
        if kind == "L":
            _, aid, _, _, _, context, children = fields
            self.live[aid] = Live(aid, json.loads(context), json.loads(children))
            return
        live = self.live.get(fields[1])
        if kind == "U":
            self._upgrade(fields)
        elif kind == "X":
            if live is not None:
                description = versions.describe(live.context, self.version_id)
                self._say(fields[2], "0", json.dumps(description))
            else:
                self._say(fields[2], "4")
        elif kind == "K":
            if live is not None:
                self._on_committed(live)
        elif kind == "D":
            if live is not None:
                self._end_services(live)
                del self.live[live.aid]
        elif kind == "C":
            given = json.loads(fields[4])
            live = self.live[fields[1]] = Live(fields[1], {}, [])
            step = machine.begin(given, fields[6])
            self._record(live, fields[2], versions.signed(step, self.version_id))
        elif live is None:
            self._say(fields[2], "4", "", "", "", "", "", "", "", "0")
        else:
            self._step_or_hold(live, fields)

    def _upgrade(self, fields: tuple[str, ...]) -> None:
        _, aid, rid, _, migrations, description, context = fields
        given = json.loads(context), json.loads(migrations), json.loads(description)
        try:
            step = versions.upgrade(*given, self.version_id)
        except Kill:
            self.kill("cpu")
            return
        live = Live(aid, {}, [])
        if step.code != machine.THREW:
            self.live[aid] = live
        self._record(live, rid, step)

    def _step_or_hold(self, live: Live, fields: tuple[str, ...]) -> None:
        if live.held is not None:
            live.held.append(fields)
        else:
            self._step(live, fields)

    def _step(self, live: Live, fields: tuple[str, ...]) -> None:
        kind, _, rid, what, *_ = fields
        try:
            if kind == "V":
                step = self._take_from_inbox(live, what)
            elif kind == "O":
                step = machine.lose_service(live.context, live.children, json.loads(what))
            elif kind == "N":
                child, auth = fields[4:]
                told = json.loads(what), json.loads(child), auth
                step = machine.hear(live.context, live.children, *told)
            else:
                auth = fields[4] if kind == "S" else ""
                event = json.loads(what)
                step = machine.take(
                    live.context,
                    live.children,
                    event,
                    asks=kind == "S",
                    auth=auth,
                    version=self.version_id,
                )
            if step.code in (machine.DENIED, machine.THREW):
                self.world.note("refused", self.pool.node.process.number, live.aid, what)
        except Kill:
            self.kill("cpu")
            return
        self._record(live, rid, versions.signed(step, self.version_id))

    def _take_from_inbox(self, live: Live, n: str) -> Step:
        event = live.inbox.pop(n)
        if "child" in event:
            return machine.end_service(live.context, live.children, event)
        return machine.take(live.context, live.children, event, asks=False)

    def _record(self, live: Live, rid: str, step: Step) -> None:
        code = step.code
        if code == machine.THREW:
            self._say(rid, "3", ERROR, "", "", "", "", "", "", "1")
            return
        if code in (machine.DENIED, machine.UNCHANGED):
            state = _state(live.context) if code == machine.UNCHANGED else ""
            self._say(rid, str(code), state, "", "", "", "", "", "", "1")
            return
        live.context, live.children = step.context, step.children
        if code == machine.CHANGED_WITH_EFFECTS:
            live.held = []
            live.after = step.after
        self._say(
            rid,
            str(code),
            _state(step.context),
            "",
            json.dumps(step.context),
            json.dumps(step.context["public"]),
            json.dumps(step.children, separators=(",", ":")),
            json.dumps(step.effects) if step.effects else "",
            "",
            "7",
        )
        if step.waits_at_gate:
            live.gate.append(step.context["k"])
            if live.held is None:
                self._say("W", live.aid)

    def _on_committed(self, live: Live) -> None:
        for k in live.gate:
            self._note("effect", live, k, "fetch")
        live.gate.clear()
        after, live.after = live.after, []
        k = live.context["k"]
        if live.held is not None:
            wanted = {child["id"] for child in live.children}
            for gone in sorted(live.services - wanted):
                self._end_service(live, gone, "stopped")
        for what, *details in after:
            if what == "act":
                self._note("effect", live, k, "act")
            elif what == "start":
                self._start_service(live, *details)
            else:
                self._announce(live, details[0])
        self._say("K", live.aid, str(len(live.services)))
        waiting, live.held = live.held or [], None
        for fields in waiting:
            if self.is_alive:
                self._step_or_hold(live, fields)

    # Services.
    def _start_service(self, live: Live, child: str, kind: str) -> None:
        live.services.add(child)
        self._note("started", live, live.context["k"], child)
        chance = self.world.random
        if kind == "chat":
            self.world.call_in(chance.uniform(0.001, 0.1), self._tell, live, child, "said", False)
        if kind != "hang":
            end = "error" if kind == "fail" else "done"
            self.world.call_in(chance.uniform(0.1, 0.4), self._tell, live, child, end, True)

    def _tell(self, live: Live, child: str, type_: str, ends: bool) -> None:
        if not self.is_alive or child not in live.services or live.aid not in self.live:
            return
        if ends:
            self._end_service(live, child, type_)
        self._announce(live, {"type": type_, "child": child, "ends": ends})

    def _announce(self, live: Live, event: Json) -> None:
        n = str(next(self._numbers))
        live.inbox[n] = event
        child = json.dumps(event["child"]) if "child" in event else ""
        self._say("E", live.aid, n, child, json.dumps(event))

    def _end_service(self, live: Live, child: str, how: str) -> None:
        live.services.discard(child)
        self._note("ended", live, live.context["k"], child, how)

    def _end_services(self, live: Live) -> None:
        for child in sorted(live.services):
            self._end_service(live, child, "stopped")

    def _note(self, what: str, live: Live, k: int, *details: Any) -> None:
        self.world.note(
            what, self.pool.node.process.number, live.aid, live.context.get("uid"), k, *details
        )

    # The pipe to the server.
    def _say(self, *fields: str) -> None:
        self._said.append("\t".join(fields).encode())
        if len(self._said) == 1:
            self.world.call_in(self.world.random.uniform(0.00002, 0.0002), self._write)

    def _write(self) -> None:
        said, self._said = self._said, []
        if self.is_alive:
            self.pool.node.process.tell(0, self.pool.on_lines, self, said)

    def _on_sign_of_life(self) -> None:
        if self._heard_at is None:
            self.world.call_in(WATCHDOG_S, self._watch)
        self._heard_at = self.world.time

    def _watch(self) -> None:
        if not self.is_alive:
            return
        silent_s = self.world.time - (self._heard_at or 0)
        if silent_s >= WATCHDOG_S:
            self.kill("watchdog")
        else:
            self.world.call_in(WATCHDOG_S - silent_s + 0.001, self._watch)


def _state(context: Json) -> str:
    return STATE_DONE if context.get("done") else STATE


class SimulatedPool:
    """See `runners.Runners`, and what a node asks of its pool."""

    def __init__(self, world: World, node: SimulatedNode) -> None:
        self.world, self.node = world, node
        self.current: dict[int, SimulatedRunner] = {}
        self.all: list[SimulatedRunner] = []

    def on_lines(self, runner: SimulatedRunner, lines: list[bytes]) -> None:
        self.node.engine.on_lines(runner, lines)

    def acquire(self, version_id: int, ready: Callable[..., None]) -> None:
        runner = self.current.get(version_id)
        if runner is not None:
            ready(runner, None)
        else:
            start_s = self.world.random.uniform(0.005, 0.03)
            self.node.process.tell(start_s, self._started, version_id, ready)

    def _started(self, version_id: int, ready: Callable[..., None]) -> None:
        runner = self.current.get(version_id)
        if runner is None:
            runner = SimulatedRunner(self.world, self, version_id)
            self.current[version_id] = runner
            self.all.append(runner)
            runner.send(b"A\n")
        ready(runner, None)

    def acquire_upgrader(
        self, version_id: int, migration_ids: tuple[int, ...], ready: Callable[..., None]
    ) -> None:
        delay_s = self.world.random.uniform(0.0005, 0.02)  # their code is read and loaded
        self.node.process.tell(delay_s, self.acquire, version_id, ready)

    def release(self, runner: SimulatedRunner) -> None:
        runner.kill("released")

    def retire(self) -> None:
        """Replace the runners, as the pool does with those that have grown old."""
        for runner in list(self.current.values()):
            runner.retiring = True
            del self.current[runner.version_id]
            self.node.engine.on_retire(runner)

    def keep_alive(self) -> None:
        for runner in self.all:
            if runner.is_alive:
                runner.send(b"A\n")

    def died(self, runner: SimulatedRunner, reason: str) -> None:
        self.world.note("runner died", self.node.id, reason)
        if self.current.get(runner.version_id) is runner:
            del self.current[runner.version_id]
        self.all.remove(runner)
        self.node.process.tell(0.001, self.node.engine.on_exit, runner, reason)

    def kill_all(self) -> None:
        for runner in list(self.all):
            runner.kill("killed")
