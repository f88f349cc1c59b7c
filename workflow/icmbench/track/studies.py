"""From a results folder to the runs of its studies: the variants and their operating points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from icmbench.analyse.tables import read_result_table
from icmbench.config.study import Study
from icmbench.config.summary import PlanSummary
from icmbench.errors import UserError
from icmbench.report.outputs import FIGURES, leading_comparisons
from icmbench.track.points import Run, Value, numbers, read_point, texts, written

# MLflow's names of the columns of bd.csv; its charts have a section for each name before a slash.
_BD = {
    "bd_rate_pct": "bd_rate_pct/",
    "bd_accuracy_points": "bd_accuracy_points/",
    "low": "interval/bd_rate_pct_low.",
    "high": "interval/bd_rate_pct_high.",
    "accuracy_low": "interval/bd_accuracy_points_low.",
    "accuracy_high": "interval/bd_accuracy_points_high.",
}
_LABELS = ("study", "variant", "metric")
_CURVES = (*_LABELS, "rate_index", "seed", "bpp", "value", "low", "high", "n_images")


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


def read_studies(root: Path, plan: PlanSummary) -> list[StudyRuns]:
    """Return the runs of every study of ``results/<scale>``; ``plan`` is its ``plan.json``.

    Raises:
        UserError: for a table that cannot be read.
    """
    curves = _table(root, "curves.csv", _CURVES)
    bd = _table(root, "bd.csv", (*_LABELS, "anchor", *_BD))
    return [
        _read_study(root, plan, name, curves[curves["study"] == name], bd[bd["study"] == name])
        for name in plan.studies
    ]


def _table(root: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return a table with the time at which it was written; empty before the first analysis."""
    path = root / "tables" / name
    if not path.exists():
        return pd.DataFrame(columns=[*columns, "written"])
    return read_result_table(path, columns).assign(written=written(path))


def _read_study(
    root: Path, plan: PlanSummary, name: str, curves: pd.DataFrame, bd: pd.DataFrame
) -> StudyRuns:
    study = plan.studies[name]
    note = (
        f"**{study.title}**\n\n{study.summary}\n\n"
        "Each variant is a run: its curves, with the rate in thousandths of a bit per pixel as "
        "step, and its BD metrics. Its child runs are the operating points."
    )
    result = StudyRuns(f"{plan.run.tracking.experiment}/{name}/{plan.scale.name}", note)
    # An operating point that only names the weights of another run leaves no files.
    planned = [p for p in plan.points if p.study == name and (p.trained or p.evaluated)]
    uncoded = {point.variant for point in planned if point.encoding is None}
    averages, order = _average_curves(curves, uncoded), _leading_first(study, uncoded)
    for variant in dict.fromkeys(point.variant for point in planned):
        own = [point for point in planned if point.variant == variant]
        key, shown = f"{name}/{variant}/curve", _shown_name(study, variant)
        runs, complete = [], True
        for point in own:
            try:
                run, final = read_point(root, plan, point, key, shown, curves)
            except UserError as error:
                result.problems.append(str(error))
                run, final = None, False
            runs += [run] if run else []
            complete &= final
        result.complete &= complete
        if not runs:
            continue
        settings = {"study": name, "variant": variant, "scale": plan.scale.name}
        settings |= study.variants[variant].model_dump(include={"codec", "task", "mode", "dataset"})
        curve = Run(
            key=key,
            name=shown,
            status="FINISHED" if complete else "RUNNING",
            started=min(run.started for run in runs),
            ended=max(run.ended or run.started for run in runs) if complete else None,
            parameters=texts(settings),
            tags=texts(
                settings
                | {"kind": "variant", "points": f"{len(runs)}/{len(own)}"}
                | {"order": f"{order.index(variant):03}"}
            ),
            values=[
                *_bd_values(bd[bd["variant"] == variant]),
                *_curve_values(averages[averages["variant"] == variant]),
            ],
            artefacts=_sources(root, runs),
        )
        result.runs += [curve, *runs]
    figure = root / FIGURES / f"{name}-leading.svg"
    if result.runs and figure.is_file():
        settings = texts({"study": name, "scale": plan.scale.name, "kind": "study"})
        started = min(run.started for run in result.runs)
        ended = written(figure)
        leading = Run(f"{name}/leading", "Leading plot", "FINISHED", started, ended,
                      tags=settings, artefacts=[figure])  # fmt: skip
        result.runs.append(leading)
    return result


def _leading_first(study: Study, uncoded: set[str]) -> list[str]:
    """Return the variants, leading ones and original images first: charts begin with ten runs."""
    subject, comparisons = leading_comparisons(study)
    original = [name for name in study.variants if name in uncoded][:1]
    compared = [name for c in comparisons for name in (c.anchor, *c.variants)]
    return list(dict.fromkeys([subject, *original, *compared, *study.variants]))


def _sources(root: Path, runs: list[Run]) -> list[Path]:
    """Return the files that name the code and packages that ran, which the points' tags name."""
    names = {run.tags["environment.sources"] for run in runs if "environment.sources" in run.tags}
    return [root / name for name in sorted(names) if (root / name).is_file()]


def _shown_name(study: Study, variant: str) -> str:
    """Return the label of a variant, with its name if several have this label."""
    label = study.variants[variant].label
    alone = [other.label for other in study.variants.values()].count(label) == 1
    return label if alone else f"{label} ({variant})"


def _average_curves(curves: pd.DataFrame, uncoded: set[str]) -> pd.DataFrame:
    """Return the curves of all variants, averaged over seeds, with the rate as MLflow's step.

    Steps are whole numbers, so the step is the rate in thousandths of a bit per pixel. Original
    images have no rate to compare: a level line over the range of the other variants.
    """
    groups = curves.groupby(["variant", "metric", "rate_index", "written"])[["bpp", "value"]]
    means = groups.mean().dropna().reset_index()
    means["step"] = (1000 * means["bpp"].astype(float)).round().astype(int)
    level = means["variant"].isin(uncoded)
    coded = means[~level]
    if coded.empty:
        return means
    ends = [means[level].assign(step=step) for step in {coded["step"].min(), coded["step"].max()}]
    return pd.concat([coded, *ends])


def _curve_values(by_rate: pd.DataFrame) -> list[Value]:
    return [
        Value(f"at_millibpp/{row['metric']}", row["value"], row["written"], row["step"])
        for row in by_rate.sort_values(["metric", "step"]).to_dict("records")
    ]


def _bd_values(bd: pd.DataFrame) -> list[Value]:
    """Return BD metrics and their intervals, e.g. ``bd_rate_pct/box_map.vs.<anchor>``."""
    values = []
    for row in bd.to_dict("records"):
        # A slash would open a section of its own in MLflow's charts.
        suffix = f"{row['metric']}.vs.{row['anchor'].replace('/', '.')}"
        named = {f"{name}{suffix}": row[column] for column, name in _BD.items()}
        values += numbers(named, row["written"])
    return values
