"""The system's Chromium, driven by Playwright, as the tests and screenshots.py use it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.conftest import PROJECT_ROOT

AXE = PROJECT_ROOT / "node_modules" / "axe-core" / "axe.min.js"
PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
WAIT_MS = 30_000  # for anything; what takes so long on an idle machine is broken
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without network services of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=PROGRAM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page of a person who is signed in, and what the browser complained about."""

    def __init__(self, browser: Any, url: str, sign_in_link: str = "") -> None:
        self.context = browser.new_context(base_url=url, viewport=WIDE, reduced_motion="reduce")
        self.context.set_default_timeout(WAIT_MS)
        # By the debugger, not by a <script>: the page's policy holds for the page alone.
        self.context.add_init_script(path=AXE)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._hear)
        self.page.on("dialog", self._refuse)
        if sign_in_link:
            self.page.goto(sign_in_link)
            self.page.get_by_role("button", name="Sign in").click()
            self.page.wait_for_url(lambda url: "/sign-in" not in url)

    def close(self) -> None:
        self.context.close()

    def _hear(self, line: Any) -> None:
        # Chromium reports a page's own status, 404 say, as an error of loading it.
        if line.type in ("error", "warning") and "Failed to load resource" not in line.text:
            self.problems.append(line.text)

    def _refuse(self, dialog: Any) -> None:
        self.problems.append(f"a script asked: {dialog.message}")
        dialog.dismiss()


AXE_RUN = """async (rules) => {
  const options = { resultTypes: ["violations"], iframes: false };
  if (rules) options.runOnly = { type: "rule", values: rules };
  const { violations } = await axe.run(document, options);
  return violations
    .filter((found) => ["serious", "critical"].includes(found.impact))
    .map((found) => ({
      rule: found.id,
      help: found.help,
      nodes: found.nodes.slice(0, 5).map((node) => ({
        html: node.html.slice(0, 300),
        why: node.failureSummary.slice(0, 600),
      })),
    }));
}"""


def serious_violations(page: Any, *rules: str) -> list[dict[str, Any]]:
    """What axe finds serious or critical, by all its rules or only by `rules`."""
    found: list[dict[str, Any]] = page.evaluate(AXE_RUN, list(rules) or None)
    return found
