"""A service with a retry policy is started again, under one effect key."""

from pathlib import Path

import pytest

from statebacked_site.site_client import ApiError
from tests.acceptance.conftest import MACHINES, Deploy
from tests.acceptance.polling import eventually
from tests.acceptance.recorder import Recorder
from tests.acceptance.site import CLIENT, INIT, SERVICE, Site


@pytest.mark.parametrize("file", ["flaky-xstate5.ts", "flaky-xstate4.ts"])
def test_service_is_tried_again_with_one_key(
    site: Site, deploy: Deploy, recorder: Recorder, file: str
):
    machine = deploy(file)
    site.create(machine, "flaky")

    answers = [
        site.send(machine, "flaky", {"type": "ask", "url": recorder.url}).json for _ in range(2)
    ]

    assert [answer["publicContext"]["result"] for answer in answers] == ["done at 3"] * 2
    assert sorted(recorder.calls().values()) == [3, 3]
    kinds = [row.kind for row in site.history(machine, "flaky")]
    assert kinds == [INIT, CLIENT, SERVICE, CLIENT, SERVICE]
    told = "failed (2 of 3), again in 20 ms: Error: try 2"
    eventually(lambda: told in "\n".join(site.log("flaky")), what="it is in the log")


def test_wrong_policy_is_refused_with_the_version(site: Site, tmp_path: Path):
    source = (MACHINES / "flaky-xstate5.ts").read_text()
    wrong = tmp_path / "wrong.ts"
    wrong.write_text(source.replace("attempts: 3", 'attempts: "many"'))

    with pytest.raises(ApiError, match=r"meta\.retry of .* needs attempts.*\(400 "):
        site.deploy("wrong-policy", wrong)
