"""What an upgrade would make of instances: computed in sandboxes of their own, nothing of it kept.

A runner of the version that they have describes each of them, and one of the version that they are
to have, which knows the migrations, computes the upgraded state, as upgrades.py does for real. Both
are thrown away afterwards. Nothing leaves their output gates, since no `K` is ever sent. An
instance over which a runner dies is told apart; the others go on in another runner.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from instances.engine.errors import Unavailable
from instances.engine.json_texts import error_fields
from instances.engine.operations import Code
from instances.engine.store import InstanceRow
from instances.runtime.errors import RuntimeFailure
from instances.stored_state import parse_state

if TYPE_CHECKING:
    from instances.engine.node import EngineNode
    from instances.runtime.process import Runner

ANSWER_LIMIT_S = 6.0  # the watchdog ends a step after 2 s of computing
ALL_LIMIT_S = 60.0
DEATHS_MAX = 3  # of runners; who is left then was not tried

REFUSED = "InvalidMigration"  # the error's name if what a migration returned can't be


class Subject(NamedTuple):
    """A settled instance that is not done."""

    row: InstanceRow
    slug: str


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What it would be afterwards."""

    state: str  # as in the column
    context: str
    effects: str  # renamed, cancelled and new timers: JSON list, or empty
    duration_us: int


@dataclass(frozen=True, slots=True)
class NotUpgraded:
    """Why it could not be upgraded."""

    name: str  # of the error; empty if a runner died over it
    message: str


@dataclass(frozen=True, slots=True)
class NotTried:
    """Too many others took too much time or memory."""


Result = Upgraded | NotUpgraded | NotTried

_CHANGED, _THREW = str(Code.CHANGED.value), str(Code.THREW.value)
_DIED = NotUpgraded("", "It used too much time or memory, or broke its sandbox")


async def preview_upgrades(
    node: EngineNode, subjects: Sequence[Subject], to_version_id: int, migrations: Sequence[int]
) -> list[Result]:
    """For each instance, all of one version, what these migrations would make of it.

    `migrations` are the ids of those that lead there, in order. Raises Unavailable.
    """
    if not subjects:
        return []
    until = node.loop.time() + ALL_LIMIT_S
    try:
        descriptions = await _answers(
            _Sandbox(node, subjects[0].row.version_id, (), until),
            [_mount(n, subject) for n, subject in enumerate(subjects, 1)],
        )
        results = [_description(answer) for answer in descriptions]
        path = json.dumps(list(migrations), separators=(",", ":"))
        wanted = [n for n, result in enumerate(results) if isinstance(result, str)]
        answers = await _answers(
            _Sandbox(node, to_version_id, tuple(migrations), until),
            [
                f"U\t{n}\t{n}\t{subjects[at].slug}\t{path}\t{results[at]}"
                f"\t{subjects[at].row.context}\n"
                for n, at in enumerate(wanted, 1)
            ],
        )
    except RuntimeFailure as exc:
        raise Unavailable(str(exc)) from exc
    upgraded = dict(zip(wanted, map(_result, answers), strict=True))
    return [upgraded[n] if isinstance(result, str) else result for n, result in enumerate(results)]


class _Sandbox(NamedTuple):
    """How to get a runner, and how long there is."""

    node: EngineNode
    version_id: int
    migration_ids: tuple[int, ...]
    until: float  # of the loop's clock


async def _answers(
    sandbox: _Sandbox, questions: Sequence[str]
) -> list[list[str] | NotUpgraded | NotTried]:
    """The fields of the answer to each question, whose `rid` is its number from 1 on."""
    answers: list[list[str] | NotUpgraded | NotTried] = []
    for _ in range(DEATHS_MAX):
        if len(answers) == len(questions):
            break
        got: asyncio.Queue[list[str]] = asyncio.Queue()
        async with sandbox.node.pool.apart(
            sandbox.version_id, _hearing(got), sandbox.migration_ids
        ) as runner:
            while len(answers) < len(questions) and sandbox.node.loop.time() < sandbox.until:
                rid = len(answers) + 1
                runner.send(questions[rid - 1].encode())
                answer = await _next(runner, got)
                if answer is None or answer[0] != str(rid):
                    answers.append(_DIED)
                    break
                answers.append(answer)
    return answers + [NotTried()] * (len(questions) - len(answers))


def _hearing(got: asyncio.Queue[list[str]]) -> Any:
    def on_lines(runner: Runner, lines: list[bytes]) -> None:
        try:
            for line in lines:
                fields = line.decode().split("\t")
                if fields[0].isdigit():
                    got.put_nowait(fields)
        except ValueError:
            runner.kill("protocol")  # anything may stand in what a runner says

    return on_lines


async def _next(runner: Runner, got: asyncio.Queue[list[str]]) -> list[str] | None:
    """The next answer; None if it does not come."""
    answer = asyncio.ensure_future(got.get())
    either: set[asyncio.Future[Any]] = {answer, runner.exited}
    await asyncio.wait(either, timeout=ANSWER_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
    if answer.done():
        return answer.result()
    answer.cancel()
    return None


def _mount(n: int, subject: Subject) -> str:
    row = subject.row
    mounted = f"{subject.slug}\t{row.state}\t{row.extra}\t{row.context}\t{row.children}"
    return f"L\t{n}\t{mounted}\nX\t{n}\t{n}\n"


def _description(answer: list[str] | NotUpgraded | NotTried) -> str | NotUpgraded | NotTried:
    if not isinstance(answer, list):
        return answer
    try:
        if answer[1] == _CHANGED:
            json.loads(answer[2])
            return answer[2]
        return _error(answer)
    except (ValueError, IndexError):
        return _DIED


def _result(answer: list[str] | NotUpgraded | NotTried) -> Result:
    if not isinstance(answer, list):
        return answer
    try:
        if answer[1] != _CHANGED:
            return _error(answer)
        _, _, state, _, context, _, _, effects, _, duration_us = answer
        parse_state(state)
        json.loads(context)
        _check_effects(effects)
        return Upgraded(state, context, effects, int(float(duration_us)))
    except (ValueError, IndexError, OverflowError, TypeError):
        return _DIED


def _check_effects(effects: str) -> None:
    """Raise ValueError unless these are effects with delays that are numbers."""
    for effect in json.loads(effects or "[]"):
        if not isinstance(effect, dict) or not isinstance(effect.get("delay", 0), int | float):
            raise ValueError("no effect")
        if not math.isfinite(effect.get("delay", 0)):
            raise ValueError("no delay")


def _error(answer: list[str]) -> NotUpgraded:
    if answer[1] != _THREW:
        return _DIED
    name, message, _ = error_fields(answer[2])
    return NotUpgraded(name or "Error", message)
