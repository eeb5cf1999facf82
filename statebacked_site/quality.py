"""Runs the tools that judge the code, each in a process of its own."""

import subprocess
import sys

from django.conf import settings

LINT = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy", "."],
}
FORMAT = {
    "ruff check": ["ruff", "check", "--fix", "."],
    "ruff format": ["ruff", "format", "."],
}


def run_all(commands: dict[str, list[str]]) -> int:
    """Run each module, also after one that failed; exit status 0 if all passed."""
    failed = [name for name, command in commands.items() if not _passes(name, command)]
    if failed:
        sys.stderr.write(f"Failed: {', '.join(failed)}\n")
    return 1 if failed else 0


def _passes(name: str, command: list[str]) -> bool:
    sys.stdout.write(f"--- {name}\n")
    sys.stdout.flush()
    full_command = [sys.executable, "-m", *command]
    return subprocess.run(full_command, cwd=settings.BASE_DIR, check=False).returncode == 0
