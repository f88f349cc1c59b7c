"""The curves of the report's plots: measured ones, published ones and those of training runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from icmbench.config.study import Study
from icmbench.metrics.catalogue import Metric, find_metric, is_image_quality
from icmbench.report.drawing import Plot, Row, by_study
from icmbench.report.outputs import figure_name, leading_comparisons
from icmbench.report.results import Results, is_number, point_address, rows_of
from icmbench.report.style import Style, Styles, shown, shown_interval
from icmbench.report.tables import leading_gains

FRAME = 8  # curves in one frame; the others are one click away
TRAINING_STEPS = 100  # of a training run that are drawn


class PublishedCurve(NamedTuple):
    """Published points of a legend entry: rate in bits per pixel, quality in the tables' unit."""

    style: Style
    points: list[tuple[float, float]]


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
    if published:
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
    panels = panels_of(results.studies, series)
    shared = [e.label for e in series if e.name and e.is_curve and len(panels[e.label]) > 1]
    notes += [f"Panels of single codecs all have “{label}”, for comparison." for label in shared]
    on = leading_labels(results, series, panels)
    rows = [*theirs, *rows]  # published curves lie below the measured ones
    name, note = figure_name(page, name, role), " ".join(notes)
    return Plot(name, title, metric.heading, series, on, rows, note, panels=panels)


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


def _published(metric: Metric, entry: PublishedCurve) -> list[Row]:
    return [
        {
            "label": entry.style.label,
            "study": entry.style.study,
            "rate_index": index,
            "bpp": rate,
            "value": quality * metric.factor,
            "shown": shown(metric, quality),
            "interval": "not published",
            "setting": "published",
            "hollow": True,
        }
        for index, (rate, quality) in enumerate(entry.points)
    ]


def panels_of(studies: dict[str, Study], series: Sequence[Style]) -> dict[str, list[str]]:
    """Return the titles of the panels that each curve is in, by label.

    A study has a panel. One of more than ``FRAME`` curves has a panel for each task network if each
    has an anchor, else for each codec if codecs have two curves or more; then the anchor of the
    leading comparison and what has no codec are in all panels.
    """
    panels: dict[str, list[str]] = {}
    for title, entries in by_study(series).items():
        own = {e.label: studies[e.study].variants[e.name] for e in entries if e.name}
        curves = [entry.label for entry in entries if entry.label in own and entry.is_curve]
        compared = leading_comparisons(studies[entries[0].study])[1] if own else []
        bases, tasks = [c.anchor for c in compared], {own[label].task for label in curves}
        apart = 1 < len(tasks) == len({own[e.label].task for e in entries if e.name in bases})
        parts = {
            label: f"{title}: {variant.task if apart else variant.codec}".removeprefix(": ")
            for label, variant in own.items()
            if apart or label in curves
        }
        every = list(dict.fromkeys(parts.values()))
        if len(curves) <= FRAME or len(curves) < 2 * len(every):
            parts, every = {}, [title]
        for entry in entries:
            alone = entry.label in parts and (apart or entry.name not in bases[:1])
            panels[entry.label] = [parts[entry.label]] if alone else every
    return panels


def leading_labels(
    results: Results, series: Sequence[Style], panels: dict[str, list[str]]
) -> list[str]:
    """Return the labels that are drawn at first: ``FRAME`` curves of a panel, and published ones.

    The variant that a study is about comes first, then those that gain most over the anchor.
    """
    order: dict[tuple[str, str], int] = {}
    for study, content in results.studies.items():
        subject, comparisons = leading_comparisons(content)
        gains = leading_gains(results, study)
        compared = [name for c in comparisons for name in c.variants]
        compared.sort(key=lambda name: -gains[name].bd_accuracy_points if name in gains else 0.0)
        for name in [subject, *(c.anchor for c in comparisons), *compared, *content.variants]:
            order.setdefault((study, name), len(order))
    on: list[str] = []
    drawn: Counter[tuple[str, bool]] = Counter()
    for entry in sorted(
        series, key=lambda one: (one.is_curve, order.get((one.study, one.name), len(order)))
    ):
        inside = [(title, entry.hollow) for title in panels.get(entry.label, [entry.study])]
        if entry.is_curve and any(drawn[place] >= FRAME for place in inside):
            continue
        on.append(entry.label)
        drawn.update(inside if entry.is_curve else [])
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
    rows: list[Row] = []
    for name, style in styles.items():
        for point in results.points(study, name):
            path = results.root / "runs" / point.key / "metrics.jsonl"
            if not point.trained or not path.is_file():
                continue
            entries = [json.loads(line) for line in path.read_text().splitlines()]
            losses = {e["step"]: e["values"].get("loss") for e in entries if e["split"] == "train"}
            steps = [step for step, loss in losses.items() if is_number(loss)]
            rows += [
                {
                    "label": style.label,
                    "rate_index": f"{point.rate_index}, seed {point.seed}",
                    "bpp": step,
                    "value": losses[step],
                    "href": point_address(point),
                }
                for step in steps[:: len(steps) // TRAINING_STEPS + 1]
            ]
    trained = {row["label"] for row in rows}
    series = [replace(s, is_curve=True) for s in styles.values() if s.label in trained]
    on = leading_labels(results, series, {})
    return Plot(f"{study}-training", "Loss of the training runs", "Loss", series, on, rows,
                training=True)  # fmt: skip
