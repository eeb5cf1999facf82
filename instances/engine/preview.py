"""What an event would do: one step in a sandbox of its own, and nothing of it kept.

The committed row is mounted in a process that is thrown away afterwards. It never gets a `K` for
the step, so nothing leaves its output gate: no action runs, no service starts, no log is written.
A machine that loops or grows without end kills its preview and nobody's events.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from instances.engine.errors import MachineOverLimit, Unavailable
from instances.engine.operations import Code
from instances.engine.store import InstanceRow
from instances.runtime.errors import RuntimeFailure

if TYPE_CHECKING:
    from instances.engine.node import EngineNode
    from instances.runtime.process import Runner

PREVIEW_LIMIT_S = 12.0  # allowWrite may take 5 s, the step 2
LOG_LINES_MAX = 50


@dataclass
class Preview:
    """The runner's answer to the step, and what the machine logged meanwhile."""

    code: Code
    state: str = ""  # as in the column; of DENIED and THREW the error object, or empty
    context: str = ""
    children: str = "[]"
    effects: str = ""
    report: str = ""
    duration_us: int = 0
    logs: list[tuple[str, str]] = field(default_factory=list)  # level, text

    @property
    def has_changed(self) -> bool:
        return self.code in (Code.CHANGED, Code.CHANGED_WITH_EFFECTS)


async def preview(node: EngineNode, row: InstanceRow, slug: str, event: str, auth: str) -> Preview:
    """The step that `event` (one line of JSON) would cause on a committed row.

    Services that run at the moment are mounted as stand-ins. Raises MachineOverLimit, Unavailable.
    """
    answer: asyncio.Future[Preview] = node.loop.create_future()
    logs: list[tuple[str, str]] = []

    def on_lines(runner: Runner, lines: list[bytes]) -> None:
        try:
            for line in lines:
                on_line(runner, line.decode().split("\t"))
        except (ValueError, IndexError, TypeError):
            runner.kill("protocol")  # anything may stand in what a runner says

    def on_line(runner: Runner, fields: list[str]) -> None:
        if fields[0] == "1" and not answer.done():
            answer.set_result(_answer(fields, logs))
        elif fields[0] == "G" and len(logs) < LOG_LINES_MAX:
            logs.append((fields[2][:8], " ".join(map(str, json.loads(fields[3])))))
        elif fields[0] == "W" and not answer.done():
            # `allowWrite` asks somebody else before the step: that may leave.
            runner.send(b"K\t1\n")

    try:
        async with node.pool.apart(row.version_id, on_lines) as runner:
            runner.send(
                f"L\t1\t{slug}\t{row.state}\t{row.extra}\t{row.context}\t{row.children}\n"
                f"S\t1\t1\t{event}\t{auth}\n".encode()
            )
            either: set[asyncio.Future[Any]] = {answer, runner.exited}
            await asyncio.wait(
                either,
                timeout=PREVIEW_LIMIT_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
    except RuntimeFailure as exc:
        raise Unavailable(str(exc)) from exc
    if not answer.done():
        raise MachineOverLimit("The machine used too much time or memory, or broke its sandbox")
    return answer.result()


def _answer(fields: list[str], logs: list[tuple[str, str]]) -> Preview:
    code = Code(int(fields[1]))
    if code not in (Code.CHANGED, Code.CHANGED_WITH_EFFECTS):
        return Preview(code, fields[2] if len(fields) > 2 else "", logs=logs)
    _, _, state, _, context, _, children, effects, report, duration_us = fields
    return Preview(
        code, state, context, children, effects, report, int(float(duration_us)), logs=logs
    )
