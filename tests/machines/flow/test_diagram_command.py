import json
from io import StringIO
from xml.etree import ElementTree

import pytest
from django.core.management import CommandError, call_command

from tests.machines.flow.machines import PROJECT_ROOT

ORDER = str(PROJECT_ROOT / "machines" / "examples" / "order.ts")


def run(*arguments):
    out = StringIO()
    call_command("diagram", *arguments, stdout=out)
    return out.getvalue()


def test_draws_a_file_as_svg(tmp_path):
    said = run(ORDER, "-o", str(tmp_path / "flow.svg"), "--theme", "dark")

    assert "order with 5 states and 6 transitions" in said
    svg = (tmp_path / "flow.svg").read_text("utf-8")
    ElementTree.fromstring(svg)
    assert 'data-theme="dark"' in svg


def test_writes_mermaid_and_the_graph(tmp_path):
    run(ORDER, "-o", str(tmp_path / "flow.mmd"))
    run(ORDER, "-o", str(tmp_path / "flow.json"))

    assert (tmp_path / "flow.mmd").read_text().startswith("stateDiagram-v2")
    assert json.loads((tmp_path / "flow.json").read_text())["name"] == "order"


def test_prints_to_the_terminal():
    assert run(ORDER, "-o", "-").startswith("<svg")


def test_says_what_is_wrong(tmp_path):
    broken = tmp_path / "broken.ts"
    broken.write_text("export default 7;")

    for arguments, message in [
        ((str(broken), "-o", "-"), "not an XState"),
        ((ORDER, "-o", "flow.png"), r"must end in one of \.svg"),
        ((ORDER, "-o", "-", "--fold", "nowhere"), "no state nowhere"),
        ((str(tmp_path / "missing.ts"), "-o", "-"), "missing.ts"),
    ]:
        with pytest.raises(CommandError, match=message):
            run(*arguments)
