"""The curves of the report's plots: measured ones, published ones and those of training runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from icmbench.config.study import Study
from icmbench.config.summary import PointSummary
from icmbench.metrics.catalogue import Metric, find_metric, is_image_quality
from icmbench.report.drawing import Plot, Row
from icmbench.report.outputs import figure_name, leading_comparisons
from icmbench.report.results import Results, is_number, rows_of
from icmbench.report.style import Style, Styles, shown, shown_interval

FRAME = 8  # curves in one frame; the others are one click away
TRAINING_STEPS = 100  # of a training run that are drawn


@dataclass(frozen=True)
class PublishedCurve:
    """Published points of one legend entry.

    Attributes:
        style: of the entry.
        points: rate in bits per pixel, and quality in the tables' unit.
        joined: whether a line joins them.
    """

    style: Style
    points: list[tuple[float, float]]
    joined: bool = True


def rate_plot(
    results: Results,
    page: str,
    name: str,
    role: str | None,
    styles: Styles,
    published: Sequence[PublishedCurve] = (),
) -> Plot:
    """Collect the plot of rate against the metric ``name``, with published curves beside it.

    Of variants with the same encodings, one curve of image quality is drawn. Page and role: see
    :func:`icmbench.report.outputs.figure_name`.
    """
    metric, notes = find_metric(name), []
    if any(entry.joined for entry in published):
        notes.append("Thin dashed lines with hollow symbols are published curves.")
    if metric.description:
        notes.append(f"{metric.description}.")
    if metric.better == "lower":
        notes.append("Lower is better.")
    if is_image_quality(name):
        groups = _sharing(results, styles)
        same = [" = ".join(styles[key].label for key in keys) for keys in groups if len(keys) > 1]
        notes += [f"The same bitstreams, drawn once: {'; '.join(same)}."] if same else []
        styles = {keys[0]: styles[keys[0]] for keys in groups}
    series, rows = [], []
    for style in styles.values():
        measured = _measured(results, metric, style)
        series += [style] if measured else []
        rows += measured
    theirs = [row for entry in published for row in _published(metric, entry)]
    series += [entry.style for entry in published]
    title = metric.title
    if role:  # a role may promise photographs where a scale draws scenes
        title += f", {role}{'' if results.plan.datasets[role].fetched else ' (generated)'}"
    on = leading_labels(results.studies, series)
    rows = [*theirs, *rows]  # published curves lie below the measured ones
    name, note = figure_name(page, name, role), " ".join(notes)
    return Plot(name, title, metric.heading, series, on, rows, note)


def _measured(results: Results, metric: Metric, style: Style) -> list[Row]:
    points = {(p.rate_index, p.seed): p for p in results.points(style.study, style.name)}
    rows = []
    for row in rows_of(results.curve(style.study, style.name, metric.name)):
        if not is_number(row.value):
            continue
        point = points[row.rate_index, row.seed]
        setting = f"seed {row.seed}, {row.n_images} images"
        if point.rate_parameter:
            setting = f"{point.rate_parameter} {point.rate_value:g}, {setting}"
        rows.append(
            {
                "label": style.label,
                "study": style.study,
                "rate_index": row.rate_index,
                "bpp": row.bpp if style.is_curve else None,
                "value": row.value * metric.factor,
                "low": row.low * metric.factor if is_number(row.low) else None,
                "high": row.high * metric.factor if is_number(row.high) else None,
                "shown": shown(metric, row.value),
                "interval": shown_interval(metric, row.low, row.high) or "none",
                "setting": setting,
                "href": point_address(point),
            }
        )
    return rows


def point_address(point: PointSummary) -> str:
    """Return where the files of an operating point are, as seen from a page."""
    return f"{point.inside(Path('..'))}/"


def _published(metric: Metric, entry: PublishedCurve) -> list[Row]:
    return [
        {
            "label": entry.style.label,
            "study": entry.style.study,
            # Points that no line joins are curves of their own.
            "rate_index": index,
            "bpp": rate,
            "value": quality * metric.factor,
            "shown": shown(metric, quality),
            "interval": "not published",
            "setting": "published",
            "hollow": True,
            "alone": not entry.joined,
        }
        for index, (rate, quality) in enumerate(entry.points)
    ]


def leading_labels(studies: dict[str, Study], series: Sequence[Style]) -> list[str]:
    """Return the labels that are drawn at first: ``FRAME`` curves of each study, and published."""
    order: dict[tuple[str, str], int] = {}
    for study, content in studies.items():
        subject, comparisons = leading_comparisons(content)
        compared = [name for c in comparisons for name in (c.anchor, *c.variants)]
        for name in [subject, *compared, *content.variants]:
            order.setdefault((study, name), len(order))
    groups: dict[tuple[str, bool], list[Style]] = {}
    for entry in sorted(series, key=lambda one: order.get((one.study, one.name), len(order))):
        groups.setdefault((entry.study, entry.hollow), []).append(entry)
    on = []
    for entries in groups.values():
        on += [entry.label for entry in entries if not entry.is_curve]
        on += [entry.label for entry in entries if entry.is_curve][:FRAME]
    return on


def _sharing(results: Results, styles: Styles) -> list[list[str]]:
    """Return the keys of ``styles``, those of a study with equal encodings together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for key, style in styles.items():
        points = results.points(style.study, style.name)
        found = tuple(p.encoding for p in points if p.evaluated and p.encoding is not None)
        if found:
            groups.setdefault((style.study, *found), []).append(key)
    return list(groups.values())


def training_plot(results: Results, study: str, styles: Styles) -> Plot:
    """Collect the losses of the training runs of a study over their steps."""
    rows, series = [], []
    for name, style in styles.items():
        own: list[Row] = []
        for point in results.points(study, name):
            path = results.root / "runs" / point.key / "metrics.jsonl"
            if not point.trained or not path.is_file():
                continue
            entries = [json.loads(line) for line in path.read_text().splitlines()]
            losses = {e["step"]: e["values"].get("loss") for e in entries if e["split"] == "train"}
            steps = [step for step, loss in losses.items() if is_number(loss)]
            own += [
                {
                    "label": style.label,
                    "rate_index": f"{point.rate_index}, seed {point.seed}",
                    "bpp": step,
                    "value": losses[step],
                    "href": point_address(point),
                }
                for step in steps[:: len(steps) // TRAINING_STEPS + 1]
            ]
        rows += own
        series += [replace(style, is_curve=True)] if own else []
    on = leading_labels(results.studies, series)
    return Plot(f"{study}-training", "Loss of the training runs", "Loss", series, on, rows,
                training=True)  # fmt: skip
