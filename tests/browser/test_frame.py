"""The site without a pointer, and what the frame does on every page."""

import re
from typing import Any

import pytest

from tests.browser.chromium import Tab
from tests.browser.content import ADMIN

# Behind a modal dialog nothing may have the focus; the browser's own buttons may.
IS_INSIDE = """(dialog) => {
  const { activeElement } = document;
  return activeElement === document.body || activeElement.closest(dialog) !== null;
}"""


@pytest.fixture
def tab(tab_of):
    tab = tab_of(ADMIN)
    tab.page.set_viewport_size({"width": 1440, "height": 900})
    tab.problems[:] = []
    yield tab
    tab.page.context.set_offline(False)


def focused(page):
    """What a screen reader would say of the element that has the focus."""
    return page.evaluate(
        "document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"
    )


def go(tab: Tab, keys: str) -> None:
    for key in keys.split():
        tab.page.keyboard.press(key)


def test_from_home_to_a_sent_event(tab, site):
    site.call("POST", "machines/toggler", {"slug": "by-keys"})
    page = tab.page
    page.goto(f"/o/{site.server.org_id}")

    go(tab, "Tab")
    assert focused(page) == "Skip to content"
    go(tab, "g m")
    page.wait_for_url("**/machines")
    go(tab, "/")
    page.keyboard.type("toggler")
    page.wait_for_url("**/machines?q=toggler")
    page.wait_for_function("document.querySelectorAll('[data-row]').length === 2")
    go(tab, "Tab Enter")
    page.wait_for_url("**/machines/toggler")
    link = page.get_by_role("link", name=re.compile("^Instances"))
    link.focus()  # with Tab; how many times is the layout's affair
    go(tab, "Enter")
    page.wait_for_url("**/toggler/instances")
    go(tab, "/")
    page.keyboard.type("by-keys")
    go(tab, "Enter")
    page.wait_for_url("**q=by-keys**")
    go(tab, "j Enter")
    page.wait_for_url("**/instances/by-keys")
    page.wait_for_selector('.flow-state.is-leaf[data-node="off"]')
    go(tab, "e")
    page.wait_for_selector("#send [name=event]:focus")
    go(tab, "Control+Enter")
    page.wait_for_selector('#send [data-outcome="changed"]')
    go(tab, "Escape")
    page.wait_for_selector("#send", state="hidden")

    page.wait_for_selector('.flow-state.is-leaf[data-node="on"]')
    assert tab.problems == []


def test_palette_jumps_to_an_instance_and_keeps_the_focus_inside(tab, site):
    page = tab.page
    page.goto(f"/o/{site.server.org_id}/logs")

    go(tab, "Control+k")
    page.keyboard.type("order-1002")
    page.locator("#palette-found [role=option]", has_text="order-1002").wait_for()
    for _ in range(5):
        go(tab, "Tab")
        assert page.evaluate(IS_INSIDE, "#palette")
    page.locator("#palette input").focus()
    go(tab, "Enter")

    page.wait_for_url("**/instances/order-1002")


def test_sheet_lists_every_section(tab, site):
    page = tab.page
    page.goto(f"/o/{site.server.org_id}/timers")

    go(tab, "?")

    page.wait_for_selector("#shortcuts[open]")
    sheet = page.inner_text("#shortcuts")
    for title in page.locator(".side a .label").all_inner_texts():
        assert title in sheet
    go(tab, "Escape")
    page.wait_for_selector("#shortcuts", state="hidden")


@pytest.mark.parametrize("path", ["/timers", "/logs", ""])
def test_pill_tells_of_a_lost_connection_and_of_its_return(tab, site, path):
    page = tab.page
    page.goto(f"/o/{site.server.org_id}{path}")
    page.locator("[data-live]", has_text="Live").wait_for()

    page.context.set_offline(True)
    page.evaluate("document.body.dispatchEvent(new CustomEvent('tick'))")
    page.locator("[data-live]", has_text="Connection lost").wait_for()
    page.context.set_offline(False)
    page.evaluate("document.body.dispatchEvent(new CustomEvent('tick'))")
    page.locator("[data-live]:not(.lost)", has_text="Live").wait_for()

    go(tab, ".")
    page.locator("[data-live]", has_text="Paused").wait_for()
    assert page.locator("[data-live]").get_attribute("aria-pressed") == "true"
    go(tab, ".")
    page.locator("[data-live]", has_text="Live").wait_for()


def test_part_that_fails_says_so_and_can_be_asked_again(tab, site):
    page = tab.page
    diagram = "**/versions/*/diagram*"
    page.route(diagram, lambda route: route.abort())

    page.goto(f"/o/{site.server.org_id}/machines/order/versions/{site.versions['order']}")
    page.get_by_text("The diagram could not be loaded").wait_for()
    assert page.get_by_role("link", name="Code").is_visible()  # the rest works
    page.unroute(diagram)
    page.get_by_role("button", name="Try again").click()

    page.wait_for_selector('.flow-state[data-node="awaitingPayment"]')


def test_page_of_an_instance_misses_nothing_while_its_socket_is_gone(tab, site):
    site.call("POST", "machines/toggler", {"slug": "cut-off"})
    page = tab.page
    sockets: list[Any] = []
    is_cut = False

    def through(socket: Any) -> None:
        if is_cut:
            socket.close()
        else:
            socket.connect_to_server()
            sockets.append(socket)

    page.route_web_socket(re.compile("/live$"), through)
    page.goto(f"/o/{site.server.org_id}/machines/toggler/instances/cut-off")
    page.wait_for_selector('.flow-state.is-leaf[data-node="off"]')
    page.locator("[data-live]", has_text="Live").wait_for()

    is_cut = True
    sockets[0].close()
    page.locator("[data-live]", has_text="Connection lost").wait_for()
    for _ in range(3):
        site.call("POST", "machines/toggler/i/cut-off/events", {"event": "toggle"})
    is_cut = False

    page.wait_for_selector('.flow-state.is-leaf[data-node="on"]')
    page.wait_for_selector('#timeline [data-seq="4"]')
    assert page.locator("#timeline [data-seq]").count() == 4
    page.locator("[data-live]:not(.lost)", has_text="Live").wait_for()
