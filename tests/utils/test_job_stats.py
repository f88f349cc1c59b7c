"""The last line of a job's log."""

import re
import subprocess
import sys
import time
from pathlib import Path

from icmbench.utils.job_stats import job_stats, phase_seconds


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


def test_phase_seconds_sums_the_last_attempt_of_each_job(tmp_path: Path) -> None:
    for name, text in {
        "train/a.log": "took 3.0 s, 2.5 CPU s, 100 MB\nagain\ntook 4.0 s, 10.0 CPU s, 100 MB\n",
        "train/b/c.log": "took 9.0 s, 5.0 CPU s, 100 MB\n",
        "analyse.log": "took 1.0 s, 1.5 CPU s, 100 MB\n",
        "encode/failed.log": "Traceback\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert phase_seconds(tmp_path) == "CPU seconds: 16 (analyse 2, train 15)"
