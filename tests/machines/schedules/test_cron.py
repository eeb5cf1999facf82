"""When a schedule runs, also where clocks are set, and what its instances are called."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from machines.schedules.cron import checked_cron, checked_zone, latest_run, next_run, next_runs
from machines.schedules.names import checked_template, name_at
from statebacked_site.errors import InvalidParameter

BERLIN = ZoneInfo("Europe/Berlin")
HOUR_MS = 3_600_000


def ms(text: str, zone: ZoneInfo = BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1_000)


def texts(runs: list[int]) -> list[str]:
    return [f"{datetime.fromtimestamp(run / 1_000, BERLIN):%d %H:%M %Z}" for run in runs]


@pytest.mark.parametrize(
    ("line", "kept"), [("0 9 * * 1-5", "0 9 * * 1-5"), ("  */5  *\t* * * ", "*/5 * * * *")]
)
def test_cron_line_is_taken(line, kept):
    assert checked_cron(line) == kept


@pytest.mark.parametrize(
    "line",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "0 0 30 2 *",
        "@daily",
        "x",
        "0 0 * * \0",
        "1" * 200,
    ],
)
def test_line_that_is_none_is_refused(line):
    with pytest.raises(InvalidParameter) as refused:
        checked_cron(line)
    assert refused.value.parameter == "cron"


@pytest.mark.parametrize(
    "name", ["", "Berlin", "../../etc/passwd", "/etc/localtime", "\0", "a" * 99]
)
def test_zone_that_is_none_is_refused(name):
    with pytest.raises(InvalidParameter) as refused:
        checked_zone(name)
    assert refused.value.parameter == "timeZone"


def test_runs_follow_the_zone_over_the_change_of_clocks():
    runs = next_runs("0 9 * * *", BERLIN, ms("2026-03-28T12:00"), 2)

    assert texts(runs) == ["29 09:00 CEST", "30 09:00 CEST"]
    assert runs[1] - runs[0] == 24 * HOUR_MS
    assert runs[0] - ms("2026-03-28T09:00") == 23 * HOUR_MS


def test_run_in_the_gap_comes_after_it_and_a_doubled_one_once():
    spring = next_runs("30 2 * * *", BERLIN, ms("2026-03-28T12:00"), 2)
    autumn = next_runs("30 2 * * *", BERLIN, ms("2026-10-24T12:00"), 2)

    assert texts(spring) == ["29 03:00 CEST", "30 02:30 CEST"]
    assert texts(autumn) == ["25 02:30 CEST", "26 02:30 CET"]


def test_next_run_is_after_the_moment():
    at = ms("2026-11-21T09:00")

    assert next_run("0 9 * * *", BERLIN, at) == at + 24 * HOUR_MS
    assert next_run("0 9 * * *", BERLIN, at - 1) == at


def test_latest_run_makes_up_for_those_that_were_missed():
    since = ms("2026-11-01T09:00")

    assert latest_run("0 9 * * *", BERLIN, since, ms("2026-11-21T08:59")) == ms("2026-11-20T09:00")
    assert latest_run("0 9 * * *", BERLIN, since, ms("2026-11-21T09:00")) == ms("2026-11-21T09:00")
    assert latest_run("0 9 * * *", BERLIN, since, since + 1) == since


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("report-{date}", "report-2026-11-22"),
        ("r-{week}_{time}", "r-2026-W47_0030"),
        ("{month}", "2026-11"),
        ("plain", "plain"),
    ],
)
def test_names_have_the_time_of_the_zone(template, name):
    assert checked_template(template) == template
    assert name_at(template, ms("2026-11-22T00:30"), BERLIN) == name


@pytest.mark.parametrize("template", ["", "a b", "{year}", "{date", "x" * 120 + "{date}", "é"])
def test_template_that_makes_no_name_is_refused(template):
    with pytest.raises(InvalidParameter) as refused:
        checked_template(template)
    assert refused.value.parameter == "slug"
