from machines.upgrade_ways import steps_from, steps_to

EDGES = [(1, 10, 20), (2, 20, 30), (3, 10, 20), (4, 30, 10), (5, 50, 60)]


def test_the_fewest_migrations_count():
    assert steps_to(EDGES, 30) == {30: 0, 20: 1, 10: 2}
    assert steps_to([*EDGES, (6, 10, 30)], 30)[10] == 1


def test_ways_out_are_counted_as_well():
    assert steps_from(EDGES, 10) == {10: 0, 20: 1, 30: 2}
    assert steps_from(EDGES, 60) == {60: 0}
