"""The last line of a job's log."""

import re
import subprocess
import sys
import time

from icmbench.utils.job_stats import job_stats


def test_job_stats_include_programs() -> None:
    started = time.monotonic()
    before = _parse(job_stats(started))
    program = "x = bytearray(300 << 20)\nfor _ in range(10**7): pass"
    subprocess.run([sys.executable, "-c", program], check=True)
    wall_s, cpu_s, memory_mb = _parse(job_stats(started))
    assert wall_s > 0.1
    assert cpu_s > before[1] + 0.1
    assert memory_mb > 300


def _parse(line: str) -> tuple[float, float, float]:
    found = re.fullmatch(r"took (\d+\.\d) s, (\d+\.\d) CPU s, (\d+) MB", line)
    assert found is not None, line
    return float(found[1]), float(found[2]), float(found[3])
