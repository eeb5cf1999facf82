import json
import shlex
from pathlib import Path

from statebacked_site import welcome

DEFAULT = Path("/srv/statebacked/data")


def site(data_dir=DEFAULT):
    return welcome.Site("http://127.0.0.1:8000", data_dir, DEFAULT)


def first_start(**changes):
    return welcome.first_start(site(**changes), sign_in_path="/sign-in/abc", org_id="org_1")


def command_lines(text):
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("python3 manage.py")]


def test_first_start_shows_all_that_the_first_minute_needs():
    text = first_start()

    assert "http://127.0.0.1:8000/sign-in/abc" in text
    assert "org_1" in text
    assert "Ctrl-C" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_three_lines_deploy_the_example_and_send_it_an_event():
    deploy, create, send = command_lines(first_start())

    assert deploy[2:] == ["deploy", "machines/examples/toggler.ts"]
    assert create[2:5] == ["api", "POST", "machines/toggler"]
    assert json.loads(create[5]) == {"slug": "first"}
    assert send[2:5] == ["api", "POST", "machines/toggler/i/first/events"]
    assert json.loads(send[5]) == {"event": "toggle"}


def test_lines_name_the_data_directory_if_it_is_not_the_usual_one():
    for line in command_lines(first_start(data_dir=Path("/tmp/it's here"))):
        assert line[-2:] == ["--data", "/tmp/it's here"]


def test_later_start_shows_no_secret():
    text = welcome.later_start(site())

    assert "manage.py sign_in_link" in text
    assert "/sign-in/" not in text
