"""The numbers that claims are about, measured on the operating points of one study.

Between operating points a curve is a PCHIP interpolant of quality over log10(rate), as in the
BD-accuracy; it is never continued beyond its points. ``Resampled`` numbers share their resamples,
so that differences of any of them are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]

from icmbench.analyse.bd_table import left_out_flags, measured_bd
from icmbench.analyse.bootstrap import Floats, Resampled, SeedNoise, subtract
from icmbench.analyse.curves import (
    Curve,
    EvaluatedPoint,
    Sides,
    average_seeds,
    by_variant,
    curve_of,
    seed_noise,
)
from icmbench.analyse.targets import Targets, missed
from icmbench.config.claims import RATE, AtRateEffect, BdEffect, CountEffect, PointEffect
from icmbench.metrics.bd import Method, prepare_curve, weak_flags, weakness
from icmbench.metrics.catalogue import find_metric
from icmbench.registry import CODECS
from icmbench.utils.files import read_object

#: Flag of a point whose rate misses the target of its training run by more than 10 %, followed by
#: variant, rate and target in bits per pixel.
MISSED = "missed-rate"

SampledEffect = BdEffect | AtRateEffect | PointEffect


class UndefinedEffectError(Exception):
    """An effect is undefined on the measured curves; the message is the reason."""


class NotRunError(Exception):
    """An operating point that an effect needs was not run; the message names it."""


class Basis(NamedTuple):
    """The data that an effect was measured on: ``seeds`` is the most training runs of a point."""

    dataset: str
    split: str
    images: int
    seeds: int
    resamples: int


class Measurement(NamedTuple):
    """A number, its resamples (R,), where on the curve it was measured, notes, and why it decides
    nothing (empty if it may).
    """

    value: float
    samples: Floats
    at: str = ""
    notes: tuple[str, ...] = ()
    weakness: str = ""


class StudyPoints:
    """The evaluated operating points of one study, with the numbers measured on them."""

    def __init__(
        self,
        study: str,
        points: Iterable[EvaluatedPoint],
        method: Method,
        seed: int,
        targets: Targets | None = None,
    ) -> None:
        """Keep the points.

        Args:
            study: its name.
            points: evaluated operating points, of this and other studies.
            method: of BD metrics over a whole curve.
            seed: of the draws of training seeds.
            targets: rates that training steered codecs to.
        """
        self.study, self.method, self.seed, self.targets = study, method, seed, targets or {}
        self.variants = {
            variant: own for (of, variant), own in by_variant(points).items() if of == study
        }

    # --- what claims ask --------------------------------------------------------------------------

    def measure(self, spec: SampledEffect) -> Measurement:
        """Return the number of an effect.

        Raises:
            NotRunError: for a variant or operating point that was not run.
            UndefinedEffectError: if the measured curves do not define it.
        """
        self._require_same_images(variants_of(spec))
        if isinstance(spec, BdEffect):
            return self._bd(spec)
        return self._at_rate(spec) if isinstance(spec, AtRateEffect) else self._point(spec)

    def noise(self, spec: SampledEffect) -> tuple[SeedNoise, ...]:
        """Return the seed noise of the number that :meth:`measure` returns."""

        def samples_of(sides: Sides) -> Floats:
            points = [point for own in sides.values() for point in own]
            return StudyPoints(self.study, points, self.method, self.seed).measure(spec).samples

        return seed_noise({name: self._points(name) for name in variants_of(spec)}, samples_of)

    def count(self, spec: CountEffect) -> float:
        """Return a number of evaluate.json, or its difference in percent of the anchor's."""
        own = self._stated(spec.variant, spec)
        if spec.anchor is None:
            return own
        other = self._stated(spec.anchor, spec)
        return 100.0 * (own / other - 1.0) if other else math.nan

    def basis(self, variants: Sequence[str]) -> frozenset[Basis]:
        """Return the data that the variants were evaluated on; several if they differ."""
        seeds = max(len({p.seed for p, _ in self._points(name)}) for name in variants)
        return frozenset(
            Basis(
                str(evaluation.records["dataset"].iloc[0]),
                str(evaluation.records["split"].iloc[0]),
                len(evaluation.image_ids),
                seeds,
                evaluation.rate_samples.size,
            )
            for name in variants
            for _, evaluation in self._points(name)
        )

    def rates(self, variant: str) -> dict[int, float]:
        """Return the rate (bpp) of each rate index that was evaluated, indices ascending."""
        indices = sorted({point.rate_index for point, _ in self.variants.get(variant, [])})
        return {index: self._at_index(variant, index, RATE)[0] for index in indices}

    # --- forms ------------------------------------------------------------------------------------

    def _bd(self, spec: BdEffect) -> Measurement:
        anchor, test = (self._curve(name, spec.metric) for name in (spec.anchor, spec.variant))
        if spec.rates is not None:
            return _mean_between(anchor, test, spec.rates)
        result, samples = measured_bd(spec.quantity, anchor, test, self.method)
        axis = "qualities" if spec.quantity == "bd_rate_pct" else "log rates"
        weak = weakness(result.overlap, result.points, axis)
        if math.isnan(result.value):
            flags = f"the BD metric is undefined: {', '.join(result.flags)}"
            raise UndefinedEffectError(weak or flags)
        notes = (*result.flags, *left_out_flags(anchor, test))
        return Measurement(result.value, samples, notes=notes, weakness=weak)

    def _at_rate(self, spec: AtRateEffect) -> Measurement:
        names = variants_of(spec)
        curves = {name: self._curve(name, spec.metric) for name in names}
        # Original images have no rate of their own: their accuracy is the same at every rate.
        rated = [name for name in names if not self._is_original(name)]
        if not rated:
            raise UndefinedEffectError(f"{spec.variant} has no rate; use form point")
        for name in rated:
            if curves[name].rate.size < 2:
                raise UndefinedEffectError(f"{name} has fewer than two points; use form point")
            lowest, highest = curves[name].rate.min(), curves[name].rate.max()
            if not lowest <= spec.bpp <= highest:
                raise UndefinedEffectError(
                    f"{spec.bpp:g} bpp is outside the rates of {name}, {lowest:.3g} to "
                    f"{highest:.3g} bpp"
                )
        values = [
            quality_at(curves[name], spec.bpp)
            if name in rated
            else (float(curves[name].quality[0]), curves[name].quality_samples[:, 0])
            for name in names
        ]
        value = values[0] if len(values) == 1 else subtract(*values)
        return Measurement(*value, at=f"{spec.bpp:g} bpp")

    def _point(self, spec: PointEffect) -> Measurement:
        index = self._rate_index(spec.variant, spec.rate_index)
        value = self._at_index(spec.variant, index, spec.metric)
        at = f"rate index {index} ({self._at_index(spec.variant, index, RATE)[0]:.3g} bpp)"
        notes = self._missed(spec.variant, index)
        if spec.anchor is None:
            return Measurement(*value, at, notes)
        if spec.anchor_rate_index is not None:
            other = self._rate_index(spec.anchor, spec.anchor_rate_index)
        else:
            theirs = list(self.rates(spec.anchor))
            other = theirs[0] if len(theirs) == 1 else index
        if other != index:
            at += f" against rate index {other}"
        notes = tuple(dict.fromkeys((*notes, *self._missed(spec.anchor, other))))
        difference = subtract(value, self._at_index(spec.anchor, other, spec.metric))
        return Measurement(*difference, at, notes)

    def _missed(self, variant: str, index: int) -> tuple[str, ...]:
        """Return a flag if the rate of a point misses the one that its training was to reach."""
        target = self.targets.get((self.study, variant, index))
        bpp = self._at_index(variant, index, RATE)[0]
        return (f"{MISSED}:{variant} {bpp:.3g} {target:g}",) if missed(bpp, target) else ()

    # --- points -----------------------------------------------------------------------------------

    def _points(self, variant: str) -> list[EvaluatedPoint]:
        if variant not in self.variants:
            raise NotRunError(f"{variant} was not run")
        return self.variants[variant]

    def _at_index(self, variant: str, index: int, metric: str) -> Resampled:
        """Return a metric (in the unit of effects) or the rate of one rate point, seeds averaged.

        Seeds are drawn as for curves, so that effects of all forms share their resamples.
        """
        runs = [run for point, run in self._points(variant) if point.rate_index == index]
        if not runs:
            raise NotRunError(f"{variant} has no operating point with rate index {index}")
        if not all(run.has(metric) for run in runs):
            raise UndefinedEffectError(f"{metric} is not defined for {variant}")
        value, samples = average_seeds(runs, metric, f"{self.study}/{variant}", self.seed)
        factor = find_metric(metric).difference_factor
        return value * factor, samples * factor

    def _rate_index(self, variant: str, which: int | str) -> int:
        """Return an index as it is, or that of the ``lowest`` or ``highest`` rate measured."""
        if isinstance(which, int):
            return which
        rates = self.rates(variant)
        pick = min if which == "lowest" else max
        return pick(rates, key=lambda candidate: rates[candidate])

    def _curve(self, variant: str, metric: str) -> Curve:
        points = self._points(variant)
        if not all(evaluation.has(metric) for _, evaluation in points):
            raise UndefinedEffectError(f"{metric} is not defined for {variant}")
        curve = curve_of(f"{self.study}/{variant}", points, metric, self.seed)
        if curve.rate.size == 0:
            raise UndefinedEffectError(f"{metric} of {variant} is nowhere finite")
        return curve

    def _is_original(self, variant: str) -> bool:
        codec = self._points(variant)[0][0].codec
        return codec in CODECS and CODECS[codec].kind == "none"

    def _require_same_images(self, variants: Sequence[str]) -> None:
        images = {e.image_ids for name in variants for _, e in self._points(name)}
        if len(images) > 1:
            names = " and ".join(variants)
            raise UndefinedEffectError(f"{names} were evaluated on different images")

    def _stated(self, variant: str, spec: CountEffect) -> float:
        """Return a number in evaluate.json of a variant, averaged over seeds."""
        points = [p for p, _ in self._points(variant) if p.rate_index == spec.rate_index]
        if not points:
            raise NotRunError(f"{variant} has no operating point with rate index {spec.rate_index}")
        numbers = []
        for point in points:
            path = point.folder / "evaluate.json"
            value: Any = read_object(path) if path.exists() else None
            for level in spec.key.split("."):
                value = value.get(level) if isinstance(value, dict) else None
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise NotRunError(f"evaluate.json of {variant} has no number {spec.key}")
            numbers.append(float(value))
        return float(np.mean(numbers))


