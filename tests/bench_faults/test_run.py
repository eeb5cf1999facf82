"""A short fault run with every kind of fault: no promise is broken.

How fast things recover says little on a busy machine: `manage.py faults` tells that on a quiet one.
"""

from pathlib import Path

import pytest

from bench.faults import schedule
from bench.faults.check import check
from bench.faults.report import OK_SHARE_MIN, ok_share, recovery_s, table
from bench.faults.run import parse, run_faults

SEED = 156  # within a minute it has all kinds of faults but a long stop of a web node
EVERY_S = 1.3
OPERATIONS_MIN = 500
UNSETTLED_S_MAX = 40.0


@pytest.mark.acceptance
async def test_no_promise_is_broken(tmp_path: Path):
    size = f"--minutes 1 --seed {SEED} --webs 2 --workers 1 --every {EVERY_S}"
    settings = parse([*size.split(), "--directory", str(tmp_path)])

    run, evidence = await run_faults(settings)

    violations = check(evidence)
    assert violations == [], table(run, evidence, violations)
    assert len(evidence.operations) >= OPERATIONS_MIN
    assert ok_share(evidence) >= OK_SHARE_MIN / 2
    planned = schedule.plan(SEED, duration_s=60, every_s=EVERY_S, webs=2, workers=1)
    assert len(evidence.faults) + run.skipped == len(planned)
    for what in ("settled", "unsettled", "runner", "database"):
        assert max(recovery_s(evidence, what), default=0.0) <= UNSETTLED_S_MAX
