"""The table of curves: one row for each operating point and metric."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from icmbench.analyse.bootstrap import interval
from icmbench.analyse.points import LABELS, Evaluation, PointFiles

#: rates in bits per pixel (see :func:`icmbench.evaluate.records.bits_per_pixel`); value, low and
#: high in the metric's unit (dB for PSNR, else [0, 1]), the bounds by percentile bootstrap over
#: images (95 %).
COLUMNS = [
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


def curves_table(points: Sequence[tuple[PointFiles, Evaluation]]) -> pd.DataFrame:
    """Return one row for each operating point and metric, with ``COLUMNS``, sorted."""
    rows = []
    for point, evaluation in points:
        labels = {name: getattr(point, name) for name in LABELS}
        for metric, value in evaluation.values.items():
            low, high = interval(evaluation.value_samples[metric])
            rows.append(
                {
                    **labels,
                    **evaluation.rates,
                    "metric": metric,
                    "value": value,
                    "low": low,
                    "high": high,
                    "n_images": len(evaluation.image_ids),
                }
            )
    table = pd.DataFrame(rows, columns=COLUMNS)
    order = ["study", "variant", "rate_index", "seed", "metric"]
    return table.sort_values(order, kind="stable", ignore_index=True)
