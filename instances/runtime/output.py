"""What a runner may write: lines, and how many of them."""

from __future__ import annotations

import msgspec

LINE_BYTES_MAX = 16 << 20

# In one tick (watchdog.TICK_S). A runner at full speed writes a fifth of the lines.
BYTES_PER_TICK = 64 << 20
LINES_PER_TICK = 20_000
LOG_LINES_PER_TICK = 50_000  # of which nearly all are dropped, but they have to be read
LOG_BYTES_PER_TICK = 16 << 20

LOG_WINDOW_TICKS = 4  # a second
LOG_LINES_PER_WINDOW = 1_000
LOG_BYTES_PER_WINDOW = 1 << 20


class Flood(Exception):
    """The runner wrote more than it may."""


class LineReader:
    """Cuts a stream of bytes into lines."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of a line whose end has not come: it may have megabytes
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their newlines. Raises Flood."""
        if b"\n" not in data:
            self._keep(data)
            return []
        if self._pieces:
            data = b"".join((*self._pieces, data))
            self._pieces = []
            self._size = 0
        lines = data.split(b"\n")
        rest = lines.pop()
        if rest:
            self._keep(rest)
        return lines

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > LINE_BYTES_MAX:
            raise Flood


class OutputBudget:
    """Counts what a runner writes. Log lines are dropped at the limit, anything else is a flood."""

    __slots__ = (
        "_bytes",
        "_dropped",
        "_lines",
        "_log_bytes",
        "_log_bytes_in_tick",
        "_log_lines",
        "_log_lines_in_tick",
        "_ticks",
    )

    def __init__(self) -> None:
        self._bytes = self._lines = self._log_lines_in_tick = self._log_bytes_in_tick = 0
        self._ticks = self._log_lines = self._log_bytes = self._dropped = 0

    def spend_bytes(self, size: int) -> None:
        """Raises Flood."""
        self._bytes += size
        if self._bytes > BYTES_PER_TICK:
            raise Flood

    def spend_lines(self, count: int) -> None:
        """For all but log lines. Raises Flood."""
        self._lines += count
        if self._lines > LINES_PER_TICK:
            raise Flood

    def admits_log(self, size: int) -> bool:
        """Count a log line; False if it is to be dropped. Raises Flood."""
        self._log_lines_in_tick += 1
        self._log_bytes_in_tick += size
        if (
            self._log_lines_in_tick > LOG_LINES_PER_TICK
            or self._log_bytes_in_tick > LOG_BYTES_PER_TICK
        ):
            raise Flood
        self._log_lines += 1
        self._log_bytes += size
        if self._log_lines <= LOG_LINES_PER_WINDOW and self._log_bytes <= LOG_BYTES_PER_WINDOW:
            return True
        self._dropped += 1
        return False

    def tick(self) -> bytes | None:
        """Start the next tick; returns a log line that says how many were dropped, if any were."""
        self._bytes = self._lines = self._log_lines_in_tick = self._log_bytes_in_tick = 0
        self._ticks = (self._ticks + 1) % LOG_WINDOW_TICKS
        if self._ticks:
            return None
        self._log_lines = self._log_bytes = 0
        if not self._dropped:
            return None
        note = f"{self._dropped} log lines were dropped: more than 1,000 lines or 1 MB in a second"
        self._dropped = 0
        return b"G\t\twarn\t%b" % msgspec.json.encode([note])
