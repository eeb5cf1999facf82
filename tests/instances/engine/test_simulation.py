"""A thousand lives of a site under virtual time, with everything going wrong that may."""

import logging
import os

import pytest

from tests.instances.engine.simulation.checker import problems_of
from tests.instances.engine.simulation.life import live
from tests.instances.engine.simulation.mutants import MUTANTS

SEEDS = int(os.environ.get("STATEBACKED_SIMULATION_SEEDS", "1000"))
BLOCK = 100
REPLAY = "python -m tests.instances.engine.simulation"


@pytest.fixture(autouse=True)
def quiet():
    """What the servers say of their troubles would be most of the output."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_promise_is_kept_in_every_life(first):
    broken = [
        f"{problem}\n  replay: {REPLAY} --seed {seed}"
        for seed in range(first, min(first + BLOCK, SEEDS))
        for problem in problems_of(live(seed))
    ]
    assert not broken, "\n".join(broken[:20])


def test_seed_repeats_its_life_exactly():
    for seed in (5, 12, 27):
        assert live(seed).world.diary == live(seed).world.diary


def test_clients_get_most_of_what_they_ask_for():
    lives = [live(seed) for seed in range(40)]
    requests = [r for life in lives for client in life.clients for r in client.requests]
    # Of what there is no instance for, or what that refuses, nobody could get more.
    requests = [r for r in requests if r.outcome != "error" or r.error.status >= 500]
    applied = [r for r in requests if r.outcome == "ok"]
    unavailable = [r for r in requests if r.outcome == "error" and r.error.status in (503, 504)]
    assert len(applied) >= 0.7 * len(requests)
    assert unavailable  # else nothing went wrong


@pytest.mark.parametrize("name", MUTANTS)
def test_deliberate_bug_is_found(name, record_property):
    with MUTANTS[name]():
        for seed in range(100):
            # A mutant that makes the program stumble has not been caught breaking a promise.
            found = [p for p in problems_of(live(seed)) if not p.startswith("nobody caught")]
            if found:
                record_property("caught", f"seed {seed}: {found[0]}")
                return
    pytest.fail(f"100 seeds live with it: {REPLAY} --mutant {name}")
