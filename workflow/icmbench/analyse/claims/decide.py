"""The decision rule: an interval on the claimed side of a threshold supports, on the other not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from icmbench.analyse.bootstrap import seed_interval
from icmbench.analyse.claims.effects import Effect
from icmbench.config.claims import RATE, Expect

Verdict = Literal["supported", "contradicted", "inconclusive", "not run"]

#: Of a claim that is made of several parts, the first of these that a part has. A claim that some
#: part contradicts is contradicted; one of which a part was not run cannot be said to hold.
WORST: tuple[Verdict, ...] = ("contradicted", "not run", "inconclusive", "supported")


@dataclass(frozen=True)
class Decision:
    """What became of one effect.

    Attributes:
        verdict: see :func:`decide`.
        low: lower bound of the interval, NaN where there is none.
        high: upper bound.
        used: how many resamples the interval rests on.
        reason: why a verdict is ``inconclusive`` or ``not run``; empty otherwise.
        slack: distance of the effect from the nearest bound of the claimed side, positive inside;
            NaN where there is no effect.
    """

    verdict: Verdict
    low: float
    high: float
    used: int
    reason: str
    slack: float


def claimed_side(expect: Expect, threshold: float, margin: float) -> tuple[float, float]:
    """Return lower and upper bound of the effects that a claim expects, infinite where open."""
    return {
        "above": (threshold + margin, math.inf),
        "not-below": (threshold - margin, math.inf),
        "below": (-math.inf, threshold - margin),
        "not-above": (-math.inf, threshold + margin),
        "equal": (threshold - margin, threshold + margin),
    }[expect]


def decide(
    effect: Effect, expect: Expect, threshold: float, margin: float, level: float
) -> Decision:
    """Decide one effect.

    ``supported``: interval and effect lie inside the claimed side; ``contradicted``: both lie
    outside it, on one side; ``inconclusive``: neither, or undefined, or undefined in more than
    1 - level of the resamples (what is left of them would be a selection). ``above`` and ``below``
    are strict: an interval that touches the bound does not support them. What is 0 in every
    resample is inconclusive, whatever is expected, except in rate: nothing was resolved. So is what
    rests on fewer images than an exact paired test needs to decide anything (6 at 95 %), or on so
    few resamples that the interval's ends are their extremes.

    Args:
        effect: what was measured.
        expect: the claimed side.
        threshold: in the effect's unit.
        margin: see :class:`icmbench.config.claims.Statement`.
        level: coverage of the interval.
    """
    nothing = (math.nan, math.nan, 0)
    if effect.absent:
        return Decision("not run", *nothing, effect.absent, math.nan)
    if not math.isfinite(effect.value):
        reason = effect.reason or "the effect is not a finite number"
        return Decision("inconclusive", *nothing, reason, math.nan)
    lower, upper = claimed_side(expect, threshold, margin)
    slack = min(effect.value - lower, upper - effect.value)
    used = int(np.isfinite(effect.samples).sum())
    if used < effect.samples.size * level:
        reason = f"defined in only {used} of {effect.samples.size} resamples"
        return Decision("inconclusive", *nothing[:2], used, reason, slack)
    nowhere = effect.value == 0 and not np.nan_to_num(effect.samples).any()
    if nowhere and effect.basis and effect.metric != RATE:
        # An untrained detector finds nothing, whatever it is given: that is not equality.
        what = "0" if effect.quantity == "value" else "the same on both sides"
        reason = f"{effect.metric} is {what} in every resample"
        return Decision("inconclusive", 0.0, 0.0, used, reason, slack)
    images = min((basis.images for basis in effect.basis), default=0)
    percent = effect.quantity == "bd_rate_pct"
    low, high = seed_interval(
        effect.value, effect.samples, images, effect.noise, level, percent=percent
    )
    if few := _too_few(effect, level):
        return Decision("inconclusive", low, high, used, few, slack)
    lowest, highest = min(low, effect.value), max(high, effect.value)
    if expect in ("above", "below"):
        inside = lower < lowest and highest < upper
    else:
        inside = lower <= lowest and highest <= upper
    if inside:
        return Decision("supported", low, high, used, "", slack)
    if highest < lower or lowest > upper:
        return Decision("contradicted", low, high, used, "", slack)
    return Decision(
        "inconclusive", low, high, used, "the interval does not clear the threshold", slack
    )


def _too_few(effect: Effect, level: float) -> str:
    """Return what an effect has too few of to decide anything; empty where it has enough.

    A count has no basis: nothing is drawn.
    """
    if not effect.basis:
        return ""
    error = round(1 - level, 12)  # 0.05, not the next number above it
    images = min(basis.images for basis in effect.basis)
    # Two-sided, by exchanging the two sides of every image in all possible ways.
    if 2.0 ** (1 - images) > error:
        return f"too few images: {images} cannot decide anything at {100 * level:g} %"
    resamples = effect.samples.size
    if resamples * error < 2:
        return f"too few resamples: {resamples} have no interval of {100 * level:g} %"
    return ""
