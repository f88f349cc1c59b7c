"""Effects: the numbers that claims are about, measured on operating points, with resamples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from icmbench.analyse.bd_table import (
    Curve,
    Floats,
    curve_of,
    left_out_flags,
    measured_bd,
)
from icmbench.analyse.bootstrap import SeedNoise, mean_over_seeds
from icmbench.analyse.claims.interpolate import (
    Resampled,
    common_rates,
    mean_quality,
    quality_at,
)
from icmbench.analyse.seeds import EvaluatedPoint, Sides, seed_noise
from icmbench.config.claims import (
    RATE,
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
from icmbench.metrics.bd import Method
from icmbench.metrics.catalogue import find_metric
from icmbench.registry import CODECS
from icmbench.utils.files import read_object

EffectSpec = BdEffect | AtRateEffect | PointEffect | CountEffect

_NONE: Floats = np.empty(0)


@dataclass(frozen=True)
class Basis:
    """On what an effect was measured.

    Attributes:
        dataset: name of the data set.
        split: of it.
        images: how many.
        seeds: trainings per operating point.
        resamples: bootstrap resamples.
    """

    dataset: str
    split: str
    images: int
    seeds: int
    resamples: int


@dataclass(frozen=True, eq=False)
class Effect:
    """One number with its resamples.

    Attributes:
        variant: what it says something about.
        anchor: what was subtracted; None where it is a value of the variant alone.
        metric: metric, or the key of evaluate.json.
        quantity: ``bd_rate_pct``, ``bd_accuracy_points``, ``difference``, ``difference_pct`` or
            ``value``.
        at: where on the curve, in words; empty for the whole curve.
        unit: of the value: ``%``, ``points``, ``dB``, ``bpp`` or none.
        value: NaN where it is undefined.
        samples: (R,), NaN where undefined; the value alone where nothing is drawn.
        absent: why it was not measured; empty where it was.
        reason: why it is undefined, likewise.
        notes: flags of the BD metrics and the like.
        basis: on what it was measured; empty for a count.
        noise: of the seeds of each variant that has several.
        side: ``first`` or ``second`` of a difference of differences, else empty.
    """

    variant: str
    anchor: str | None
    metric: str
    quantity: str
    at: str
    unit: str
    value: float = math.nan
    samples: Floats = field(default_factory=lambda: _NONE)
    absent: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()
    basis: frozenset[Basis] = frozenset()
    noise: tuple[SeedNoise, ...] = ()
    side: str = ""


class _NoEffectError(Exception):
    """An effect is undefined on the curves at hand; the message says why."""


class _AbsentError(Exception):
    """Something that an effect needs was not run; the message says what."""


class Measured:
    """The evaluated operating points of one study, from which effects are computed."""

    def __init__(
        self, study: str, points: Sequence[EvaluatedPoint], method: Method, seed: int
    ) -> None:
        """Keep the points.

        Args:
            study: its name.
            points: evaluated operating points, of this and other studies.
            method: of BD metrics over a whole curve.
            seed: of the draws of training seeds.
        """
        self.study, self.method, self.seed = study, method, seed
        self.by_variant: dict[str, list[EvaluatedPoint]] = {}
        for point, evaluation in sorted(points, key=lambda p: (p[0].rate_index, p[0].seed)):
            if point.study == study:
                self.by_variant.setdefault(point.variant, []).append((point, evaluation))

    # --- claims -------------------------------------------------------------------------------

    def effects(self, claim: Claim) -> list[Effect]:
        """Return the effects of which a claim consists; all of them must pass.

        A difference of differences is one effect; its two sides follow it and decide nothing.
        """
        if isinstance(claim, OrderClaim):
            pairs = combinations(claim.variants, 2)
            return [self.effect(_pair(claim, better, worse)) for better, worse in pairs]
        if isinstance(claim, TrendClaim):
            return self._trend(claim)
        if isinstance(claim, DifferenceClaim):
            first, second = self.effect(claim.first), self.effect(claim.second)
            sides = replace(first, side="first"), replace(second, side="second")
            return [_minus(first, second), *sides]
        if isinstance(claim, PointEffect) and claim.rate_index == "each":
            indices = self.rate_indices(claim.variant) or [0]
            each = [claim.model_copy(update={"rate_index": index}) for index in indices]
            return [self.effect(point) for point in each]
        return [self.effect(claim)]

    def effect(self, spec: EffectSpec) -> Effect:
        """Return one effect; what cannot be computed says why instead of raising."""
        empty = _describe(spec)
        try:
            if isinstance(spec, CountEffect):
                value = self._count(spec)
                return replace(empty, value=value, samples=np.array([value]))
            names = [spec.variant] + ([spec.anchor] if spec.anchor is not None else [])
            basis = self._basis(names)
            try:
                self._require_same_images(names)
                (value, samples), at, notes = self._measure(spec)
                noise = self._noise(names, lambda alone: alone._measure(spec)[0])
            except _NoEffectError as error:
                return replace(empty, reason=str(error), basis=basis)
            return replace(
                empty, value=value, samples=samples, at=at, notes=tuple(notes), basis=basis,
                noise=noise,
            )  # fmt: skip
        except _AbsentError as error:
            return replace(empty, absent=str(error))

    def _noise(
        self, names: list[str], number: Callable[[Measured], Resampled]
    ) -> tuple[SeedNoise, ...]:
        """Return the seed noise of a number that is measured on some variants."""

        def samples_of(sides: Sides) -> Floats:
            points = [point for own in sides.values() for point in own]
            return number(Measured(self.study, points, self.method, self.seed))[1]

        return seed_noise({name: self._points(name) for name in names}, samples_of)

    # --- forms --------------------------------------------------------------------------------

    def _measure(
        self, spec: BdEffect | AtRateEffect | PointEffect
    ) -> tuple[Resampled, str, list[str]]:
        """Return an effect with its resamples, where on the curve it is, and its notes."""
        if isinstance(spec, BdEffect):
            return self._bd(spec)
        return self._at_rate(spec) if isinstance(spec, AtRateEffect) else self._point(spec)

    def _bd(self, spec: BdEffect) -> tuple[Resampled, str, list[str]]:
        anchor, test = (self._curve(name, spec.metric) for name in (spec.anchor, spec.variant))
        if spec.rates is not None:
            return self._mean_between(anchor, test, spec.rates)
        result, samples = measured_bd(spec.quantity, anchor, test, self.method)
        if math.isnan(result.value):
            raise _NoEffectError(f"the BD metric is undefined: {', '.join(result.flags)}")
        return (result.value, samples), "", [*result.flags, *left_out_flags(anchor, test)]

    def _mean_between(
        self, anchor: Curve, test: Curve, rates: list[float]
    ) -> tuple[Resampled, str, list[str]]:
        (low, lows), (high, highs) = common_rates([anchor, test])
        start, stop = max(low, rates[0]), min(high, rates[1])
        if not start < stop:
            raise _NoEffectError(
                f"the curves share no rates between {rates[0]:g} and {rates[1]:g} bpp"
            )
        ends = (start, np.maximum(lows, rates[0])), (stop, np.minimum(highs, rates[1]))
        difference = _subtract(mean_quality(test, *ends), mean_quality(anchor, *ends))
        return difference, f"{start:.3g} to {stop:.3g} bpp", []

    def _at_rate(self, spec: AtRateEffect) -> tuple[Resampled, str, list[str]]:
        names = [spec.variant] + ([spec.anchor] if spec.anchor is not None else [])
        curves = {name: self._curve(name, spec.metric) for name in names}
        # Original images have no rate of their own: their accuracy stands at every rate.
        rated = [curves[name] for name in names if not self._is_original(name)]
        if not rated:
            raise _NoEffectError(f"{spec.variant} has no rate; use form point")
        for name in names:
            if not self._is_original(name) and curves[name].rate.size < 2:
                raise _NoEffectError(f"{name} has fewer than two points; use form point")
        lowest, highest = common_rates(rated)
        if lowest[0] > highest[0]:
            raise _NoEffectError(
                f"the curves share no rate: {lowest[0]:.3g} bpp is the lowest of one and "
                f"{highest[0]:.3g} bpp the highest of the other"
            )
        if isinstance(spec.bpp, str):
            rate = lowest if spec.bpp == "lowest" else highest
            at = _at(spec, rate[0])
        else:
            rate = (spec.bpp, np.full_like(lowest[1], spec.bpp))
            at = _at(spec)
            if not lowest[0] <= spec.bpp <= highest[0]:
                raise _NoEffectError(
                    f"{spec.bpp:g} bpp is outside {lowest[0]:.3g} to {highest[0]:.3g} bpp, the "
                    "rates at hand"
                )
        values = [
            (float(curves[name].quality[0]), curves[name].quality_samples[:, 0])
            if self._is_original(name)
            else quality_at(curves[name], rate)
            for name in names
        ]
        return values[0] if len(values) == 1 else _subtract(*values), at, []

    def _point(self, spec: PointEffect) -> tuple[Resampled, str, list[str]]:
        index = self._rate_index(spec.variant, spec.rate_index)
        value = self._value(spec.variant, index, spec.metric)
        rate = self._value(spec.variant, index, RATE)[0]
        at = f"rate index {index} ({rate:.3g} bpp)"
        if spec.anchor is None:
            return value, at, []
        theirs = self.rate_indices(spec.anchor)
        if spec.anchor_rate_index is not None:
            other = self._rate_index(spec.anchor, spec.anchor_rate_index)
        else:
            other = theirs[0] if len(theirs) == 1 else index
        if other != index:
            at += f" against rate index {other}"
        return _subtract(value, self._value(spec.anchor, other, spec.metric)), at, []

    def _count(self, spec: CountEffect) -> float:
        own = self._stated(spec.variant, spec)
        if spec.anchor is None:
            return own
        other = self._stated(spec.anchor, spec)
        return 100.0 * (own / other - 1.0) if other else math.nan

    def _trend(self, claim: TrendClaim) -> list[Effect]:
        empty = Effect(
            claim.variant,
            None,
            claim.metric,
            "difference",
            "",
            find_metric(claim.metric).difference_unit,
        )
        try:
            basis = self._basis([claim.variant])
            indices = self.rate_indices(claim.variant)
            rates = {index: self._value(claim.variant, index, RATE)[0] for index in indices}
            order = sorted(indices, key=lambda index: rates[index])
            if len(order) < 2:
                return [replace(empty, reason="there is one rate point only", basis=basis)]
            steps = list(pairwise(order)) if claim.between == "neighbours" else [
                (order[0], order[-1])
            ]  # fmt: skip
            effects = []
            for lower, upper in steps:
                step = replace(
                    empty, at=f"{rates[lower]:.3g} to {rates[upper]:.3g} bpp", basis=basis
                )
                try:
                    change = partial(_change, claim=claim, lower=lower, upper=upper)
                    value, samples = change(self)
                    noise = self._noise([claim.variant], change)
                    effects.append(replace(step, value=value, samples=samples, noise=noise))
                except _NoEffectError as error:
                    effects.append(replace(step, reason=str(error)))
            return effects
        except _AbsentError as error:
            return [replace(empty, absent=str(error))]

    # --- points -------------------------------------------------------------------------------

    def rate_indices(self, variant: str) -> list[int]:
        """Return the rate indices of a variant that were evaluated, ascending."""
        return sorted({point.rate_index for point, _ in self.by_variant.get(variant, [])})

    def _rate_index(self, variant: str, which: int | str) -> int:
        """Return an index as it is, or that of the ``lowest`` or ``highest`` rate measured."""
        if isinstance(which, int):
            return which
        rates = {i: self._value(variant, i, RATE)[0] for i in self.rate_indices(variant)}
        pick = min if which == "lowest" else max
        return pick(rates, key=lambda candidate: rates[candidate])

    def _points(self, variant: str) -> list[EvaluatedPoint]:
        if variant not in self.by_variant:
            raise _AbsentError(f"{variant} was not run")
        return self.by_variant[variant]

    def _is_original(self, variant: str) -> bool:
        codec = self._points(variant)[0][0].codec
        return codec in CODECS and CODECS[codec].kind == "none"

    def _basis(self, variants: list[str]) -> frozenset[Basis]:
        """Return on what the variants were evaluated; several where they differ."""
        found = set()
        seeds = max(len({p.seed for p, _ in self._points(name)}) for name in variants)
        for name in variants:
            for _, evaluation in self._points(name):
                records = evaluation.records
                found.add(
                    Basis(
                        str(records["dataset"].iloc[0]),
                        str(records["split"].iloc[0]),
                        len(evaluation.image_ids),
                        seeds,
                        evaluation.rate_samples.size,
                    )
                )
        return frozenset(found)

    def _require_same_images(self, variants: list[str]) -> None:
        images = {e.image_ids for name in variants for _, e in self._points(name)}
        if len(images) > 1:
            raise _NoEffectError(f"{' and '.join(variants)} were evaluated on different images")

    def _curve(self, variant: str, metric: str) -> Curve:
        points = self._points(variant)
        if not all(metric in evaluation.values for _, evaluation in points):
            raise _NoEffectError(f"{metric} is not defined for {variant}")
        curve = curve_of(f"{self.study}/{variant}", points, metric, self.seed)
        if curve.rate.size == 0:
            raise _NoEffectError(f"{metric} of {variant} is nowhere finite")
        return curve

    def _value(self, variant: str, index: int, metric: str) -> Resampled:
        """Return a metric (in the unit of effects) or the rate of one rate point, seeds averaged.

        Seeds are drawn as for curves, so that effects of all forms share their resamples.
        """
        runs = [e for p, e in self._points(variant) if p.rate_index == index]
        if not runs:
            raise _AbsentError(f"{variant} has no operating point with rate index {index}")
        if metric == RATE:
            values = [run.rates["bpp"] for run in runs]
            samples = [run.rate_samples for run in runs]
            scale = 1.0
        else:
            if not all(metric in run.values for run in runs):
                raise _NoEffectError(f"{metric} is not defined for {variant}")
            values = [run.values[metric] for run in runs]
            samples = [run.value_samples[metric] for run in runs]
            scale = find_metric(metric).difference_factor
        resampled = mean_over_seeds(samples, f"{self.study}/{variant}", self.seed)
        return float(np.mean(values)) * scale, resampled * scale

    def _stated(self, variant: str, spec: CountEffect) -> float:
        """Return the number that evaluate.json of a variant states, averaged over seeds."""
        points = [p for p, _ in self._points(variant) if p.rate_index == spec.rate_index]
        if not points:
            raise _AbsentError(
                f"{variant} has no operating point with rate index {spec.rate_index}"
            )
        numbers = []
        for point in points:
            path = point.folder / "evaluate.json"
            value: Any = read_object(path) if path.exists() else None
            for level in spec.key.split("."):
                value = value.get(level) if isinstance(value, dict) else None
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise _AbsentError(f"evaluate.json of {variant} states no number {spec.key}")
            numbers.append(float(value))
        return float(np.mean(numbers))


def _change(measured: Measured, claim: TrendClaim, lower: int, upper: int) -> Resampled:
    """Return what a trend's metric gains from one rate index to another."""
    return _subtract(
        measured._value(claim.variant, upper, claim.metric),
        measured._value(claim.variant, lower, claim.metric),
    )


