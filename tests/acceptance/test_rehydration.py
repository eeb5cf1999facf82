"""An instance that is unloaded between all events behaves as one that was not."""

from typing import Any

import pytest

from tests.acceptance.conftest import Deploy
from tests.acceptance.site import Site, assert_is_linear

EVENTS = "mark look next next off on back off ask on next off finish next".split()


@pytest.mark.parametrize("file", ["memory-xstate5.ts", "memory-xstate4.ts"])
def test_unloading_between_events_changes_nothing(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)

    def run(slug: str, *, unload: bool) -> list[dict[str, Any]]:
        """The answers to all events, without their times."""
        answers = [site.create(machine, slug)]
        for event in EVENTS:
            if unload:
                site.kill_runners()
            answers.append(site.send(machine, slug, event))
        assert {answer.status for answer in answers} == {200}
        return [{**answer.json, "ts": 0, "tags": sorted(answer.json["tags"])} for answer in answers]

    hot = run("hot", unload=False)
    cold = run("cold", unload=True)

    assert cold == hot
    # What it must remember, it did remember: the answers are those that XState gives.
    by_event = dict(zip(["", *EVENTS], hot, strict=True))  # the last of each name
    assert hot[4]["state"] == {"working": {"track": {"two": "right"}, "light": "green"}}
    assert hot[4]["tags"] == ["deep", "second"]
    assert hot[6]["state"] == hot[4]["state"]  # deep history, through `off` and `on`
    assert hot[2]["publicContext"]["kinds"] == 'string {"map":{}}'
    assert by_event["ask"]["state"] == "resting"
    assert by_event["ask"]["publicContext"]["steps"] == 2
    assert by_event["finish"]["done"] is True
    histories = [site.history(machine, slug) for slug in ("hot", "cold")]
    for history in histories:
        assert_is_linear(history)
    assert [(row.type, row.state, row.context) for row in histories[0]] == [
        (row.type, row.state, row.context) for row in histories[1]
    ]


@pytest.mark.parametrize("file", ["trouble-xstate5.ts", "trouble-xstate4.ts"])
def test_killed_runner_loses_no_acknowledged_event(site: Site, deploy: Deploy, file: str):
    machine = deploy(file)
    site.create(machine, "survives")

    for n in range(1, 11):
        answer = site.send(machine, "survives", "count")
        assert answer.json["publicContext"] == {"count": n}
        site.kill_runners()

    assert site.context(machine, "survives")["public"] == {"count": 10}
