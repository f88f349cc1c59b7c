"""Evaluated operating points with their bootstrap resamples, and the curves that they form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from icmbench.analyse import bootstrap
from icmbench.analyse.bootstrap import Floats, Resampled, SeedNoise, mean_over_seeds
from icmbench.config.claims import RATE
from icmbench.errors import UserError
from icmbench.evaluate.records import bits_per_pixel, read_records
from icmbench.evaluate.statistics import MeanStatistics, Statistics, load_statistics
from icmbench.metrics.catalogue import PERCEPTUAL_METRICS, find_metric, quality_metrics


@dataclass(frozen=True)
class PointFiles:
    """The folder of an evaluated operating point, and its labels in the tables.

    These labels replace those in the records, so that one folder (of a classical codec, for
    example) can serve several studies. ``folder`` holds ``records.parquet`` and
    ``statistics-<group>.npz``.
    """

    study: str
    variant: str
    codec: str
    task: str
    mode: str
    rate_index: int
    seed: int
    folder: Path


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Rates and metrics of one folder, with R bootstrap resamples over its images.

    Attributes:
        records: rows of :data:`icmbench.evaluate.records.COLUMNS`, sorted by ``image_id``; only the
            first row after :meth:`without_records`.
        image_ids: sorted.
        rates: see :func:`icmbench.evaluate.records.bits_per_pixel`.
        values: metric name to value; average precisions in [0, 1], ``psnr`` and ``psnr_ycbcr`` in
            dB.
        rate_samples: (R,), ``bpp`` of each resample.
        value_samples: metric name to (R,), from the same resamples.
    """

    records: pd.DataFrame
    image_ids: tuple[str, ...]
    rates: dict[str, float]
    values: dict[str, float]
    rate_samples: Floats
    value_samples: dict[str, Floats]

    def without_records(self) -> Evaluation:
        """Return the evaluation with its first record only; thousands of these fit in memory."""
        return replace(self, records=self.records.iloc[:1].copy())

    def has(self, metric: str) -> bool:
        """Return whether the point has a metric; every point has ``bpp``."""
        return metric == RATE or metric in self.values

    def number(self, metric: str) -> Resampled:
        """Return a metric in its own unit, or ``bpp``, and its resamples."""
        if metric == RATE:
            return self.rates["bpp"], self.rate_samples
        return self.values[metric], self.value_samples[metric]


EvaluatedPoint = tuple[PointFiles, Evaluation]

#: The evaluated points of several variants, by variant.
Sides = Mapping[str, Sequence[EvaluatedPoint]]


# --- reading --------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _shared(image_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first equal tuple, so that points on the same images share one."""
    return image_ids


@lru_cache(maxsize=2)
def _ordered_weights(order: tuple[int, ...], resamples: int, seed: int) -> bootstrap.Ints:
    """Return the images' weights in the order of a statistics file, which most points share."""
    weights = bootstrap.image_weights(len(order), resamples, seed)[:, list(order)]
    weights.setflags(write=False)
    return weights


def read_point_records(folder: Path) -> pd.DataFrame:
    """Return the records of one operating point, sorted by ``image_id``.

    Raises:
        UserError: for a missing or malformed file, or one that holds several points.
    """
    path = folder / "records.parquet"
    records = read_records(path)
    if records.empty:
        raise UserError(f"{path}: no rows; evaluate at least one image")
    repeated = records["image_id"].duplicated()
    if repeated.any():
        raise UserError(
            f"{path}: duplicate image id {records['image_id'][repeated].iloc[0]!r}; a folder holds "
            "one operating point"
        )
    return records.sort_values("image_id", kind="stable", ignore_index=True)


def evaluate_folder(folder: Path, resamples: int, seed: int) -> Evaluation:
    """Read the files of one operating point and resample them.

    The image metrics are means over the records, unless a statistics file gives them. Those that
    are undefined for small images are left out if there is one (MS-SSIM: below 161 pixels).

    Args:
        folder: with ``records.parquet`` and any number of ``statistics-<group>.npz``.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        UserError: for missing or malformed files, or statistics of other images than the records.
    """
    records = read_point_records(folder)
    image_ids = _shared(tuple(records["image_id"]))
    columns = {image_id: column for column, image_id in enumerate(image_ids)}
    weights = bootstrap.image_weights(len(image_ids), resamples, seed)
    values: dict[str, float] = {}
    samples: dict[str, Floats] = {}
    for source, statistics in _statistics(folder, records):
        ids = [str(image_id) for image_id in statistics.image_ids]
        if sorted(ids) != list(image_ids):
            odd = min(set(ids) ^ set(image_ids), default=ids[0])
            raise UserError(
                f"{source}: {len(ids)} images, records.parquet {len(image_ids)}; {odd!r} is not in "
                "both; evaluate the point again"
            )
        own = statistics.metrics()
        clash = sorted(set(own) & set(values))
        if clash:
            raise UserError(f"{source}: metric {clash[0]!r} is in another file of the folder too")
        values |= own
        order = tuple(columns[image_id] for image_id in ids)
        samples |= statistics.metrics_resampled(_ordered_weights(order, resamples, seed))
    bits = records["bits"].to_numpy(np.float64)
    pixels = records["pixels"].to_numpy(np.float64)
    return Evaluation(
        records=records,
        image_ids=image_ids,
        rates=bits_per_pixel(records),
        values=values,
        rate_samples=(weights @ bits) / (weights @ pixels),
        value_samples=samples,
    )