def _pair(claim: OrderClaim, better: str, worse: str) -> BdEffect | AtRateEffect:
    if claim.quantity == "at_rate":
        assert claim.bpp is not None  # checked with the configuration
        return AtRateEffect(
            form="at_rate", variant=better, anchor=worse, metric=claim.metric, bpp=claim.bpp
        )
    return BdEffect(
        form="bd", variant=better, anchor=worse, metric=claim.metric, quantity=claim.quantity
    )


def _describe(spec: EffectSpec) -> Effect:
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
        at = _at(spec)
    elif isinstance(spec, PointEffect):
        words = {"lowest": "the lowest rate", "highest": "the highest rate", "each": "each rate"}
        at = words.get(str(spec.rate_index), f"rate index {spec.rate_index}")
    metric = spec.key if isinstance(spec, CountEffect) else spec.metric
    return Effect(spec.variant, spec.anchor, metric, quantity, at, effect_unit(spec))


def _at(spec: AtRateEffect, rate: float | None = None) -> str:
    if not isinstance(spec.bpp, str):
        return f"{spec.bpp:g} bpp"
    common = f"the {spec.bpp} {'common ' if spec.anchor else ''}rate"
    return common if rate is None else f"{common} ({rate:.3g} bpp)"


def _subtract(one: Resampled, other: Resampled) -> Resampled:
    # The difference of two infinite values is NaN: undefined, as it should be.
    with np.errstate(invalid="ignore"):
        return one[0] - other[0], one[1] - other[1]


