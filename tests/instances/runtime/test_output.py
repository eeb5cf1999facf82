"""Lines out of bytes, and how many of them a runner may write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instances.runtime import output
from instances.runtime.output import Flood, LineReader, OutputBudget


@given(st.lists(st.binary(max_size=20)))
def test_lines_are_the_same_however_they_are_cut(pieces):
    reader = LineReader()

    lines = [line for piece in pieces for line in reader.feed(piece)]

    assert lines == b"".join(pieces).split(b"\n")[:-1]


def test_line_may_come_in_many_pieces():
    reader = LineReader()
    for _ in range(1000):
        assert reader.feed(b"x" * 1000) == []

    assert reader.feed(b"\nnext") == [b"x" * 1_000_000]
    assert reader.feed(b"\n") == [b"next"]


def test_line_that_never_ends_is_a_flood():
    reader = LineReader()
    piece = b"x" * (output.LINE_BYTES_MAX // 2)
    reader.feed(piece)
    reader.feed(piece)

    with pytest.raises(Flood):
        reader.feed(b"x")


def test_budget_is_new_in_each_tick():
    budget = OutputBudget()
    for _ in range(3):
        budget.spend_bytes(output.BYTES_PER_TICK)
        budget.spend_lines(output.LINES_PER_TICK)
        budget.tick()
    budget.spend_lines(output.LINES_PER_TICK)

    with pytest.raises(Flood):
        budget.spend_lines(1)


def test_dropped_log_lines_are_counted_once_per_window():
    budget = OutputBudget()
    admitted = [budget.admits_log(10) for _ in range(output.LOG_LINES_PER_WINDOW + 5)]

    notes = [budget.tick() for _ in range(2 * output.LOG_WINDOW_TICKS)]

    assert admitted.count(False) == 5
    (note,) = filter(None, notes)
    assert b'["5 log lines were dropped' in note
    assert budget.admits_log(10)


def test_log_lines_are_dropped_for_their_size_too():
    budget = OutputBudget()

    assert budget.admits_log(output.LOG_BYTES_PER_WINDOW)
    assert not budget.admits_log(1)
