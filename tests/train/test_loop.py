"""A training run in one process: what it changes, what it leaves, what stops it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_jobs import J_FT, MSE, changed, rows_of, weights_of

from icmbench.errors import UserError
from icmbench.jobs import TrainJob, Validation
from icmbench.networks.build import build_codec, build_task
from icmbench.train import loop
from icmbench.train.loop import train
from icmbench.train.system import System
from icmbench.utils.files import read_json

MakeJob = Callable[..., TrainJob]
DETECTOR = "uncoded/faster-rcnn/pretrained"
C_FT = "hyperprior/faster-rcnn/c-ft"
T_FT = "hyperprior/faster-rcnn/t-ft"
FIXED = "hyperprior/faster-rcnn/fixed-decoder-1"


def test_train_leaves_what_others_read(train_job: MakeJob) -> None:
    job = train_job(MSE, steps=4, validation=Validation(every=2, images=2))
    folder = train(job).parent
    run = read_json(folder / "run.json")
    assert run["status"] == "finished" and run["steps_done"] == 4 and run["final"]["bpp"] > 0
    assert run["weights_sha256"] and run["dataset"]["digest"] and run["cpu_seconds"] > 0
    rows = rows_of(folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert {"loss", "bpp", "mse", "lr.codec", "grad_norm.codec"} <= set(rows[0]["values"])
    assert [row["step"] for row in rows_of(folder, "val")] == [2, 4]
    assert not (folder / "training.lock").exists()


def test_train_learns(train_job: MakeJob) -> None:
    job = train_job(MSE, steps=40)
    rows = rows_of(train(job).parent)
    losses = [row["values"]["loss"] for row in rows]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("variant", [J_FT, C_FT, T_FT, FIXED])
def test_train_changes_only_the_named_parts(
    train_job: MakeJob, variant: str, tmp_path: Path
) -> None:
    job = train_job(variant)
    torch.manual_seed(0)
    before = {"codec": build_codec(job.codec), "task": build_task(job.task)}
    for name, module in before.items():
        torch.save({name: module.state_dict()}, tmp_path / f"{name}.pt")
        spec = getattr(job, name)
        source = spec.weights.model_copy(update={"source": str(tmp_path / f"{name}.pt")})
        job = job.model_copy(update={name: spec.model_copy(update={"weights": source})})
    after = torch.load(train(job), weights_only=True)
    moved = {
        name.split(".")[1] if part == "codec" else "task"
        for part in ("codec", "task")
        for name, value in (after[part] or before[part].state_dict()).items()
        if name in dict(before[part].named_parameters())
        and not torch.equal(value, before[part].state_dict()[name])
    }
    transforms = {"g_a", "h_a", "h_s", "entropy_bottleneck"}
    expected = {
        J_FT: {*transforms, "g_s", "task"},
        C_FT: {*transforms, "g_s"},
        T_FT: {"task"},
        FIXED: transforms,
    }
    assert moved == expected[variant]
    assert (after["codec"] is None) == (variant == T_FT)
    assert (after["task"] is None) == (variant in (C_FT, FIXED))


def test_validation_changes_no_weights(train_job: MakeJob, tmp_path: Path) -> None:
    found = []
    for validation in (None, Validation(every=1, images=2)):
        job = changed(train_job(DETECTOR, validation=validation), output=str(tmp_path / "run"))
        found.append(weights_of(train(job).parent))
        shutil.rmtree(job.output)
    assert any(name.endswith("running_mean") for name in found[0])
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


@pytest.mark.parametrize("variant", [DETECTOR, J_FT])
def test_bf16_trains_on_exact_pixels_and_boxes(
    variant: str, train_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on machines without native bf16: a run elsewhere must not fail at its first step."""
    seen: list[torch.dtype] = []
    original = System.forward

    def forward(self: System, batch: Any) -> dict[str, Tensor]:
        seen.extend([batch.images[0].dtype, batch.targets[0]["boxes"].dtype])
        assert torch.is_autocast_enabled("cpu")
        return original(self, batch)

    monkeypatch.setattr(System, "forward", forward)
    train(changed(train_job(variant), precision="bf16"))
    assert set(seen) == {torch.float32}


def test_nan_stops_with_step_and_term(train_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = System.forward, []

    def broken(self: System, batch: Any) -> dict[str, Tensor]:
        calls.append(1)
        terms = original(self, batch)
        return {**terms, "mse": terms["mse"] * float("nan")} if len(calls) == 2 else terms

    monkeypatch.setattr(System, "forward", broken)
    job = train_job(MSE, steps=4)
    with pytest.raises(UserError, match=r"rate0-seed0.* step 1: mse = nan"):
        train(job)
    run = read_json(Path(job.output) / "run.json")
    assert run["status"] == "failed" and "mse" in run["error"]
    assert not (Path(job.output) / "weights.pt").exists()


# --- finished runs --------------------------------------------------------------------------------


@pytest.fixture
def finished(train_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> TrainJob:
    """A finished run; another step would be an error."""
    job = train_job(MSE, steps=2)
    train(job)

    def step(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(loop, "optimise", step)
    return job


def test_finished_run_is_not_repeated(finished: TrainJob) -> None:
    weights = Path(finished.output) / "weights.pt"
    content, run = weights.read_bytes(), (weights.parent / "run.json").read_bytes()
    assert train(finished) == weights and weights.read_bytes() == content
    weights.unlink()  # as Snakemake does before it starts a job
    assert train(finished) == weights and weights.read_bytes() == content
    assert (weights.parent / "run.json").read_bytes() == run


def test_finished_run_is_repeated_after_other_settings_or_deletion(finished: TrainJob) -> None:
    with pytest.raises(AssertionError, match="trained again"):
        train(changed(finished, steps=3))
    shutil.rmtree(finished.output)
    with pytest.raises(AssertionError, match="trained again"):
        train(finished)


def test_damaged_weights_of_a_finished_run_are_not_restored(finished: TrainJob) -> None:
    path = Path(finished.output) / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        train(finished)
