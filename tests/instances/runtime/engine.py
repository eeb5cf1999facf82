"""A small engine for the tests: enough books to talk to the real pool's real runners."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from instances.runtime.bundle import BundleCode
from instances.runtime.egress import LookUp, look_up
from instances.runtime.errors import RuntimeFailure
from instances.runtime.pool import RunnerPool
from instances.runtime.process import Runner
from instances.runtime.settings import RuntimeSettings

PATIENCE_S = 20.0  # a test that waits longer has failed


@dataclass
class Answer:
    """A step's answer: `rid code state extra context public children effects report us`."""

    code: int
    fields: list[str]

    @property
    def context(self) -> dict[str, object]:
        return json.loads(self.fields[4])

    @property
    def error(self) -> dict[str, str]:
        return json.loads(self.fields[2])


@dataclass
class Instance:
    runner: Runner
    activation: str


@dataclass
class Engine:
    """Versions are numbers; `code` is what they consist of. So are migrations."""

    settings: RuntimeSettings
    look_up: LookUp = look_up
    code: dict[int, BundleCode] = field(default_factory=dict)
    migrations: dict[int, BundleCode] = field(default_factory=dict)
    releases: bool = True  # as an engine does that has nothing left on a retiring runner

    def __post_init__(self) -> None:
        self.pool = RunnerPool(
            self.settings,
            load_code=self.load_code,
            load_migration=self.load_migration,
            on_lines=self.on_lines,
            on_exit=self.on_exit,
            on_retire=self.on_retire,
            look_up=self.look_up,
        )
        self.ids = itertools.count(1)
        self.waiting: dict[str, asyncio.Future[Answer]] = {}
        self.notices: list[list[str]] = []  # all lines that answer no step
        self.news = asyncio.Condition()
        self.exits: list[tuple[Runner, str]] = []
        self.retired: list[Runner] = []
        self.loads = 0
        self.migration_loads: list[int] = []
        self.reading = asyncio.Event()  # whether codes of migrations can be read right now
        self.reading.set()
        self.tasks: set[asyncio.Task[None]] = set()

    # -------------------------------------------------------------- called by the pool

    async def load_code(self, version_id: int) -> BundleCode:
        self.loads += 1
        return self.code[version_id]

    async def load_migration(self, migration_id: int) -> BundleCode:
        self.migration_loads.append(migration_id)
        await self.reading.wait()
        return self.migrations[migration_id]

    def on_lines(self, runner: Runner, lines: list[bytes]) -> None:
        for line in lines:
            fields = line.decode().split("\t")
            future = self.waiting.pop(fields[0], None)
            if future is None:
                self.notices.append(fields)
            elif not future.done():
                future.set_result(Answer(int(fields[1]), fields))
        self.wake()

    def on_exit(self, runner: Runner, reason: str) -> None:
        self.exits.append((runner, reason))
        self.wake()

    def on_retire(self, runner: Runner) -> None:
        self.retired.append(runner)
        if self.releases:
            self.pool.release(runner)

    def wake(self) -> None:
        async def notify() -> None:
            async with self.news:
                self.news.notify_all()

        task = asyncio.ensure_future(notify())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # -------------------------------------------------------------- called by the tests

    async def add_version(self, version_id: int, source: str) -> None:
        info = await self.pool.check_bundle(source.encode())
        self.code[version_id] = BundleCode(info.commonjs, info.externals)

    async def add_migration(self, migration_id: int, source: str) -> None:
        info = await self.pool.check_migration(source.encode())
        self.migrations[migration_id] = BundleCode(info.commonjs, info.externals)

    def acquiring(self, version_id: int) -> asyncio.Future[Runner]:
        """The runner of a version, or the error, as soon as the pool says so."""
        future = asyncio.get_running_loop().create_future()
        self.pool.acquire(version_id, _settling(future))
        return future

    def acquiring_upgrader(self, version_id: int, *migration_ids: int) -> asyncio.Future[Runner]:
        """The same for one that knows these migrations."""
        future = asyncio.get_running_loop().create_future()
        self.pool.acquire_upgrader(version_id, migration_ids, _settling(future))
        return future

    async def acquire(self, version_id: int) -> Runner:
        async with asyncio.timeout(PATIENCE_S):
            return await self.acquiring(version_id)

    async def create(self, version_id: int, name: str = "one") -> Instance:
        """A new instance in a runner of that version."""
        instance = Instance(await self.acquire(version_id), f"a{next(self.ids)}")
        answer = await self.ask(instance, "C", name, "{}", "{}", "")
        assert answer.code in (0, 5), answer
        return instance

    async def describe(self, instance: Instance) -> str:
        """The JSON of `X`."""
        answer = await self.ask(instance, "X")
        assert answer.code == 0, answer
        return answer.fields[2]

    def upgrading(
        self, runner: Runner, migration_ids: list[int], description: str, context: object
    ) -> tuple[Instance, asyncio.Future[Answer]]:
        """`U` for an instance in another version's runner."""
        instance = Instance(runner, f"a{next(self.ids)}")
        fields = ("one", json.dumps(migration_ids), description, json.dumps(context))
        return instance, self.asking(instance, "U", *fields)

    def sending(self, instance: Instance, event: str, **rest: object) -> asyncio.Future[Answer]:
        return self.asking(instance, "S", json.dumps({"type": event, **rest}), "{}")

    async def send(self, instance: Instance, event: str, **rest: object) -> Answer:
        async with asyncio.timeout(PATIENCE_S):
            return await self.sending(instance, event, **rest)

    def asking(self, instance: Instance, kind: str, *fields: str) -> asyncio.Future[Answer]:
        rid = str(next(self.ids))
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting[rid] = future
        line = "\t".join((kind, instance.activation, rid, *fields))
        instance.runner.send(line.encode() + b"\n")
        return future

    async def ask(self, instance: Instance, kind: str, *fields: str) -> Answer:
        async with asyncio.timeout(PATIENCE_S):
            return await self.asking(instance, kind, *fields)

    def commit(self, instance: Instance) -> None:
        instance.runner.send(f"K\t{instance.activation}\n".encode())

    async def notice(self, kind: str) -> list[str]:
        """The first line of that kind; it is taken out."""
        async with asyncio.timeout(PATIENCE_S), self.news:
            while True:
                for fields in self.notices:
                    if fields[0] == kind:
                        self.notices.remove(fields)
                        return fields
                await self.news.wait()

    async def run_service(self, version_id: int, **input_: object) -> dict[str, object]:
        """The event with which the service of `machines.serving` ends."""
        instance = await self.create(version_id)
        assert (await self.send(instance, "go", input=input_)).code == 5
        self.commit(instance)
        return json.loads((await self.notice("E"))[4])

    async def exit_of(self, runner: Runner) -> str:
        """Why the runner ended, once it has."""
        async with asyncio.timeout(PATIENCE_S), self.news:
            while True:
                reasons = [reason for ended, reason in self.exits if ended is runner]
                if reasons:
                    assert len(reasons) == 1
                    return reasons[0]
                await self.news.wait()


def _settling(
    future: asyncio.Future[Runner],
) -> Callable[[Runner | None, Exception | None], None]:
    def ready(runner: Runner | None, error: Exception | None) -> None:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(Runner, runner))

    return ready


async def failure(future: asyncio.Future[Runner]) -> RuntimeFailure:
    """The error that an acquisition ends with."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            await future
        except RuntimeFailure as exc:
            return exc
    raise AssertionError("there is a runner")
