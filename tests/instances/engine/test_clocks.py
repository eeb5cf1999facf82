from instances.engine.clocks import DatabaseClock


class Loop:
    """A loop of which only the clock is used."""

    now_s = 100.0

    def time(self) -> float:
        return self.now_s

    def call_at(self, *_arguments: object) -> None:
        raise NotImplementedError


def test_clock_agrees_with_the_database_to_within_a_round_trip():
    clock = DatabaseClock(Loop())  # type: ignore[arg-type]

    clock.set(5_000_000, asked_at=100.0, answered_at=100.001)

    assert 4_999_999 <= clock.now_ms() <= 5_000_000


def test_slow_answer_makes_the_clock_no_worse():
    clock = DatabaseClock(Loop())  # type: ignore[arg-type]
    clock.set(5_000_000, asked_at=100.0, answered_at=100.001)
    before = clock.now_ms()

    # The database said it right after it was asked; its answer was on its way for 80 ms.
    clock.set(5_000_000, asked_at=100.0, answered_at=100.080)

    assert clock.now_ms() == before


def test_clock_follows_a_database_whose_clock_was_set():
    clock = DatabaseClock(Loop())  # type: ignore[arg-type]
    clock.set(5_000_000, asked_at=100.0, answered_at=100.001)

    clock.set(4_000_000, asked_at=100.0, answered_at=100.001)

    assert 3_999_999 <= clock.now_ms() <= 4_000_002
