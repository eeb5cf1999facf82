"""One seed: servers, clients and faults, from their start until everything must have settled."""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass, field
from typing import Any

from instances.engine.errors import InstanceNotFound
from instances.engine.holding import Resume
from instances.engine.operations import Replayed
from tests.instances.engine.simulation import letters, versions
from tests.instances.engine.simulation.clock import World
from tests.instances.engine.simulation.database import (
    LATE,
    MACHINE,
    MACHINE_NAME,
    PAUSED,
    RUNNING,
    VERSION,
    Database,
    Desire,
    Key,
)
from tests.instances.engine.simulation.faults import Faults
from tests.instances.engine.simulation.node import SimulatedNode, simulated
from tests.instances.engine.simulation.wire import Network

AUTH = '{"sub":"u"}'
SLUGS = "abc"
TRIES = 3  # of a client that sends its request key with each

# What clients send, and how often.
EVENTS = {
    "inc": 20,
    "act": 6,
    "fetch": 4,
    "noop": 8,
    "once": 4,
    "if-even": 8,
    "deny": 2,
    "throw": 2,
    "call": 5,
    "fail": 2,
    "chat": 2,
    "hang": 3,
    "stop": 2,
    "to-self": 2,
    "after": 12,
    "cancel": 4,
    "kill": 0.4,
    "big": 0.4,
    **letters.KINDS,
    **versions.KINDS,
}


@dataclass(slots=True)
class Client:
    """Something that a client wants, with each request that it makes for it."""

    number: int
    what: str  # an event's type, or create, pause, resume, delete
    slug: str
    event: dict[str, Any]
    request_key: str | None = None
    machine_id: int = MACHINE
    requests: list[Request] = field(default_factory=list)


class Request:
    """One request, and what became of it; the engine's Reply."""

    def __init__(self, life: Life, client: Client, node: SimulatedNode) -> None:
        self.life, self.client, self.node = life, client, node
        self.number = next(life.world.numbers)
        self.sent_at = life.world.time
        self.answered_at: float | None = None
        self.answers = 0
        self.outcome = ""  # ok, error, cut
        self.body: Any = None
        self.error: Any = None
        self.is_replayed = False

    def done(self) -> bool:
        return self.outcome != ""

    def set_result(self, body: Any) -> None:
        self.is_replayed = isinstance(body, Replayed)
        self.body = json.loads(body) if isinstance(body, bytes) else body
        self._end("ok", "ok")

    def set_exception(self, error: Any) -> None:
        self.error = error
        self._end("error", f"{error.status} {error}")

    def cut(self) -> None:
        """The server died: nobody knows."""
        self._end("cut", "cut")

    def _end(self, outcome: str, told: str) -> None:
        self.answers += 1
        self.outcome = outcome
        self.answered_at = self.life.world.time
        self.node.clients.discard(self)
        self.life.world.note("answer", self.client.number, self.client.slug, told)
        self.life.on_answer(self)


