"""Run seeds, or tell the life of one: `python -m tests.instances.engine.simulation --help`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from contextlib import nullcontext


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="simulation")
    parser.add_argument("--seed", type=int, help="tell everything that happens in this one")
    parser.add_argument("--seeds", type=int, default=1000, help="run so many")
    parser.add_argument("--first", type=int, default=0, help="from this one on")
    parser.add_argument("--mutant", help="with this deliberate bug")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    logging.disable(logging.CRITICAL)
    from tests.instances.engine.simulation.mutants import MUTANTS

    with MUTANTS[options.mutant]() if options.mutant else nullcontext():
        if options.seed is not None:
            return _tell(options.seed)
        return _run(options.first, options.seeds)


def _tell(seed: int) -> int:
    from tests.instances.engine.simulation.checker import problems_of
    from tests.instances.engine.simulation.life import live

    life = live(seed)
    for at, what, *details in life.world.diary:
        sys.stdout.write(f"{at:9.4f}  {what:<14} {'  '.join(map(str, details))}\n")
    problems = problems_of(life)
    for problem in problems:
        sys.stdout.write(f"BROKEN: {problem}\n")
    sys.stdout.write(f"seed {seed}: {len(problems)} problems\n")
    return 1 if problems else 0


def _run(first: int, count: int) -> int:
    from tests.instances.engine.simulation.checker import problems_of
    from tests.instances.engine.simulation.life import live

    started = time.monotonic()
    failed = 0
    for seed in range(first, first + count):
        problems = problems_of(live(seed))
        if problems:
            failed += 1
            sys.stdout.write(f"seed {seed}: {problems[0]}\n")
            sys.stdout.flush()
    seconds = time.monotonic() - started
    sys.stdout.write(f"{count} seeds, {failed} with problems, {seconds:.0f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
