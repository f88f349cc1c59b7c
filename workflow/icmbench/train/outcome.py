"""What a finished training run warns of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from icmbench.train.rate_control import RANGE, Steering

CHANCE = 2 * math.log(2)  # loss of a discriminator that answers one half to everything
_NEAR = 0.02  # of that; D of a nominal adversary stays within it
_TAIL = 0.1  # share of the steps, the last ones, that decide


def warnings_of(metrics: Path, steps: int, steering: Mapping[str, Steering]) -> list[str]:
    """Return what is wrong with a finished training run, in sentences; empty if nothing is.

    Args:
        metrics: its ``metrics.jsonl``.
        steps: of its schedule.
        steering: its steered loss terms by name, as its last step left them.
    """
    found = [line for name, own in steering.items() if (line := _at_bound(name, own))]
    loss = _tail_mean(metrics, "discriminator", steps)
    if loss is not None and abs(loss / CHANCE - 1) <= _NEAR:
        found.append(
            f"The discriminator is at chance: its loss over the last tenth of the steps is "
            f"{loss:.3f}, and that of guessing 2 ln 2 = {CHANCE:.3f}; the adversary is nominal."
        )
    return found


def _at_bound(name: str, steering: Steering) -> str:
    end = steering.bound
    if not end:
        return ""
    side = "below" if end == "lowest" else "above"
    return (
        f"The weight of {name} ended at its {end} value, {float(steering.weight):.4g}, a factor of "
        f"{RANGE:g} {side} its start: {name} is not controlled."
    )


def _tail_mean(metrics: Path, name: str, steps: int) -> float | None:
    """Return the mean of a logged value over the last tenth of the steps, None without any."""
    values = []
    for line in metrics.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["split"] == "train" and row["step"] > (1 - _TAIL) * steps and name in row["values"]:
            values.append(row["values"][name])
    return sum(values) / len(values) if values else None
