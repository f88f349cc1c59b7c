"""What ``icmbench eval`` prints at its end: curves, BD metrics and where the files are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from icmbench.analyse.bd_table import COLUMNS
from icmbench.analyse.tables import CURVE_COLUMNS, read_result_table
from icmbench.codecs.bitstream import unpack
from icmbench.commands.eval_study import ORIGINAL, STUDY
from icmbench.config.summary import PlanSummary, PointSummary, read_summary
from icmbench.evaluate.coded import BITSTREAMS, DECODED_ROWS, Archives
from icmbench.metrics.catalogue import Metric, find_metric, is_image_quality
from icmbench.registry import CODECS, implementation
from icmbench.report.outputs import FIGURES, FOLDER, leading_metrics

# Of every run; further ones are those of the key ``perceptual``.
_IMAGE_QUALITY = ("psnr", "ms_ssim")


def summary_text(root: Path) -> str:
    """Return the curves by task, the BD metrics of every codec by task, and paths.

    Args:
        root: ``<results>/<scale>`` of a run of :mod:`icmbench.commands.eval`.
    """
    plan = read_summary(root)
    curves = read_result_table(root / "tables" / "curves.csv", CURVE_COLUMNS)
    bd = read_result_table(root / "tables" / "bd.csv", COLUMNS)
    parts = [_curves(root, plan, curves[curves["study"] == STUDY])]
    parts += _deltas(plan, bd[bd["study"] == STUDY])
    return "\n\n".join([*parts, "\n".join(_paths(root, plan))])


def _curves(root: Path, plan: PlanSummary, curves: pd.DataFrame) -> str:
    """Return a row for each codec and rate, with the leading metric of every task."""
    points = [point for point in plan.points if point.study == STUDY]
    tasks = list(dict.fromkeys(point.task for point in points))
    quality = (*_IMAGE_QUALITY, *plan.run.perceptual)
    metrics = [name for name in leading_metrics(plan, STUDY) if not is_image_quality(name)]
    values = {(r.variant, r.rate_index, r.metric): r for r in _rows(curves)}
    rows: dict[tuple[str, int], dict[str, str]] = {}
    for point in points:
        codec = _codec(point)
        row = rows.setdefault((codec, point.rate_index), {"codec": codec, "rate": "", "bpp": ""})
        if point.rate_parameter is not None:
            row["rate"] = f"{point.rate_parameter} {point.rate_value:g}"
        for metric in (*metrics, *quality):
            found = values.get((point.variant, point.rate_index, metric))
            if found is None:
                continue
            row["bpp"] = f"{found.bpp:.4f}"
            title = find_metric(metric).heading
            if is_image_quality(metric):
                if math.isfinite(found.value):
                    row[title] = _number(find_metric(metric), found.value)
            else:
                name = title if len(tasks) == 1 else f"{point.task}: {title}"
                low, high = (_number(find_metric(metric), own) for own in (found.low, found.high))
                row[name] = f"{_number(find_metric(metric), found.value)} [{low}, {high}]"
        if CODECS[point.codec].kind == "learned":
            row["bpp of strings"] = f"{strings_bpp(root, point):.6f}"
    return pd.DataFrame(list(rows.values())).fillna("").to_string(index=False)


def strings_bpp(root: Path, point: PointSummary) -> float:
    """Return the rate of a learned codec's strings alone, the mean of bpp over images.

    As CompressAI's ``eval_model`` counts it: without the size of the image and the lengths of the
    strings.
    """
    folder = root / "encoded" / str(point.encoding)
    count = implementation(CODECS[point.codec]).strings
    archive = Archives(folder / BITSTREAMS)
    images = pd.read_parquet(folder / DECODED_ROWS, columns=["image_id", "pixels"])
    rates = [
        8 * sum(map(len, unpack(archive.read(f"{row.image_id}.bin"), count)[2])) / row.pixels
        for row in _rows(images)
    ]
    return math.fsum(rates) / len(rates)


def _deltas(plan: PlanSummary, bd: pd.DataFrame) -> Iterator[str]:
    """Yield the BD-rates of codecs (rows) by task and metric (columns)."""
    if bd.empty:
        return
    points = {point.variant: point for point in plan.points}
    tasks = {points[variant].task for variant in bd["variant"]}
    rows: dict[str, dict[str, str]] = {}
    for own in _rows(bd):
        point, metric = points[own.variant], find_metric(own.metric)
        if not math.isfinite(own.bd_rate_pct) and own.metric in ("ms_ssim", "lpips"):
            continue  # of images too small for it
        several = len(tasks) > 1 and not is_image_quality(own.metric)
        name = f"{point.task}: {metric.title}" if several else metric.title
        row = rows.setdefault(_codec(point), {"BD-rate (%)": _codec(point)})
        value = f"{own.bd_rate_pct:+.1f} [{own.low:+.1f}, {own.high:+.1f}]"
        why = ", ".join(flag for flag in own.flags.split(";") if ":" not in flag)
        row[name] = value if math.isfinite(own.bd_rate_pct) else f"none ({why})"
    table = pd.DataFrame(list(rows.values())).fillna("").to_string(index=False)
    anchor = _codec(points[bd["anchor"].iloc[0]])
    yield f"{table}\nagainst {anchor}, at equal quality; 95 % intervals over images"


def _rows(frame: pd.DataFrame) -> list[Any]:
    return list(frame.itertuples())


def _paths(root: Path, plan: PlanSummary) -> Iterator[str]:
    report = root / FOLDER
    yield f"page:    {report / STUDY}.html"
    for figure in sorted((root / FIGURES).glob(f"{STUDY}-rate-*.svg")):
        if figure.stem.removeprefix(f"{STUDY}-rate-") in leading_metrics(plan, STUDY):
            yield f"plot:    {figure}, {figure.with_suffix('.png').name}"
    yield f"tables:  {root / 'tables' / 'curves.csv'}, bd.csv, per_class.csv"
    yield f"JSON:    {root / 'curves' / STUDY}, a file for each curve, as CompressAI's"


def _codec(point: PointSummary) -> str:
    """Return the codec as the command line names it."""
    codec = point.variant.removesuffix(f"/{point.task}")
    return "original" if codec == ORIGINAL else codec


def _number(metric: Metric, value: float) -> str:
    return f"{metric.factor * value:.{metric.digits}f}"
