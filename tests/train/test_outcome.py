"""What a finished training run warns of."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_jobs import MSE, changed

from icmbench.jobs import RateTarget, TrainJob
from icmbench.train.loop import train
from icmbench.train.outcome import warnings_of
from icmbench.train.rate_control import Steering
from icmbench.utils.files import read_json

CHANCE = 2 * math.log(2)


def metrics(path: Path, late: float) -> Path:
    """Write the log of 100 steps whose discriminator learns, and ends at ``late`` of chance."""
    rows = [
        {"step": step, "split": split, "values": {"discriminator": loss * CHANCE}}
        for step in range(10, 101, 10)
        for split, loss in (("train", late if step > 90 else 0.5), ("val", 1.0))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("late", "warns"), [(1.0, True), (0.985, True), (1.015, True), (0.97, False), (1.03, False)]
)
def test_a_discriminator_at_chance_at_the_end_is_named(
    tmp_path: Path, late: float, warns: bool
) -> None:
    lines = warnings_of(metrics(tmp_path / "metrics.jsonl", late), 100, {})
    assert [f"{late * CHANCE:.3f}" in line for line in lines] == [True] * warns


@pytest.mark.parametrize(("value", "end"), [(0.0, "lowest"), (9.0, "highest"), (0.2, "")])
@pytest.mark.parametrize("steps", [None, 40])
def test_a_weight_at_the_end_of_its_range_is_named(
    tmp_path: Path, value: float, end: str, steps: int | None
) -> None:
    """Also that of a pilot, which is the mean of its second half."""
    steering = Steering(target=0.2, start=2.0, gain=0.5, steps=steps)
    for _ in range(40):
        steering.update(torch.tensor(value))
    lines = warnings_of(metrics(tmp_path / "metrics.jsonl", 0.5), 100, {"bpp": steering})
    assert [f"bpp ended at its {end}" in line for line in lines] == [True] * bool(end)


def test_the_summary_of_a_training_run_has_its_warnings(
    train_job: Callable[..., TrainJob],
) -> None:
    steered = {"mse": 0.01, "bpp": RateTarget(target=1e-6, gain=1.0)}
    run = read_json(train(changed(train_job(MSE, steps=6), loss=steered)).parent / "run.json")
    (line,) = run["warnings"]
    assert "bpp" in line and "highest" in line
    run = read_json(train(train_job(MSE, steps=2)).parent / "run.json")
    assert run["warnings"] == []
