"""What a job tells of its cost, and the allocator it runs with."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from icmbench.utils.job_stats import cost

_ALLOCATING = """
import resource, sys
from icmbench.utils.job_stats import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
import numpy
numpy.ones(3 << 20)
before = faults()
for _ in range(20):
    numpy.ones(3 << 20)  # 24 MiB
print(faults() - before)
"""


def test_cost_counts_programs_and_their_memory() -> None:
    spend = "x = bytearray(300 << 20)\nfor _ in range(10**7): pass"
    subprocess.run([sys.executable, "-c", spend], check=True)
    told = re.fullmatch(r"took 12\.3 s, (\d+\.\d) CPU s, (\d+) MB", cost(12.34))
    assert told is not None
    own = sum(os.times()[:4])
    assert float(told[1]) == pytest.approx(own, abs=0.2)
    assert int(told[2]) > 300


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", _ALLOCATING, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    # 24 MiB are 6144 pages, of which all are touched anew where they went back to the kernel.
    assert faults("keep") < faults("default") / 5


def test_a_job_that_failed_tells_only_why(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "icmbench", "data", str(tmp_path / "none.json")]
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
