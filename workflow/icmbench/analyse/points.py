"""Evaluated operating points: their files, their rates and metrics, and the resamples of both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from icmbench.analyse import bootstrap
from icmbench.errors import UserError
from icmbench.evaluate.records import bits_per_pixel, read_records
from icmbench.evaluate.statistics import MeanStatistics, Statistics, load_statistics
from icmbench.metrics.catalogue import PIXEL_METRICS

Floats = npt.NDArray[np.float64]

#: What names an operating point in every table, as in :class:`PointFiles` and in the plan.
LABELS = ("study", "variant", "codec", "task", "mode", "rate_index", "seed")


@dataclass(frozen=True)
class PointFiles:
    """Where the results of one operating point lie, and what the tables call it.

    The names given here replace those in the records, so that one folder (an anchor, say) can
    serve several studies. ``folder`` holds ``records.parquet`` and ``statistics-<group>.npz``.
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
        records: rows of :data:`icmbench.evaluate.records.COLUMNS`, sorted by ``image_id``; the
            first one alone after :meth:`without_records`.
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
        """Return the evaluation with its first record only, of which thousands fit in memory."""
        return replace(self, records=self.records.iloc[:1].copy())


@lru_cache(maxsize=64)
def _shared(image_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first equal ids, so that points on the same images hold them once."""
    return image_ids


@lru_cache(maxsize=2)
def _ordered_weights(order: tuple[int, ...], resamples: int, seed: int) -> bootstrap.Ints:
    """Return the images' weights in the order of a statistics file, which most points share."""
    weights = bootstrap.image_weights(len(order), resamples, seed)[:, list(order)]
    weights.setflags(write=False)
    return weights


def read_point(folder: Path) -> pd.DataFrame:
    """Return the records of one operating point, sorted by ``image_id``.

    Raises:
        UserError: for a missing or malformed file, or one that holds several points.
    """
    records = read_records(folder / "records.parquet")
    if records.empty:
        raise UserError(f"{folder / 'records.parquet'}: no rows; evaluate at least one image")
    repeated = records["image_id"].duplicated()
    if repeated.any():
        raise UserError(
            f"{folder / 'records.parquet'}: image {records['image_id'][repeated].iloc[0]!r} stands "
            "twice; a folder holds one operating point"
        )
    return records.sort_values("image_id", kind="stable", ignore_index=True)


def evaluate_folder(folder: Path, resamples: int, seed: int) -> Evaluation:
    """Read the files of one operating point and resample them.

    The image metrics are means over the records, unless a statistics file gives them. MS-SSIM is
    left out where it is not defined for every image (shorter side under 161 pixels).

    Raises:
        UserError: for missing or malformed files, or statistics of other images than the records.
    """
    records = read_point(folder)
    image_ids = _shared(tuple(records["image_id"]))
    weights = bootstrap.image_weights(len(image_ids), resamples, seed)
    values: dict[str, float] = {}
    samples: dict[str, Floats] = {}
    for source, statistics in _statistics(folder, records):
        ids = [str(image_id) for image_id in statistics.image_ids]
        columns = {image_id: column for column, image_id in enumerate(image_ids)}
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


def _is_given(records: pd.DataFrame, name: str) -> bool:
    """Return whether an image metric has a mean; a hole that should not be is left to be found."""
    defined = records[name].notna()
    return bool(defined.all() if name == "ms_ssim" else defined.any())


def _statistics(folder: Path, records: pd.DataFrame) -> list[tuple[Path, Statistics]]:
    """Statistics files of the folder, and the records' own for metrics that no file gives."""
    found = [(path, load_statistics(path)) for path in sorted(folder.glob("statistics-*.npz"))]
    given = {name for _, statistics in found for name in statistics.metrics()}
    columns = {
        name: records[name].to_numpy(np.float64)
        for name in PIXEL_METRICS
        if name not in given and _is_given(records, name)
    }
    if columns:
        source = folder / "records.parquet"
        try:
            images = MeanStatistics(records["image_id"].to_numpy(np.str_), dict(columns))
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        found.append((source, images))
    return found
