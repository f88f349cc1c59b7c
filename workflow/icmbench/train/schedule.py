"""Optimisers and learning rates. A rate is a function of the step: resuming needs no state."""

from __future__ import annotations

import math
from typing import Any

import torch

from icmbench.jobs import Optimiser, Schedule


def learning_rate_factor(step: int, schedule: Schedule) -> float:
    """Return the factor on every main learning rate at ``step`` (from 0).

    constant: 1. cosine: from 1 to 0. one-cycle: linear from 1/25 to 1 over the first 30 %, then
    cosine to 0. A warm-up rises linearly before constant and cosine.
    """
    steps, warmup = schedule.steps, schedule.warmup
    if schedule.decay == "one-cycle":
        rise = max(1, round(0.3 * steps))
        if step < rise:
            return 1 / 25 + (1 - 1 / 25) * step / rise
        return _cosine((step - rise) / max(1, steps - rise))
    if step < warmup:
        return (step + 1) / warmup
    if schedule.decay == "constant":
        return 1.0
    return _cosine((step - warmup) / max(1, steps - warmup))


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimiser(settings: Optimiser, parameters: list[Any]) -> torch.optim.Optimizer:
    """Return the optimiser that a schedule describes."""
    lr, momentum, decay = settings.lr, settings.momentum, settings.weight_decay
    if settings.name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=decay)
    kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    # Fused: one pass over all parameters, which for small networks saves a tenth of a step.
    return kind(parameters, lr=lr, betas=(momentum, 0.999), weight_decay=decay, fused=True)
