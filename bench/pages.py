"""What a person sees of an instance, in a real browser: how soon, and how smoothly.

One instance has 100,000 transitions: its page is opened, jumped and scrolled in. Another one gets
200 events/s over HTTP while its page is open. The browser draws without a graphics card and shares
the processors with the server, so frames are worse than on a person's machine.
"""

import contextlib
import http.client
import json
import os
import random
import shutil
import statistics
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import filling, workloads
from bench.report import NOISE_CPUS
from bench.site import BenchSite, CannotStart, fresh_database, running_node
from bench.usage import machine_usage, server_usage
from bench.workloads import EXAMPLES, Scale, WrongResult

TRANSITIONS = 100_000
TIMES_OPENED = 7
JUMPS = 30
WHEELS, WHEEL_PX, WHEEL_MS = 120, 300, 16
EVENTS_PER_S = 200
SENDERS = 4
SINGLE_EVENTS = 20
PAUSE_MS = 200  # between things that are measured one by one
WAIT_MS = 30_000
IN_PAGE = Path(__file__).with_name("pages.js")
LONG, FAST = "long", "fast"

Figures = dict[str, list[float]]  # milliseconds, by what was measured


def measure(directory: Path, database: str, scale: Scale) -> Any:
    """Prints a table; the figures by what was measured."""
    with fresh_database(directory, database) as (data_dir, kept):
        with running_node(data_dir, kept) as node:
            site = BenchSite([node], kept)
            _make_instances(site)
        length = filling.lengthen(kept, LONG, TRANSITIONS)
        with running_node(data_dir, kept) as node:
            site = BenchSite([node], kept)
            workloads.warm_up(site, "toggler")
            before, started = _others_s(), time.monotonic()
            figures, sent_per_s = _look(site, scale, length)
            others_cpus = max(0.0, (_others_s() - before) / (time.monotonic() - started))
    print("\n".join(_table(figures, sent_per_s, others_cpus)))
    return {
        **{name: _summary(times) for name, times in figures.items()},
        "eventsPerSecond": round(sent_per_s, 1),
        "othersCpus": round(others_cpus, 3),
    }


def _make_instances(site: BenchSite) -> None:
    """An order that was paid and shipped, to be made longer, and a toggler to be hurried."""
    site.deploy("order", EXAMPLES / "order.ts")
    site.deploy("toggler", EXAMPLES / "toggler.ts")
    context = {"customer": "ada", "public": {"total": 4200}}
    site.request("POST", "machines/order", {"slug": LONG, "context": context}, filling.STAFF)
    for event, act in ((filling.PAY, filling.BUYER), (filling.SHIP, filling.STAFF)):
        site.request("POST", f"machines/order/i/{LONG}/events", {"event": event}, act)
    site.create_instance("toggler", FAST)


def _look(site: BenchSite, scale: Scale, length: int) -> tuple[Figures, float]:
    """Everything that is measured, and how many events/s were sent meanwhile."""
    with _signed_in(site) as page:
        machines = f"/o/{site.org_id}/machines"
        figures = _opened(page, f"{machines}/order/instances/{LONG}")
        figures["jump to a transition"] = _jumps(page, length)
        figures["frames while scrolling"] = _scrolled(page)
        page.goto(f"{machines}/toggler/instances/{FAST}")
        page.evaluate("bench.opened()")
        figures["one event, until the diagram moved"] = _single_events(page, site)
        frames, sent, sent_per_s = _hurried(page, site, scale.duration_s)
        figures[f"frames at {EVENTS_PER_S} events/s"] = frames
        _check(page, site, sent + SINGLE_EVENTS)
    return figures, sent_per_s


