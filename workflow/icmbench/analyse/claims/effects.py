"""The effects of claims: the seven forms of a claim as lists of one kind of number.

``bd``, ``at_rate``, ``point`` and ``count`` are measured (:mod:`icmbench.analyse.claims.measure`);
``order``, ``trend`` and ``difference`` are made of these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from typing import Literal

import numpy as np

from icmbench.analyse.bootstrap import Floats, SeedNoise, subtract
from icmbench.analyse.claims.measure import (
    Basis,
    NotRunError,
    SampledEffect,
    StudyPoints,
    UndefinedEffectError,
    variants_of,
)
from icmbench.config.claims import (
    AtRateEffect,
    BdEffect,
    Claim,
    CountEffect,
    DifferenceClaim,
    OrderClaim,
    PointEffect,
    TrendClaim,
    effect_unit,
)
from icmbench.metrics.catalogue import find_metric

Verdict = Literal["supported", "contradicted", "inconclusive", "not decided", "not run", ""]


@dataclass(frozen=True, eq=False)
class Effect:
    """One number with its resamples, and the verdict on it.

    Attributes:
        variant: that the number describes.
        anchor: the variant that was subtracted; empty for a value of the variant alone.
        metric: metric, or the key of evaluate.json.
        quantity: ``bd_rate_pct``, ``bd_accuracy_points``, ``difference``, ``difference_pct`` or
            ``value``.
        at: place on the curve, in words; empty for the whole curve.
        unit: of the number: ``%``, ``points``, ``dB``, ``bpp`` or none.
        effect: the number, NaN if it is undefined; a difference is variant minus anchor.
        samples: (R,), NaN if undefined; only the number itself if nothing is drawn.
        notes: flags of the BD metrics and the like.
        weakness: why it decides nothing although it is a number; empty if it may.
        basis: the data that it was measured on; empty for a count.
        noise: of the seeds of each variant that has several.
        side: ``first`` or ``second`` of a difference of differences, else empty.
        verdict: see :func:`icmbench.analyse.claims.decide.decide`; empty before.
        low, high: bounds of the interval, NaN without one.
        used: number of resamples that the interval is computed from.
        reason: why a verdict is neither ``supported`` nor ``contradicted``; empty otherwise.
        slack: distance of the number from the nearest bound of the claimed side, positive inside.
    """

    variant: str
    anchor: str
    metric: str
    quantity: str
    at: str
    unit: str
    effect: float = math.nan
    samples: Floats = field(default_factory=lambda: np.empty(0))
    notes: tuple[str, ...] = ()
    weakness: str = ""
    basis: frozenset[Basis] = frozenset()
    noise: tuple[SeedNoise, ...] = ()
    side: str = ""
    verdict: Verdict = ""
    low: float = math.nan
    high: float = math.nan
    used: int = 0
    reason: str = ""
    slack: float = -math.inf

    def not_run(self, reason: str) -> Effect:
        """Return the effect with the verdict that something it needs was not run."""
        return replace(self, verdict="not run", reason=reason)

    def inconclusive(self, reason: str) -> Effect:
        """Return the effect with the verdict that nothing can be decided."""
        return replace(self, verdict="inconclusive", reason=reason)


def effects_of(claim: Claim, points: StudyPoints) -> list[Effect]:
    """Return the effects of which a claim consists; all of them must pass.

    A difference of differences is one effect; its two sides follow it and decide nothing.
    """
    if isinstance(claim, OrderClaim):
        return [_effect(_pair(claim, *pair), points) for pair in combinations(claim.variants, 2)]
    if isinstance(claim, TrendClaim):
        return _trend(claim, points)
    if isinstance(claim, DifferenceClaim):
        first, second = _effect(claim.first, points), _effect(claim.second, points)
        sides = replace(first, side="first"), replace(second, side="second")
        return [_difference(first, second), *sides]
    if isinstance(claim, PointEffect) and claim.rate_index == "each":
        indices = points.rates(claim.variant) or [0]
        each = [claim.model_copy(update={"rate_index": index}) for index in indices]
        return [_effect(spec, points) for spec in each]
    return [_effect(claim, points)]


def _effect(spec: SampledEffect | CountEffect, points: StudyPoints) -> Effect:
    """Return one effect; one that cannot be measured has a verdict and a reason instead."""
    effect = _describe(spec)
    try:
        if isinstance(spec, CountEffect):
            value = points.count(spec)
            return replace(effect, effect=value, samples=np.array([value]))
        found, noise = points.measure(spec), points.noise(spec)
    except NotRunError as error:
        return effect.not_run(str(error))
    except UndefinedEffectError as error:
        return replace(effect, basis=points.basis(variants_of(spec))).inconclusive(str(error))
    return replace(
        effect,
        effect=found.value,
        samples=found.samples,
        at=found.at,
        notes=found.notes,
        weakness=found.weakness,
        basis=points.basis(variants_of(spec)),
        noise=noise,
    )


def _describe(spec: SampledEffect | CountEffect) -> Effect:
    """Return the effect without its numbers."""
    quantity, at = "difference", ""
    if isinstance(spec, BdEffect):
        quantity = spec.quantity
        at = f"{spec.rates[0]:g} to {spec.rates[1]:g} bpp" if spec.rates else ""
    elif spec.anchor is None:
        quantity = "value"
    elif isinstance(spec, CountEffect):
        quantity = "difference_pct"
    if isinstance(spec, AtRateEffect):
        at = f"{spec.bpp:g} bpp"
    elif isinstance(spec, PointEffect):
        words = {"lowest": "the lowest rate", "highest": "the highest rate", "each": "each rate"}
        at = words.get(str(spec.rate_index), f"rate index {spec.rate_index}")
    metric = spec.key if isinstance(spec, CountEffect) else spec.metric
    return Effect(spec.variant, spec.anchor or "", metric, quantity, at, effect_unit(spec))


def _pair(claim: OrderClaim, better: str, worse: str) -> BdEffect | AtRateEffect:
    if claim.quantity == "at_rate":
        assert claim.bpp is not None  # checked with the configuration
        return AtRateEffect(
            form="at_rate", variant=better, anchor=worse, metric=claim.metric, bpp=claim.bpp
        )
    return BdEffect(
        form="bd", variant=better, anchor=worse, metric=claim.metric, quantity=claim.quantity
    )


def _trend(claim: TrendClaim, points: StudyPoints) -> list[Effect]:
    """Return the steps of a trend: the variant's points against its own at lower rates."""
    variant, metric = claim.variant, claim.metric
    rates = points.rates(variant)
    order = sorted(rates, key=lambda index: rates[index])
    if len(order) < 2:
        empty = Effect(variant, "", metric, "difference", "", find_metric(metric).difference_unit)
        if not order:
            return [empty.not_run(f"{variant} was not run")]
        one = replace(empty, basis=points.basis([variant]))
        return [one.inconclusive("there is one rate point only")]
    effects = []
    steps = pairwise(order) if claim.between == "neighbours" else [(order[0], order[-1])]
    for lower, upper in steps:
        spec = PointEffect(
            form="point",
            variant=variant,
            anchor=variant,
            metric=metric,
            rate_index=upper,
            anchor_rate_index=lower,
        )
        at = f"{rates[lower]:.3g} to {rates[upper]:.3g} bpp"
        effects.append(replace(_effect(spec, points), anchor="", at=at))
    return effects


