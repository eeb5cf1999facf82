"""The order of faults: the same for a seed, of every kind, and never everything at once."""

import pytest

from bench.faults import schedule
from bench.faults.schedule import plan


@pytest.mark.parametrize("seed", range(5))
def test_one_web_node_is_always_left_alone(seed):
    faults = plan(seed, duration_s=600, every_s=2.3, webs=3, workers=2)

    for fault in faults:
        lasting = {
            other.target
            for other in faults
            if other.target.startswith("web-") and other.at <= fault.at <= other.at + other.seconds
        }
        assert len(lasting) < 3
        assert fault.at + fault.seconds <= 600


@pytest.mark.parametrize("seed", range(5))
def test_ten_minutes_have_two_hundred_faults_of_all_kinds(seed):
    faults = plan(seed, duration_s=600, every_s=2.3, webs=3, workers=2)

    assert len(faults) >= 200
    assert {fault.kind for fault in faults} == set(schedule.all_kinds(workers=True))
    assert faults == plan(seed, duration_s=600, every_s=2.3, webs=3, workers=2)
    assert faults != plan(seed + 1, duration_s=600, every_s=2.3, webs=3, workers=2)


def test_site_without_workers_has_no_faults_of_workers():
    faults = plan(1, duration_s=600, every_s=2.3, webs=2, workers=0)

    assert {fault.kind for fault in faults} == set(schedule.all_kinds(workers=False))
    assert not any(fault.target.startswith("worker") for fault in faults)
