"""A weight that follows its term: against hand-computed values and a toy system."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from icmbench.train.checkpoint import save_weights
from icmbench.train.rate_control import Steering, first_loss_weights


def test_one_step_by_hand() -> None:
    steering = Steering(target=0.2, start=2.0, gain=0.1)
    steering.update(torch.tensor(0.25))  # 25 % above
    assert float(steering.weight) == pytest.approx(2 * math.exp(0.1 * 0.25))
    steering.update(torch.tensor(10.0))  # far above: as if 100 %
    assert float(steering.weight) == pytest.approx(2 * math.exp(0.1 * 1.25))
    steering.update(torch.tensor(0.1))
    assert float(steering.weight) == pytest.approx(2 * math.exp(0.1 * 0.75))


def test_it_reaches_the_target_of_a_system_it_does_not_know() -> None:
    steering = Steering(target=0.1, start=1.0, gain=0.1)
    for _ in range(300):
        rate = 0.5 / (1 + steering.weight)  # more weight, less rate
        steering.update(rate)
    assert float(rate) == pytest.approx(0.1, rel=1e-3)
    assert float(steering.weight) == pytest.approx(4.0, rel=5e-3)


def test_it_does_not_wind_up_and_goes_on_after_a_resume() -> None:
    steering = Steering(target=0.1, start=1.0, gain=0.5)
    for _ in range(100):
        steering.update(torch.tensor(0.0))
    assert float(steering.weight) == pytest.approx(0.01)
    other = Steering(target=0.1, start=1.0, gain=0.5)
    other.load_state_dict(steering.state_dict())
    for one in (steering, other):
        one.update(torch.tensor(0.2))
    assert float(other.weight) == float(steering.weight) > 0.016


def test_a_later_training_starts_where_the_codecs_own_ended(tmp_path: Path) -> None:
    before = tmp_path / "weights.pt"
    save_weights(before, torch.nn.Linear(1, 1), None, {"steering": {"bpp": 7.5}})
    target = {"target": 0.1, "start": 4.0, "gain": 0.01}
    loss = {"bpp": {**target, "continues": True}, "ssim": 2.5}
    job: dict[str, Any] = {"loss": loss, "codec": {"weights": str(before)}}
    assert first_loss_weights(job) == {"bpp": {**target, "start": 7.5}, "ssim": 2.5}
    assert loss["bpp"] == {**target, "continues": True}  # the job's settings stay
    # Where nothing was steered there, or nothing is asked for, the start is the setting's.
    save_weights(before, torch.nn.Linear(1, 1), None, {})
    assert first_loss_weights(job)["bpp"] == target
    loss["bpp"] = {**target, "continues": False}
    assert first_loss_weights({"loss": loss, "codec": {"weights": "random"}})["bpp"] == target
