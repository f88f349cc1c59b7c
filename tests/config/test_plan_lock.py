"""Who starts a workflow keeps its plan from being replaced under its jobs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from icmbench.config.job_settings import are_written
from icmbench.config.plan import Plan, load_plan
from icmbench.config.plan_lock import write_plan
from icmbench.errors import UserError

HOLD = """
import sys
from icmbench.config.plan_lock import write_plan
from icmbench.config.plan import load_plan
from pathlib import Path
run = {"scale": "smoke", "variants": "all", "results": sys.argv[2]}
write_plan(load_plan(Path(sys.argv[1]), run))
print("held", flush=True)
sys.stdin.read()
"""


def test_write_plan_refuses_other_settings_while_a_run_holds_the_lock(
    smoke_plan: Plan, repository: Path, tmp_path: Path
) -> None:
    config, results = repository / "config.yaml", tmp_path / "results"
    other = load_plan(
        config, {"scale": "smoke", "variants": "all", "results": str(results), "seeds": [1]}
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(config), str(results)],
        cwd=repository,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert owner.stdout is not None and owner.stdout.readline() == "held\n"
        written = (smoke_plan.root / "plan.json").read_bytes()
        write_plan(smoke_plan)  # the same: a dry run beside the run
        with pytest.raises(UserError, match=str(smoke_plan.root)):
            write_plan(other)
        assert (smoke_plan.root / "plan.json").read_bytes() == written
    finally:
        owner.kill()
        owner.wait()
    write_plan(other)  # the kernel has released what the killed process held
    assert are_written(other) and not are_written(smoke_plan)
