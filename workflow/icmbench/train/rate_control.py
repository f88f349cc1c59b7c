"""Rate control (ours): the weight of a loss term follows the term until it reaches a target."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from icmbench.jobs import RateTarget, TrainJob
from icmbench.train.checkpoint import steered_weights

RANGE = 100.0  # the weight stays within this factor of its start
_CLOSE = 1e-3  # of logarithms: float32, and the mean of a pilot


class Steering(nn.Module):
    """The weight of one loss term; it is part of the checkpoint.

    Args:
        target: value of the term to reach.
        start: weight at the first step.
        gain: the most that the weight's logarithm changes in a step.
        steps: of a pilot, after which the weight is fixed; None steers to the end.
    """

    log_weight: Tensor
    done: Tensor
    total: Tensor

    def __init__(self, target: float, start: float, gain: float, steps: int | None = None) -> None:
        super().__init__()
        self.steps = steps
        if steps is not None:
            self.register_buffer("done", torch.tensor(0))
            self.register_buffer("total", torch.tensor(0.0))
        self.target, self.gain = target, gain
        self.bounds = tuple(math.log(start * factor) for factor in (1 / RANGE, RANGE))
        self.register_buffer("log_weight", torch.tensor(math.log(start)))

    @property
    def weight(self) -> Tensor:
        """The weight, a scalar."""
        return self.log_weight.exp()

    @property
    def bound(self) -> Literal["", "lowest", "highest"]:
        """The end of its range that the weight is at, empty if it is inside."""
        low, high = (abs(float(self.log_weight) - end) < _CLOSE for end in self.bounds)
        return "lowest" if low else "highest" if high else ""

    @torch.no_grad()
    def follow_step(self, factor: float) -> None:
        """Multiply the weight by the square of the factor that a quantisation step changed by.

        Squared errors grow with the square of the step, and so does the price of a bit at which
        the step is the best one.
        """
        self.log_weight.add_(2 * math.log(factor)).clamp_(*self.bounds)

    @torch.no_grad()
    def update(self, value: Tensor) -> None:
        """Raise the weight where the term's value is above the target, lower it below."""
        if self.steps is not None and self.done >= self.steps:
            return
        excess = (value.detach() / self.target - 1).clamp(-1, 1)
        # Bounded for terms that do not follow their weight.
        self.log_weight.add_(self.gain * excess).clamp_(*self.bounds)
        if self.steps is not None:
            self._note(self.steps)

    def _note(self, steps: int) -> None:
        """Count a pilot's step; after the last one, fix the weight."""
        self.done += 1
        if self.done > steps // 2:
            self.total += self.log_weight
        if self.done == steps:
            self.log_weight.copy_(self.total / (steps - steps // 2))


def first_loss_weights(job: TrainJob) -> dict[str, float | RateTarget]:
    """Return the loss weights of a job; those with ``continues`` start where the codec's ended."""
    weights = dict(job.loss)
    targets = {name: w for name, w in weights.items() if isinstance(w, RateTarget) and w.continues}
    ended = steered_weights(job.codec.weights.path) if targets and job.codec.weights.path else {}
    for name, target in targets.items():
        if name in ended:
            weights[name] = target.model_copy(update={"start": ended[name]})
    return weights