def _statistics(folder: Path, records: pd.DataFrame) -> list[tuple[Path, Statistics]]:
    """Return the statistics files, and the records' own statistics of metrics in no file."""
    found = [(path, load_statistics(path)) for path in sorted(folder.glob("statistics-*.npz"))]
    given = {name for _, statistics in found for name in statistics.metrics()}
    columns = {
        name: records[name].to_numpy(np.float64)
        for name in quality_metrics(PERCEPTUAL_METRICS)
        if name in records and name not in given and _is_given(records, name)
    }
    if columns:
        source = folder / "records.parquet"
        try:
            images = MeanStatistics(records["image_id"].to_numpy(np.str_), dict(columns))
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        found.append((source, images))
    return found


def _is_given(records: pd.DataFrame, name: str) -> bool:
    """Return whether to average an image metric; an unexpected gap is an error of the mean."""
    defined = records[name].notna()
    # Others are not defined for small images.
    return bool(defined.any() if name in ("psnr", "psnr_ycbcr") else defined.all())


# --- curves ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Curve:
    """One variant's rate against one metric, averaged over seeds.

    N rate points, R resamples. Points whose metric is not finite (PSNR of a lossless image) cannot
    be on a BD curve and are left out.
    """

    rate: Floats  # (N,) bpp
    quality: Floats  # (N,) percentage points, dB or the metric's own unit
    rate_samples: Floats  # (R, N)
    quality_samples: Floats  # (R, N)
    seeds: int
    left_out: int
    sign: float  # -1.0 if lower qualities are better, else 1.0


def by_variant(points: Iterable[EvaluatedPoint]) -> dict[tuple[str, str], list[EvaluatedPoint]]:
    """Return points by study and variant, rate index and seed ascending."""
    found: dict[tuple[str, str], list[EvaluatedPoint]] = {}
    for point in sorted(points, key=lambda p: (p[0].rate_index, p[0].seed)):
        found.setdefault((point[0].study, point[0].variant), []).append(point)
    return found


def by_rate_index(points: Iterable[EvaluatedPoint]) -> dict[int, list[EvaluatedPoint]]:
    """Return points by rate index, rate index and seed ascending."""
    found: dict[int, list[EvaluatedPoint]] = {}
    for point in sorted(points, key=lambda p: (p[0].rate_index, p[0].seed)):
        found.setdefault(point[0].rate_index, []).append(point)
    return found


def average_seeds(
    runs: Sequence[Evaluation], metric: str, label: str, seed: int, scale: float = 1.0
) -> Resampled:
    """Return the mean of a metric or of ``bpp`` over seeds, and its resamples.

    All are NaN if a run lacks the metric.

    Args:
        runs: of one rate index, seeds ascending.
        metric: its name.
        label: of the variant; one draw of seeds serves all rates of a label.
        seed: of the draws.
        scale: factor of the result.
    """
    if not all(run.has(metric) for run in runs):
        return math.nan, np.full(runs[0].rate_samples.size, np.nan)
    numbers = [run.number(metric) for run in runs]
    samples = mean_over_seeds([samples * scale for _, samples in numbers], label, seed)
    return float(np.mean([value for value, _ in numbers])) * scale, samples


def curve_of(label: str, points: Sequence[EvaluatedPoint], metric: str, seed: int) -> Curve:
    """Return the curve of one variant's points; ``label`` keys the draws of seeds."""
    resamples = points[0][1].rate_samples.size
    described = find_metric(metric)
    scale = described.difference_factor
    by_rate = [[run for _, run in own] for own in by_rate_index(points).values()]
    qualities = [average_seeds(runs, metric, label, seed, scale) for runs in by_rate]
    finite = [place for place, (quality, _) in enumerate(qualities) if np.isfinite(quality)]
    rates = [average_seeds(by_rate[place], RATE, label, seed) for place in finite]
    qualities = [qualities[place] for place in finite]
    return Curve(
        rate=np.array([rate for rate, _ in rates]),
        quality=np.array([quality for quality, _ in qualities]),
        rate_samples=np.array([samples for _, samples in rates]).reshape(-1, resamples).T,
        quality_samples=np.array([samples for _, samples in qualities]).reshape(-1, resamples).T,
        seeds=max(map(len, by_rate)),
        left_out=len(by_rate) - len(finite),
        sign=described.sign,
    )


# --- variation of seeds ---------------------------------------------------------------------------


def seed_noise(sides: Sides, samples_of: Callable[[Sides], Floats]) -> tuple[SeedNoise, ...]:
    """Return the seed noise of each variant that has several seeds.

    Args:
        sides: points of the variants that a number is computed from.
        samples_of: returns the number's resamples, given such points.
    """
    found = []
    for name, points in sides.items():
        # The fewest seeds of a rate index that has several.
        counts = [len(runs) for runs in by_rate_index(points).values() if len(runs) > 1]
        if counts:
            alone = {
                other: _without_images(own) if other == name else _without_draws(own)
                for other, own in sides.items()
            }
            found.append(SeedNoise(name, min(counts), samples_of(alone)))
    return tuple(found)


def _without_images(points: Sequence[EvaluatedPoint]) -> list[EvaluatedPoint]:
    """Return points that are equal in every resample, so that only seeds are drawn."""
    return [(point, _fixed(run, run.rates, run.values)) for point, run in points]


def _without_draws(points: Sequence[EvaluatedPoint]) -> list[EvaluatedPoint]:
    """Return one point for each rate index: the mean of its seeds, equal in every resample."""
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
