"""Curves in the JSON format of CompressAI's results, which other tools read.

``{"name", "description", "results": {"bpp": [...], "psnr-rgb": [...], "box-map": [...], ...}}``,
lists of equal length. Published files may be in any order of rate and lack keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from icmbench.analyse.bootstrap import Floats
from icmbench.analyse.curves import EvaluatedPoint, by_rate_index, by_variant
from icmbench.errors import damaged_file
from icmbench.metrics.catalogue import find_metric
from icmbench.utils.files import read_json, write_json

_ADVICE = "give a file in the format of CompressAI's results"


@dataclass(frozen=True)
class CurveFile:
    """The content of a curve's file.

    Attributes:
        name: the codec's name.
        description: free text, empty if absent.
        results: key to values (N,), sorted by ``bpp``; NaN for null.
    """

    name: str
    description: str
    results: dict[str, Floats]


def variant_curve(points: Sequence[EvaluatedPoint]) -> dict[str, object]:
    """Return the JSON value of one variant's points, sorted by bpp, seeds averaged.

    A value that is missing or not finite is null, because JSON has no NaN.
    """
    metrics = sorted({metric for _, evaluation in points for metric in evaluation.values})
    keys = [find_metric(metric).json_key for metric in metrics]
    rows: list[dict[str, float | None]] = []
    for own in by_rate_index(points).values():
        row: dict[str, float | None] = {"bpp": float(np.mean([run.rates["bpp"] for _, run in own]))}
        for metric, key in zip(metrics, keys, strict=True):
            mean = float(np.mean([run.values.get(metric, math.nan) for _, run in own]))
            row[key] = mean if math.isfinite(mean) else None
        rows.append(row)
    rows.sort(key=lambda row: row["bpp"] or 0.0)
    first, evaluation = points[0]
    seeds = len({point.seed for point, _ in points})
    return {
        "name": first.variant,
        "description": (
            f"{first.study}: codec {first.codec}, task {first.task}, mode {first.mode}; "
            f"{len(evaluation.image_ids)} images, {seeds} seed(s) averaged; bpp = all bits of the "
            "bitstreams / all pixels"
        ),
        "results": {key: [row[key] for row in rows] for key in ["bpp", *keys]},
    }


def write_curve_files(
    folder: Path, points: Sequence[EvaluatedPoint]
) -> dict[tuple[str, str], Path]:
    """Write ``<folder>/<study>/<variant>.json`` for each variant; return the paths."""
    paths = {}
    for (study, variant), own in by_variant(points).items():
        # Not with_suffix: a variant's name may contain a dot.
        paths[study, variant] = folder / study / f"{variant}.json"
        write_json(paths[study, variant], variant_curve(own))
    return paths


def read_curve_file(path: Path | str) -> CurveFile:
    """Read a curve, measured here or published, and sort it by bpp.

    Raises:
        DamagedFile: if ``results.bpp`` is missing, or a list does not have one number for each.
    """
    content = read_json(path)
    results = content.get("results") if isinstance(content, Mapping) else None
    if not isinstance(results, Mapping) or "bpp" not in results:
        raise damaged_file(path, "no 'results.bpp'", _ADVICE)
    arrays: dict[str, Floats] = {}
    for key in ("bpp", *results):
        try:
            arrays[key] = np.array(results[key], dtype=np.float64)
        except (TypeError, ValueError):
            raise damaged_file(path, f"'results.{key}' is not a list of numbers", _ADVICE) from None
        if arrays[key].ndim != 1 or arrays[key].shape != arrays["bpp"].shape:
            shapes = f"{arrays[key].shape}, 'results.bpp' {arrays['bpp'].shape}"
            raise damaged_file(path, f"'results.{key}' has shape {shapes}", _ADVICE)
    order = np.argsort(arrays["bpp"], kind="stable")
    return CurveFile(
        name=str(content.get("name", "")),
        description=str(content.get("description", "")),
        results={key: values[order] for key, values in arrays.items()},
    )
