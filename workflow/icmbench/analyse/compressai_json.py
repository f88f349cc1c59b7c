"""Curves in the JSON shape of CompressAI's results, which other tools read.

``{"name", "description", "results": {"bpp": [...], "psnr-rgb": [...], "box-map": [...], ...}}``,
lists of equal length. Published files may be in any order of rate and lack keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icmbench.analyse.points import Evaluation, PointFiles
from icmbench.errors import UserError
from icmbench.metrics.catalogue import find_metric
from icmbench.utils.files import read_json, write_json


@dataclass(frozen=True)
class PublishedCurve:
    """A rate-quality curve read from a file.

    Attributes:
        name: the codec's name as published.
        description: free text, empty if absent.
        results: key to values (N,), sorted by ``bpp``; NaN where the file has null.
    """

    name: str
    description: str
    results: dict[str, npt.NDArray[np.float64]]


def variant_curve(points: Sequence[tuple[PointFiles, Evaluation]]) -> dict[str, object]:
    """Return the JSON value of one variant's points, sorted by bpp, seeds averaged.

    A value that is missing or not finite is null, as JSON has no NaN.
    """
    first = points[0][0]
    by_rate: dict[int, list[Evaluation]] = {}
    for point, evaluation in points:
        by_rate.setdefault(point.rate_index, []).append(evaluation)
    metrics = sorted({metric for _, evaluation in points for metric in evaluation.values})
    rows: list[dict[str, float | None]] = []
    for runs in by_rate.values():
        row: dict[str, float | None] = {"bpp": float(np.mean([run.rates["bpp"] for run in runs]))}
        for metric in metrics:
            mean = float(np.mean([run.values.get(metric, math.nan) for run in runs]))
            row[find_metric(metric).json_key] = mean if math.isfinite(mean) else None
        rows.append(row)
    rows.sort(key=lambda row: row["bpp"] or 0.0)
    seeds = len({point.seed for point, _ in points})
    images = len(points[0][1].image_ids)
    keys = ["bpp", *(find_metric(metric).json_key for metric in metrics)]
    return {
        "name": first.variant,
        "description": (
            f"{first.study}: codec {first.codec}, task {first.task}, mode {first.mode}; {images} "
            f"images, {seeds} seed(s) averaged; bpp = all bits of the bitstreams / all pixels"
        ),
        "results": {key: [row[key] for row in rows] for key in keys},
    }


def write_curves(
    folder: Path, points: Sequence[tuple[PointFiles, Evaluation]]
) -> dict[tuple[str, str], Path]:
    """Write ``<folder>/<study>/<variant>.json`` for each variant; return the paths."""
    by_variant: dict[tuple[str, str], list[tuple[PointFiles, Evaluation]]] = {}
    for point, evaluation in points:
        by_variant.setdefault((point.study, point.variant), []).append((point, evaluation))
    paths = {}
    for (study, variant), own in sorted(by_variant.items(), key=lambda item: item[0]):
        # Not with_suffix: a variant's name may contain a dot.
        paths[study, variant] = folder / study / f"{variant}.json"
        write_json(paths[study, variant], variant_curve(own))
    return paths


def read_curve(path: Path | str) -> PublishedCurve:
    """Read a curve in CompressAI's shape, ours or published, and sort it by bpp.

    Raises:
        UserError: if ``results.bpp`` is missing, or a list is not as long as it or not of numbers.
    """
    content = read_json(path)
    results = content.get("results") if isinstance(content, Mapping) else None
    if not isinstance(results, Mapping) or "bpp" not in results:
        raise UserError(f"{path}: no 'results.bpp'; expected CompressAI's results JSON")
    arrays = {}
    for key, values in results.items():
        try:
            arrays[key] = np.array(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise UserError(f"{path}: 'results.{key}' is not a list of numbers") from None
        if arrays[key].shape != (len(results["bpp"]),):
            raise UserError(
                f"{path}: 'results.{key}' has shape {arrays[key].shape}, 'results.bpp' has "
                f"{len(results['bpp'])} values; give one for each"
            )
    order = np.argsort(arrays["bpp"], kind="stable")
    return PublishedCurve(
        name=str(content.get("name", "")),
        description=str(content.get("description", "")),
        results={key: values[order] for key, values in arrays.items()},
    )
