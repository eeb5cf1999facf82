"""A server that is killed under load, again and again, keeps its promises.

No acknowledged event is lost and no refused one is found; nothing is applied twice; no effect is
seen without its transition and none twice; and a service that the kill has ended gives its error
event before the next event. `ACCEPTANCE_KILLS=50` looks longer.
"""

import os
import threading
import time
from collections import Counter
from functools import partial
from itertools import count, cycle

import pytest

from tests.acceptance.conftest import MACHINES
from tests.acceptance.http_client import Answer, ConnectionLost, HttpClient
from tests.acceptance.polling import eventually
from tests.acceptance.recorder import Recorder
from tests.acceptance.site import (
    CLIENT,
    LOST_SERVICE,
    SERVICE,
    HistoryRow,
    Site,
    assert_is_linear,
    is_running,
)
from tests.acceptance.threads import later

KILLS = int(os.environ.get("ACCEPTANCE_KILLS", "20"))
KILLS_MIN = min(KILLS, 10)  # on a slow machine, if they take longer than
SECONDS_MAX = 3.0 * KILLS
ADDERS = 6
BOOKS = ["book-0", "book-1", "book-2", "book-3"]  # fewer than threads, so that they meet
TILLS = ["till-0", "till-1"]  # a thread each: who finds one busy would be told 200, and ignored
ACKNOWLEDGED_PER_ROUND = (5, 150)  # the kill comes after so many, more with each round

UNKNOWN_STATUSES = (504,)
REFUSED_STATUSES = (429, 503)


class Load:
    """Sends events from several threads until the server is gone, and keeps the books."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.acknowledged: set[str] = set()
        self.refused: set[str] = set()
        self.sent: set[str] = set()
        self._numbers = count()
        self._lock = threading.Lock()

    def run_until_killed(self, site: Site, acknowledgements: int) -> list[int]:
        """Put load on the site, kill it after so many answers; returns the orphaned runners."""
        until = len(self.acknowledged) + acknowledgements
        threads = [
            *(later(partial(self._send_until_lost, site, "add", BOOKS)) for _ in range(ADDERS)),
            *(later(partial(self._send_until_lost, site, "pay", [till])) for till in TILLS),
        ]
        eventually(lambda: len(self.acknowledged) >= until, what="enough answers")
        orphans = site.kill()
        for thread in threads:
            thread.result(60)
        return orphans

    def _send_until_lost(self, site: Site, kind: str, slugs: list[str]) -> None:
        client = site.client()
        try:
            for slug in cycle(slugs):
                self._send(client, kind, slug)
        except ConnectionLost:
            client.close()

    def _send(self, client: HttpClient, kind: str, slug: str) -> None:
        with self._lock:
            n = f"{kind}-{next(self._numbers)}"
            self.sent.add(n)
        event = {"type": kind, "n": n, "url": f"{self.recorder.url}/{n}"}
        answer = client.request("POST", f"/machines/ledger/i/{slug}/events", {"event": event})
        with self._lock:
            if answer.status == 200:
                self.acknowledged.add(n)
            elif answer.status in REFUSED_STATUSES:
                self.refused.add(n)
            else:
                assert answer.status in UNKNOWN_STATUSES, answer.text


@pytest.fixture
def ledger(own_site: Site) -> Site:
    """A started site with the ledger's instances."""
    own_site.start()
    own_site.deploy("ledger", MACHINES / "ledger.ts")
    for slug in [*BOOKS, *TILLS, "held"]:
        assert own_site.create("ledger", slug).status == 200
    return own_site


