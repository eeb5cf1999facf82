import random
from itertools import product

import pytest

from machines.migration_paths import (
    Edge,
    find_path,
    find_versions_before,
    shortest_path,
    versions_before,
)
from tests.factories import make_machine, make_migration, make_org, make_version


def test_one_migration_is_the_way() -> None:
    assert shortest_path([(7, 1, 2)], 1, 2) == [7]


def test_migrations_are_chained_in_order() -> None:
    assert shortest_path([(5, 3, 4), (9, 2, 3), (1, 1, 2)], 1, 4) == [1, 9, 5]


def test_there_is_no_way_back() -> None:
    assert shortest_path([(7, 1, 2)], 2, 1) is None


@pytest.mark.parametrize("edges", [[], [(7, 8, 9)], [(7, 1, 3), (8, 3, 1), (9, 4, 2)]])
def test_without_a_way_there_is_no_path(edges: list[Edge]) -> None:
    assert shortest_path(edges, 1, 2) is None


def test_from_a_version_to_itself_nothing_is_to_be_done() -> None:
    assert shortest_path([(7, 1, 1)], 1, 1) == []


def test_fewer_steps_win_over_newer_migrations() -> None:
    assert shortest_path([(8, 1, 2), (9, 2, 3), (1, 1, 3)], 1, 3) == [1]


def test_the_newest_migration_between_two_versions_wins() -> None:
    assert shortest_path([(3, 1, 2), (9, 1, 2), (5, 1, 2)], 1, 2) == [9]


def test_of_ways_with_as_few_steps_the_newest_wins() -> None:
    edges = [(1, 1, 2), (4, 2, 4), (2, 1, 3), (3, 3, 4)]

    assert shortest_path(edges, 1, 4) == [2, 3]


def test_a_circle_ends() -> None:
    assert shortest_path([(1, 1, 2), (2, 2, 1), (3, 2, 3)], 1, 3) == [1, 3]


def test_a_thousand_versions_are_one_chain() -> None:
    edges = [(version, version, version + 1) for version in range(1000)]

    assert shortest_path(edges, 0, 1000) == list(range(1000))


@pytest.mark.parametrize("seed", range(200))
def test_any_migrations_give_what_trying_all_ways_gives(seed: int) -> None:
    chance = random.Random(seed)
    edges = [
        (migration, chance.randrange(5), chance.randrange(5))
        for migration in chance.sample(range(100), chance.randrange(9))
    ]

    for from_id, to_id in product(range(5), repeat=2):
        path = shortest_path(edges, from_id, to_id)
        assert path == _best_of_all(edges, from_id, to_id)
        assert (from_id in versions_before(edges, to_id)) == bool(path)


def _best_of_all(edges: list[Edge], from_id: int, to_id: int) -> list[int] | None:
    ways: list[tuple[int, list[int]]] = [(from_id, [])]
    for _ in range(5):
        arrived = [steps for version, steps in ways if version == to_id]
        if arrived:
            return max(arrived)
        ways = [
            (after, [*steps, migration])
            for version, steps in ways
            for migration, before, after in edges
            if before == version
        ]
    return None


@pytest.mark.django_db
def test_the_machines_own_migrations_are_looked_at() -> None:
    org = make_org()
    machine, other = make_machine(org, "order"), make_machine(org, "other")
    old, new, newest = (make_version(machine) for _ in range(3))
    first, second = (make_migration(a, b) for a, b in ((old, new), (new, newest)))
    make_migration(make_version(other), make_version(other))

    assert find_path(old, newest) == [first.pk, second.pk]
    assert find_path(newest, old) is None
    assert find_versions_before(newest) == {old.pk, new.pk}
    assert find_versions_before(old) == set()
