"""A killed run ends with the weights of an undisturbed one, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_jobs import J_FT, changed, rows_of, weights_of, write_job

from icmbench.errors import UserError
from icmbench.jobs import TrainJob
from icmbench.train.checkpoint import load_checkpoint, save_checkpoint
from icmbench.train.loop import train
from icmbench.utils.files import read_json

STEPS = 30

# Trains a job with a lock whose owner counts as dead after less than a second.
IMPATIENT = """
import functools, sys
from pathlib import Path
from icmbench.jobs import TrainJob, read_job
from icmbench.plugins import load_modules
from icmbench.train import lock, loop
load_modules([])
loop.TrainingLock = functools.partial(lock.TrainingLock, beat=0.2, patience=3)
loop.train(read_job(Path(sys.argv[1]), TrainJob))
"""


def start(job: Path, program: str | None = None) -> subprocess.Popen[str]:
    command = ["-m", "icmbench", "train"] if program is None else ["-c", program]
    return subprocess.Popen(
        [sys.executable, *command, str(job)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_until(condition: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def job(train_job: Callable[..., TrainJob]) -> TrainJob:
    return changed(train_job(J_FT, steps=STEPS), checkpoint_s=0.3)


@pytest.mark.slow
def test_resumed_run_is_bit_exact(job: TrainJob, tmp_path: Path) -> None:
    reference, folder = tmp_path / "undisturbed", tmp_path / "disturbed"
    path = write_job(job, folder)

    terminated = start(path)
    wait_until(lambda: len(rows_of(folder)) >= 5)
    terminated.send_signal(signal.SIGTERM)
    _, errors = terminated.communicate(timeout=60)
    assert terminated.returncode == 143 and "SIGTERM" in errors
    run = read_json(folder / "run.json")
    done = run["steps_done"]
    assert run["status"] == "interrupted" and done == rows_of(folder)[-1]["step"]
    assert not (folder / "weights.pt").exists()

    killed = start(path)
    wait_until(lambda: read_json(folder / "run.json")["steps_done"] > done)
    killed.kill()
    killed.communicate()
    assert (folder / "training.lock").exists()  # nobody cleaned up
    assert read_json(folder / "run.json")["steps_done"] < STEPS

    train(changed(job, output=str(folder)))
    train(changed(job, output=str(reference)))
    expected, found = weights_of(reference), weights_of(folder)
    assert expected.keys() == found.keys()
    assert not [name for name in expected if not torch.equal(expected[name], found[name])]
    # The files as well: other runs that start from these weights would be repeated otherwise.
    digests = [read_json(f / "run.json")["weights_sha256"] for f in (folder, reference)]
    assert digests[0] == digests[1]
    assert rows_of(folder) == rows_of(reference) and len(rows_of(folder)) == STEPS


@pytest.mark.slow
def test_paused_process_leaves_a_run_that_another_finished(job: TrainJob, tmp_path: Path) -> None:
    """As when a node hangs, SLURM starts its job on another one, and the first comes back."""
    folder = tmp_path / "paused"
    path = write_job(job, folder)
    first = start(path, IMPATIENT)
    wait_until(lambda: len(rows_of(folder)) >= 5)
    first.send_signal(signal.SIGSTOP)
    # The other node does not see the first one's process, and its heart has stopped.
    lock = folder / "training.lock"
    lock.write_text(json.dumps({**json.loads(lock.read_text()), "host": "elsewhere"}))
    second = start(path, IMPATIENT)
    _, errors = second.communicate(timeout=240)
    assert second.returncode == 0, errors
    finished = (folder / "run.json").read_bytes()
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    assert (folder / "run.json").read_bytes() == finished
    assert read_json(folder / "run.json")["status"] == "finished"
    assert [row["step"] for row in rows_of(folder)] == list(range(1, STEPS + 1))
    assert not lock.exists()


def test_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, fingerprint="a", step=3, model={}, optimisers={}, totals={})
    kept = load_checkpoint(path, "a")
    assert kept is not None and kept["step"] == 3
    assert load_checkpoint(tmp_path / "none.pt", "a") is None
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        load_checkpoint(path, "b")
