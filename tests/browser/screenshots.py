"""Pictures of every page, light and dark, wide and on a phone.

    .venv/bin/python -m tests.browser.screenshots DIRECTORY [LABEL...]

A label is that of a page in every_page.py, or its beginning.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import django


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where the pictures go")
    parser.add_argument("labels", nargs="*", help="of the pages (all)")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="screenshots-") as scratch:
        take(arguments.directory, tuple(arguments.labels), Path(scratch) / "data")


def take(directory: Path, labels: tuple[str, ...], data_dir: Path) -> None:
    """Start a site with content, and write `<label>-<light|dark>-<width>.png` of its pages."""
    from tests.browser.chromium import PHONE, WIDE, Tab, chromium
    from tests.browser.content import filled_site
    from tests.browser.every_page import PAGES, path_of

    chosen = [page for page in PAGES if not labels or page.label.startswith(labels)]
    with filled_site(data_dir) as site, chromium() as browser:
        tabs: dict[str, Any] = {}
        for page in chosen:
            if page.who not in tabs:
                tabs[page.who] = Tab(browser, site.server.url, site.sign_in_link(page.who))
            shown = tabs[page.who].page
            for size in (WIDE, PHONE):
                shown.set_viewport_size(size)
                shown.goto(path_of(page, site))
                if page.presses:
                    shown.wait_for_load_state("load")
                    shown.keyboard.press(page.presses)
                shown.wait_for_selector(page.waits_for, state="attached")
                shown.wait_for_load_state("networkidle")
                for scheme in ("light", "dark"):
                    shown.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                    shown.screenshot(path=directory / f"{page.label}-{scheme}-{size['width']}.png")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    main()