@contextlib.contextmanager
def _signed_in(site: BenchSite) -> Iterator[Any]:
    """A page of the site's first admin."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as exc:
        raise CannotStart("there is no Playwright: run `manage.py lint` once") from exc
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise CannotStart("there is no Chromium on this machine")
    link = urllib.parse.urlsplit(site.manage("sign_in_link").split()[-1]).path
    with sync_playwright() as running:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = running.chromium.launch(executable_path=program, args=arguments)
        try:
            context = browser.new_context(
                base_url=site.url, viewport={"width": 1440, "height": 900}
            )
            context.set_default_timeout(WAIT_MS)
            context.add_init_script(path=IN_PAGE)
            page = context.new_page()
            page.goto(link)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url(lambda url: "/sign-in" not in url)
            yield page
        except Error as exc:
            raise WrongResult(exc.message) from exc
        finally:
            browser.close()


def _opened(page: Any, path: str) -> Figures:
    """The first time, when the machine is yet to be drawn, apart from all others."""
    page.goto(path, wait_until="commit")
    first = page.evaluate("bench.opened()")
    figures: Figures = {
        "first look at the machine: first paint": [first["paint"]],
        "first look at the machine: diagram lit": [first["lit"]],
    }
    names = {"paint": "first paint", "rows": "rows of the timeline", "lit": "diagram lit"}
    for _ in range(TIMES_OPENED):
        page.goto(path, wait_until="commit")
        for key, ms in page.evaluate("bench.opened()").items():
            figures.setdefault(names[key], []).append(ms)
    return figures


def _jumps(page: Any, length: int) -> list[float]:
    """All over a history of so many transitions."""
    numbers = random.Random(1)
    times = []
    for _ in range(JUMPS):
        times.append(page.evaluate("seq => bench.jump(seq)", numbers.randint(1, length - 1)))
        page.wait_for_timeout(PAUSE_MS)
    return times


def _scrolled(page: Any) -> list[float]:
    """Frames while the wheel is turned without a rest, through transitions yet to be fetched."""
    page.locator("#timeline-panel").hover()
    page.evaluate("bench.watchFrames()")
    for _ in range(WHEELS):
        page.mouse.wheel(0, WHEEL_PX)
        page.wait_for_timeout(WHEEL_MS)
    frames: list[float] = page.evaluate("bench.frameTimes()")
    return frames


def _single_events(page: Any, site: BenchSite) -> list[float]:
    """From before the request is written until the frame in which another state is lit."""
    sender = _Sender(site)
    times = []
    for _ in range(SINGLE_EVENTS):
        page.evaluate("bench.watchMove()")
        started_ms = time.time() * 1000
        sender.send()
        times.append(page.evaluate("bench.movedAt()") - started_ms)
        page.wait_for_timeout(PAUSE_MS)
    return times


def _hurried(page: Any, site: BenchSite, duration_s: float) -> tuple[list[float], int, float]:
    """Frames while events come evenly spaced; how many there were, and how many a second."""
    senders = [_Sender(site) for _ in range(SENDERS)]
    threads = [threading.Thread(target=one.run, args=(duration_s,)) for one in senders]
    page.evaluate("bench.watchFrames()")
    started = time.monotonic()
    for thread in threads:
        thread.start()
    page.wait_for_timeout(duration_s * 1000)
    frames: list[float] = page.evaluate("bench.frameTimes()")
    for thread in threads:
        thread.join()
    elapsed_s = time.monotonic() - started
    failed = [one.problem for one in senders if one.problem]
    if failed:
        raise WrongResult(failed[0])
    sent = sum(one.sent for one in senders)
    return frames, sent, sent / elapsed_s


class _Sender:
    """Toggles the instance, on a connection of its own."""

    def __init__(self, site: BenchSite) -> None:
        self.sent = 0
        self.problem = ""
        self._headers = site.headers
        self._connection = http.client.HTTPConnection("127.0.0.1", site.nodes[0].port, timeout=60)

    def run(self, duration_s: float) -> None:
        """Its share of the events, each at its time, or as soon after as the server can."""
        every_s = SENDERS / EVENTS_PER_S
        started = time.monotonic()
        try:
            while time.monotonic() - started < duration_s:
                self.send()
                time.sleep(max(0.0, started + self.sent * every_s - time.monotonic()))
        except (WrongResult, OSError, http.client.HTTPException) as error:
            self.problem = str(error) or type(error).__name__

    def send(self) -> None:
        path = f"/api/machines/toggler/i/{FAST}/events"
        body = json.dumps({"event": {"type": "toggle"}})
        self._connection.request("POST", path, body, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise WrongResult(f"an event is answered {answer.status}: {text[:300]!r}")
        self.sent += 1


def _check(page: Any, site: BenchSite, sent: int) -> None:
    """Every event counts once, and the page shows the last one."""
    counted = site.public_context("toggler", FAST)["toggleCount"]
    if counted != sent:
        raise WrongResult(f"{sent} events acknowledged, {counted} counted")
    page.wait_for_selector(f'[data-seq="{sent + 1}"]', state="attached")


def _others_s() -> float:
    """Seconds of CPU of all programs but this one, its site and its browser."""
    return machine_usage() - server_usage([os.getpid()]).total


def _table(figures: Figures, sent_per_s: float, others_cpus: float) -> Iterator[str]:
    yield f"{os.cpu_count()} processors, shared with the browser; {TRANSITIONS:,} transitions\n"
    yield f"{'milliseconds':<44}{'n':>6}" + "".join(f"{name:>10}" for name in _summary([0]))
    for name, times in figures.items():
        cells = "".join(f"{ms:>10.1f}" for ms in _summary(times).values())
        yield f"{name:<44}{len(times):>6}{cells}"
    yield f"\n{sent_per_s:.0f} events/s were sent of {EVENTS_PER_S} that were meant to be."
    if others_cpus > NOISE_CPUS:
        yield f"! Other programs took {others_cpus:.2f} processors: all of this is worse for it."


def _summary(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50": round(statistics.median(ordered), 1),
        "p95": round(ordered[int(0.95 * (len(ordered) - 1) + 0.5)], 1),
        "p99": round(ordered[int(0.99 * (len(ordered) - 1) + 0.5)], 1),
        "max": round(ordered[-1], 1),
    }