def _minus(first: Effect, second: Effect) -> Effect:
    """Return the difference of two effects over shared resamples."""
    at = " minus ".join(filter(None, (first.at, second.at))) if first.at != second.at else first.at
    shell = replace(
        first, at=at, side="", quantity="difference", notes=(*first.notes, *second.notes),
        basis=first.basis | second.basis,
    )  # fmt: skip
    if first.quantity == "value" and first.unit == "%":
        shell = replace(shell, unit="points")
    absent = first.absent or second.absent
    reason = first.reason or second.reason
    if absent or reason:
        return replace(shell, value=math.nan, samples=_NONE, absent=absent, reason=reason)
    # A count has one value where the others have one for each resample; both broadcast.
    value, samples = _subtract((first.value, first.samples), (second.value, second.samples))
    return replace(shell, value=value, samples=samples, noise=_joint_noise(first, second))


def _joint_noise(first: Effect, second: Effect) -> tuple[SeedNoise, ...]:
    """Return the seed noise of a difference of effects, which may share variants."""
    parts = [{part.variant: part for part in effect.noise} for effect in (first, second)]
    found = []
    for variant in dict.fromkeys([*parts[0], *parts[1]]):
        one, other = (
            np.asarray(own[variant].samples if variant in own else effect.value)
            for own, effect in zip(parts, (first, second), strict=True)
        )
        seeds = min(own[variant].seeds for own in parts if variant in own)
        found.append(SeedNoise(variant, seeds, one - other))
    return tuple(found)
