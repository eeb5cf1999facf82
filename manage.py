#!/usr/bin/env python3
"""State Backed's command line; `python3 manage.py help` lists the commands.

It needs nothing but Python: what is missing is installed into .venv beside this file first.
"""

import sys


def main():  # type: ignore[no-untyped-def]  # an old Python must be able to read this file
    # Before any other import: an old Python could not even read them.
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(
            "State Backed needs Python 3.11, 3.12 or 3.13, and this is Python %d.%d.\n"
            "If one of them is installed, call it by its name: python3.11 manage.py ..."
            % sys.version_info[:2]
        )

    from statebacked_site import setup_environment

    setup_environment.enter(sys.argv)

    from statebacked_site import command_line

    command_line.run(sys.argv)


if __name__ == "__main__":
    main()  # type: ignore[no-untyped-call]
