"""What holds for every page in a real browser: accessible, inert, no wider than its window."""

import json

import pytest
from django.urls import URLPattern, URLResolver

from statebacked_site.urls import pages
from tests.browser.chromium import PHONE, WIDE, serious_violations
from tests.browser.every_page import NO_PAGES, PAGES, path_of

# What depends on the width; the other rules were asked before.
OF_LAYOUT = ("color-contrast", "scrollable-region-focusable", "target-size", "link-name", "label")

# How far the page is wider than the window, and the elements that stick out of it the most.
OVERFLOW = """() => {
  const { clientWidth } = document.documentElement;
  const boxes = [document.documentElement, document.body, document.querySelector("main")];
  if (boxes.every((box) => box.scrollWidth <= box.clientWidth)) return [];
  return [...document.querySelectorAll("body *")]
    .filter((element) => element.getBoundingClientRect().right > clientWidth + 1)
    .slice(0, 5)
    .map((element) => `${element.tagName}.${element.className}`.slice(0, 120));
}"""
WHAT_HOSTILE_NAMES_MAKE = "img[src=x], svg[onload], [onerror], [style*='display:none']"


def names_of(patterns: list[URLPattern | URLResolver]) -> set[str]:
    names: set[str] = set()
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            names |= names_of(pattern.url_patterns)
        else:
            names.add(str(pattern.name))
    return names


def test_every_address_is_listed():
    listed = {page.url_name for page in PAGES} - {""}

    assert not listed & NO_PAGES
    assert names_of(pages) == listed | NO_PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.label)
def test_page(page, site, tab_of):
    tab = tab_of(page.who)
    shown, tab.problems[:] = tab.page, []
    shown.set_viewport_size(WIDE)
    shown.emulate_media(color_scheme="light", reduced_motion="reduce")

    answer = shown.goto(path_of(page, site))
    if page.presses:
        shown.wait_for_load_state("load")
        shown.keyboard.press(page.presses)
    shown.wait_for_selector(page.waits_for, state="attached")
    assert answer.status == page.status

    violations = {"light": serious_violations(shown)}
    too_wide = {"1440 px": shown.evaluate(OVERFLOW)}
    shown.emulate_media(color_scheme="dark", reduced_motion="reduce")
    violations["dark"] = serious_violations(shown, "color-contrast")
    shown.set_viewport_size(PHONE)
    too_wide["390 px"] = shown.evaluate(OVERFLOW)
    violations["phone"] = serious_violations(shown, *OF_LAYOUT)

    assert not any(violations.values()), json.dumps(violations, indent=1, ensure_ascii=False)
    assert not any(too_wide.values()), too_wide
    assert shown.locator(WHAT_HOSTILE_NAMES_MAKE).count() == 0
    assert tab.problems == []
