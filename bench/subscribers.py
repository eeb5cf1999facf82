"""Many WebSocket subscribers: the program that plays them, and the figures that it tells."""

import contextlib
import json
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.load import NODE
from bench.site import BenchSite
from bench.workloads import WrongResult

PROGRAM = Path(__file__).with_name("sockets.mjs")
CONNECTING_AT_ONCE = 50
FILES_BESIDE_SOCKETS = 1_000


class Subscribers:
    """They are subscribed to instances of a machine in turn."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def connect(self) -> dict[str, float]:
        """Open all; seconds, sockets per second, and milliseconds from the start to the state."""
        return self._do({"do": "connect"})

    def stall(self, instances: int) -> int:
        """The subscribers of the first instances read nothing any more; how many these are."""
        return int(self._do({"do": "stall", "instances": instances})["stalled"])

    def updates(self, per_second: int, seconds: float, *, instances: int) -> dict[str, float]:
        """Send events to the first instances; milliseconds from each answer to each subscriber."""
        command = {"perSecond": per_second, "seconds": seconds, "instances": instances}
        return self._do({"do": "updates", **command})

    def open_sockets(self) -> int:
        return int(self._do({"do": "count"})["open"])

    def _do(self, command: dict[str, Any]) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the program has ended"}
        if "error" in answer:
            raise WrongResult(f"the subscribers: {answer['error']}")
        return answer


@contextlib.contextmanager
def subscribers(
    site: BenchSite, count: int, *, instances: int, machine: str = "toggler", prefix: str = "i-"
) -> Iterator[Subscribers]:
    """A program that plays them; it is ended at the end."""
    options = {
        "ports": [node.port for node in site.nodes],
        "sockets": count,
        "instances": instances,
        "machine": machine,
        "prefix": prefix,
        "token": site.token,
        "atOnce": CONNECTING_AT_ONCE,
    }
    process = subprocess.Popen(
        [str(NODE), str(PROGRAM), json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Subscribers(process)
    finally:
        process.kill()
        process.communicate()


def allow_files(sockets: int) -> None:
    """Raise the limit of open files for this process and all that it starts from now on."""
    needed = sockets + FILES_BESIDE_SOCKETS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, needed))
        except (ValueError, OSError) as error:
            raise WrongResult(
                f"{needed} open files are needed and {hard} are allowed (ulimit -n)"
            ) from error
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
