"""The text of the first start: all that somebody needs for the first minute, and no more."""

import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

EXAMPLE = "machines/examples/toggler.ts"
EXAMPLE_EVENT = "toggle"


@dataclass(frozen=True)
class Site:
    """Where a started site is and keeps its data."""

    url: str
    data_dir: Path
    default_data_dir: Path

    def command(self, arguments: str, python: str = "python3") -> str:
        """A shell line that works in the checkout, whatever data directory is in use."""
        line = f"{python} manage.py {arguments}"
        if self.data_dir != self.default_data_dir:
            line += f" --data {shlex.quote(str(self.data_dir))}"
        return line


def this_site() -> Site:
    """The site that this process serves."""
    return Site(settings.PUBLIC_URL, settings.DATA_DIR, settings.BASE_DIR / "data")


def first_start(site: Site, *, sign_in_path: str, org_id: str, python: str = "python3") -> str:
    """URL, sign-in link, org and the three lines that deploy the example and use it."""
    machine = Path(EXAMPLE).stem
    create = shlex.quote('{"slug": "first"}')
    send = shlex.quote(f'{{"event": "{EXAMPLE_EVENT}"}}')
    lines = [
        f"deploy {EXAMPLE}",
        f"api POST machines/{machine} {create}",
        f"api POST machines/{machine}/i/first/events {send}",
    ]
    commands = "\n".join(f"    {site.command(line, python)}" for line in lines)
    return f"""
  State Backed runs at {site.url}

  Sign in    {site.url}{sign_in_path}
             (this link works once; for a new one: {site.command("sign_in_link", python)})
  Your org   {org_id}

  Deploy the example and send it an event, from a second terminal in this directory:

{commands}

  Ctrl-C stops the site. Everything it keeps is in {site.data_dir}
"""


def later_start(site: Site, python: str = "python3") -> str:
    return f"""
  State Backed runs at {site.url}

  To sign in: {site.command("sign_in_link", python)}
  Ctrl-C stops the site. Everything it keeps is in {site.data_dir}
"""


def python_to_show() -> str:
    """`python3` if typing that gets a Python that works here, else the environment's own."""
    found = shutil.which("python3")
    if found is None:
        return ".venv/bin/python"
    check = "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))"
    works = subprocess.run([found, "-c", check], check=False).returncode == 0
    return "python3" if works else ".venv/bin/python"


def worker_start(address: str) -> str:
    return f"""
  A worker of State Backed has started. The other servers reach it at {address}

  Ctrl-C stops it.
"""