def variants_of(spec: SampledEffect | CountEffect) -> list[str]:
    """Return the variant of an effect and its anchor, if it has another one."""
    return list(dict.fromkeys(name for name in (spec.variant, spec.anchor) if name is not None))


# --- interpolation --------------------------------------------------------------------------------


def common_rates(curves: Sequence[Curve]) -> tuple[Resampled, Resampled]:
    """Return the lowest and the highest rate that all curves cover, also in each resample."""
    low = max(float(curve.rate.min()) for curve in curves)
    high = min(float(curve.rate.max()) for curve in curves)
    lows = np.max([curve.rate_samples.min(axis=1) for curve in curves], axis=0)
    highs = np.min([curve.rate_samples.max(axis=1) for curve in curves], axis=0)
    return (low, lows), (high, highs)


def quality_at(curve: Curve, bpp: float) -> Resampled:
    """Return the quality at a rate, NaN in resamples whose curve does not reach it."""
    return _in_each_resample(_at, curve, (bpp, np.full(len(curve.rate_samples), bpp)))


def mean_quality(curve: Curve, low: Resampled, high: Resampled) -> Resampled:
    """Return the mean quality over log10(rate) between two rates, NaN if it is undefined."""
    return _in_each_resample(_mean, curve, low, high)


def _in_each_resample(of: Callable[..., float], curve: Curve, *rates: Resampled) -> Resampled:
    samples = (curve.rate_samples, curve.quality_samples, *(samples for _, samples in rates))
    value = of(curve.rate, curve.quality, *(rate for rate, _ in rates))
    return value, np.array([of(*row) for row in zip(*samples, strict=True)])


