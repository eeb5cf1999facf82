"""Pictures and their scripts in a real browser, under a policy without inline script or style."""

from __future__ import annotations

import json

import pytest

from machines.flow.dot import Run
from machines.flow.drawing import draw, draw_standalone
from machines.flow.layout import lay_out
from machines.flow.svg import to_svg
from tests.machines.flow import browser
from tests.machines.flow.machines import NAMES, graph_of

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="there is no Chromium")


def run_panel(name: str, script: str) -> browser.Outcome:
    """A panel with one of the machines, drawn as for its page; `script` is in scripts/."""
    graph = graph_of(name)
    drawing = draw(graph)
    folded = json.dumps(drawing.folded).replace('"', "&quot;")
    routes = browser.page(
        '<section data-flow-panel><div data-flow data-flow-src="/picture"'
        f' data-flow-folded="{folded}" tabindex="0" role="group" aria-label="Statechart">'
        f"{drawing.svg}</div>{drawing.tree}<input data-flow-find><output data-flow-found></output>"
        '<output data-flow-zoom></output><button data-flow-do="fit">Fit</button>'
        '<button data-flow-do="unfold">Open all</button></section>',
        script,
    )

    def picture(query: dict[str, list[str]]) -> browser.Answer:
        paths = [path for path in query["fold"] if path]
        outer: Run = "TB" if query["outer"] == ["TB"] else "LR"
        return "image/svg+xml", draw(graph, folded=paths, outer=outer).svg

    return browser.run({**routes, "/picture": picture})


def test_texts_fit_as_the_browser_sets_them():
    pictures = "".join(to_svg(lay_out(graph_of(name))) for name in NAMES)

    outcome = browser.run(browser.page(pictures, "measure.js"))

    assert outcome.result["fonts"] == ["loaded", "loaded"]
    assert outcome.result["texts"] > 1000
    assert outcome.result["problems"] == []
    assert outcome.log == ""


def test_a_moment_is_shown_by_classes_and_said():
    result = run_panel("fetch", "live.js").result

    assert result["active"] == {
        "root": ["is-active"],
        "loading": ["is-active", "is-leaf"],
        "idle": [],
    }
    assert (result["taken"], result["wires"]) == (["0"], 2)
    assert (result["next"], result["reason"]) == (["1"], "not yet")
    assert (result["current"], result["said"]) == (["", "loading"], "loading")
    assert result["then"] == {"loading": [], "success": ["is-active", "is-leaf"]}
    assert result["left"] == 0


def test_many_instances_are_shown_by_heat_traffic_and_numbers():
    result = run_panel("fetch", "live.js").result

    assert (result["heat"], result["traffic"], result["badge"]) == (["idle"], "0", "212")
    assert result["plain"] == 0


def test_a_state_that_the_version_does_not_have_lights_nothing():
    result = run_panel("fetch", "live.js").result

    assert result["unknown"] == {"lit": 0, "current": [], "said": ""}


def test_a_tree_alone_is_lit_and_walked_through():
    tree = draw(graph_of("fetch")).tree
    panel = f'<section data-flow-panel><div class="tree-view">{tree}</div></section>'

    result = browser.run(browser.page(panel, "tree_alone.js")).result

    assert (result["current"], result["said"]) == (["", "loading"], "loading")
    assert result["next"] == ["1"]
    assert result["sent"] == [1]
    assert result["then"] == ["", "success"]


def test_zoom_pan_and_fit_change_what_is_seen():
    result = run_panel("fetch", "view.js").result

    whole, nearer = result["whole"], result["nearer"]
    assert nearer[2] == pytest.approx(whole[2] / 1.25, abs=0.1)
    assert result["right"][0] > nearer[0]
    assert result["again"] == result["fitted"] == whole
    assert result["wheel"][2] < whole[2]
    assert result["panned"][0] > result["wheel"][0]
    assert result["active"] != whole
    assert (result["map"], result["mapThen"]) == (True, False)
    assert result["percent"].endswith(" %")


def test_states_open_and_close_in_their_place():
    result = run_panel("order-process", "folding.js").result

    assert "payment" in result["before"]
    assert result["leaf"] is True
    assert result["after"] == [path for path in result["before"] if path != "payment"]
    assert result["inside"] is True
    assert result["moved"] < 2
    assert result["none"] == []
    assert result["byKey"] == ["checking"]
    assert [name for name, _ in result["events"]] == ["fold", "fold", "fold"]


def test_finding_opens_what_hides_a_state():
    result = run_panel("order-process", "finding.js").result

    assert result["found"].endswith(" found")
    assert result["at"].startswith("1 of ")
    assert result["selected"] == ["payment.declined"]
    assert "payment.declined" in result["marked"]
    assert result["nothing"] == "nothing found"
    assert result["cleared"] == ["", "", 0]


def test_picture_and_tree_have_one_selection():
    result = run_panel("fetch", "selecting.js").result

    assert result["clicked"] == [["idle"], ["idle"]]
    assert result["words"] == [["0"], ["0"]]
    assert result["focused"] == "0"
    assert result["down"] == [["loading"], ["loading"]]
    assert result["left"] == [[""], [""]]
    assert result["first"] == [["idle"], ["idle"]]
    assert result["last"] == [["failure"], ["failure"]] or result["last"] == [["7"], ["7"]]
    assert result["tabs"] == 1
    assert result["events"][-1] == ["send", {"transition": 0}]


def test_hostile_names_stay_names():
    outcome = run_panel("hostile", "hostile.js")

    assert outcome.result["elements"] == ["script"]
    assert outcome.result["active"] == outcome.result["states"]
    assert outcome.log == ""


def test_png_is_made_of_the_exported_picture():
    graph = graph_of("fetch")
    layout = lay_out(graph)
    routes = browser.page("", "png.js")
    routes["/export.svg"] = lambda _: ("image/svg+xml", draw_standalone(graph))

    outcome = browser.run(routes)

    assert outcome.result["type"] == "image/png"
    assert outcome.result["width"] == pytest.approx((layout.width + 28) * 2, abs=2)
    assert outcome.result["height"] == pytest.approx((layout.height + 28) * 2, abs=2)
    assert outcome.result["colours"] > 50
    assert outcome.log == ""
