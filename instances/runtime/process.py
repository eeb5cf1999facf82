"""One runner: a sandboxed Deno process, and the engine's end of its pipes.

The protocol is docs/runner-protocol.md. This module handles the lines that concern the process
(READY, M, P, Z) and its network (F, Q), and passes all others on as they came.

R1  What a runner says is hostile input. A line that isn't understood here ends the process.
R2  `on_exit` is called exactly once, after the last call of `on_lines`.
R3  After `kill` nothing of the runner is passed on any more.
R4  No runner outlives this process: the kernel kills it (Linux), and its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import msgspec

from instances.runtime import egress, procfs, sandbox
from instances.runtime.broker import FetchBroker, ProtocolViolation
from instances.runtime.errors import BundleFailed, RunnerUnavailable
from instances.runtime.output import Flood, LineReader, OutputBudget
from instances.runtime.watchdog import Watchdog

if TYPE_CHECKING:
    from instances.runtime.bundle import BundleCode
    from instances.runtime.egress import EgressPolicy, LookUp
    from instances.runtime.settings import RuntimeSettings

log = logging.getLogger("statebacked.runtime")

WRITE_HIGH_WATER = 4 << 20  # bytes that the runner has not read: from here on it is congested
WRITE_LOW_WATER = 1 << 20
STDERR_BYTES_KEPT = 16_384
PIPES_CLOSE_S = 1.0

STDIN, STDOUT, STDERR = 0, 1, 2

OUT_OF_MEMORY = (
    b"Fatal JavaScript out of memory",
    b"Fatal process out of memory",
    b"JavaScript heap out of memory",
    b"memory allocation of",  # Rust's allocator, when RLIMIT_DATA is reached outside of V8
    b"Cannot allocate memory",
)

# Why a bundle did not load, by the reason for which its runner ended.
LOAD_FAILURES = {
    "memory": "the bundle used more memory than a runner has while it was loaded",
    "cpu": "the bundle did not finish loading in time (an endless loop outside of functions?)",
    "flood": "the bundle wrote more output than is allowed while it was loaded",
    "protocol": "the bundle interfered with the process that runs it",
}

OWN_LINES = frozenset((b"P", b"F", b"Q", b"M", b"Z", b"R", b""))
OWN_LINE_COST = 4  # in lines of the output budget: a fetch is dearer than what is passed on


class ErrorObject(msgspec.Struct):
    """An error as the harness reports it."""

    name: str = "Error"
    message: str = ""
    stack: str = ""


class LoadReport(msgspec.Struct):
    """The runner's answer to `M`."""

    ok: bool
    xstate: int = 0
    exports: list[str] = []
    warnings: list[str] = []
    error: ErrorObject | None = None


