"""What the seeds of a variant alone do to a number that several variants make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from icmbench.analyse.bootstrap import Floats, SeedNoise
from icmbench.analyse.points import Evaluation, PointFiles

EvaluatedPoint = tuple[PointFiles, Evaluation]
Sides = Mapping[str, Sequence[EvaluatedPoint]]


def seed_noise(sides: Sides, samples_of: Callable[[Sides], Floats]) -> tuple[SeedNoise, ...]:
    """Return the seed noise of each variant that has several seeds.

    Args:
        sides: points of the variants that make the number.
        samples_of: returns the number's resamples, given such points.
    """
    found = []
    for name, points in sides.items():
        seeds = _seeds(points)
        if seeds > 1:
            alone = {
                other: _without_images(own) if other == name else _without_draws(own)
                for other, own in sides.items()
            }
            found.append(SeedNoise(name, seeds, samples_of(alone)))
    return tuple(found)


def by_rate_index(points: Sequence[EvaluatedPoint]) -> dict[int, list[EvaluatedPoint]]:
    """Return points by rate index, both it and seeds ascending."""
    found: dict[int, list[EvaluatedPoint]] = {}
    for point in sorted(points, key=lambda p: (p[0].rate_index, p[0].seed)):
        found.setdefault(point[0].rate_index, []).append(point)
    return found


def _seeds(points: Sequence[EvaluatedPoint]) -> int:
    """Return the fewest seeds of a rate index that has several, else 1."""
    counts = [len(runs) for runs in by_rate_index(points).values()]
    return min((count for count in counts if count > 1), default=1)


def _without_images(points: Sequence[EvaluatedPoint]) -> list[EvaluatedPoint]:
    """Return points that are the same in every resample, so that drawing seeds is all there is."""
    return [(point, _fixed(run, run.rates, run.values)) for point, run in points]


def _without_draws(points: Sequence[EvaluatedPoint]) -> list[EvaluatedPoint]:
    """Return one point for each rate index, its seeds averaged, the same in every resample."""
    found = []
    for runs in by_rate_index(points).values():
        point, first = runs[0]
        rates, values = (
            {
                name: float(np.mean([getattr(run, kind)[name] for _, run in runs]))
                for name in getattr(first, kind)
                if all(name in getattr(run, kind) for _, run in runs)
            }
            for kind in ("rates", "values")
        )
        found.append((point, _fixed(first, rates, values)))
    return found


def _fixed(run: Evaluation, rates: dict[str, float], values: dict[str, float]) -> Evaluation:
    resamples = run.rate_samples.size
    return replace(
        run,
        rates=rates,
        values=values,
        rate_samples=np.full(resamples, rates["bpp"]),
        value_samples={name: np.full(resamples, value) for name, value in values.items()},
    )
