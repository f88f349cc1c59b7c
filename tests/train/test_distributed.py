"""One job in several ranks: the same training run, and one end for all of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_resume import start, wait_until
from training_jobs import J_FT, MSE, changed, rows_of, weights_of, write_job

from icmbench.config.job_settings import train_job as make_train_job
from icmbench.config.plan import Plan, Point, load_plan
from icmbench.data.specs import DatasetSpec
from icmbench.errors import UserError
from icmbench.jobs import TrainJob
from icmbench.train.distributed import connect, places, step_seed
from icmbench.train.setup import fingerprint_of
from icmbench.utils.files import read_json
from icmbench.workflow import Workflow

MakeJob = Callable[..., TrainJob]

# Of every logged value, relative to one process: they add the same numbers in another order.
TOLERANCE = 1e-5


def run_ranks(*jobs: Path, quiet: bool = False) -> tuple[dict[str, list[int]], str]:
    """Return the exit statuses of all ranks by job's name, and their standard error."""
    program = str(Path(__file__).with_name("forked_ranks.py"))
    command = [sys.executable, program, *(["--quiet"] if quiet else []), *map(str, jobs)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    return {Path(job).stem: found for job, found in codes.items()}, done.stderr


def processes_of(job: Path) -> list[int]:
    """Return the processes that work on a job: its launcher and the children of that."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(job).encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # ended meanwhile, or another user's
    return found


def largest_difference(a: list[dict[str, float]], b: list[dict[str, float]]) -> float:
    differences = []
    for one, other in zip(a, b, strict=True):
        assert one.keys() == other.keys()
        differences += [abs(one[n] - other[n]) / max(abs(one[n]), 1e-6) for n in one]
    return max(differences)


@pytest.mark.slow
def test_two_ranks_train_as_one_with_the_batch_of_both(
    train_job: MakeJob, smoke_plan: Plan, scenes: DatasetSpec, tmp_path: Path
) -> None:
    """Noise and statistics of a rank's own part are removed, see forked_ranks.py; nothing else is.

    The contrastive job runs the key shuffle, the gathering of keys, the momentum network and the
    renewal of boxes in both ranks.
    """
    codec = changed(train_job(MSE, steps=8), precision="fp32")
    contrast = make_train_job(smoke_plan, Point("tang2025", "dicm/contrastive/backbone", 0, 0))
    dataset = scenes.model_copy(update={"role": "classification"})
    contrast = changed(contrast, dataset=dataset, steps=6, batch_size=4, precision="fp32")
    jobs = {
        (name, devices): write_job(changed(job, devices=devices), tmp_path / f"{name}{devices}")
        for name, job in (("codec", codec), ("contrast", contrast))
        for devices in (1, 2)
    }
    broken = write_job(changed(codec, devices=2), tmp_path / "nan")
    codes, errors = run_ranks(*jobs.values(), broken, quiet=True)
    # One rank's NaN is an error of both, at the same step: neither waits for the other.
    assert codes.pop("nan") == [1, 1]
    assert errors.count("at step 1: bpp = nan, mse = nan") == 2
    assert read_json(tmp_path / "nan" / "run.json")["status"] == "failed"
    assert not any(code for found in codes.values() for code in found), errors
    for name in ("codec", "contrast"):
        one, two = (jobs[name, devices].with_suffix("") for devices in (1, 2))
        assert [row["step"] for row in rows_of(one)] == [row["step"] for row in rows_of(two)]
        values = [[row["values"] for row in rows_of(f)] for f in (one, two)]
        assert largest_difference(*values) < TOLERANCE
        expected, found = weights_of(one), weights_of(two)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.allclose(value.float(), found[key].float(), rtol=1e-3, atol=1e-4), key
    losses = [row["values"]["loss"] for row in rows_of(jobs["contrast", 2].with_suffix(""))]
    assert len(set(losses)) == len(losses)
    # 24 keys went through a queue of 16: their order is that of one process, wrapped around.
    bank, pointer = "task.loss.memory_bank.bank", "task.loss.memory_bank.bank_ptr"
    one, two = (weights_of(jobs["contrast", devices].with_suffix("")) for devices in (1, 2))
    assert torch.allclose(one[bank], two[bank], atol=1e-4)
    assert one[pointer].item() == two[pointer].item() == 24 % 16
    assert not torch.allclose(one[bank][:4], one[bank][4:8], atol=1e-2)
    assert len(one["task.crops.boxes"]) == 8


@pytest.mark.slow
def test_stopped_and_resumed_by_two_ranks_is_bit_exact(
    train_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM to the launcher, then SIGKILL to the launcher: both save and leave no process."""
    job = changed(train_job(J_FT, steps=14), devices=2, precision="fp32")
    folder, reference = tmp_path / "stopped", tmp_path / "undisturbed"
    path = write_job(job, folder)
    monkeypatch.setenv("ICMBENCH_TEST_JOB", str(path))  # by which its processes are found
    for number, step in ((signal.SIGTERM, 3), (signal.SIGKILL, 7)):
        launcher = start(path)
        wait_until(lambda step=step: len(rows_of(folder)) >= step)  # type: ignore[misc]
        launcher.send_signal(number)
        _, errors = launcher.communicate(timeout=200)
        assert launcher.returncode == (143 if number == signal.SIGTERM else -9), errors
        assert errors.count("checkpoint saved") == 1
        wait_until(lambda: not processes_of(path))
        run = read_json(folder / "run.json")
        assert run["status"] == "interrupted" and step <= run["steps_done"] < 14
        assert not (folder / "training.lock").exists()

    codes, errors = run_ranks(write_job(job, reference), path)
    assert codes == {"undisturbed": [0, 0], "stopped": [0, 0]}, errors
    expected, found = weights_of(reference), weights_of(folder)
    assert expected.keys() == found.keys()
    assert not [name for name in expected if not torch.equal(expected[name], found[name])]
    assert rows_of(folder) == rows_of(reference) and len(rows_of(folder)) == 14


# Its rank 1 fails in one of two ways, and rank 0 loses the connection soon after.
FAILING = """
import os, signal, sys, time
from pathlib import Path
from icmbench.errors import UserError
from icmbench.jobs import TrainJob, read_job
from icmbench.train import launch

def train(job):
    marker = Path(job.output) / "failed"
    if os.environ["RANK"] == "0":
        while not marker.exists():
            time.sleep(0.01)
        raise RuntimeError("connection closed")
    marker.touch()
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise UserError("the disk is full")

launch.train = train
if __name__ == "__main__":
    try:
        launch.run(read_job(Path(sys.argv[1]), TrainJob))
    except UserError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("failure", "shown"), [("killed", "SIGKILL"), ("raised", "disk is full")])
def test_first_failing_rank_is_named_and_the_others_end(
    train_job: MakeJob, tmp_path: Path, failure: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = changed(train_job(MSE), devices=2)
    (tmp_path / "run").mkdir()
    path = write_job(job, tmp_path / "run")
    program = tmp_path / "failing.py"
    program.write_text(FAILING)
    monkeypatch.setenv("ICMBENCH_TEST_JOB", str(path))
    command = [sys.executable, str(program), str(path), failure]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    (line,) = done.stdout.splitlines()
    assert "rank 1 of 2" in line and shown in line
    assert not processes_of(path)


# --- configuration and parts ----------------------------------------------------------------------


def test_batch_that_ranks_cannot_share_is_refused(train_job: MakeJob) -> None:
    schedule = train_job(MSE).schedule
    with pytest.raises(ValueError, match="batch_size 6"):
        type(schedule).model_validate(
            {**schedule.model_dump(), "batch_size": 6, "devices": 4}, strict=False
        )


def test_devices_belong_to_the_fingerprint(train_job: MakeJob) -> None:
    job = train_job(MSE)
    assert fingerprint_of(changed(job, devices=2)) != fingerprint_of(job)


def test_rule_asks_for_the_resources_of_all_ranks(repository: Path, tmp_path: Path) -> None:
    overrides = {"scale": "paper", "studies": ["tang2025"], "results": str(tmp_path)}
    plan = load_plan(repository / "config.yaml", overrides)
    w = Workflow(plan)
    asked = {}
    for variant in ("dicm/contrastive/backbone", "dicm/reconstruction/elimination"):
        wildcards = SimpleNamespace(key=Point("tang2025", variant, 0, 0).key)
        asked[variant] = (
            w.train_gpu["gpu"](wildcards),
            w.train_threads(wildcards),
            w.train_memory(wildcards, 1),
        )
    runtime = plan.scale.runtime
    one = (runtime.gpu, runtime.threads, runtime.memory_mb)
    assert asked["dicm/reconstruction/elimination"] == one
    assert asked["dicm/contrastive/backbone"] == tuple(4 * value for value in one)


def test_another_number_of_ranks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(1, cuda=False)
    with pytest.raises(UserError, match="devices are 2, but 1"):
        connect(2, cuda=False)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="devices are 1, but 4"):
        connect(1, cuda=False)


def test_ranks_have_their_own_places_and_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = {step_seed(1, step, rank) for rank in range(4) for step in range(50)}
    assert len(seeds) == 200
    drawn = []
    for seed in range(8):
        torch.manual_seed(step_seed(seed, 7))
        drawn.append(tuple(torch.rand(4).tolist()))
    assert len(set(drawn)) == 8  # a CPU's generator uses 32 bits of a seed
    assert places(6) == range(6)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    assert places(6) == range(4, 6)
