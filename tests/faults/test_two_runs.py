"""Two runs at once in one folder: the second is refused, the first is not affected."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from fault_study import prepare_short
from killer import running
from same_results import assert_same_files

from checkout import BIN, HERE, Checkout

pytestmark = pytest.mark.slow
TARGET = ("results/smoke/tables/bd.csv", *HERE)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_second_run_is_refused_and_the_first_is_unharmed(repository: Path, tmp_path: Path) -> None:
    expected = prepare_short(tmp_path / "undisturbed", repository)
    expected.run(*TARGET)
    first = prepare_short(tmp_path / "disturbed", repository)
    process = first.start(*TARGET)
    while not (jobs := running(process.pid)):
        assert process.poll() is None, first.said
        time.sleep(0.05)
    for job in jobs:
        os.kill(job, signal.SIGSTOP)  # the run lasts until the others have ended
    same = second(first, "studies=[classical]", "classical_codecs=[jpeg]")
    assert same.returncode == 1
    assert "LockException" in same.stderr, same.stderr
    # Other settings would replace the plan that the first run's jobs read.
    other = second(first, "studies=[classical]", "classical_codecs=[jpeg,webp]")
    assert other.returncode == 1
    assert "results/smoke: " in other.stderr and "Traceback" not in other.stderr, other.stderr
    dry = second(first, "studies=[classical]", "classical_codecs=[jpeg]", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert process.poll() is None
    for job in jobs:
        os.kill(job, signal.SIGCONT)
    assert process.wait() == 0, first.said
    assert_same_files(first, expected)


def second(checkout: Checkout, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run another Snakemake in the same folder."""
    env = {**os.environ, "PYTHONPATH": str(checkout.folder / "workflow")}
    command = [str(BIN / "snakemake"), *TARGET, "--config", "scale=smoke", *arguments]
    return subprocess.run(command, cwd=checkout.folder, env=env, capture_output=True, text=True)