class Runner(asyncio.SubprocessProtocol):
    """A process that holds the code of at most one machine version.

    Made by `spawn`, given code by `load`. All attributes may be read; the engine sets `waiting`.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        on_lines: Callable[[Runner, list[bytes]], None],
        on_exit: Callable[[Runner, str], None],
        on_tainted: Callable[[Runner], None],
        look_up: LookUp = egress.look_up,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.pid = 0
        self.version_id = 0
        self.migrations: set[int] = set()  # those that it has been told the code of
        self.retiring = False  # it takes no new work; another runner has its version by now
        self.congested = False  # it does not read as fast as it is written to
        self.waiting: Callable[[], bool] = _nothing_waits  # does it owe the engine an answer?
        self.born_at = loop.time()
        self.last_used = self.born_at  # to within a tick
        self.memory: procfs.Memory | None = None  # when it was last sampled
        self.exited: asyncio.Future[str] = loop.create_future()

        self._loop = loop
        self._on_lines = on_lines
        self._on_exit = on_exit
        self._on_tainted = on_tainted
        self._broker = FetchBroker(policy, self.send, self._writable, look_up)
        self._watchdog = Watchdog()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._ready: asyncio.Future[None] = loop.create_future()
        self._loaded: asyncio.Future[LoadReport] | None = None
        self.xstate_major = 0  # 4 or 5 once a bundle is loaded
        self._writers: list[asyncio.Future[None]] = []  # who waits for the end of a congestion
        self._reason: str | None = None  # why it was killed
        self._stderr = bytearray()
        self._closing: asyncio.Task[None] | None = None

        self._out: list[bytes] = []
        self._flush_scheduled = False
        self._reader = LineReader()
        self._budget = OutputBudget()
        self._owes = False  # something was sent and nothing heard since
        self._heard = False  # in this tick
        self._used = False  # in this tick

    # ------------------------------------------------------------------ life

    @classmethod
    async def spawn(
        cls,
        settings: RuntimeSettings,
        policy: EgressPolicy,
        *,
        on_lines: Callable[[Runner, list[bytes]], None],
        on_exit: Callable[[Runner, str], None],
        on_tainted: Callable[[Runner], None],
        look_up: LookUp = egress.look_up,
    ) -> Runner:
        """Start a process that is ready to load code. Raises RunnerUnavailable."""
        loop = asyncio.get_running_loop()
        runner = cls(policy, on_lines, on_exit, on_tainted, look_up)
        try:
            await loop.subprocess_exec(
                lambda: runner,
                *sandbox.command(settings),
                env=sandbox.environment(settings),
                cwd="/",
                start_new_session=True,  # a terminal's Ctrl-C is for the server alone
                preexec_fn=sandbox.before_exec(),
            )
        except OSError as exc:
            raise RunnerUnavailable(f"no runner could be started: {exc.strerror}") from exc
        try:
            sandbox.bound_files(runner.pid)
            async with asyncio.timeout(settings.start_limit_s):
                await runner._ready
            sandbox.bound_memory(runner.pid, settings.off_heap_max_bytes)
        except BaseException as exc:
            runner.kill("not-ready")
            await runner.wait_closed()
            if isinstance(exc, TimeoutError):
                raise RunnerUnavailable("a new runner did not get ready in time") from exc
            if isinstance(exc, RunnerEnded):
                log.error("a new runner ended (%s): %s", exc.reason, runner.stderr_tail())
                raise RunnerUnavailable("a new runner ended before it was ready") from exc
            raise
        return runner

    async def load(
        self, code: BundleCode, *, limit_s: float, is_migration: bool = False
    ) -> LoadReport:
        """Load a version's code. Raises BundleFailed; the runner is of no use then.

        A migration is loaded by itself only to see whether it can be.
        """
        self._loaded = self._loop.create_future()
        message = _message(code)
        if is_migration:
            message["kind"] = "migration"
        self.send(b"M\t%b\n" % msgspec.json.encode(message))
        try:
            async with asyncio.timeout(limit_s):
                report = await self._loaded
                self.xstate_major = report.xstate
        except TimeoutError as exc:
            self.kill("cpu")
            raise BundleFailed(LOAD_FAILURES["cpu"]) from exc
        except RunnerEnded as exc:
            if exc.reason == "killed":
                raise RunnerUnavailable("the runner was killed while it loaded the code") from exc
            message_text = LOAD_FAILURES.get(exc.reason, "the process ended while it loaded")
            raise BundleFailed(message_text) from exc
        finally:
            self._loaded = None
        if not report.ok:
            raise BundleFailed(_describe(report.error))
        return report

    def learn_migration(self, migration_id: int, code: BundleCode) -> None:
        """Tell it the code of a migration, if it does not know it. What is sent later waits."""
        if migration_id not in self.migrations:
            self.migrations.add(migration_id)
            self.send(b"I\t%d\t%b\n" % (migration_id, msgspec.json.encode(_message(code))))

    def kill(self, reason: str) -> None:
        """End the process. `reason` is what `on_exit` will get, unless it is dying already."""
        if self._reason is not None or self.exited.done():
            return
        self._reason = reason
        if self._transport is not None:
            with contextlib.suppress(ProcessLookupError):  # dead already: connection_lost follows
                self._transport.kill()

    @property
    def ending(self) -> bool:
        """It was killed or has ended: what is sent now is lost."""
        return self._reason is not None

    def stderr_tail(self) -> str:
        return self._stderr.decode(errors="replace")

    # ------------------------------------------------------------------ to the runner

    def send(self, line: bytes) -> None:
        """Write one line, or several. What is sent in one tick of the event loop is one write."""
        self._out.append(line)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        out, self._out = self._out, []
        if self._stdin is None or self._reason is not None or self._stdin.is_closing():
            return
        self._owes = self._used = True
        self._stdin.write(b"".join(out) if len(out) > 1 else out[0])

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        writers, self._writers = self._writers, []
        for writer in writers:
            if not writer.done():
                writer.set_result(None)

    async def _writable(self) -> None:
        while self.congested and not self.exited.done():
            writer: asyncio.Future[None] = self._loop.create_future()
            self._writers.append(writer)
            await writer

    # ------------------------------------------------------------------ from the runner

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if self._reason is not None and fd != STDERR:
            return
        try:
            self._budget.spend_bytes(len(data))
            if fd == STDERR:
                self._stderr += data
                del self._stderr[:-STDERR_BYTES_KEPT]
            else:
                self._sort(self._reader.feed(data))
        except Flood:
            self.kill("flood")
        except (ProtocolViolation, msgspec.DecodeError) as exc:
            log.warning("version %s: its runner broke the protocol: %s", self.version_id, exc)
            self.kill("protocol")

    def _sort(self, lines: list[bytes]) -> None:
        """Deal with the lines that are ours, and pass on the others in order."""
        others = []
        logs = 0
        for line in lines:
            kind = line[:1]
            if kind == b"G":
                if self._budget.admits_log(len(line)):
                    others.append(line)
                    logs += 1
            elif kind in OWN_LINES:
                self._budget.spend_lines(OWN_LINE_COST)
                self._on_own_line(line)
            else:
                others.append(line)
        if self._reason is not None or not others:
            return
        if len(others) > logs:
            # Log lines prove nothing: they may come out of an endless loop.
            self._budget.spend_lines(len(others) - logs)
            self._is_alive()
        self._used = True
        self._pass_on(others)

    def _is_alive(self) -> None:
        self._heard = True
        self._owes = False

    def _pass_on(self, lines: list[bytes]) -> None:
        try:
            self._on_lines(self, lines)
        except Exception:
            # A bug on our side. The engine's books about this runner can't be trusted any more.
            log.exception("version %s: lines of its runner could not be handled", self.version_id)
            self.kill("internal")

    def _on_own_line(self, line: bytes) -> None:
        match line.split(b"\t"):
            case [b"P", number]:
                if self._watchdog.is_answer(number):
                    self._is_alive()
            case [b"F", fid, _, request]:
                self._broker.start(fid, request)
            case [b"Q", fid]:
                self._broker.abort(fid)
            case [b"M", report] if self._loaded is not None and not self._loaded.done():
                self._loaded.set_result(msgspec.json.decode(report, type=LoadReport))
            case [b"Z", *_]:
                self._on_tainted(self)
            case [b"READY"] if not self._ready.done():
                self._ready.set_result(None)
            case _:
                raise ProtocolViolation(repr(line[:100]))

    # ------------------------------------------------------------------ the clock

    def tick(self, now: float) -> None:
        """Called every watchdog.TICK_S seconds for all runners."""
        if self._used:
            self._used = False
            self.last_used = now
        self._broker.tick()
        note = self._budget.tick()
        if note is not None and self._reason is None:
            self._pass_on([note])
        if self._heard or self._loaded is not None:  # loading has a limit of its own
            self._heard = False
            self._watchdog.calm()
        elif self._owes or self.waiting():
            self._watchdog.silent(self, now)

    def keep_alive(self) -> None:
        """Tell it that the engine runs. It ends 8 s after the last word, once it got this one."""
        if self._stdin is not None and self._reason is None and not self._stdin.is_closing():
            self._stdin.write(b"A\n")

    def probe(self) -> None:
        """Have the watchdog look, although the runner owes nothing: a service of it may loop."""
        self._owes = True

    # ------------------------------------------------------------------ called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._transport.get_pid()
        self._stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(STDIN))
        self._stdin.set_write_buffer_limits(high=WRITE_HIGH_WATER, low=WRITE_LOW_WATER)

    def process_exited(self) -> None:
        # Its pipes end with it, and connection_lost comes once they are read to the end. But that
        # must not depend on anybody else who might hold them open.
        self._loop.call_later(PIPES_CLOSE_S, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._end()

    def _end(self) -> None:
        if self.exited.done():
            return
        reason = self._reason or self._reason_of_exit()
        self._reason = reason
        self.exited.set_result(reason)
        self.resume_writing()
        for future in (self._ready, self._loaded):
            if future is not None and not future.done():
                future.set_exception(RunnerEnded(reason))
                future.exception()  # counts as seen: whoever waited may have been cancelled
        if self._transport is not None:
            self._transport.close()
        self._closing = self._loop.create_task(self._broker.close())
        self._on_exit(self, reason)

    async def wait_closed(self) -> None:
        """Wait until the process has ended and its fetches are cancelled."""
        await self.exited
        if self._closing is not None:
            await self._closing

    def _reason_of_exit(self) -> str:
        code = self._transport.get_returncode() if self._transport is not None else None
        if any(text in self._stderr for text in OUT_OF_MEMORY):
            return "memory"
        if code == -signal.SIGKILL:
            return "killed"
        return "exited"


class RunnerEnded(Exception):
    """The process ended while something was awaited of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _nothing_waits() -> bool:
    return False


def _message(code: BundleCode) -> dict[str, object]:
    return {"cjs": code.commonjs, "externals": code.externals}


def _describe(error: ErrorObject | None) -> str:
    """What a bundle threw while it was loaded, and where."""
    if error is None:
        return "the bundle could not be loaded"
    if error.name == "InvalidBundle":  # the harness's own word for what it misses
        return error.message
    # Without lines: they are those of the converted code.
    thrower = re.search(
        r"^\s+at (?!eval )(.+) \((?:machine|migration)\.js\b", error.stack, re.MULTILINE
    )
    where = f" (in {thrower[1]})" if thrower else ""
    return f"{error.name}: {error.message}{where}"
