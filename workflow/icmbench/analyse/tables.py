"""The result tables: how they are written and read as CSV, and the table of curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from icmbench.analyse.bootstrap import percentile_interval
from icmbench.errors import damaged_file
from icmbench.utils.files import read_json, reading, write_text

if TYPE_CHECKING:
    from icmbench.analyse.curves import EvaluatedPoint, PointFiles

#: What identifies an operating point in every table.
LABELS = ("study", "variant", "codec", "task", "mode", "rate_index", "seed")

#: Columns of ``curves.csv``. Rates in bits per pixel (see
#: :func:`icmbench.evaluate.records.bits_per_pixel`); value, low and high in the metric's unit (dB
#: for PSNR, else [0, 1]), the bounds by percentile bootstrap over images (95 %).
CURVE_COLUMNS = [
    *LABELS,
    "bpp",
    "bpp_coded",
    "bpp_estimated",
    "metric",
    "value",
    "low",
    "high",
    "n_images",
    "bpp_mean",
]

_ADVICE = "run the analysis again"


def write_result_table(path: Path, table: pd.DataFrame) -> None:
    """Write CSV with 10 significant digits, ``nan`` for undefined numbers and Unix line ends."""
    text = table.to_csv(index=False, float_format="%.10g", na_rep="nan", lineterminator="\n")
    write_text(path, text)


def read_result_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return a CSV table; ``nan`` is a missing number, and empty texts stay empty.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFile: if it cannot be read or lacks one of ``columns``.
    """
    with reading(path, _ADVICE):
        table = pd.read_csv(path, keep_default_na=False, na_values=["nan"])
    absent = [name for name in columns if name not in table.columns]
    if absent:
        raise damaged_file(path, f"column {absent[0]!r} is missing", _ADVICE)
    return table


def curve_results(points: Sequence[EvaluatedPoint]) -> pd.DataFrame:
    """Return one row for each operating point and metric, with ``CURVE_COLUMNS``, sorted."""
    rows = []
    for point, evaluation in points:
        labels = {name: getattr(point, name) for name in LABELS} | evaluation.rates
        for metric, value in evaluation.values.items():
            low, high = percentile_interval(evaluation.value_samples[metric])
            number = {"metric": metric, "value": value, "low": low, "high": high}
            rows.append({**labels, **number, "n_images": len(evaluation.image_ids)})
    table = pd.DataFrame(rows, columns=CURVE_COLUMNS)
    order = ["study", "variant", "rate_index", "seed", "metric"]
    return table.sort_values(order, kind="stable", ignore_index=True)


#: Columns of ``per_class.csv``; ``count`` is how often the class occurs in the truth: objects,
#: images or pixels.
CLASS_COLUMNS = [*LABELS, "class", "metric", "value", "count"]


def class_results(points: Sequence[PointFiles]) -> pd.DataFrame:
    """Return one row for each operating point, metric and class, with ``CLASS_COLUMNS``."""
    rows = []
    for point in points:
        labels = {name: getattr(point, name) for name in LABELS}
        path = Path(point.folder) / "per_class.json"
        for own in read_json(path) if path.is_file() else ():
            kept = {name: own[name] for name in ("metric", "value", "count")}
            rows.append({**labels, "class": own["name"], **kept})
    return pd.DataFrame(rows, columns=CLASS_COLUMNS)
