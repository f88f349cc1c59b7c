"""From a results folder to the runs of its studies: each study, its variants, their points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from icmbench.analyse.checked import read_table
from icmbench.errors import UserError
from icmbench.report.outputs import study_page
from icmbench.track.points import Json, Run, Value, numbers, read_point, texts

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


_SETTINGS = ("codec", "task", "mode", "dataset")


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


def read_studies(root: Path, plan: Json) -> Iterator[StudyRuns]:
    """Yield the runs of every study of ``results/<scale>``; ``plan`` is its ``plan.json``.

    Raises:
        UserError: for a table that cannot be read.
    """
    tables = _Tables(root / "tables")
    for study in plan["studies"]:
        yield _Study(root, plan, study, tables).read()


class _Tables:
    """``curves.csv`` and ``bd.csv``, empty before the first analysis."""

    def __init__(self, folder: Path) -> None:
        self.paths = [folder / "curves.csv", folder / "bd.csv"]
        common = ("study", "variant", "metric")
        self.curves = self._read(self.paths[0], *common, "rate_index", "seed", "bpp", "value")
        self.bd = self._read(self.paths[1], *common, "anchor", "bd_rate_pct")
        written = [path.stat().st_mtime for path in self.paths if path.exists()]
        self.time = round(1000 * max(written, default=0))  # Unix milliseconds

    @staticmethod
    def _read(path: Path, *columns: str) -> pd.DataFrame:
        return read_table(path, columns) if path.exists() else pd.DataFrame(columns=list(columns))


class _Study:
    def __init__(self, root: Path, plan: Json, name: str, tables: _Tables) -> None:
        self.root, self.plan, self.name, self.tables = root, plan, name, tables
        self.about: Json = plan["studies"][name]
        self.named = {"study": name, "scale": plan["scale"]["name"]}
        # An operating point that only names the weights of another run leaves no files.
        self.planned: list[Json] = [
            point
            for point in plan["points"]
            if point["study"] == name and (point["trained"] or point["evaluated"])
        ]
        self.curves = tables.curves[tables.curves["study"] == name]
        self.bd: list[Json] = tables.bd[tables.bd["study"] == name].to_dict("records")

    def read(self) -> StudyRuns:
        """Return the runs of the study."""
        prefix = self.plan["run"]["tracking"]["experiment"]
        result = StudyRuns(f"{prefix}/{self.name}/{self.named['scale']}", self._note())
        below: list[Run] = []
        for variant in dict.fromkeys(point["variant"] for point in self.planned):
            planned = [point for point in self.planned if point["variant"] == variant]
            points, complete = self._points(variant, planned, result.problems)
            result.complete &= complete
            if points:
                below += points
                result.runs += [self._variant(variant, planned, points, complete), *points]
        if below:
            result.runs.insert(0, self._own(below, result.complete))
        return result

    def _points(
        self, variant: str, planned: list[Json], problems: list[str]
    ) -> tuple[list[Run], bool]:
        """Return the runs of a variant's operating points and whether all are final."""
        runs: list[Run] = []
        complete = True
        curves = self.curves[self.curves["variant"] == variant]
        for point in planned:
            of_rate = curves[curves["rate_index"] == point["rate_index"]]
            rows = of_rate[of_rate["seed"] == point["seed"]].to_dict("records")
            names = self._key(variant), self._label(variant)
            try:
                run, final = read_point(self.root, self.plan, point, *names, rows)
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
            # A slash would open a section of its own in MLflow's charts for every variant.
            suffix = f".{row['variant']}{self._against(row)}".replace("/", ".")
            values |= {k: v for k, v in _bd(row, suffix).items() if not k.startswith("interval/")}
        report = self.root / "report"
        pages = [report / "index.html", report / study_page(self.name)]
        reference = self.about.get("reference") or {}
        tags = {
            **self.named,
            "kind": "study",
            "points": f"{len(points)}/{len(self.planned)}",
            "title": self.about.get("title"),
            **{f"reference.{item}": value for item, value in reference.items()},
            "mlflow.note.content": self._note(),
        }
        return Run(
            key=self.name,
            name=f"study: {self.name}",
            **_span(points, complete),
            tags=texts(tags),
            values=numbers(values, self.tables.time),
            artefacts=[
                *(path for path in (self.root / "plan.json", *self.tables.paths) if path.exists()),
                *(p for p in pages if p.exists() and p.stat().st_size < MAX_REPORT_BYTES),
                *sorted((report / "figures").glob(f"{self.name}-*.png")),
            ],
        )

    def _variant(self, variant: str, planned: list[Json], points: list[Run], final: bool) -> Run:
        """Return the run of a variant: its curves and its BD metrics."""
        about = self.about["variants"][variant]
        settings = {"variant": variant, **{name: about[name] for name in _SETTINGS}}
        tags: Json = {
            **self.named,
            **settings,
            "kind": "variant",
            "label": about.get("label"),
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
            **_span(points, final),
            parameters=texts({"study": self.name, **settings}),
            tags=texts(tags),
            values=numbers(values, self.tables.time) + self._curves(variant),
        )

    def _key(self, variant: str) -> str:
        return f"{self.name}/{variant}/curve"

    def _label(self, variant: str) -> str:
        """Return the label of a variant, with its name if several have this label."""
        variants = self.about["variants"]
        label = variants[variant].get("label")
        if not label:
            return variant
        several = [about.get("label") for about in variants.values()].count(label) > 1
        return f"{label} ({variant})" if several else str(label)

    def _against(self, row: Json) -> str:
        """Return a suffix that names the anchor of a BD row if the variant has several."""
        anchors = {other["anchor"] for other in self.bd if other["variant"] == row["variant"]}
        return f".vs.{row['anchor']}" if len(anchors) > 1 else ""

    def _curves(self, variant: str) -> list[Value]:
        """Return the curves of a variant, averaged over seeds, by rate.

        MLflow's steps are whole numbers, so the step is the rate in thousandths of a bit per pixel.
        Original images have no rate to compare: a level line over the range of the other variants.
        """
        by_rate = self.curves.groupby(["variant", "metric", "rate_index"])[["bpp", "value"]]
        means = by_rate.mean().dropna().reset_index()
        means["step"] = (1000 * means["bpp"]).round().astype(int)
        uncoded = {point["variant"] for point in self.planned if point["encoding"] is None}
        coded = means.loc[~means["variant"].isin(uncoded), "step"]
        values = []
        for row in means[means["variant"] == variant].to_dict("records"):
            level = variant in uncoded and len(coded)
            steps = sorted({coded.min(), coded.max()}) if level else [row["step"]]
            name = f"curve/{row['metric']}_vs_millibpp"
            values += [Value(name, row["value"], self.tables.time, int(step)) for step in steps]
        return values

    def _note(self) -> str:
        return (
            f"**{self.about.get('title', '')}**\n\n{self.about.get('summary', '')}\n\n"
            "Each variant is a run: its curves, with the rate in thousandths of a bit per pixel "
            "as step, and its BD metrics. Its child runs are the operating points."
        )


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
