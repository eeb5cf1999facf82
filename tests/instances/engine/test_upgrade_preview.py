"""Dry runs of upgrades against runners that say what they want; the real ones are elsewhere."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from instances.engine import upgrade_preview
from instances.engine.store import InstanceRow
from instances.engine.upgrade_preview import (
    DEATHS_MAX,
    NotTried,
    NotUpgraded,
    Subject,
    Upgraded,
    preview_upgrades,
)

STATE = '{"state":"a","tags":[],"done":false}'
DESCRIPTION = '{"leaves":[["a"]],"history":[],"timers":[],"kept":{}}'
DIED = "It used too much time or memory, or broke its sandbox"
DIES = "dies"
SILENT = "silent"


class Runner:
    def __init__(self, answer: Callable[[list[str]], str], on_lines: Any) -> None:
        self.answer = answer
        self.on_lines = on_lines
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.asked: list[list[str]] = []

    def send(self, data: bytes) -> None:
        for line in data.decode().splitlines():
            fields = line.split("\t")
            if fields[0] not in "XU":
                continue
            self.asked.append(fields)
            said = self.answer(fields)
            if said == DIES:
                self.kill("died")
            elif said != SILENT:
                self.on_lines(self, [said.encode()])

    def kill(self, reason: str) -> None:
        if not self.exited.done():
            self.exited.set_result(reason)


class Node:
    """With a pool whose runners answer `X` by a description and `U` by what `upgrade` says."""

    def __init__(self, upgrade: Callable[[str], str]) -> None:
        self.loop = asyncio.get_running_loop()
        self.pool = self
        self.upgrade = upgrade
        self.runners: list[Runner] = []

    def answer(self, fields: list[str]) -> str:
        if fields[0] == "X":
            return f"{fields[2]}\t0\t{DESCRIPTION}" + "\t" * 7 + "1"
        return self.upgrade(fields[3]).replace("RID", fields[2])

    @contextlib.asynccontextmanager
    async def apart(
        self, version_id: int, on_lines: Any, migration_ids: tuple[int, ...] = ()
    ) -> AsyncIterator[Runner]:
        runner = Runner(self.answer, on_lines)
        self.runners.append(runner)
        yield runner


def answer(state: str = STATE, context: str = '{"n":1}', code: str = "0", effects: str = "") -> str:
    return f"RID\t{code}\t{state}\t\t{context}\t\t[]\t{effects}\t\t12.5"


def subjects(*slugs: str) -> list[Subject]:
    return [
        Subject(InstanceRow(n, 1, 0, 1, 1, STATE, "", "{}", "[]"), s) for n, s in enumerate(slugs)
    ]


async def preview(upgrade: Callable[[str], str], *slugs: str) -> tuple[Node, list[Any]]:
    node = Node(upgrade)
    found = await preview_upgrades(node, subjects(*slugs), 2, [7, 8])  # type: ignore[arg-type]
    return node, found


async def test_each_instance_is_described_and_upgraded():
    node, found = await preview(lambda slug: answer(), "one", "two")

    assert found == [Upgraded(STATE, '{"n":1}', "", 12)] * 2
    old, new = node.runners
    assert [fields[0] for fields in old.asked] == ["X", "X"]
    assert new.asked[1] == ["U", "2", "2", "two", "[7,8]", DESCRIPTION, "{}"]


async def test_nothing_to_try_starts_no_runner():
    node, found = await preview(lambda slug: answer())

    assert (found, node.runners) == ([], [])


async def test_error_of_a_migration_is_told():
    error = json.dumps({"name": "RangeError", "message": "too heavy"})
    _, found = await preview(lambda slug: answer(error, code="3"), "one")

    assert found == [NotUpgraded("RangeError", "too heavy")]


@pytest.mark.parametrize(
    "said",
    [
        "RID\t0",
        "RID\tx\t{}",
        answer(state="{}"),
        answer(state="nonsense"),
        answer(context="{"),
        answer().replace("12.5", "soon"),
        answer().replace("12.5", "inf"),
        answer(effects="{"),
        answer(effects='[{"t":"timer","delay":"soon"}]'),
        answer(effects='[{"t":"timer","delay":Infinity}]'),
        answer(effects="[1]"),
        answer(effects="1"),
        "99\t0\t{}",
        DIES,
    ],
)
async def test_what_a_runner_should_not_say_is_the_end_of_it_for_one_instance(said):
    _, found = await preview(lambda slug: said if slug == "bad" else answer(), "a", "bad", "z")

    assert [type(one) for one in found] == [Upgraded, NotUpgraded, Upgraded]
    assert found[1] == NotUpgraded("", DIED)


async def test_silence_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(upgrade_preview, "ANSWER_LIMIT_S", 0.01)
    _, found = await preview(lambda slug: SILENT if slug == "bad" else answer(), "bad", "good")

    assert [type(one) for one in found] == [NotUpgraded, Upgraded]


async def test_after_some_deaths_the_rest_is_not_tried():
    node, found = await preview(lambda slug: DIES, *"abcdef")

    assert found == [NotUpgraded("", DIED)] * DEATHS_MAX + [NotTried()] * (6 - DEATHS_MAX)
    assert len(node.runners) == 1 + DEATHS_MAX