class Life:
    def __init__(self, seed: int) -> None:
        self.world = world = World(seed)
        self.database = Database(world)
        self.network = Network(world)
        chance = world.random
        self.seconds = chance.uniform(6, 12)  # during which there are clients and faults
        count = chance.choice((1, 1, 2, 2, 2, 3))
        # As on SQLite, where nobody else writes: what is refused is not confirmed.
        self.is_alone = count == 1 and chance.random() < 0.7
        # Mostly shorter than a lease, so that a run is short.
        self.settle_limit_ms = chance.choice((3_000, 3_000, 3_000, 3_000, 20_000))
        self.addresses = [f"http://node-{n}" for n in range(count)]
        self.clients: list[Client] = []
        self.faults = Faults(self)
        self.nodes: list[SimulatedNode] = []  # all that there ever were
        # How likely an admin deletes a child as soon as there is one.
        self.deletes_kids = chance.choice((0.03, 0.03, 0.3, 0.8))
        self.database.on_spawned = self._on_spawned
        self.calm_from = float("inf")  # from then on nothing holds anything up

    def run(self) -> None:
        world, chance = self.world, self.world.random
        with simulated(world):
            for address in self.addresses:
                self.start_node(address)
            world.run(0.2)
            for slug in SLUGS:
                self._create(slug)
            world.run(0.3)
            self._plan_clients()
            self.faults.plan(self.seconds)
            world.run(self.seconds)
            self.faults.heal()
            # A lease ends, claims end, what failed is tried again.
            world.run(13 + self.faults.set_back_s)
            self._resume_all()
            world.run(1)
            for slug in SLUGS:
                for node in self.serving():
                    self._send(Client(self._number(), "inc", slug, {}), node)
            world.run(0.5)
            self._plan_last_words()
            world.run(6.5 + self.settle_limit_ms / 1000 + chance.random())

    # ------------------------------------------------------------------ servers

    def start_node(self, address: str) -> None:
        node = SimulatedNode(
            self.world,
            self.database,
            self.network,
            address,
            has_other_writers=not self.is_alone,
            settle_limit_ms=self.settle_limit_ms,
        )
        self.nodes.append(node)
        self.faults.on_started(node)

    def serving(self) -> list[SimulatedNode]:
        """The server at each address, if it is up."""
        nodes = (self.network.nodes[address] for address in self.addresses)
        return [node for node in nodes if node.is_up]

    # ------------------------------------------------------------------ clients

    def _number(self) -> int:
        return len(self.clients) + 1

    def _plan_clients(self) -> None:
        chance = self.world.random
        kinds, weights = list(EVENTS), list(EVENTS.values())
        favourite = chance.choice(kinds)  # so that seeds differ in more than order
        at = 0.0
        for _ in range(chance.randint(22, 40)):
            at += chance.expovariate(1) * self.seconds / 35
            slug = chance.choice(SLUGS)
            burst = chance.choice((1, 1, 1, 2, 3, 8))
            same_node = chance.random() < 0.6
            self.world.call_in(
                at,
                self._burst,
                slug,
                [
                    chance.choices(kinds, weights)[0] if chance.random() < 0.8 else favourite
                    for _ in range(burst)
                ],
                same_node,
            )
        for _ in range(chance.choice((0, 1, 2))):
            slug = chance.choice(SLUGS + letters.KID_NAMES)
            self.world.call_in(chance.uniform(0, self.seconds), self._pause, slug)
        if chance.random() < 0.4:
            self.world.call_in(chance.uniform(1, self.seconds), self._delete, chance.choice(SLUGS))
        if chance.random() < 0.06:
            self.world.call_in(1, self._burst, "a", ["again"], True)
        if chance.random() < 0.5:
            at = chance.uniform(1, self.seconds)
            self.world.call_in(at, self._create, letters.LATE_SLUG)
        if chance.random() < 0.15:
            self.world.call_in(chance.uniform(1, self.seconds), self._publish)
        for _ in range(chance.choice((0, 2, 6))):
            self.world.call_in(chance.uniform(0.5, self.seconds), self._write_to_shaken)
        for _ in range(chance.choice((0, 0, 1, 3))):
            self.world.call_in(chance.uniform(0.5, self.seconds), self._wind_up)
        if self.deletes_kids > 0.5:
            for _ in range(3):
                self.world.call_in(chance.uniform(0.5, self.seconds), self._compete)
        for _ in range(chance.choice((0, 0, 0, 2, 4))):
            kinds = chance.choices(list(letters.KID_KINDS), list(letters.KID_KINDS.values()), k=3)
            slug = chance.choice(letters.KID_NAMES)
            self.world.call_in(chance.uniform(1, self.seconds), self._burst, slug, kinds, True)
        for _ in range(chance.choice((0, 0, 2, 4, 8, 12))):
            slug = chance.choice([*SLUGS, *SLUGS, *SLUGS, *letters.KID_NAMES])
            self.world.call_in(chance.uniform(0.2, self.seconds), self._upgrade, slug)

    def _upgrade(self, slug: str) -> None:
        """Somebody desires another version of an instance, and it gets events around that time."""
        chance = self.world.random
        version = chance.choices(list(versions.DESIRED), list(versions.DESIRED.values()))[0]
        kinds = chance.choices(list(EVENTS), list(EVENTS.values()), k=chance.choice((1, 2, 4)))
        self._burst(slug, ["wait"] * chance.choice((0, 0, 1, 2)), False)
        self.world.call_in(chance.uniform(0, 0.1), self._desire, slug, version)
        self.world.call_in(chance.uniform(0, 0.2), self._burst, slug, kinds, False)
        # What changes nothing is answered by the state that a server knows.
        kinds = chance.choices(("noop", "once", "if-even"), k=3)
        self.world.call_in(chance.uniform(0.1, 0.2), self._burst, slug, kinds, False)
        if chance.random() < 0.2:
            other = chance.choice((None, 1, 2, 3))
            self.world.call_in(chance.uniform(0, 0.1), self._desire, slug, other)

    def _desire(self, slug: str, version: int | None) -> None:
        """As the management API does it: the row, then the engine of that process, then the others
        hear of it, or not."""
        row_id = self._row_id((MACHINE, slug))
        if row_id is None:
            return
        chance, node = self.world.random, self._some_node()
        client = Client(self._number(), "desire", slug, {})
        self.clients.append(client)
        request = self._begin(client, node)
        if request is None:
            return

        def write() -> None:
            if not node.is_up:
                return
            desire = self.database.desire(row_id, version)
            if desire is None:
                request.set_exception(InstanceNotFound("it is gone"))
                return
            node.process.tell(chance.uniform(0, 0.002), reload, desire)
            for other in self.serving():
                if other is not node and chance.random() < 0.4:
                    delay_s = chance.uniform(0, 0.1)
                    other.process.tell(delay_s, other.engine.reload, (MACHINE, slug))

        def reload(desire: Desire) -> None:
            node.engine.reload((MACHINE, slug))
            desire.acknowledged_at = self.world.time
            request.set_result(True)

        self.world.call_in(chance.uniform(0, 0.01), write)

    def _write_to_shaken(self) -> None:
        """While one instance writes to another one, that is paused, for long or for moments, or the
        disk is full for moments, or the other one refuses half of it."""
        chance = self.world.random
        to, sender = chance.sample(SLUGS, 2)
        how = chance.choice(("long", "short", "short", "short", "disk", "refused", "refused"))
        first = "if-even" if how == "refused" else "inc"
        event = {"to": [MACHINE_NAME, to], "says": [{"type": first}, {"type": "inc"}]}
        for n in range(8):
            client = Client(self._number(), "tell", sender, event)
            self.clients.append(client)
            self.world.call_in(n * 0.012 + chance.uniform(0, 0.01), self._say, client)
        if how == "refused":
            return
        at = 0.0
        for _ in range(1 if how == "long" else 6):
            at += chance.uniform(0.001, 0.02)
            until = at + (0.3 if how == "long" else chance.uniform(0.003, 0.01))
            if how == "disk":
                self.world.call_in(at, self.faults.fill_disk, until - at)
            else:
                self.world.call_in(at, self._administer, "pause", to)
                self.world.call_in(until, self._administer, "resume", to)
            at = until
        if how != "disk":
            self.world.call_in(at + 0.1, self._administer, "resume", to)

    def _wind_up(self) -> None:
        """Timers of one name are set by way of several servers, and one of them is cancelled."""
        chance = self.world.random
        slug, timer = chance.choice(SLUGS), chance.choice(letters.SHARED_IDS)
        at = 0.0
        for kind in ("after", "after", "after", "cancel"):
            event = {"timer": timer, "ms": 1_500, "then": "inc"}
            client = Client(self._number(), kind, slug, event)
            self.clients.append(client)
            at += chance.uniform(0, 0.2)
            self.world.call_in(at, self._say, client)

    def _compete(self) -> None:
        """Several instances want children of the same name."""
        event = letters.spawn(self.world.random.choice(letters.KID_NAMES))
        for slug in SLUGS:
            self._send(Client(self._number(), "spawn", slug, event), self._some_node())

    def _publish(self) -> None:
        """From now on there is another machine, with an instance."""
        self.database.publish_late()
        self._create("l", LATE)

    def _on_spawned(self, slug: str) -> None:
        chance = self.world.random
        if chance.random() < self.deletes_kids:
            delay_s = chance.uniform(0, chance.choice((0.006, 0.05)))
            self.world.call_in(delay_s, self._administer, "delete", slug)

    def _plan_last_words(self) -> None:
        """When all is well again, instances whose services run somewhere are told something."""
        chance = self.world.random
        self.calm_from = self.world.time
        to, sender = chance.sample(SLUGS, 2)
        self._send(Client(self._number(), "hang", to, {}), self._some_node())
        says = [{"type": "inc"}, {"type": "pay", "gold": 1}]
        for at in (0.05, 0.2):
            event = {"to": [MACHINE_NAME, to], "says": says}
            client = Client(self._number(), "tell", sender, event)
            self.clients.append(client)
            self.world.call_in(at, self._say, client)
        # Else what comes late could keep it unsettled beyond the end of the life.
        self.world.call_in(2, self._burst, to, ["stop"], True)

    def _say(self, client: Client) -> None:
        self._ask_for(client, self._some_node())

    def _burst(self, slug: str, kinds: list[str], same_node: bool) -> None:
        node = self._some_node()
        for kind in kinds:
            self._send(self._client(slug, kind), node if same_node else self._some_node())

    def _client(self, slug: str, kind: str) -> Client:
        chance = self.world.random
        number = self._number()
        of = versions if kind in versions.KINDS else letters
        event = of.details(chance, kind)
        if kind == "once":
            event = {"below": chance.randint(0, 40)}
        elif kind == "again":
            event = {"left": chance.choice((40, 260))}
        key = f"key-{number}" if chance.random() < 0.5 else None
        return Client(number, kind, slug, event, key)

    def _some_node(self) -> SimulatedNode:
        return self.network.nodes[self.world.random.choice(self.addresses)]

    def _send(self, client: Client, node: SimulatedNode) -> None:
        if not client.requests:
            self.clients.append(client)
        self._ask_for(client, node)

    def _ask_for(self, client: Client, node: SimulatedNode) -> None:
        body = json.dumps({"type": client.what, "id": client.number, **client.event})
        request = self._begin(client, node)
        if request is not None:
            key = (MACHINE, client.slug)
            arguments = (key, body, AUTH, request, client.request_key)
            self._ask(node, "send", *arguments)
            if client.request_key is not None and self.world.random.random() < 0.1:
                # An impatient client: the same again, before the answer.
                other = self._some_node()
                again = self._begin(client, other)
                if again is not None:
                    self._ask(other, "send", key, body, AUTH, again, client.request_key)

    def _ask(self, node: SimulatedNode, what: str, *arguments: Any) -> None:
        """Call the engine, as a handler of requests does when one has come in."""
        delay_s = self.world.random.uniform(0, 0.002)
        node.process.tell(delay_s, lambda: getattr(node.engine, what)(*arguments))

    def _begin(self, client: Client, node: SimulatedNode) -> Request | None:
        if not node.is_up:
            return None  # nobody listens there: certainly not applied
        request = Request(self, client, node)
        client.requests.append(request)
        node.clients.add(request)
        self.world.note(
            "sent", client.number, client.slug, client.what, node.address, client.request_key
        )
        return request

    def on_answer(self, request: Request) -> None:
        client = request.client
        failed = request.outcome == "cut" or (
            request.outcome == "error" and request.error.status >= 500
        )
        # What begins any later may last longer than the life.
        is_patient = len(client.requests) < TRIES and self.world.time < self.calm_from
        if failed and client.request_key is not None and is_patient:
            delay_s = self.world.random.uniform(0.05, 1.5)
            repeat = self._create_again if client.what == "create" else self._send
            self.world.call_in(delay_s, repeat, client, self._some_node())

    def _create(self, slug: str, machine_id: int = MACHINE) -> None:
        number = self._number()
        key = f"key-{number}" if self.world.random.random() < 0.7 else None
        client = Client(number, "create", slug, {"uid": number}, key, machine_id)
        self.clients.append(client)
        self._create_again(client, self._some_node())

    def _create_again(self, client: Client, node: SimulatedNode) -> None:
        request = self._begin(client, node)
        if request is not None:
            key = (client.machine_id, client.slug)
            context = json.dumps(client.event)
            self._ask(node, "create", key, VERSION, context, AUTH, request, client.request_key)

    def _row_id(self, key: Key) -> int | None:
        return self.database.names.get(key)

    def _administer(self, what: str, slug: str) -> None:
        row_id = self._row_id((MACHINE, slug))
        if row_id is None:
            return
        node = self._some_node()
        client = Client(self._number(), what, slug, {})
        self.clients.append(client)
        request = self._begin(client, node)
        if request is None:
            return
        key = (MACHINE, slug)
        if what == "delete":
            self._ask(node, "delete", key, row_id, request)
        elif what == "pause":
            self._ask(node, "set_status", key, row_id, PAUSED, request)
        else:
            timers = self.world.random.choice(list(Resume))
            self._ask(node, "set_status", key, row_id, RUNNING, request, timers)

    def _pause(self, slug: str) -> None:
        self._administer("pause", slug)
        self.world.call_in(self.world.random.uniform(0.3, 3), self._administer, "resume", slug)

    def _resume_all(self) -> None:
        for slug in SLUGS:
            row_id = self._row_id((MACHINE, slug))
            if row_id is None:
                self._create(slug)
            elif self.database.instances[row_id].values["status"] == PAUSED:
                self._administer("resume", slug)
        for (_, slug), row_id in list(self.database.names.items()):
            if versions.is_stuck(self.database.instances[row_id].values):
                self._desire(slug, None)
            if slug not in SLUGS and self.database.instances[row_id].values["status"] == PAUSED:
                self._administer("resume", slug)

    def _delete(self, slug: str) -> None:
        self._administer("delete", slug)
        if self.world.random.random() < 0.8:
            self.world.call_in(self.world.random.uniform(0.01, 2), self._create, slug)


def live(seed: int) -> Life:
    """Run a seed to its end."""
    life = Life(seed)
    was_enabled = gc.isenabled()
    gc.disable()  # when it comes must not matter, and it costs as much as the run
    try:
        life.run()
    finally:
        if was_enabled:
            gc.enable()
    return life
