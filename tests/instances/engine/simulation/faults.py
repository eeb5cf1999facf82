"""What goes wrong, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.instances.engine.simulation.node import SimulatedNode

if TYPE_CHECKING:
    from tests.instances.engine.simulation.life import Life


class Faults:
    def __init__(self, life: Life) -> None:
        self.life = life
        self.world = life.world
        self.has_clock_steps = False
        self.set_back_s = 0.0  # how far the database's clock was set back
        self._is_over = False
        self._is_database_down = False

    def plan(self, seconds: float) -> None:
        """Spread some faults over that time."""
        chance = self.world.random
        kinds: list[Callable[[SimulatedNode], None]] = [
            self._kill,
            self._pause,
            self._pause_past_lease,
            self._kill_runners,
            self._retire_runners,
            *[self._cut_statements] * 4,
            self._slow_database,
            self._slow_session,
            self._restart_database,
            self._fill_disk,
        ]
        if not self.life.is_alone:
            kinds += [self._stall_link, self._lose_link]
        if len(self.life.addresses) > 1:
            kinds += [self._part, self._lose_messages, self._delay_messages]
            kinds += [self._pause_past_lease, self._pause_past_lease, self._kill]
        for _ in range(chance.choice((0, 2, 3, 4, 6, 9))):
            self.world.call_in(chance.uniform(0, seconds), self._happen, chance.choice(kinds))
        if chance.random() < 0.2 and not self.life.is_alone:
            self.has_clock_steps = True
            for _ in range(chance.randint(1, 2)):
                self.world.call_in(chance.uniform(0, seconds), self._step_clock)

    def _happen(self, fault: Callable[[SimulatedNode], None]) -> None:
        nodes = self.life.network.nodes
        node = nodes[self.world.random.choice(self.life.addresses)]
        if not self._is_over and node.is_up:
            self.world.note("fault", fault.__name__.lstrip("_"), node.process.number)
            fault(node)

    def heal(self) -> None:
        """No more faults, and an end to those that last."""
        self._is_over = True
        self.world.note("healed")
        self._is_database_down = False
        self.life.database.is_full = False
        network = self.life.network
        network.parted.clear()
        network.loss_chance = network.delay_chance = 0.0
        for address in self.life.addresses:
            node = network.nodes[address]
            if node.process.is_dead:
                self.life.start_node(address)
            else:
                self._mend(node)
                if node.process.is_paused:
                    node.process.resume()

    def _mend(self, node: SimulatedNode) -> None:
        link = node.link
        if link.is_stalled:
            link.cut_all()
        link.is_down = self._is_database_down
        link.is_stalled = False
        link.cut_chance = 0.0
        link.delay_s = 0.002
        link.slow_session = ""

    def _for(self, low_s: float, high_s: float, end: Callable[..., None], *args: object) -> None:
        self.world.call_in(self.world.random.uniform(low_s, high_s), end, *args)

    def on_started(self, node: SimulatedNode) -> None:
        node.link.is_down = self._is_database_down
        node.link.lingers = not self.life.is_alone

    # ------------------------------------------------------------------ servers

    def _kill(self, node: SimulatedNode) -> None:
        node.kill()
        self._for(0.2, 4, self._start_again, node.address)

    def _start_again(self, address: str) -> None:
        if self.life.network.nodes[address].process.is_dead:
            self.life.start_node(address)

    def _pause(self, node: SimulatedNode) -> None:
        self._pause_for(node, 0.05, 4)

    def _pause_past_lease(self, node: SimulatedNode) -> None:
        self._pause_for(node, 8.5, 13)

    def _pause_for(self, node: SimulatedNode, low_s: float, high_s: float) -> None:
        if not node.process.is_paused:
            node.process.pause()
            self._for(low_s, high_s, self._go_on, node)

    def _go_on(self, node: SimulatedNode) -> None:
        if node.process.is_paused and not node.process.is_dead:
            self.world.note("goes on", node.process.number)
            node.process.resume()

    def _kill_runners(self, node: SimulatedNode) -> None:
        node.pool.kill_all()  # type: ignore[attr-defined]

    def _retire_runners(self, node: SimulatedNode) -> None:
        node.process.tell(0, node.pool.retire)

    # ------------------------------------------------------------------ the database

    def _cut_statements(self, node: SimulatedNode) -> None:
        node.link.cut_chance = self.world.random.choice((0.1, 0.3, 0.6))
        self._for(0.2, 3, self._mend, node)

    def _slow_database(self, node: SimulatedNode) -> None:
        node.link.delay_s = self.world.random.choice((0.02, 0.1, 0.4))
        self._for(0.2, 3, self._mend, node)

    def _slow_session(self, node: SimulatedNode) -> None:
        sessions = ("committer", "reader", "housekeeper", "housekeeper", "lease")
        node.link.slow_session = self.world.random.choice(sessions)
        self._for(0.5, 5, self._mend, node)

    def _stall_link(self, node: SimulatedNode) -> None:
        node.link.is_stalled = True
        self._for(0.2, 12, self._mend, node)

    def _lose_link(self, node: SimulatedNode) -> None:
        node.link.is_down = True
        node.link.cut_all()
        self._for(0.1, 12, self._mend, node)

    def _restart_database(self, node: SimulatedNode) -> None:
        self._is_database_down = True
        for one in self.life.serving():
            one.link.is_down = True
            one.link.cut_all()
        self._for(0.1, 3, self._database_is_back)

    def _database_is_back(self) -> None:
        self._is_database_down = False
        for node in self.life.network.nodes.values():
            node.link.is_down = False

    def _fill_disk(self, node: SimulatedNode) -> None:
        self.life.database.is_full = True
        self._for(0.1, 2, self._make_room)

    def fill_disk(self, seconds: float) -> None:
        """For moments, while something else goes on."""
        if not self._is_over:
            self.life.database.is_full = True
            self.world.call_in(seconds, self._make_room)

    def _make_room(self) -> None:
        self.life.database.is_full = False

    def _step_clock(self) -> None:
        step_s = self.world.random.choice((-14, -5, -1, 0.5, 3, 9, 25))
        self.life.database.offset_ms += step_s * 1000
        self.set_back_s += max(-step_s, 0)
        self.world.note("fault", "step clock", step_s)

    # ------------------------------------------------------------------ between servers

    def _part(self, node: SimulatedNode) -> None:
        network = self.life.network
        others = [address for address in self.life.addresses if address != node.address]
        pair = frozenset((node.address, self.world.random.choice(others)))
        network.parted.add(pair)
        self._for(0.2, 8, network.parted.discard, pair)

    def _lose_messages(self, node: SimulatedNode) -> None:
        self.life.network.loss_chance = 0.4
        self._for(0.5, 4, self._lose_none)

    def _lose_none(self) -> None:
        self.life.network.loss_chance = 0.0

    def _delay_messages(self, node: SimulatedNode) -> None:
        self.life.network.delay_chance = 0.5
        self._for(0.5, 5, self._delay_none)

    def _delay_none(self) -> None:
        self.life.network.delay_chance = 0.0
