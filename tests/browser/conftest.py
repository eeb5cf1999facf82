"""Fixtures of the tests in a browser; they are skipped where there is no Chromium.

They last no longer than this package: while Playwright runs, it holds the thread's event loop.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.chromium import PROGRAM, Tab, chromium
from tests.browser.content import Filled, filled_site


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Closed after these tests: while Playwright runs, nothing else may start an event loop."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if PROGRAM is None:
        pytest.skip("there is no Chromium on this machine")
    with chromium() as started:
        yield started


@pytest.fixture(scope="package")
def site(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """A site with something on every page. Tests change nothing of it that others look at."""
    with filled_site(tmp_path_factory.mktemp("filled") / "data") as filled:
        yield filled


@pytest.fixture(scope="package")
def tab_of(browser: Any, site: Filled) -> Iterator[Callable[[str], Tab]]:
    """The tab of a person, by e-mail address; each signs in once."""
    tabs: dict[str, Tab] = {}

    def tab_of(email: str) -> Tab:
        if email not in tabs:
            tabs[email] = Tab(browser, site.server.url, site.sign_in_link(email))
        return tabs[email]

    yield tab_of
    for tab in tabs.values():
        tab.close()
