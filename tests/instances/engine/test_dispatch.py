"""Handing deliveries to workers, and leaving them to workers: with a broker and a store of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from instances.engine.clocks import LoopClock
from instances.engine.dispatch import IDS_TOGETHER, MESSAGES_WAITING_MAX, BrokerDown, Dispatcher
from instances.engine.operations import Delivery
from instances.engine.pump import HORIZON_MS, LEFT_TO_WORKERS_MS, Pump

WAIT_S = 20


class FakeBroker:
    def __init__(self) -> None:
        self.messages: list[list[int]] = []
        self.is_down = False
        self.questions = 0
        self.queue_length = 0

    async def publish(self, delivery_ids: list[int]) -> int:
        if self.is_down:
            raise BrokerDown("refused")
        self.messages.append(delivery_ids)
        return self.queue_length

    async def waiting(self) -> int:
        self.questions += 1
        if self.is_down:
            raise BrokerDown("refused")
        return self.queue_length

    def stop(self) -> None: ...


class Site:
    """A dispatcher and what became of what it was given."""

    def __init__(self) -> None:
        self.clock = LoopClock(asyncio.get_running_loop())
        self.broker = FakeBroker()
        self.here: list[int] = []
        self.dispatcher = Dispatcher(
            self.clock, self.broker, lambda given: self.here.extend(d.id for d in given)
        )
        self.dispatcher.start()

    def add(self, *ids: int, in_ms: int = 0) -> None:
        due_at_ms = self.clock.now_ms() + in_ms
        self.dispatcher.add(Delivery(id_, 0, (1, "a"), "{}", due_at_ms, 0, 1) for id_ in ids)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not what():
            await asyncio.sleep(0.01)


async def test_what_comes_due_together_goes_in_few_messages():
    site = Site()

    site.add(*range(250))
    await until(lambda: sum(map(len, site.broker.messages)) == 250)

    assert [len(ids) for ids in site.broker.messages] == [IDS_TOGETHER, IDS_TOGETHER, 50]
    assert [id_ for ids in site.broker.messages for id_ in ids] == list(range(250))
    assert site.dispatcher.stop() == []


async def test_what_is_not_due_yet_is_held_and_given_back_at_a_stop():
    site = Site()

    site.add(1, in_ms=600_000)
    site.add(2)
    await until(lambda: site.broker.messages == [[2]])

    assert site.dispatcher.stop() == [1]


async def test_full_broker_stops_the_pump_until_it_has_room():
    site = Site()
    site.broker.queue_length = MESSAGES_WAITING_MAX
    site.add(1)
    await until(lambda: bool(site.broker.messages))
    await until(lambda: not site.dispatcher.has_room())

    site.broker.queue_length = 3

    await until(site.dispatcher.has_room)
    site.dispatcher.stop()


async def test_deliveries_are_processed_here_while_the_broker_is_down():
    site = Site()
    site.broker.is_down = True
    site.add(1)
    await until(lambda: site.here == [1])
    site.add(2)
    await until(lambda: site.here == [1, 2])

    site.broker.is_down = False
    await until(lambda: site.broker.questions > 0)
    site.add(3)

    await until(lambda: site.broker.messages == [[3]])
    assert site.here == [1, 2]
    site.dispatcher.stop()


class RecordingSource:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def has_due(self, before_ms: int, now_ms: int) -> bool:
        self.asked.append(before_ms - now_ms)
        return False

    def claim_due(
        self, before_ms: int, limit: int, done: Callable[[list[Delivery]], None]
    ) -> None: ...


async def test_beside_living_workers_a_node_takes_only_what_is_overdue():
    source = RecordingSource()
    alive = True
    pump = Pump(
        source,
        LoopClock(asyncio.get_running_loop()),
        lambda deliveries: None,
        are_workers_alive=lambda: alive,
    )

    pump.claim()
    alive = False
    pump.claim()

    assert source.asked == [-LEFT_TO_WORKERS_MS, HORIZON_MS]
