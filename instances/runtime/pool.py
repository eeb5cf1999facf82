"""All runners of this process: which version has one, which are kept warm, which have to go.

P1  At most one runner per version takes new work. A retiring runner only finishes what it has.
P2  A version whose runner is being started is started once, however many ask for it.
P3  Never more than `processes_max` processes, whatever they are for.
P4  Nothing is lost with a runner: state is in the database, so any of them may be ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from instances.runtime import egress, procfs
from instances.runtime.bundle import BundleCode, BundleConverter, BundleInfo
from instances.runtime.egress import EgressPolicy, LookUp
from instances.runtime.errors import (
    BundleFailed,
    InvalidBundle,
    RunnerUnavailable,
    RuntimeFailure,
)
from instances.runtime.process import Runner
from instances.runtime.settings import RuntimeSettings
from instances.runtime.watchdog import TICK_S

log = logging.getLogger("statebacked.runtime")

CHECKS_AT_ONCE = 2
REPLENISH_DELAY_S = 0.2
UPGRADER_TRIES = 3  # runners that end while the code of migrations is read
STOP_LIMIT_S = 5.0
ORDERLY_ENDS = frozenset(("retired", "stopped", "not-loaded"))

Ready = Callable[[Runner | None, Exception | None], None]


@dataclass(frozen=True)
class PoolFigures:
    """For metrics."""

    processes: int
    standby: int
    retiring: int
    memory_bytes: int  # proportional set size when it was last sampled


class RunnerPool:
    """Starts, finds and ends runners. To be used from the event loop that `start` ran on.

    `load_code` gets a version's code; what it raises ends as RunnerUnavailable, except for
    RuntimeFailure, which is passed on. `load_migration` does the same for a migration's code.
    `on_lines(runner, lines)` gets what a runner says (docs/runner-protocol.md), without newlines.
    `on_exit(runner, reason)` is called once for each runner that was given a version, also if it
    never got as far as `ready`; reason is memory, cpu, flood, protocol, killed (by somebody else),
    exited (by itself), internal (a bug here), not-loaded, retired or stopped.
    `on_retire(runner)` asks for its settled activations to be given up, and for `release`.
    """

    def __init__(
        self,
        settings: RuntimeSettings,
        *,
        load_code: Callable[[int], Awaitable[BundleCode]],
        on_lines: Callable[[Runner, list[bytes]], None],
        on_exit: Callable[[Runner, str], None],
        on_retire: Callable[[Runner], None],
        load_migration: Callable[[int], Awaitable[BundleCode]] | None = None,
        look_up: LookUp = egress.look_up,
    ) -> None:
        self._settings = settings
        self._policy = EgressPolicy(settings.egress_allow)
        self._converter = BundleConverter(settings.esbuild)
        self._load_code = load_code
        self._load_migration = load_migration or _no_migrations
        self._on_lines = on_lines
        self._on_exit = on_exit
        self._on_retire = on_retire
        self._look_up = look_up

        self._alive: set[Runner] = set()
        self._keeps_alive = False  # whether runners are told regularly that this process runs
        self._spawning = 0
        self._live: dict[int, Runner] = {}  # by version; these take new work
        self._starting: dict[int, list[Ready]] = {}  # by version: who waits for its runner
        self._standby: list[Runner] = []
        self._making_room: Runner | None = None
        self._room = asyncio.Event()  # set when a process has ended
        self._start_slots = asyncio.Semaphore(settings.starts_at_once)
        self._check_slots = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._replenishing = False
        self._running = False
        self._now = 0.0  # the event loop's clock at the last tick
        self._timer: asyncio.TimerHandle | None = None
        self._sampler: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Start the standby processes. Raises RunnerUnavailable if that is impossible."""
        self._running = True
        self._tick()
        for _ in range(self._settings.standby):
            self._standby.append(await self._spawn())
        self._sampler = asyncio.create_task(self._sample_for_ever())

    def keep_alive(self) -> None:
        """To be called every two seconds, or never: runners end where this ends."""
        self._keeps_alive = True
        for runner in self._alive:
            runner.keep_alive()

    async def stop(self) -> None:
        """End all runners. `on_exit` is called for those that were handed out."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._tasks, *([self._sampler] if self._sampler is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        runners = list(self._alive)
        for runner in runners:
            runner.kill("stopped")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_LIMIT_S):
                await asyncio.gather(*(runner.wait_closed() for runner in runners))

    def figures(self) -> PoolFigures:
        return PoolFigures(
            processes=len(self._alive),
            standby=len(self._standby),
            retiring=sum(runner.retiring for runner in self._alive),
            memory_bytes=sum(r.memory.pss for r in self._alive if r.memory is not None),
        )

    # ------------------------------------------------------------------ for the engine

    def acquire(self, version_id: int, ready: Ready) -> None:
        """Have `ready(runner, error)` called with a runner that holds that version's code.

        At once if there is one. Otherwise later, and then one of the two arguments is None; the
        error is RunnerUnavailable (try again) or BundleFailed.
        """
        runner = self._live.get(version_id)
        if runner is not None and not runner.ending:
            runner.last_used = self._now
            ready(runner, None)
        elif version_id in self._starting:
            self._starting[version_id].append(ready)
        elif not self._running:
            ready(None, RunnerUnavailable("the site is shutting down"))
        else:
            self._starting[version_id] = [ready]
            self._run(self._start_version(version_id))

    def acquire_upgrader(
        self, version_id: int, migration_ids: tuple[int, ...], ready: Ready
    ) -> None:
        """As `acquire`, for a runner that has been told the code of these migrations, too."""
        self._acquire_upgrader(version_id, migration_ids, ready, 1)

    def _acquire_upgrader(
        self, version_id: int, migration_ids: tuple[int, ...], ready: Ready, tries: int
    ) -> None:
        def got(runner: Runner | None, error: Exception | None) -> None:
            if runner is None or runner.migrations.issuperset(migration_ids):
                ready(runner, error)
            elif tries > UPGRADER_TRIES:
                ready(None, RunnerUnavailable("the version's runners end all the time"))
            else:
                self._run(self._teach(runner, migration_ids, ready, tries))

        self.acquire(version_id, got)

    async def _teach(
        self, runner: Runner, migration_ids: tuple[int, ...], ready: Ready, tries: int
    ) -> None:
        codes: dict[int, BundleCode] = {}
        error: Exception | None = None
        try:
            for migration_id in set(migration_ids) - runner.migrations:
                codes[migration_id] = await self._load_migration(migration_id)
        except RuntimeFailure as exc:
            error = exc
        except asyncio.CancelledError:
            error = RunnerUnavailable("the site is shutting down")
        except Exception as exc:  # whatever kept the code from being read
            log.exception("the code of migrations %s could not be read", migration_ids)
            error = RunnerUnavailable(f"the migration's code could not be read: {exc}")
        try:
            if error is not None:
                ready(None, error)
            elif runner.ending or runner.retiring:
                self._acquire_upgrader(runner.version_id, migration_ids, ready, tries + 1)
            else:
                for migration_id, code in codes.items():
                    runner.learn_migration(migration_id, code)
                ready(runner, None)
        except Exception:  # a bug of whoever asked
            log.exception("version %s: its runner could not be taken", runner.version_id)

    def release(self, runner: Runner) -> None:
        """The engine has nothing left on this runner. Ends it if it is retiring."""
        if runner.retiring:
            runner.kill("retired")

    def retire(self, runner: Runner) -> None:
        """Give `runner` no new work and replace it when its version is next asked for."""
        if runner.retiring or self._live.get(runner.version_id) is not runner:
            return
        runner.retiring = True
        del self._live[runner.version_id]
        handle = asyncio.get_running_loop().call_later(
            self._settings.retire_s, runner.kill, "retired"
        )
        runner.exited.add_done_callback(lambda _: handle.cancel())
        self._on_retire(runner)

    # ------------------------------------------------------------------ for publishing

    async def check_bundle(self, source: bytes) -> BundleInfo:
        """Convert a bundle and load it in a runner of its own, which is thrown away.

        Raises InvalidBundle with a message for its author, or RunnerUnavailable.
        """
        return await self._check(source, is_migration=False)

    async def check_migration(self, source: bytes) -> BundleInfo:
        """The same for a migration; its `xstate_major` is 0."""
        return await self._check(source, is_migration=True)

    async def _check(self, source: bytes, *, is_migration: bool) -> BundleInfo:
        async with self._check_slots:
            converted = await self._converter.convert(source)
            async with self._throw_away_runner() as runner:
                try:
                    report = await runner.load(
                        converted.code,
                        limit_s=self._settings.load_limit_s,
                        is_migration=is_migration,
                    )
                except BundleFailed as exc:
                    raise InvalidBundle(str(exc)) from exc
        return BundleInfo(
            commonjs=converted.code.commonjs,
            externals=converted.code.externals,
            xstate_major=report.xstate,
            warnings=converted.warnings + report.warnings,
        )

    @contextlib.asynccontextmanager
    async def apart(
        self,
        version_id: int,
        on_lines: Callable[[Runner, list[bytes]], None],
        migration_ids: tuple[int, ...] = (),
    ) -> AsyncIterator[Runner]:
        """A runner of its own with that version's code, for a look at what it would do.

        It knows these migrations, too. Raises BundleFailed or RunnerUnavailable.
        """
        code = await self._load_code(version_id)
        migrations = {one: await self._load_migration(one) for one in migration_ids}
        async with self._check_slots, self._throw_away_runner(on_lines) as runner:
            await runner.load(code, limit_s=self._settings.load_limit_s)
            for migration_id, migration_code in migrations.items():
                runner.learn_migration(migration_id, migration_code)
            yield runner

    @contextlib.asynccontextmanager
    async def _throw_away_runner(
        self, on_lines: Callable[[Runner, list[bytes]], None] = lambda runner, lines: None
    ) -> AsyncIterator[Runner]:
        await self._make_room()
        runner = await self._spawn(on_lines=on_lines)
        try:
            yield runner
        finally:
            runner.kill("checked")

    # ------------------------------------------------------------------ starting

    async def _start_version(self, version_id: int) -> None:
        runner, error = None, None
        try:
            async with self._start_slots:
                runner = await self._loaded_runner(version_id)
        except RuntimeFailure as exc:
            error = exc
        except asyncio.CancelledError:
            error = RunnerUnavailable("the site is shutting down")
        except Exception as exc:  # whatever kept the code from being read
            log.exception("the code of version %s could not be read", version_id)
            error = RunnerUnavailable(f"the version's code could not be read: {exc}")
        waiters = self._starting.pop(version_id)
        if runner is not None:
            runner.last_used = self._now
            self._live[version_id] = runner
        for ready in waiters:
            try:
                ready(runner, error)
            except Exception:  # the others wait too
                log.exception("version %s: its runner could not be taken", version_id)
        self._replenish_soon()

    async def _loaded_runner(self, version_id: int) -> Runner:
        code = await self._load_code(version_id)
        runner = await self._blank_runner()
        runner.version_id = version_id
        try:
            await runner.load(code, limit_s=self._settings.load_limit_s)
        except BaseException:
            runner.kill("not-loaded")
            raise
        return runner

    async def _blank_runner(self) -> Runner:
        if self._standby:
            return self._standby.pop(0)
        await self._make_room()
        return await self._spawn()

    async def _spawn(self, on_lines: Callable[[Runner, list[bytes]], None] | None = None) -> Runner:
        self._spawning += 1
        try:
            runner = await Runner.spawn(
                self._settings,
                self._policy,
                on_lines=on_lines or self._on_lines,
                on_exit=self._exited,
                on_tainted=self.retire,
                look_up=self._look_up,
            )
        finally:
            self._spawning -= 1
        if not runner.exited.done():
            self._alive.add(runner)
            if self._keeps_alive:
                runner.keep_alive()
        return runner

    def _exited(self, runner: Runner, reason: str) -> None:
        self._alive.discard(runner)
        if runner is self._making_room:
            self._making_room = None
        self._room.set()
        if runner in self._standby:
            self._standby.remove(runner)
        if self._live.get(runner.version_id) is runner:
            del self._live[runner.version_id]
        if not runner.version_id:
            return
        if reason not in ORDERLY_ENDS:
            log.warning("version %s: its runner ended: %s", runner.version_id, reason)
        if reason == "exited":
            log.warning("its last words: %s", runner.stderr_tail())
        self._on_exit(runner, reason)

    def _replenish_soon(self) -> None:
        """Fill the standby up again, unless starts are going on: those need the processor more."""
        if self._running and not self._replenishing and not self._starting:
            self._run(self._replenish())

    async def _replenish(self) -> None:
        self._replenishing = True
        try:
            # The version that took the process is about to get its first event.
            await asyncio.sleep(REPLENISH_DELAY_S)
            while (
                len(self._standby) < self._settings.standby
                and self._process_count() < self._settings.processes_max
                and not self._starting  # the last start calls _replenish_soon()
            ):
                runner = await self._spawn()
                if not runner.exited.done():
                    self._standby.append(runner)
        except RunnerUnavailable as exc:
            log.warning("no standby runner: %s", exc)  # the next sample tries again
        finally:
            self._replenishing = False

    # ------------------------------------------------------------------ making room

    def _process_count(self) -> int:
        return len(self._alive) + self._spawning

    async def _make_room(self) -> None:
        """Wait until one more process is allowed. Raises RunnerUnavailable after some time."""
        try:
            async with asyncio.timeout(self._settings.acquire_wait_s):
                while self._process_count() >= self._settings.processes_max:
                    self._room.clear()
                    self._free_one()
                    await self._room.wait()
        except TimeoutError as exc:
            raise RunnerUnavailable("all runners are in use") from exc

    def _free_one(self) -> None:
        """Retire the runner that was unused for longest; one at a time.

        If it is busy, it needs up to `retire_s`. Retiring another for each who waits would only
        make their versions need a new runner too.
        """
        if self._standby:
            self._standby.pop(0).kill("retired")
        elif self._making_room is None and self._live:
            self._making_room = min(self._live.values(), key=_idle_first)
            self.retire(self._making_room)

    # ------------------------------------------------------------------ the clock

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._now = loop.time()
        self._timer = loop.call_later(TICK_S, self._tick)
        for runner in list(self._alive):
            runner.tick(self._now)

    async def _sample_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.memory_sample_s)
            await self.sample()

    async def sample(self) -> None:
        """Measure all runners, and retire those that are too large, too old, idle or too many."""
        runners = list(self._alive)
        pids = [runner.pid for runner in runners]
        # In a thread: the kernel walks page tables for it.
        for runner, memory in zip(runners, await asyncio.to_thread(_memories, pids), strict=True):
            runner.memory = memory
        now = asyncio.get_running_loop().time()
        for runner in list(self._live.values()):
            if self._is_worn(runner, now) or self._is_idle(runner, now):
                self.retire(runner)
            else:
                runner.probe()
        self._retire_for_memory()
        self._replenish_soon()

    def _is_worn(self, runner: Runner, now: float) -> bool:
        rss = runner.memory.rss if runner.memory is not None else 0
        return rss > self._settings.rss_max_bytes or now - runner.born_at > self._settings.age_max_s

    def _is_idle(self, runner: Runner, now: float) -> bool:
        return now - runner.last_used > self._settings.idle_s and not runner.waiting()

    def _retire_for_memory(self) -> None:
        """Retire the least recently used until the others fit; the last one stays in any case."""
        total = sum(r.memory.pss for r in self._alive if r.memory is not None and not r.retiring)
        for runner in sorted(self._live.values(), key=_idle_first)[:-1]:
            if total <= self._settings.memory_max_bytes:
                break
            total -= runner.memory.pss if runner.memory is not None else 0
            self.retire(runner)

    def _run(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _no_migrations(migration_id: int) -> BundleCode:
    raise LookupError(f"nobody has the code of migration {migration_id}")


def _idle_first(runner: Runner) -> tuple[bool, float]:
    return runner.waiting(), runner.last_used


def _memories(pids: list[int]) -> list[procfs.Memory | None]:
    return [procfs.memory(pid) for pid in pids]
