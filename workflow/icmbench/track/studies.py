"""From a results folder to the runs of its studies: each study, its variants, their points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from icmbench.analyse.tables import read_result_table
from icmbench.config.summary import PlanSummary, PointSummary
from icmbench.errors import UserError
from icmbench.report.outputs import study_page
from icmbench.track.points import Json, Run, Value, numbers, read_point, texts, written

#: The report page is attached up to this size.
MAX_REPORT_BYTES = 10_000_000

# MLflow's names of the columns of bd.csv; its charts have a section for each name before a slash.
_BD = {
    "bd_rate_pct": "bd_rate_pct/",
    "bd_accuracy_points": "bd_accuracy_points/",
    "low": "interval/bd_rate_pct_low.",
    "high": "interval/bd_rate_pct_high.",
    "accuracy_low": "interval/bd_accuracy_points_low.",
    "accuracy_high": "interval/bd_accuracy_points_high.",
}


@dataclass
class StudyRuns:
    """The runs of a study.

    Attributes:
        experiment: name of MLflow's experiment.
        note: title and summary, in Markdown.
        runs: parents before their children; empty without results.
        complete: whether every operating point is trained and evaluated as planned.
        problems: messages of files that cannot be read; their runs are left out.
    """

    experiment: str
    note: str
    runs: list[Run] = field(default_factory=list)
    complete: bool = True
    problems: list[str] = field(default_factory=list)


def read_studies(root: Path, plan: PlanSummary) -> Iterator[StudyRuns]:
    """Yield the runs of every study of ``results/<scale>``; ``plan`` is its ``plan.json``.

    Raises:
        UserError: for a table that cannot be read.
    """
    tables = _Tables(root / "tables")
    for study in plan.studies:
        yield _Study(root, plan, study, tables).read()


class _Tables:
    """``curves.csv`` and ``bd.csv``, empty before the first analysis."""

    def __init__(self, folder: Path) -> None:
        self.paths = [folder / "curves.csv", folder / "bd.csv"]
        common = ("study", "variant", "metric")
        self.curves = self._read(self.paths[0], *common, "rate_index", "seed", "bpp", "value")
        self.bd = self._read(self.paths[1], *common, "anchor", "bd_rate_pct")
        self.time = max((written(path) for path in self.paths if path.exists()), default=0)

    @staticmethod
    def _read(path: Path, *columns: str) -> pd.DataFrame:
        return (
            read_result_table(path, columns)
            if path.exists()
            else pd.DataFrame(columns=list(columns))
        )


class _Study:
    def __init__(self, root: Path, plan: PlanSummary, name: str, tables: _Tables) -> None:
        self.root, self.plan, self.name, self.tables = root, plan, name, tables
        self.about = plan.studies[name]
        self.labels = [variant.label for variant in self.about.variants.values()]
        # An operating point that only names the weights of another run leaves no files.
        self.planned = [
            point
            for point in plan.points
            if point.study == name and (point.trained or point.evaluated)
        ]
        self.curves = tables.curves[tables.curves["study"] == name]
        self.bd = _rows(tables.bd[tables.bd["study"] == name])
        self.note = (
            f"**{self.about.title}**\n\n{self.about.summary}\n\n"
            "Each variant is a run: its curves, with the rate in thousandths of a bit per pixel "
            "as step, and its BD metrics. Its child runs are the operating points."
        )

    def read(self) -> StudyRuns:
        """Return the runs of the study."""
        prefix, scale = self.plan.run.tracking.experiment, self.plan.scale.name
        result = StudyRuns(f"{prefix}/{self.name}/{scale}", self.note)
        below: list[Run] = []
        for variant in dict.fromkeys(point.variant for point in self.planned):
            planned = [point for point in self.planned if point.variant == variant]
            points, complete = self._points(planned, result.problems)
            result.complete &= complete
            if points:
                below += points
                result.runs += [self._variant(variant, planned, points, complete), *points]
        if below:
            result.runs.insert(0, self._own(below, result.complete))
        return result

    def _points(self, planned: list[PointSummary], problems: list[str]) -> tuple[list[Run], bool]:
        """Return the runs of a variant's operating points and whether all are final."""
        runs: list[Run] = []
        complete = True
        key, label = self._key(planned[0].variant), self._label(planned[0].variant)
        curve = self.curves[self.curves["variant"] == planned[0].variant]
        for point in planned:
            own = curve[(curve["rate_index"] == point.rate_index) & (curve["seed"] == point.seed)]
            try:
                run, final = read_point(self.root, self.plan, point, key, label, _rows(own))
            except UserError as error:
                problems.append(str(error))
                run, final = None, False
            runs += [run] if run else []
            complete &= final
        return runs, complete

    def _own(self, points: list[Run], complete: bool) -> Run:
        """Return the run of the study as a whole."""
        values: Json = {}
        for row in self.bd:
            suffix = f".{row['variant']}".replace("/", ".") + self._against(row)
            values |= {k: v for k, v in _bd(row, suffix).items() if not k.startswith("interval/")}
        tags = {
            "kind": "study",
            "study": self.name,
            "scale": self.plan.scale.name,
            "title": self.about.title,
            **{f"reference.{name}": item for name, item in self.about.reference},
            "points": f"{len(points)}/{len(self.planned)}",
            "mlflow.note.content": self.note,
        }
        report = self.root / "report"
        pages = [report / "index.html", report / study_page(self.name)]
        files = [self.root / "plan.json", *self.tables.paths]
        return Run(
            key=self.name,
            name=f"study: {self.name}",
            **_span(points, complete),
            tags=texts(tags),
            values=numbers(values, self.tables.time),
            artefacts=[
                *(path for path in files if path.exists()),
                *(p for p in pages if p.exists() and p.stat().st_size < MAX_REPORT_BYTES),
                *sorted((report / "figures").glob(f"{self.name}-*.png")),
            ],
        )

    def _variant(
        self, variant: str, planned: list[PointSummary], points: list[Run], complete: bool
    ) -> Run:
        """Return the run of a variant: its curves and its BD metrics."""
        about = self.about.variants[variant]
        settings = about.model_dump(include={"codec", "task", "mode", "dataset"})
        settings |= {"study": self.name, "variant": variant}
        tags: Json = {
            **settings,
            "kind": "variant",
            "label": about.label,
            "scale": self.plan.scale.name,
            "points": f"{len(points)}/{len(planned)}",
        }
        values: Json = {}
        for row in self.bd:
            if row["variant"] == variant:
                suffix = self._against(row)
                values |= _bd(row, suffix)
                for item in ("anchor", "method", "overlap", "flags"):
                    if row.get(item) == row.get(item) != "":  # neither NaN nor an empty cell
                        tags[f"bd.{row['metric']}{suffix}.{item}"] = row.get(item)
        return Run(
            key=self._key(variant),
            name=self._label(variant),
            **_span(points, complete),
            parameters=texts(settings),
            tags=texts(tags),
            values=numbers(values, self.tables.time) + self._curves(variant),
        )

    def _key(self, variant: str) -> str:
        return f"{self.name}/{variant}/curve"

    def _label(self, variant: str) -> str:
        """Return the label of a variant, with its name if several have this label."""
        label = self.about.variants[variant].label
        return label if self.labels.count(label) == 1 else f"{label} ({variant})"

    def _against(self, row: Json) -> str:
        """Return a suffix that names the anchor of a BD row if the variant has several.

        A slash would open a section of its own in MLflow's charts.
        """
        anchors = {other["anchor"] for other in self.bd if other["variant"] == row["variant"]}
        return f".vs.{row['anchor']}".replace("/", ".") if len(anchors) > 1 else ""

    def _curves(self, variant: str) -> list[Value]:
        """Return the curves of a variant, averaged over seeds, by rate.

        MLflow's steps are whole numbers, so the step is the rate in thousandths of a bit per pixel.
        Original images have no rate to compare: a level line over the range of the other variants.
        """
        by_rate = self.curves.groupby(["variant", "metric", "rate_index"])[["bpp", "value"]]
        means = by_rate.mean().dropna().reset_index()
        means["step"] = (1000 * means["bpp"].astype(float)).round().astype(int)
        uncoded = {point.variant for point in self.planned if point.encoding is None}
        coded = means.loc[~means["variant"].isin(uncoded), "step"]
        values = []
        for row in _rows(means[means["variant"] == variant]):
            level = variant in uncoded and len(coded)
            steps = sorted({coded.min(), coded.max()}) if level else [row["step"]]
            name = f"at_millibpp/{row['metric']}"  # the first section of MLflow's charts
            values += [Value(name, row["value"], self.tables.time, int(step)) for step in steps]
        return values


def _rows(table: pd.DataFrame) -> list[Json]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _span(points: list[Run], complete: bool) -> Json:
    """Return status, start and end of a run that stands for several operating points."""
    statuses = [point.status for point in points]
    unfinished = [status for status in ("RUNNING", "FAILED", "KILLED") if status in statuses]
    ends = [point.ended or point.started for point in points]
    return {
        # Scheduled: operating points are missing and none is being worked on.
        "status": "FINISHED" if complete else (*unfinished, "SCHEDULED")[0],
        "started": min(point.started for point in points),
        "ended": max(ends) if complete else None,
    }


def _bd(row: Json, suffix: str) -> Json:
    """Return the BD numbers of a row by name, e.g. ``bd_rate_pct/box_map`` plus ``suffix``."""
    return {f"{name}{row['metric']}{suffix}": row.get(column) for column, name in _BD.items()}
