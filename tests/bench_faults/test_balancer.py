"""What the load balancer of a fault run knows of its nodes."""

import asyncio
from dataclasses import dataclass, field

from bench.faults.balancer import ANSWER_S, Balancer


@dataclass
class Node:
    name: str
    is_well: bool = True
    stands_still: bool = False
    asked: asyncio.Event = field(default_factory=asyncio.Event)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def ask(node: Node, within_s: float) -> bool:
    assert within_s == ANSWER_S
    node.asked.set()
    if node.stands_still:
        await asyncio.Event().wait()
    return node.is_well


async def test_node_is_in_rotation_by_its_latest_answer():
    node, clock = Node("web-0"), Clock()
    balancer = Balancer([node], ask, clock)
    assert not balancer.in_rotation(node)

    await balancer.ask(node)
    assert balancer.in_rotation(node)

    node.is_well = False
    await balancer.ask(node)
    assert not balancer.in_rotation(node)


async def test_answer_is_believed_for_a_while_only():
    node, clock = Node("web-0"), Clock()
    balancer = Balancer([node], ask, clock)
    await balancer.ask(node)

    clock.now += ANSWER_S
    assert balancer.in_rotation(node)

    clock.now += 0.01
    assert not balancer.in_rotation(node)


async def test_node_that_stands_still_keeps_no_other_from_being_asked():
    still, other = Node("web-0", stands_still=True), Node("web-1")
    balancer = Balancer([still, other], ask, Clock())
    running = asyncio.create_task(balancer.run())

    async with asyncio.timeout(10):
        for _ in range(2):
            other.asked.clear()
            await other.asked.wait()

    assert balancer.in_rotation(other)
    assert not balancer.in_rotation(still)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
