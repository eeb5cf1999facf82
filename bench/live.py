"""What people who watch cost the events: an open dashboard and subscribers, against nobody.

The dashboard is one tab that shows one of the instances that events go to, and a second one that
asks for the list as often as a page does. All else is the workload of `bench`. The two are measured
in turn, several times, since what other programs do changes from minute to minute.
"""

import asyncio
import contextlib
import json
import os
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websockets

from bench import report, workloads
from bench.load import Measurement
from bench.site import BenchSite, running_site
from bench.subscribers import Subscribers, subscribers
from bench.visitor import Visitor
from bench.workloads import INSTANCES, QUICK, Scale, WrongResult

SUBSCRIBERS = 100
ROUNDS = 4
LOSS_MAX = 0.10
LIST_EVERY_S = 5.0


def measure(directory: Path, database: str, scale: Scale) -> Any:
    """Prints a table; the figures by what was measured."""
    alone: list[Measurement] = []
    watched: list[Measurement] = []
    with running_site(directory, database) as site:
        workloads.deploy_machines(site)
        workloads.create_instances(site, QUICK)
        workloads.many_instances(site, QUICK)
        for _ in range(ROUNDS):
            alone.append(workloads.many_instances(site, scale))
            with (
                subscribers(site, SUBSCRIBERS, instances=INSTANCES) as clients,
                _open_dashboard(site) as dashboard,
            ):
                clients.connect()
                watched.append(workloads.many_instances(site, scale))
                _check(clients, dashboard)
    print(f"{os.cpu_count()} processors, shared with the load, the page and the subscribers\n")
    print(report.HEAD)
    for name, rounds in (("nobody watches", alone), ("dashboard, subscribers", watched)):
        for measured in rounds:
            print(report.row(name, site.database.label, measured))
    rate = statistics.median(m.per_second for m in watched) / statistics.median(
        m.per_second for m in alone
    )
    cpu = statistics.median(m.server_ms_each for m in watched) / statistics.median(
        m.server_ms_each for m in alone
    )
    print(
        f"\n{SUBSCRIBERS} subscribers and an open dashboard: {rate - 1:+.0%} events/s"
        f" (a loss of {LOSS_MAX:.0%} is allowed), {cpu - 1:+.0%} CPU per event"
    )
    return {
        "alone": [report.as_json(m) for m in alone],
        "watched": [report.as_json(m) for m in watched],
    }


def _check(clients: Subscribers, dashboard: "Dashboard") -> None:
    if clients.open_sockets() != SUBSCRIBERS:
        raise WrongResult("not all subscribers have stayed")
    if not dashboard.moves or dashboard.problem:
        raise WrongResult(f"the dashboard was told of {dashboard.moves} states{dashboard.problem}")


class Dashboard:
    """Tabs of a browser: what they ask for and listen to, without drawing it."""

    def __init__(self, site: BenchSite) -> None:
        self.moves = 0  # states that the server has told of
        self.problem = ""
        self._visitor = Visitor(site)
        self._url = f"ws://127.0.0.1:{site.nodes[0].port}/live"
        self._origin = f"http://127.0.0.1:{site.nodes[0].port}"
        self._stop = threading.Event()

    def run(self) -> None:
        try:
            asyncio.run(self._run())
        except (OSError, WrongResult, websockets.WebSocketException) as error:
            self.problem = f": {error!r}"

    def stop(self) -> None:
        self._stop.set()

    async def _run(self) -> None:
        machine = f"/o/{self._visitor.org}/machines/toggler"
        self._visitor.page(f"{machine}/instances/i-0")
        headers = {"cookie": self._visitor.cookie}
        async with websockets.connect(
            self._url, additional_headers=headers, origin=websockets.Origin(self._origin)
        ) as socket:
            watch = {"org": self._visitor.org, "machine": "toggler", "instance": "i-0"}
            await socket.send(json.dumps(watch))
            loop = asyncio.get_running_loop()
            next_list = loop.time()
            while not self._stop.is_set():
                if loop.time() >= next_list:
                    next_list += LIST_EVERY_S
                    await asyncio.to_thread(self._visitor.page, f"{machine}/instances")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        self.moves += '"moved"' in str(await socket.recv())


@contextlib.contextmanager
def _open_dashboard(site: BenchSite) -> Iterator[Dashboard]:
    dashboard = Dashboard(site)
    thread = threading.Thread(target=dashboard.run)
    thread.start()
    try:
        yield dashboard
    finally:
        dashboard.stop()
        thread.join()
