"""What a results folder holds, read once for the whole report."""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from icmbench.analyse.bootstrap import LEVEL
from icmbench.analyse.checked import check_table, read_table
from icmbench.analyse.points import LABELS
from icmbench.config.summary import read_plan
from icmbench.errors import UserError
from icmbench.plugins import load_modules
from icmbench.report.records import NAME, PointRecords, Records, load_records
from icmbench.utils.files import read_object

CURVE_COLUMNS = (
    *LABELS,
    "bpp",
    "bpp_estimated",
    "metric",
    "value",
    "low",
    "high",
    "n_images",
)
BD_COLUMNS = ("study", "variant", "anchor", "metric", "bd_rate_pct", "bd_accuracy_points")
PUBLISHED_COLUMNS = ("study", "label", "variant", "metric", "what", "against", "value", "flags")

Row = dict[str, Any]


def _name(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in NAME)


@dataclass(frozen=True, eq=False)
class Results:
    """The files of ``results/<scale>``.

    Attributes:
        root: ``results/<scale>``.
        plan: content of ``plan.json``.
        curves: rows of ``tables/curves.csv``; a NaN stays a NaN.
        bd: rows of ``tables/bd.csv``.
        records: sums over ``tables/records.parquet``, if any.
        runs: ``run.json`` of the trained points, by key.
        evaluations: ``evaluate.json`` of the evaluated points, by key.
        missing: what the report would show but cannot, in sentences.
        published: rows of ``tables/published.csv``.
    """

    root: Path
    plan: dict[str, Any]
    curves: list[Row]
    bd: list[Row]
    records: Records | None
    runs: dict[str, Row]
    evaluations: dict[str, Row]
    missing: list[str] = field(default_factory=list)
    published: list[Row] = field(default_factory=list)

    @property
    def left_out(self) -> list[str]:
        """Which curves of the studies the run leaves out by its own configuration, in sentences."""
        return [f"{line[0].upper()}{line[1:]}." for line in self.plan.get("left_out", [])]

    def points(self, study: str, variant: str | None = None) -> list[Row]:
        """Return the plan's operating points of a study or of one variant, in the plan's order."""
        return self._points.get((study, variant), [])

    @cached_property
    def _points(self) -> dict[tuple[str, str | None], list[Row]]:
        found: dict[tuple[str, str | None], list[Row]] = {}
        for point in self.plan["points"]:
            for variant in (None, point["variant"]):
                found.setdefault((point["study"], variant), []).append(point)
        return found

    def curve(self, study: str, metric: str, variant: str | None = None) -> list[Row]:
        """Return the curve rows of a study and metric, of one variant if it is given."""
        return self._curves.get((study, metric, variant), [])

    def variant_rows(self, study: str, variant: str | None) -> list[Row]:
        """Return the curve rows of a variant, of all its metrics."""
        return self._curves.get((study, None, variant), [])

    @cached_property
    def _curves(self) -> dict[tuple[str, str | None, str | None], list[Row]]:
        found: dict[tuple[str, str | None, str | None], list[Row]] = {}
        for row in self.curves:
            study, metric, variant = row["study"], row["metric"], row["variant"]
            for key in ((study, metric, None), (study, metric, variant), (study, None, variant)):
                found.setdefault(key, []).append(row)
        return found

    def rows_of(self, point: Row) -> list[Row]:
        """Return the curve rows of one operating point of the plan."""
        return self._rows.get(_name(point), [])

    @cached_property
    def _rows(self) -> dict[tuple[Any, ...], list[Row]]:
        found: dict[tuple[Any, ...], list[Row]] = {}
        for row in self.curves:
            found.setdefault(_name(row), []).append(row)
        return found

    def records_of(self, point: Row) -> PointRecords | None:
        """Return what the records say of one operating point of the plan, or None."""
        return None if self.records is None else self.records.points.get(_name(point))

    def images_of(self, point: Row) -> pd.DataFrame | None:
        """Return image ids, pixels, bits and PSNR of one operating point, or None."""
        return None if self.records is None else self.records.images(_name(point))

    def implementations(self, point: Row) -> tuple[str, ...]:
        """Return what coded the images of one operating point."""
        records = self.records_of(point)
        return () if records is None else records.implementations

    def intra_qp(self, point: Row) -> str | None:
        """Return the QP that intra images were really coded with, where one is recorded."""
        for text in self.implementations(point):
            if match := re.search(r"intra QP (-?[\d.]+)", text):
                return match[1]
        return None

    @property
    def confidence(self) -> str:
        """The coverage of intervals, e.g. ``95 %``."""
        return f"{100 * LEVEL:g} %"

    @property
    def date(self) -> str | None:
        """When the newest run ended (or began, if it has not ended); None where none is dated."""
        times = [
            stamp
            for run in self.runs.values()
            for stamp in (run.get("finished"), run.get("started"))
            if stamp
        ]
        if not times:
            return None
        newest = datetime.datetime.fromtimestamp(max(times), datetime.UTC)
        return newest.strftime("%Y-%m-%d %H:%M UTC")


def load_results(root: Path) -> Results:
    """Read a results folder; what is missing is listed, not an error.

    Raises:
        UserError: if ``plan.json`` is missing, or a file is not what it should be.
    """
    plan_path = root / "plan.json"
    if not plan_path.is_file():
        raise UserError(f"{plan_path}: no such file; give a folder results/<scale> of a run")
    plan = read_plan(root)
    load_modules(plan["run"]["modules"])  # the plan names codecs and tasks of the registries
    missing: list[str] = []
    curves = read_rows(root / "tables/curves.csv", CURVE_COLUMNS, missing)
    bd = read_rows(root / "tables/bd.csv", BD_COLUMNS, missing)
    published = read_rows(root / "tables/published.csv", PUBLISHED_COLUMNS, missing)
    records = None
    if (root / "tables/records.parquet").exists():
        check_table(root / "tables/records.parquet")
        records = load_records(root / "tables/records.parquet")
    else:
        missing.append("tables/records.parquet is missing: no figures of single images.")
    runs: dict[str, Row] = {}
    evaluations: dict[str, Row] = {}
    for point in plan["points"]:
        folder = root / "runs" / point["key"]
        for name, wanted, into in (
            ("run.json", point["trained"], runs),
            ("evaluate.json", point["evaluated"], evaluations),
        ):
            if wanted and (folder / name).exists():
                into[point["key"]] = read_object(folder / name)
    for what, found in (("trained", runs), ("evaluated", evaluations)):
        absent = [p["key"] for p in plan["points"] if p[what] and p["key"] not in found]
        if absent:
            missing.append(
                f"{len(absent)} planned operating points are not {what} yet, first {absent[0]}."
            )
    unfinished = [key for key, run in runs.items() if run.get("status") != "finished"]
    if unfinished:
        first = unfinished[0]
        missing.append(
            f"{len(unfinished)} trainings have not finished, first {first} "
            f"({runs[first].get('status')})."
        )
    return Results(root, plan, curves, bd, records, runs, evaluations, missing, published)


def is_number(value: Any) -> bool:
    """Return whether a value of a table is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def read_rows(path: Path, columns: tuple[str, ...], missing: list[str]) -> list[Row]:
    """Return the rows of a result table; without one, none and a sentence more in ``missing``.

    Raises:
        UserError: see :func:`icmbench.analyse.checked.read_table`.
    """
    if not path.exists():
        missing.append(f"{path.parent.name}/{path.name} is missing: repeat the analysis.")
        return []
    table = read_table(path, columns)
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