def test_no_kill_loses_or_invents_anything(ledger: Site, recorder: Recorder):
    load = Load(recorder)
    held = 0
    started = time.monotonic()

    for kill in range(KILLS):
        if kill >= KILLS_MIN and time.monotonic() - started > SECONDS_MAX:
            break
        # A payment is under way when the server dies.
        gate = f"held-{kill}"
        event = {"type": "pay", "n": gate, "url": f"{recorder.url}/gate/{gate}"}
        payment = later(partial(_outcome, ledger, event))
        called = partial(recorder.was_called, f"/gate/{gate}")
        eventually(called, within_s=60, what="it is paying")

        few, many = ACKNOWLEDGED_PER_ROUND
        orphans = load.run_until_killed(ledger, few + (many - few) * kill // KILLS)

        assert payment.result(60) == "lost"
        eventually(partial(_have_ended, orphans), what="the orphaned runners have ended")
        recorder.open(gate)
        held += 1
        ledger.start()
        state = ledger.state("ledger", "held").json
        assert state["state"] == "paying"
        assert ledger.history("ledger", "held")[-1].event["n"] == gate

    # The last payment that was lost shows before the next event, too.
    final = {"type": "add", "n": "held-final", "url": f"{recorder.url}/held-final"}
    answer = _accepted(ledger, final)

    assert answer.json["publicContext"] == {"added": 1, "paid": 0, "lost": held}
    _check_payments(ledger.history("ledger", "held"), payments=held)
    events = _check_histories(ledger, load)
    eventually(lambda: recorder.was_called("/held-final"), what="effects still run")
    _check_effects(recorder, events | {"held-final"})
    assert len(load.acknowledged) >= held * ACKNOWLEDGED_PER_ROUND[0]


def _accepted(site: Site, event: object) -> Answer:
    """The answer to an event that is sent again while it is refused.

    With several servers an instance whose services were running belongs to the killed one until its
    lease has ended: 503 until then. Raises ConnectionLost.
    """

    def send() -> Answer | None:
        answer = site.send("ledger", "held", event)
        return None if answer.status in REFUSED_STATUSES else answer

    answer = eventually(send, within_s=60, what="the event is accepted")
    assert answer is not None
    return answer


def _outcome(site: Site, event: object) -> str:
    try:
        return str(_accepted(site, event).status)
    except ConnectionLost:
        return "lost"


def _have_ended(pids: list[int]) -> bool:
    return not any(map(is_running, pids))


def _check_histories(site: Site, load: Load) -> set[str]:
    """Compare what the histories say with what the clients were told; returns all events."""
    found: Counter[str] = Counter()
    for slug in [*BOOKS, *TILLS]:
        history = site.history("ledger", slug)
        assert_is_linear(history)
        events = [row for row in history if row.kind == CLIENT]
        found.update(row.event["n"] for row in events)
        public = history[-1].context["public"]
        if slug in BOOKS:
            assert public["added"] == len(events)
        else:
            _check_payments(history, payments=len(events))
        assert site.context("ledger", slug)["public"] == public
    assert max(found.values()) == 1, "an event was applied twice"
    assert load.acknowledged <= set(found), "acknowledged events were lost"
    assert not load.refused & set(found), "refused events were applied"
    assert set(found) <= load.sent
    return set(found)


def _check_payments(history: list[HistoryRow], *, payments: int) -> None:
    """Each payment has ended in exactly one way before the next event; the last may be open."""
    assert_is_linear(history)
    ended = 0
    for row, following in zip(history, [*history[1:], None], strict=True):
        if row.kind != CLIENT or row.type != "pay":
            continue
        assert row.state == "paying", "it was not ready for the event"
        if following is None:
            continue
        assert following.kind in (SERVICE, LOST_SERVICE)
        assert following.state == "idle"
        ended += 1
    public = history[-1].context["public"]
    assert public["paid"] + public["lost"] == ended
    assert payments - ended in (0, 1)


def _check_effects(recorder: Recorder, events: set[str]) -> None:
    calls = {
        path.removeprefix("/").removeprefix("gate/"): times
        for path, times in recorder.calls().items()
        if not path.startswith("/gate/")
    }
    assert set(calls) <= events, "an effect was seen without its transition"
    assert max(calls.values()) == 1, "an effect was seen twice"
