"""Learning rates and rate control: against hand-computed values and a toy system."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from icmbench.jobs import Optimiser, RateTarget, Schedule, TrainJob
from icmbench.train.checkpoint import save_weights
from icmbench.train.rate_control import Steering, first_loss_weights
from icmbench.train.schedule import learning_rate_factor


@pytest.mark.parametrize("decay", ["constant", "cosine", "one-cycle"])
def test_learning_rate_warms_up_and_decays(decay: str) -> None:
    optimisers = {"codec": Optimiser(name="adam", lr=0.1)}
    schedule = Schedule.model_validate(
        {"steps": 100, "batch_size": 1, "warmup": 10, "decay": decay, "origin": "ours"}
        | {"optimisers": optimisers}
    )
    factors = [learning_rate_factor(step, schedule) for step in range(100)]
    assert max(factors) == pytest.approx(1, abs=0.01) and min(factors) > 0
    assert factors[0] < 0.2
    assert factors[99] == (1 if decay == "constant" else pytest.approx(0, abs=0.01))


def test_steering_steps_as_computed_by_hand() -> None:
    steering = Steering(target=0.2, start=2.0, gain=0.1)
    steering.update(torch.tensor(0.25))  # 25 % above
    assert float(steering.weight) == pytest.approx(2 * math.exp(0.1 * 0.25))
    steering.update(torch.tensor(10.0))  # far above: as if 100 %
    assert float(steering.weight) == pytest.approx(2 * math.exp(0.1 * 1.25))
    steering.update(torch.tensor(0.1))
    assert float(steering.weight) == pytest.approx(2 * math.exp(0.1 * 0.75))


def test_steering_follows_the_step_within_its_bounds() -> None:
    steering = Steering(target=0.2, start=2.0, gain=0.1)
    steering.follow_step(3.0)  # errors are 9 times as large
    assert float(steering.weight) == pytest.approx(18.0)
    steering.follow_step(1000.0)
    assert float(steering.weight) == pytest.approx(200.0)


def test_a_pilot_fixes_the_mean_weight_of_its_second_half() -> None:
    steering = Steering(target=0.2, start=2.0, gain=0.1, steps=3)
    logs = []
    for rate in (0.25, 0.4, 0.1):
        steering.update(torch.tensor(rate))
        logs.append(math.log(2) + 0.1 * (0.25, 1.25, 0.75)[len(logs)])
    fixed = math.exp((logs[1] + logs[2]) / 2)
    assert float(steering.weight) == pytest.approx(fixed)
    resumed = Steering(target=0.2, start=2.0, gain=0.1, steps=3)
    resumed.load_state_dict(steering.state_dict())
    for one in (steering, resumed):
        one.update(torch.tensor(10.0))
        assert float(one.weight) == pytest.approx(fixed)


def test_steering_reaches_its_target() -> None:
    steering = Steering(target=0.1, start=1.0, gain=0.1)
    for _ in range(300):
        rate = 0.5 / (1 + steering.weight)  # more weight, less rate
        steering.update(rate)
    assert float(rate) == pytest.approx(0.1, rel=1e-3)
    assert float(steering.weight) == pytest.approx(4.0, rel=5e-3)


def test_steering_is_bounded_and_resumes() -> None:
    steering = Steering(target=0.1, start=1.0, gain=0.5)
    for _ in range(100):
        steering.update(torch.tensor(0.0))
    assert float(steering.weight) == pytest.approx(0.01)
    other = Steering(target=0.1, start=1.0, gain=0.5)
    other.load_state_dict(steering.state_dict())
    for one in (steering, other):
        one.update(torch.tensor(0.2))
    assert float(other.weight) == float(steering.weight) > 0.016


def test_steering_continues_where_the_codecs_own_run_ended(
    train_job: Callable[..., TrainJob], tmp_path: Path
) -> None:
    before = tmp_path / "weights.pt"
    save_weights(before, torch.nn.Linear(1, 1), None, {"steering": {"bpp": 7.5}})
    target = RateTarget(target=0.1, start=4.0, gain=0.01, continues=True)
    job = train_job("hyperprior/reconstruction/mse")

    def first(target: RateTarget, source: str) -> dict[str, float | RateTarget]:
        weights = job.codec.weights.model_copy(update={"source": source})
        codec = job.codec.model_copy(update={"weights": weights})
        loss = {"bpp": target, "ssim": 2.5}
        return first_loss_weights(job.model_copy(update={"codec": codec, "loss": loss}))

    ended = target.model_copy(update={"start": 7.5})
    assert first(target, str(before)) == {"bpp": ended, "ssim": 2.5}
    stays = target.model_copy(update={"continues": False})
    assert first(stays, str(before))["bpp"] == stays
    assert first(target, "random")["bpp"] == target
    save_weights(before, torch.nn.Linear(1, 1), None, {})  # nothing was steered there
    assert first(target, str(before))["bpp"] == target
