import os

import pytest

from statebacked_site.command_line import take_data_option


@pytest.fixture(autouse=True)
def _data_variable(monkeypatch):
    monkeypatch.setenv("STATEBACKED_DATA", "unchanged")


@pytest.mark.parametrize(
    "argv",
    [
        ["manage.py", "up", "--data", "my data", "--port", "1"],
        ["manage.py", "up", "--data=my data", "--port", "1"],
        ["manage.py", "up", "--port", "1", "--data", "my data"],
    ],
)
def test_data_option_becomes_the_variable(argv):
    assert take_data_option(argv) == ["manage.py", "up", "--port", "1"]

    assert os.environ["STATEBACKED_DATA"] == "my data"


def test_data_option_after_two_dashes_is_an_argument():
    argv = ["manage.py", "api", "--", "--data", "x"]

    assert take_data_option(argv) == argv
    assert os.environ["STATEBACKED_DATA"] == "unchanged"


@pytest.mark.parametrize("argv", [["manage.py", "up", "--data"], ["manage.py", "up", "--data="]])
def test_data_option_needs_a_directory(argv):
    with pytest.raises(SystemExit, match="--data DIR"):
        take_data_option(argv)
