"""``tables/curves.csv`` and ``tables/bd.csv`` as MLflow wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from icmbench.analyse.checked import read_table
from icmbench.track.content import finite

_RATES = ("bpp", "bpp_mean", "bpp_coded", "bpp_estimated")
# MLflow's charts have one section for each name before a slash.
_BD = {
    "bd_rate_pct": "bd_rate_pct",
    "low": "interval/bd_rate_pct_low",
    "high": "interval/bd_rate_pct_high",
    "bd_accuracy_points": "bd_accuracy_points",
    "accuracy_low": "interval/bd_accuracy_points_low",
    "accuracy_high": "interval/bd_accuracy_points_high",
}
#: How the names of the BD values themselves begin, as opposed to their intervals.
BD_SECTIONS = ("bd_rate_pct/", "bd_accuracy_points/")


class Tables:
    """The result tables of a scale; each may be missing, as before the first analysis.

    Args:
        root: ``results/<scale>``.

    Raises:
        UserError: for a table that cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.curves_path = root / "tables" / "curves.csv"
        self.bd_path = root / "tables" / "bd.csv"
        needed = ("study", "variant", "metric")
        self.curves = _read(self.curves_path, (*needed, "rate_index", "seed", "bpp", "value"))
        self.bd = _read(self.bd_path, (*needed, "anchor", "bd_rate_pct"))

    @property
    def time(self) -> int:
        """When the newest table was written, in Unix milliseconds; 0 without tables."""
        paths = [path for path in (self.curves_path, self.bd_path) if path.is_file()]
        return max((path.stat().st_mtime_ns // 1_000_000 for path in paths), default=0)

    def point_values(self, point: dict[str, Any]) -> dict[str, float]:
        """Return rates, metrics, interval bounds and image count of an operating point.

        Rates are left out for original pixels, whose 24 bpp would flatten every plot over bpp.
        """
        values: dict[str, Any] = {}
        names = ("study", "variant", "rate_index", "seed")
        for row in _select(self.curves, {name: point[name] for name in names}):
            metric = str(row["metric"])
            if point["encoding"] is not None:
                values |= {name: row[name] for name in _RATES if name in row}
            values |= {metric: row["value"], "n_images": row.get("n_images")}
            values |= {f"interval/{metric}_{bound}": row.get(bound) for bound in ("low", "high")}
        return finite(values)

    def curve(self, study: str, variant: str) -> dict[str, list[tuple[float, float]]]:
        """Return (bpp, value) pairs by metric, averaged over seeds, lowest rate index first."""
        rows = self.curves[(self.curves["study"] == study) & (self.curves["variant"] == variant)]
        curves: dict[str, list[tuple[float, float]]] = {}
        for metric, of_metric in rows.groupby("metric"):
            means = of_metric.groupby("rate_index")[["bpp", "value"]].mean().dropna()
            if len(means):
                curves[str(metric)] = [(float(b), float(v)) for b, v in means.to_numpy()]
        return curves

    def bd_rows(self, study: str) -> list[tuple[dict[str, Any], str]]:
        """Return the BD rows of a study, each with the suffix that tells its anchor.

        The suffix is empty where the variant is compared with one anchor only.
        """
        rows = _select(self.bd, {"study": study})
        anchors: dict[str, set[str]] = {}
        for row in rows:
            anchors.setdefault(row["variant"], set()).add(row["anchor"])
        return [
            (row, f".vs.{row['anchor']}" if len(anchors[row["variant"]]) > 1 else "")
            for row in rows
        ]


def bd_values(row: dict[str, Any], suffix: str) -> dict[str, float]:
    """Return the BD numbers of a row by name, e.g. ``bd_rate_pct/box_map`` plus ``suffix``.

    Bounds are named like ``interval/bd_rate_pct_low.box_map``.
    """
    return finite(
        {
            f"{name}{'.' if '/' in name else '/'}{row['metric']}{suffix}": row.get(column)
            for column, name in _BD.items()
        }
    )


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame(columns=list(columns))
    return read_table(path, columns)


def _select(table: pd.DataFrame, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    for name, value in wanted.items():
        table = table[table[name] == value]
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
