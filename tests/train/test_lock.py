"""One process per training run: who waits, who takes over, who notices."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from icmbench.train.lock import TakenOver, TrainingLock

ELSEWHERE = json.dumps({"host": "elsewhere", "pid": 1, "token": "x", "beat": 7})

OWNER = """
import os, sys, time
from pathlib import Path
from icmbench.train.lock import TrainingLock
with TrainingLock(Path(sys.argv[1]), beat=0.05):
    print("in", flush=True)
    time.sleep(float(sys.argv[2]))
    if sys.argv[3] == "dies":
        os._exit(0)
"""


def owner(path: Path, seconds: float, end: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OWNER, str(path), str(seconds), end]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    return process


def test_second_process_waits_for_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = owner(path, 1.0, "returns")
    began = time.monotonic()
    with TrainingLock(path, beat=0.05):
        assert time.monotonic() - began > 0.5
        assert first.wait(timeout=5) == 0
    assert not path.exists()


def test_dead_owner_on_this_host_is_taken_over_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    owner(path, 0, "dies").wait()
    assert path.exists()
    began = time.monotonic()
    with TrainingLock(path, beat=5):
        assert time.monotonic() - began < 2


def test_owner_elsewhere_is_taken_over_when_its_heart_stops(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(ELSEWHERE)
    began = time.monotonic()
    with TrainingLock(path, beat=0.1, patience=3):
        assert 0.25 < time.monotonic() - began < 5


def test_owner_notices_that_its_lock_was_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with TrainingLock(path, beat=0.05) as lock:
        lock.check()
        path.write_text(ELSEWHERE)
        deadline = time.monotonic() + 5
        while not lock.lost and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(TakenOver):
            lock.check()
    assert path.read_text() == ELSEWHERE  # the new owner's file stays
