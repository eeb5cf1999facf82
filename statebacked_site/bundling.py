"""Turns a machine's source file into the one ES module that is deployed."""

import os
import subprocess
from pathlib import Path

from django.conf import settings

from statebacked_site.identifiers import SLUG


class CannotBundle(Exception):
    """The source does not bundle; the message is the bundler's."""


def bundle(source: Path) -> bytes:
    """`source` (TypeScript or JavaScript) and what it imports as one ES module.

    `npm:xstate` stays an import, since the platform provides it; `xstate` and other packages
    are taken from the source's own node_modules, or from this checkout's.
    """
    modules = settings.BASE_DIR / "node_modules"
    command = [
        str(esbuild_program()),
        str(source),
        "--bundle",
        "--format=esm",
        "--platform=browser",
        "--minify",
        "--keep-names",
        "--legal-comments=none",
        "--external:npm:*",
        '--define:process.env.NODE_ENV="production"',
        "--log-level=warning",
    ]
    environment = {**os.environ, "NODE_PATH": str(modules)}
    result = subprocess.run(command, capture_output=True, env=environment, check=False)
    if result.returncode != 0:
        raise CannotBundle(result.stderr.decode(errors="replace").strip())
    return result.stdout


def machine_slug(source: Path) -> str:
    """The machine's name that a file name suggests: `toggler` for `toggler.ts`."""
    slug = source.name.split(".")[0]
    if SLUG.match(slug) is None:
        raise CannotBundle(f"{source.name} is no name for a machine: give one with --machine")
    return slug


def esbuild_program() -> Path:
    """The bundler's own program; the script beside it would need a `node` on the PATH."""
    found = sorted((settings.BASE_DIR / "node_modules").glob("@esbuild/*/bin/esbuild"))
    if not found:
        raise CannotBundle("esbuild is missing: remove node_modules and run the command again")
    return found[0]
