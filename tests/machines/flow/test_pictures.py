"""Pictures, read back from their markup: nothing overlaps, and one can follow each transition."""

import re
from pathlib import Path

import pytest

from machines.flow.layout import lay_out
from machines.flow.scene import Direction
from machines.flow.svg import to_svg
from tests.machines.flow import geometry
from tests.machines.flow.machines import NAMES, graph_of
from tests.machines.flow.random_machines import random_graph

DIRECTIONS: list[Direction] = ["TB", "LR", "TB/LR", "LR/TB"]
SEEDS = range(12)  # more were run when the layout was written: 2,000 drawings without a problem


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_clean_in_every_direction(name):
    graph = graph_of(name)

    for direction in DIRECTIONS:
        svg = to_svg(lay_out(graph, direction))

        assert geometry.problems(svg, graph) == {}, direction


@pytest.mark.parametrize("name", ["fork", "order-process", "player", "device-history"])
def test_pictures_are_clean_however_they_are_folded(name):
    graph = graph_of(name)

    for number, children in graph.children.items():
        if children:
            folded = graph.folded([graph.paths[number]])
            assert geometry.problems(to_svg(lay_out(folded)), folded) == {}, graph.paths[number]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_machines_are_drawn_cleanly(seed):
    graph = random_graph(seed)
    direction = DIRECTIONS[seed % len(DIRECTIONS)]

    assert geometry.problems(to_svg(lay_out(graph, direction)), graph) == {}


def test_the_same_machine_is_always_drawn_the_same():
    graph = graph_of("player")

    assert to_svg(lay_out(graph)) == to_svg(lay_out(graph))


def spoiled(change):
    """The problems of a picture that was changed by hand."""
    graph = graph_of("fetch")
    svg = to_svg(lay_out(graph, "TB"))
    changed = change(svg)
    assert changed != svg
    return geometry.problems(changed, graph)


def moved(svg, pattern, by):
    """All numbers of the attributes that the pattern finds, moved."""
    return re.sub(
        pattern,
        lambda found: f'{found[1]}="{float(found[2]) + by:.1f}"',
        svg,
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda svg: svg.replace("<title", "<script>1</script><title", 1), "foreign tag script"),
        (lambda svg: svg.replace("<path ", '<path onclick="1" ', 1), "foreign attribute onclick"),
        (lambda svg: moved(svg, r'(?<=class="flow-name" )(x)="([\d.]+)"', 300), "text sticks out"),
        (lambda svg: moved(svg, r'(?<=class="flow-code" )(x)="([\d.]+)"', -20), "text over text"),
        (
            lambda svg: re.sub(
                r'(id="flow-s3".*?<rect class="flow-box" x=")', r"\g<1>1", svg, count=1
            ),
            "text sticks out",
        ),
        (
            lambda svg: re.sub(
                r'class="flow-wire is-in" d="M[\d.]+ ', 'class="flow-wire is-in" d="M1 ', svg
            ),
            "wire does not start at its pill",
        ),
        (
            lambda svg: re.sub(r'class="flow-head" d="M', 'class="flow-head" d="M9 9L9 9L', svg),
            "arrow does not end at its target",
        ),
        (
            lambda svg: svg.replace('data-transition="2"', 'data-transition="1"'),
            "transition drawn 2 times",
        ),
    ],
)
def test_the_check_finds_what_is_wrong(change, problem):
    assert problem in spoiled(change)


def test_ids_and_data_say_what_is_what():
    graph = graph_of("fetch")
    svg = to_svg(lay_out(graph))

    for number, path in graph.paths.items():
        assert f'id="flow-s{number}" data-node="{path}"' in svg
    for transition in graph.transitions:
        assert f'data-transition="{transition.number}"' in svg
    numbers = set(re.findall(r'id="([^"]+)"', svg))
    assert len(numbers) == len(re.findall(r'\sid="', svg))


def test_numbers_stay_the_same_when_states_are_folded():
    graph = graph_of("order-process")
    folded = to_svg(lay_out(graph.folded(["payment"])))

    [payment] = [n for n, path in graph.paths.items() if path == "payment"]
    assert f'is-folded is-odd" id="flow-s{payment}" data-node="payment"' in folded
    [abort] = [t.number for t in graph.transitions if t.label == "ABORT"]
    assert f'data-transition="{abort}"' in folded


def test_charts_are_at_least_twenty():
    assert len(list((Path(__file__).parent / "charts").glob("*.ts"))) >= 20
