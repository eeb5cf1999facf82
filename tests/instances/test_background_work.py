"""What a server does in the background survives a database that is away, and a part that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from django.db import OperationalError

from instances import bus, housekeeping, place_keeper
from instances.engine import node
from instances.engine.node import EngineNode
from instances.lookups import in_thread
from instances.place_keeper import PlaceKeeper
from machines.schedules import due
from machines.schedules.due import Schedules


class Away:
    """A function that asks the database, which is away the first two times."""

    def __init__(self, answer: Any = None) -> None:
        self.calls = 0
        self._answer = answer

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls <= 2:
            raise OperationalError("the server closed the connection unexpectedly")
        return self._answer


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


async def test_schedules_go_on_when_the_database_is_back(monkeypatch):
    find_due = Away(["a run"])
    fired: list[Any] = []
    monkeypatch.setattr(due, "EVERY_S", 0)
    monkeypatch.setattr(due, "find_due", in_thread(find_due))
    store: Any = SimpleNamespace(fire_schedule=fired.append)
    clock: Any = SimpleNamespace(now_ms=lambda: 0)
    schedules = Schedules(store, clock)

    schedules.start(asyncio.get_running_loop())
    await until(lambda: bool(fired))
    schedules.stop()

    assert find_due.calls >= 3


async def test_counts_are_put_right_when_the_database_is_back(monkeypatch):
    repair, lose_dead = Away(), Away([])
    monkeypatch.setattr(place_keeper, "EVERY_S", 0)
    monkeypatch.setattr(place_keeper, "LOOK_FOR_LOST_EVERY_S", 0)
    nothing: Callable[..., None] = lambda *arguments: None  # noqa: E731
    functions: dict[str, Callable[..., Any]] = {
        "_repair": repair,
        "_lose_dead": lose_dead,
        "_begin": nothing,
        "_end": nothing,
    }
    for name, function in functions.items():
        monkeypatch.setattr(place_keeper, name, in_thread(function))
    keeper = PlaceKeeper()

    await keeper.start("node")
    keeper.note_deleted(7)
    await until(lambda: repair.calls >= 3 and lose_dead.calls >= 3)
    await keeper.stop()


async def test_house_is_kept_when_the_database_is_back(monkeypatch):
    keep_house = Away()
    monkeypatch.setattr(housekeeping, "EVERY_S", 0)
    monkeypatch.setattr(housekeeping, "keep_house_in_thread", in_thread(keep_house))
    here: Any = SimpleNamespace(
        clock=SimpleNamespace(now_ms=lambda: 0), settings=SimpleNamespace(log_retention_ms=0)
    )

    keeping = asyncio.create_task(EngineNode._keep_house(here))
    await until(lambda: keep_house.calls >= 3)
    keeping.cancel()


async def test_part_of_stopping_that_hangs_or_fails_does_not_keep_the_others_from_theirs(
    monkeypatch, caplog
):
    monkeypatch.setattr(node, "STOP_PART_S", 0.01)

    async def fail() -> None:
        raise RuntimeError("no")

    await node._in_time("what hangs", asyncio.Event().wait())  # type: ignore[arg-type]
    await node._in_time("what fails", fail())

    assert "stopping takes too long: what hangs" in caplog.text
    assert "stopping failed: what fails" in caplog.text


async def test_listener_whose_library_loses_the_word_to_end_is_told_again(monkeypatch):
    monkeypatch.setattr(bus, "TRY_AGAIN_S", 0.01)
    told = 0

    async def listen() -> None:
        nonlocal told
        while told < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told += 1

    ear = bus.Bus("redis://127.0.0.1:1", "x", on_message=print, on_connected=print)
    ear._tasks = [asyncio.create_task(listen())]
    await asyncio.sleep(0)

    await ear.stop()

    assert told == 3
