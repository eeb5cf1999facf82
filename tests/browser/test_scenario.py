"""The way of somebody who has just started the site for the first time, in one go."""

import json
import logging
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser.chromium import Tab
from tests.conftest import PROJECT_ROOT, Server, running_server

log = logging.getLogger(__name__)  # the measured times: pytest --log-cli-level=INFO

ORDER = PROJECT_ROOT / "machines" / "examples" / "order.ts"
CUSTOMER = {"sub": "ada"}
# From before curl is started until the page has drawn the new state. An idle machine takes less
# than 0.1 s; this bound only says that no poll of the page is what shows it.
MOVED_WITHIN_S = 2.0

# Resolves with the time (ms since the epoch) at which the state is drawn as the active one.
WHEN_ACTIVE = """(state) => {
  const selector = `.flow-state.is-leaf[data-node="${state}"]`;
  window.whenActive = new Promise((resolve) => {
    const look = () => document.querySelector(selector) && resolve(Date.now());
    new MutationObserver(look).observe(document.body, {
      subtree: true, attributes: true, attributeFilter: ["class"],
    });
    look();
  });
}"""


@pytest.fixture
def fresh(browser: Any, tmp_path: Any) -> Iterator[tuple[Server, Tab]]:
    """A site that was started for the first time, and a browser that was never there."""
    with running_server(tmp_path / "data") as server:
        tab = Tab(browser, server.url)
        yield server, tab
        tab.close()


def curl(server: Server, path: str, body: Any) -> Any:
    """What curl gets for a POST of JSON, on behalf of the customer."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("there is no curl on this machine")
    headers = {
        **server.headers,
        "content-type": "application/json",
        "x-statebacked-act": json.dumps(CUSTOMER),
    }
    named = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    command = [program, "-sS", "--fail-with-body", *named, "-d", json.dumps(body)]
    url = f"{server.api_url}/{path}"
    answer = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return json.loads(answer.stdout)


def test_from_the_printed_link_to_a_cancelled_timer(fresh):
    server, tab = fresh
    page = tab.page

    # Sign in by the link that the first start has printed.
    link = re.search(r"http\S+/sign-in/\S+", server.welcome)
    assert link is not None, server.welcome
    page.goto(link[0])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Three steps to a running machine").wait_for()

    # Deploy the example by upload.
    page.get_by_role("link", name="New machine").click()
    page.set_input_files("[data-code-file]", ORDER)
    page.wait_for_function("document.querySelector('[data-code]').value.includes('chargeCard')")
    assert page.get_by_label("Name").input_value() == "order"
    page.get_by_role("button", name="Create machine").click()
    page.wait_for_selector('.flow-state[data-node="awaitingPayment"]')

    # Create two instances; the shop does that, and nobody else.
    for name in ("order-1", "order-2"):
        page.goto(f"/o/{server.org_id}/machines/order/instances")
        page.get_by_text("New instance").first.click()
        page.get_by_label("Name", exact=True).fill(name)
        page.get_by_label("Initial context").fill('{"customer": "ada", "public": {"total": 4200}}')
        page.get_by_role("button", name="Create instance").click()
        page.get_by_text("allowWrite").first.wait_for()
        if not page.get_by_label("Claims").is_visible():
            page.get_by_text("Create as somebody else").click()
        page.get_by_label("Claims").fill('{"sub": "sam", "role": "staff"}')
        page.get_by_role("button", name="Create instance").click()
        page.wait_for_url(f"**/instances/{name}")
    page.goto(f"/o/{server.org_id}/machines/order/instances/order-1")
    page.wait_for_selector('.flow-state.is-leaf[data-node="awaitingPayment"]')
    page.get_by_text("Live", exact=True).wait_for()

    # An event sent with curl moves the diagram of the open page.
    page.evaluate(WHEN_ACTIVE, "paid")
    began = time.time()
    body = {"event": {"type": "pay", "card": "4242424242424242"}}
    assert curl(server, "machines/order/i/order-1/events", body)["state"] == "paid"
    answered = time.time()
    moved_at = page.evaluate("whenActive") / 1000
    log.info("drawn %.0f ms after curl was started", (moved_at - began) * 1000)
    log.info("drawn %.0f ms after curl had its answer", (moved_at - answered) * 1000)
    assert moved_at - began < MOVED_WITHIN_S
    page.wait_for_selector('#timeline [data-seq="3"]')

    # Step back in time, and see what changed then.
    page.keyboard.press("[")
    page.wait_for_selector("#past .past")
    page.wait_for_selector('.flow-state.is-leaf[data-node="charging"]')
    assert "at=2" in page.url
    page.get_by_role("tab", name="Context").click()
    page.locator("#panel .chg", has_text="attempts").wait_for()
    page.keyboard.press("]")
    page.wait_for_selector("#past .past", state="detached")
    page.locator("#panel .add", has_text="receipt").wait_for()

    # Ask why an event that was ignored was ignored: by the API, and in the drawer.
    ignored = curl(server, "machines/order/i/order-1/events?explain=1", body)
    assert "`pay` is not handled in `paid`" in ignored["explanation"]["text"]
    page.keyboard.press("e")
    page.locator('#send [name=event][value="pay"]').check()
    page.get_by_label("With claims").check()
    page.get_by_label("Claims", exact=True).fill(json.dumps(CUSTOMER))
    page.get_by_role("button", name="Preview").click()
    page.wait_for_selector('[data-outcome="unchanged"]')
    why = page.inner_text("#outcome .why")
    assert "pay is not handled in paid; it is handled in awaitingPayment" in why

    # Preview an event as the shop, then send it.
    page.locator('#send [name=event][value="ship"]').check()
    page.get_by_role("textbox", name="Payload").fill('{"trackingNumber": "X1"}')
    page.get_by_label("Claims", exact=True).fill('{"sub": "sam", "role": "staff"}')
    page.get_by_role("button", name="Preview").click()
    page.wait_for_selector('[data-outcome="changed"]')
    assert "nothing is saved" in page.inner_text("#outcome")
    assert "trackingNumber" in page.inner_text("#outcome")
    page.wait_for_selector('.flow-state.is-preview[data-node="shipped"]')
    page.wait_for_selector('.flow-state.is-leaf[data-node="paid"]')
    page.get_by_role("button", name="Send ship").click()
    page.wait_for_selector("#outcome :text('Sent')")
    page.wait_for_selector('.flow-state.is-leaf[data-node="shipped"]')
    page.keyboard.press("Escape")
    page.locator("[data-states]", has_text="shipped").wait_for()  # it is no past moment

    # Cancel the timer of the other one.
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.wait_for_url("**/timers")
    row = page.locator("tr", has_text="order-2")
    row.get_by_role("button", name="Cancel").click()
    page.get_by_text("Nothing is pending").wait_for()

    assert urlsplit(page.url).path.endswith("/timers")
    assert tab.problems == []