def _mean_between(anchor: Curve, test: Curve, rates: Sequence[float]) -> Measurement:
    """Return the BD-accuracy over a range of rates."""
    (low, lows), (high, highs) = common_rates([anchor, test])
    start, stop = max(low, rates[0]), min(high, rates[1])
    if not start < stop:
        raise UndefinedEffectError(
            f"the curves share no rates between {rates[0]:g} and {rates[1]:g} bpp"
        )
    ends = (start, np.maximum(lows, rates[0])), (stop, np.minimum(highs, rates[1]))
    difference = subtract(mean_quality(test, *ends), mean_quality(anchor, *ends))
    # Outside the named rates the curves may lie apart.
    overlap = math.log(stop / start) / math.log(rates[1] / rates[0])
    points = min(anchor.rate.size, test.rate.size)
    flags = weak_flags(overlap, points)
    weak = weakness(overlap, points, f"log rates from {rates[0]:g} to {rates[1]:g} bpp")
    return Measurement(*difference, f"{start:.3g} to {stop:.3g} bpp", flags, weak)


def _at(rate: Floats, quality: Floats, where: float) -> float:
    fit = _fit(rate, quality)
    return float("nan") if fit is None else float(fit(np.log10(where)))


def _mean(rate: Floats, quality: Floats, low: float, high: float) -> float:
    fit = _fit(rate, quality)
    if fit is None or not low < high:
        return float("nan")
    ends = np.log10([low, high])
    return float(fit.integrate(*ends) / (ends[1] - ends[0]))


def _fit(rate: Floats, quality: Floats) -> PchipInterpolator | None:
    if not np.isfinite(quality).all():
        return None
    rates, qualities, _ = prepare_curve(rate, quality, "claimed")
    if rates.size < 2:
        return None
    return PchipInterpolator(np.log10(rates), qualities, extrapolate=False)
