"""The content of a results folder, read once for the whole report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from icmbench.analyse import bd_table, published
from icmbench.analyse.bootstrap import LEVEL
from icmbench.analyse.claims import table as claims
from icmbench.analyse.tables import CURVE_COLUMNS, read_result_table
from icmbench.analyse.targets import Targets, target_rates
from icmbench.config.study import Study
from icmbench.config.summary import PlanSummary, PointSummary, read_summary
from icmbench.errors import missing_file
from icmbench.evaluate.records import with_types
from icmbench.plugins import load_modules
from icmbench.utils.files import read_object, reading

CONFIDENCE = f"{100 * LEVEL:g} %"  # of intervals

#: What names an operating point in every table.
POINT = ["study", "variant", "rate_index", "seed"]

_TABLES = {
    "curves": CURVE_COLUMNS,
    "bd": bd_table.COLUMNS,
    "published": published.COLUMNS,
    "claims": claims.COLUMNS,
    "claims_parts": claims.PART_COLUMNS,
}
_TIMES = ["encode_s", "decode_s", "reconstruct_s"]
_NUMBERS = ["bits", "bits_estimated", *_TIMES, "roundtrip_ok"]
_SUMMED = [*POINT, *_NUMBERS, "implementation"]
_OF_IMAGES = ["image_id", "pixels", "bits", "psnr"]

Name = tuple[str, str, int, int]


@dataclass(frozen=True)
class PointRecords:
    """The records of one operating point, summed over its images."""

    encode_s: float  # mean seconds per image, NaN if nothing was timed
    decode_s: float
    reconstruct_s: float
    bits: float
    bits_estimated: float  # by the entropy model; NaN unless known for every image
    checked: int  # images whose decoded bitstream was compared with the encoder's reconstruction
    wrong: int  # images where the two differ
    implementations: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Results:
    """The files of ``results/<scale>``."""

    root: Path  # ``results/<scale>``
    plan: PlanSummary
    curves: pd.DataFrame  # this and the next ones: ``tables/<name>.csv``; empty if missing
    bd: pd.DataFrame
    published: pd.DataFrame
    claims: pd.DataFrame
    claims_parts: pd.DataFrame
    records: dict[Name, PointRecords]  # sums over ``tables/records.parquet``, by operating point
    runs: dict[str, dict[str, Any]]  # ``run.json`` of trained points, by key
    evaluations: dict[str, dict[str, Any]]  # ``evaluate.json`` of evaluated points, by key
    missing: list[str]  # what the report cannot show, in sentences

    @cached_property
    def studies(self) -> dict[str, Study]:
        """The studies that the report shows, in the order of the configuration."""
        return {name: self.plan.studies[name] for name in self.plan.run.studies}

    def points(self, study: str, variant: str | None = None) -> list[PointSummary]:
        """Return the operating points of a study, or of one variant, in the plan's order."""
        return self._points.get((study, variant), [])

    @cached_property
    def _points(self) -> dict[tuple[str, str | None], list[PointSummary]]:
        found: dict[tuple[str, str | None], list[PointSummary]] = {}
        for point in self.plan.points:
            for variant in (None, point.variant):
                found.setdefault((point.study, variant), []).append(point)
        return found

    def curve(self, study: str, variant: str | None, metric: str | None = None) -> pd.DataFrame:
        """Return the rows of ``curves`` of a variant, of one metric if it is given."""
        rows = self._curves.get((study, variant or ""), self.curves.iloc[:0])
        return rows if metric is None else rows[rows["metric"] == metric]

    @cached_property
    def _curves(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.curves.groupby(["study", "variant"], sort=False)))

    def measured(self, point: PointSummary) -> dict[str, Any]:
        """Return the rows of ``curves`` of one operating point, by metric, with named fields."""
        return self._measured.get(name_of(point), {})

    @cached_property
    def _measured(self) -> dict[Name, dict[str, Any]]:
        found: dict[Name, dict[str, Any]] = {}
        for row in rows_of(self.curves):
            found.setdefault(name_of(row), {})[str(row.metric)] = row
        return found

    def rate(self, point: PointSummary) -> float | None:
        """Return the measured rate of an operating point, in bits per pixel, or None."""
        return next((float(row.bpp) for row in self.measured(point).values()), None)

    def records_of(self, point: PointSummary) -> PointRecords | None:
        """Return the summed records of an operating point, or None."""
        return self.records.get(name_of(point))

    def images_of(self, point: PointSummary) -> pd.DataFrame:
        """Return id, pixels, bits and PSNR of every image of an operating point."""
        path = self.root / "tables/records.parquet"
        wanted = [(name, "==", value) for name, value in zip(POINT, name_of(point), strict=True)]
        with reading(path, "run the analysis again"):
            rows = pd.read_parquet(path, columns=_OF_IMAGES, filters=wanted)
        return with_types(rows, str(path), _OF_IMAGES)

    @cached_property
    def targets(self) -> Targets:
        """Rates that training steered codecs to, by study, variant and rate index."""
        return target_rates(self.plan)

    def warnings(self, point: PointSummary) -> list[str]:
        """Return what the training run of an operating point warns of."""
        return list(self.runs.get(point.key, {}).get("warnings", ()))

    @property
    def jobs(self) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """What training runs and evaluations left, by key of the point."""
        return self.runs, self.evaluations


