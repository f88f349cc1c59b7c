"""Worker processes exit when their parent process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, time
from icmbench.utils.workers import worker_pool

def work(_):
    time.sleep(0.2)
    return os.getpid()

if __name__ == "__main__":
    with worker_pool(2, sys.argv[1]) as pool:
        print(*sorted(set(pool.map(work, range(4)))), flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_pool_ends_with_a_killed_parent(tmp_path: Path, start: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), start], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert workers and all(_alive(number) for number in workers)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while left := [number for number in workers if _alive(number)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _alive(number: int) -> bool:
    try:
        os.kill(number, 0)
        return "\nState:\tZ" not in Path(f"/proc/{number}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
