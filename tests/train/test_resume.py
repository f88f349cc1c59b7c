"""A killed training ends with the weights of an undisturbed one, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from icmbench.train.lock import TrainingLock
from icmbench.utils.files import read_json, write_json

VARIANT = "hyperprior/faster-rcnn/j-ft"
STEPS = 40


def start(job: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "icmbench", "train", str(job)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


# A training that loses patience with another's heart soon.
QUICK_LOCK = """
import functools, sys
from icmbench.cli import main
from icmbench.train import lock, run
run.TrainingLock = functools.partial(lock.TrainingLock, beat=0.2, patience=3)
sys.exit(main(["train", sys.argv[1]]))
"""


def wait_for_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        log = folder / "metrics.jsonl"
        lines = log.read_text().splitlines() if log.is_file() else []
        if len(lines) >= step:
            return
        time.sleep(0.02)
    raise TimeoutError(f"no {step} steps in {folder}")


def steps_of(folder: Path) -> list[int]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if row["split"] == "train"]


@pytest.fixture
def jobs(train_job: Any, tmp_path: Path) -> Any:
    """Return a function that writes the same job for another output folder."""

    def make(name: str) -> tuple[Path, Path]:
        job = train_job(VARIANT, steps=STEPS)
        job["output"] = str(tmp_path / name)
        job["runtime"]["checkpoint_s"] = 0.3
        path = tmp_path / f"{name}.json"
        write_json(path, job)
        return path, tmp_path / name

    return make


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "weights.pt", weights_only=True)
    return {f"{part}.{k}": v for part in ("codec", "task") for k, v in state[part].items()}


@pytest.mark.slow
def test_killed_and_resumed_training_is_bit_exact(jobs: Any) -> None:
    undisturbed, reference = jobs("undisturbed")
    whole = start(undisturbed)

    disturbed, folder = jobs("disturbed")
    terminated = start(disturbed)
    wait_for_step(folder, 5)
    terminated.send_signal(signal.SIGTERM)
    _, errors = terminated.communicate(timeout=60)
    assert terminated.returncode == 143, errors
    assert "SIGTERM" in errors and "checkpoint saved" in errors
    run = read_json(folder / "run.json")
    assert run["status"] == "interrupted"
    done = run["steps_done"]
    assert done == steps_of(folder)[-1]
    assert not (folder / "weights.pt").exists()

    killed = start(disturbed)
    wait_for_step(folder, done + 6)
    deadline = time.monotonic() + 30
    while read_json(folder / "run.json")["steps_done"] <= done and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    assert (folder / "training.lock").exists()  # nobody cleaned up

    resumed = start(disturbed)
    _, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    _, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors

    expected, found = weights(reference), weights(folder)
    assert expected.keys() == found.keys()
    different = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert not different
    # The files as well: what starts from these weights would be trained anew otherwise.
    digests = [read_json(f / "run.json")["weights_sha256"] for f in (folder, reference)]
    assert digests[0] == digests[1]
    assert steps_of(folder) == list(range(1, STEPS + 1))

    def losses(folder: Path) -> list[float]:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [row["values"]["loss"] for row in rows if row["split"] == "train"]

    assert losses(folder) == losses(reference)


def test_second_process_waits_and_then_finds_the_result(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = """
import sys, time
from pathlib import Path
from icmbench.train.lock import TrainingLock
with TrainingLock(Path(sys.argv[1]), beat=0.05):
    print("in", flush=True)
    time.sleep(1.0)
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None and owner.stdout.readline() == "in\n"
    began = time.monotonic()
    with TrainingLock(path, beat=0.05):
        assert time.monotonic() - began > 0.5
        assert owner.wait(timeout=5) == 0
    assert not path.exists()


def test_dead_owner_on_this_host_is_taken_over_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = """
import os, sys
from pathlib import Path
from icmbench.train.lock import TrainingLock
TrainingLock(Path(sys.argv[1])).__enter__()
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", program, str(path)])
    assert path.exists()
    began = time.monotonic()
    with TrainingLock(path, beat=5):
        assert time.monotonic() - began < 2


def test_paused_process_leaves_a_training_that_another_finished(jobs: Any) -> None:
    """As when a node hangs, SLURM starts its job on another one, and the first comes back."""
    path, folder = jobs("paused")
    first = start(path)
    wait_for_step(folder, 5)
    first.send_signal(signal.SIGSTOP)
    # The other node does not see the first one's processes, and its heart has stopped.
    lock = folder / "training.lock"
    lock.write_text(json.dumps({**json.loads(lock.read_text()), "host": "elsewhere"}))
    second = subprocess.Popen(
        [sys.executable, "-c", QUICK_LOCK, str(path)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    _, errors = second.communicate(timeout=240)
    assert second.returncode == 0, errors
    finished = (folder / "run.json").read_bytes()
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 0 and "took this training over" in errors, errors
    assert (folder / "run.json").read_bytes() == finished
    assert read_json(folder / "run.json")["status"] == "finished"
    assert steps_of(folder) == list(range(1, STEPS + 1))
    assert not lock.exists()


def test_owner_elsewhere_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x", "beat": 7}))
    began = time.monotonic()
    with TrainingLock(path, beat=0.1, patience=3):
        assert 0.25 < time.monotonic() - began < 5


def test_owner_notices_that_its_lock_was_taken(tmp_path: Path) -> None:
    from icmbench.errors import UserError

    path = tmp_path / "lock"
    with TrainingLock(path, beat=0.05) as lock:
        path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "y", "beat": 0}))
        deadline = time.monotonic() + 5
        while not lock.lost and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(UserError, match="took this training over"):
            lock.check()
    assert "elsewhere" in path.read_text()  # the new owner's file stays