def name_of(row: Any) -> Name:
    """Return what names an operating point in the tables."""
    return row.study, row.variant, row.rate_index, row.seed


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """Iterate over the rows of a table, with its columns as attributes."""
    return iter(table.itertuples())


def is_number(value: object) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def point_address(point: PointSummary) -> str:
    """Return where the files of an operating point are, as seen from a page."""
    return f"{point.inside(Path('..'))}/"


def load_results(root: Path) -> Results:
    """Read a results folder; what is missing is listed, not an error.

    Raises:
        UserError: if ``plan.json`` is missing or a file is damaged.
    """
    if not (root / "plan.json").is_file():
        raise missing_file(root / "plan.json", "give the folder results/<scale> of a run")
    plan = read_summary(root)
    # They register codecs, tasks and metrics that the plan names.
    load_modules(plan.run.modules, plan.run.command_codecs)
    missing: list[str] = []
    tables = {
        name: _read_table(root / f"tables/{name}.csv", columns, missing)
        for name, columns in _TABLES.items()
    }
    path = root / "tables/records.parquet"
    records = _read_records(path) if path.exists() else {}
    if not path.exists():
        missing.append("tables/records.parquet is missing: no numbers of single images.")
    trained = [point for point in plan.points if point.trained]
    evaluated = [point for point in plan.points if point.evaluated]
    runs = _read_jobs(root, trained, "run.json")
    evaluations = _read_jobs(root, evaluated, "evaluate.json")
    done = {key for key, run in runs.items() if run.get("status") == "finished"}
    for what, points, found in (("trained", trained, done), ("evaluated", evaluated, evaluations)):
        # A run leaves out training that no evaluated point needs.
        absent = [p.key for p in points if p.evaluated and p.key not in found]
        if absent:
            missing.append(f"Operating points not {what} yet: {len(absent)}, first {absent[0]}.")
    return Results(root, plan, **tables, records=records, runs=runs, evaluations=evaluations,
                   missing=missing)  # fmt: skip


def _read_table(path: Path, columns: Sequence[str], missing: list[str]) -> pd.DataFrame:
    """Return a result table; without one, an empty table and a sentence in ``missing``."""
    if path.exists():
        return read_result_table(path, columns)
    missing.append(f"tables/{path.name} is missing: run the analysis again.")
    return pd.DataFrame(columns=list(columns))


def _read_jobs(root: Path, points: Sequence[PointSummary], name: str) -> dict[str, dict[str, Any]]:
    """Return the file that a job left for each point, by key, as far as it exists."""
    paths = {point.key: point.inside(root) / name for point in points}
    return {key: read_object(path) for key, path in paths.items() if path.exists()}


def _read_records(path: Path) -> dict[Name, PointRecords]:
    """Return the sums of each point. A table may not fit in memory: row groups are summed alone."""
    sums, counts, programs = [], [], []
    with (
        reading(path, "run the analysis again"),
        pq.ParquetFile(path, page_checksum_verification=True) as file,
    ):
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, _SUMMED, use_threads=False).to_pandas()
            rows = with_types(rows, str(path), _SUMMED)
            points = rows.groupby(POINT, sort=False)[_NUMBERS]
            sums.append(points.sum())
            counts.append(points.count())
            programs.append(rows[[*POINT, "implementation"]].drop_duplicates())
    found = pd.concat(sums).groupby(level=POINT, sort=False).sum()
    count = pd.concat(counts).groupby(level=POINT, sort=False).sum()
    used = pd.concat(programs).drop_duplicates().groupby(POINT, sort=False)["implementation"]
    table = found[_TIMES] / count[_TIMES]
    table["bits"] = found["bits"]
    known = count["bits_estimated"] == count["bits"]
    table["bits_estimated"] = found["bits_estimated"].where(known)
    table["checked"] = count["roundtrip_ok"]
    table["wrong"] = count["roundtrip_ok"] - found["roundtrip_ok"]
    table["implementations"] = used.agg(tuple)
    values: Any = table.to_dict("records")
    return {name: PointRecords(**row) for name, row in zip(table.index, values, strict=True)}
