"""The decision rule: an interval on the claimed side of a threshold supports a claim."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from icmbench.analyse.bootstrap import seed_interval
from icmbench.analyse.claims.effects import Effect, Verdict
from icmbench.config.claims import RATE, Expect

#: The verdict of a claim with several parts is the first of these that a part has: one contradicted
#: part contradicts the claim, and one part that was not run leaves it open.
WORST: tuple[Verdict, ...] = (
    "contradicted",
    "not run",
    "not decided",
    "inconclusive",
    "supported",
)


def claimed_side(expect: Expect, threshold: float, margin: float) -> tuple[float, float]:
    """Return the lower and upper bound of the effects that a claim expects, infinite if open."""
    return {
        "above": (threshold + margin, math.inf),
        "not-below": (threshold - margin, math.inf),
        "below": (-math.inf, threshold - margin),
        "not-above": (-math.inf, threshold + margin),
        "equal": (threshold - margin, threshold + margin),
    }[expect]


def decide(effect: Effect, expect: Expect, threshold: float, margin: float, level: float) -> Effect:
    """Return an effect with its verdict.

    ``supported``: interval and effect lie inside the claimed side; ``contradicted``: both lie
    outside it, on one side; ``inconclusive``: neither, or undefined, or undefined in more than
    1 - level of the resamples (the others are a biased selection). ``above`` and ``below`` are
    strict: an interval that touches the bound does not support them. An effect that is 0 in every
    resample is inconclusive whatever is expected, except in rate: nothing was resolved. An effect
    is also inconclusive if it is a BD of curves with little overlap or few points
    (:func:`icmbench.metrics.bd.weakness`), with fewer images than an exact paired test needs to
    decide anything (6 at 95 %), or with so few resamples that the ends of the interval are their
    extremes.

    Args:
        effect: the measured number.
        expect: the claimed side.
        threshold: in the unit of the effect.
        margin: see :class:`icmbench.config.claims.Statement`.
        level: coverage of the interval.
    """
    if effect.verdict:
        return effect
    if not math.isfinite(effect.effect):
        return effect.inconclusive("the effect is not a finite number")
    lower, upper = claimed_side(expect, threshold, margin)
    used = int(np.isfinite(effect.samples).sum())
    slack = min(effect.effect - lower, upper - effect.effect)
    effect = replace(effect, used=used, slack=slack)
    if used < effect.samples.size * level:
        few = f"defined in only {used} of {effect.samples.size} resamples"
        return effect.inconclusive(effect.weakness or few)
    nowhere = effect.effect == 0 and not np.nan_to_num(effect.samples).any()
    if nowhere and effect.basis and effect.metric != RATE:
        # An untrained detector finds nothing in any image: that is not equality.
        what = "0" if effect.quantity == "value" else "the same on both sides"
        constant = replace(effect, low=0.0, high=0.0)
        return constant.inconclusive(f"{effect.metric} is {what} in every resample")
    images = min((basis.images for basis in effect.basis), default=0)
    percent = effect.quantity == "bd_rate_pct"
    low, high = seed_interval(
        effect.effect, effect.samples, images, effect.noise, level, percent=percent
    )
    effect = replace(effect, low=low, high=high)
    if reason := effect.weakness or _too_few(effect, level):
        return effect.inconclusive(reason)
    lowest, highest = min(low, effect.effect), max(high, effect.effect)
    strict = expect in ("above", "below")
    if lower < lowest and highest < upper if strict else lower <= lowest and highest <= upper:
        return replace(effect, verdict="supported")
    if highest < lower or lowest > upper:
        return replace(effect, verdict="contradicted")
    return effect.inconclusive("the interval does not clear the threshold")


def _too_few(effect: Effect, level: float) -> str:
    """Return why an effect has too little data to decide anything; empty if it has enough.

    A count has no basis: nothing is drawn.
    """
    if not effect.basis:
        return ""
    error = round(1 - level, 12)  # 0.05, not the next number above it
    images = min(basis.images for basis in effect.basis)
    # The smallest two-sided p-value of a test that exchanges the sides of each image.
    if 2.0 ** (1 - images) > error:
        return f"too few images: {images} cannot decide anything at {100 * level:g} %"
    resamples = effect.samples.size
    if resamples * error < 2:
        return f"too few resamples: {resamples} have no interval of {100 * level:g} %"
    return ""
