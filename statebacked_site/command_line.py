"""Runs a management command; the set-up has put everything in place before."""

import os
import sys

from django.core.management import execute_from_command_line

from statebacked_site.environment import InvalidVariable
from statebacked_site.setup_environment import DEVELOPMENT_COMMANDS


def run(argv: list[str]) -> None:
    """Run the command that `argv` names; exits with a message if a setting is wrong."""
    if argv[1:2] in DEVELOPMENT_COMMANDS:
        # They have a data directory of their own and never touch the site's.
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    else:
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "statebacked_site.settings")
        argv = take_data_option(argv)
    try:
        execute_from_command_line(argv)
    except InvalidVariable as exc:
        sys.exit(f"{exc}.\nThe settings are described in docs/configuration.md.")


def take_data_option(argv: list[str]) -> list[str]:
    """Move `--data DIR` into the environment and return the other arguments.

    Settings are read before a command sees its arguments, and every command needs the same
    data directory, also Django's own.
    """
    others: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--":
            return [*others, argument, *arguments]
        if argument == "--data":
            value = next(arguments, "")
        elif argument.startswith("--data="):
            value = argument.removeprefix("--data=")
        else:
            others.append(argument)
            continue
        if not value:
            sys.exit("--data needs a directory: --data DIR")
        os.environ["STATEBACKED_DATA"] = value
    return others