def _difference(first: Effect, second: Effect) -> Effect:
    """Return the difference of two effects over shared resamples."""
    at = " minus ".join(filter(None, (first.at, second.at))) if first.at != second.at else first.at
    difference = replace(
        first,
        at=at,
        quantity="difference",
        unit="points" if first.quantity == "value" and first.unit == "%" else first.unit,
        notes=(*first.notes, *second.notes),
        weakness=first.weakness or second.weakness,
        basis=first.basis | second.basis,
    )
    for verdict in ("not run", "inconclusive"):
        for side in (first, second):
            if side.verdict == verdict:
                undefined = replace(difference, effect=math.nan, samples=np.empty(0))
                return replace(undefined, verdict=side.verdict, reason=side.reason)
    # A count has one value where the others have one for each resample; both broadcast.
    value, samples = subtract((first.effect, first.samples), (second.effect, second.samples))
    return replace(difference, effect=value, samples=samples, noise=_joint_noise(first, second))


def _joint_noise(first: Effect, second: Effect) -> tuple[SeedNoise, ...]:
    """Return the seed noise of a difference of effects, which may share variants."""
    parts = [{part.variant: part for part in effect.noise} for effect in (first, second)]
    found = []
    for variant in dict.fromkeys([*parts[0], *parts[1]]):
        one, other = (
            np.asarray(own[variant].samples if variant in own else effect.effect)
            for own, effect in zip(parts, (first, second), strict=True)
        )
        seeds = min(own[variant].seeds for own in parts if variant in own)
        found.append(SeedNoise(variant, seeds, one - other))
    return tuple(found)
