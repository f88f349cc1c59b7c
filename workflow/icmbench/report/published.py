"""Published numbers and curves, compared with the measured ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from icmbench.analyse.compressai_json import read_curve_file
from icmbench.analyse.protocols import Beside, beside
from icmbench.analyse.published import obstacle, protocol_obstacle
from icmbench.config import published as protocol
from icmbench.config.study import PublishedCell, PublishedCurveFile, published_path
from icmbench.metrics.catalogue import Metric, find_metric
from icmbench.report.charts import PublishedCurve, rate_plot
from icmbench.report.drawing import Plot
from icmbench.report.results import Results, is_number, rows_of
from icmbench.report.style import (
    DASH,
    DIAMOND,
    GREY,
    PUBLISHED_DASHES,
    SHAPES,
    Style,
    Styles,
    number,
    shown,
    shown_interval,
    signed,
)
from icmbench.report.tables import Cell, Table, figure, text

_SHAPES = (*SHAPES, DIAMOND)


@dataclass(frozen=True)
class PublishedPart:
    """A study's published numbers."""

    groups: list[tuple[Table, list[str]]]  # a table and notes for each published table or figure
    drawn: list[PublishedCurveFile]  # what can be compared with measured curves
    curves: Table | None  # published and measured curves; None if none can be compared
    notes: list[str]  # on the curves drawn, with their sources, and why others are not drawn
    near: list[Beside]  # published points that are drawn beside the measured curves
    comparable: bool  # whether all that the paper publishes was measured by its protocol


Parts = dict[str, PublishedPart]  # by study


def published_part(results: Results, study: str, styles: Styles) -> PublishedPart:
    """Return tables and notes of a study's published numbers and curves."""
    drawn, reasons = _drawn(results, study)
    if (reason := _obstacle(results, study)) is not None:
        reasons.append(f"Published numbers are in the tables alone: {reason}.")
    notes = [f"Source of the published curves: {curve.source}" for curve in drawn]
    notes += [f"{curve.label}: {curve.note}" for curve in drawn if curve.note]
    near = beside(results.plan, results.curves, study)
    notes += sources(near)
    table = _curve_table(results, study, drawn, styles)
    groups, curves = _groups(results, study, styles), table if table.rows else None
    return PublishedPart(
        groups, drawn, curves, [*dict.fromkeys(notes), *reasons], near, not reasons
    )


def published_curves(
    results: Results, parts: Parts, metric: str, role: str | None, styles: Styles
) -> list[PublishedCurve]:
    """Return what was published of ``metric`` by the protocol of the studies of a plot.

    ``role`` is that of the plot's data set; None if it has all roles.
    """
    studies = dict.fromkeys(style.study for style in styles.values())
    found = []
    for study in studies:
        own = {style.name: style for style in styles.values() if style.study == study}
        curves = [
            *published_points(results, study, metric, own),
            *published_series(parts[study].drawn, metric, own),
            *points_series(parts[study].near, metric, role),
        ]
        for curve in curves:
            label = f"{study}: {curve.style.label}" if len(studies) > 1 else curve.style.label
            found.append(curve._replace(style=replace(curve.style, label=label, study=study)))
    return found


# --- numbers --------------------------------------------------------------------------------------


def _rows(results: Results, study: str) -> dict[tuple[str, str, str], list[PublishedCell]]:
    """Return the published numbers by group, label and variant (empty without one), rate first."""
    rows: dict[tuple[str, str, str], list[PublishedCell]] = {}
    for cell in results.studies[study].published:
        rows.setdefault((cell.group, cell.label, cell.variant or ""), []).append(cell)
    for cells in rows.values():
        cells.sort(key=lambda cell: cell.metric != "bpp")
    return rows


def published_points(
    results: Results, study: str, metric: str, styles: Styles
) -> list[PublishedCurve]:
    """Return single published points that have both a rate and ``metric``, for a plot.

    They are drawn only where this run has their protocol.
    """
    points: dict[str, PublishedCurve] = {}
    for (_, label, variant), cells in _rows(results, study).items():
        values = {cell.metric: cell.value for cell in reversed(cells)}
        here = not variant or variant in styles  # else it is in another plot
        if not (here and {"bpp", metric} <= values.keys()):
            continue
        if _obstacle(results, study, variant) is None:
            colour = styles[variant].colour if variant else GREY
            style = Style(f"{label} (published)", colour, hollow=True)
            curve = points.setdefault(label, PublishedCurve(style, []))
            curve.points.append((values["bpp"], values[metric]))
    return list(points.values())


def _obstacle(results: Results, study: str, variant: str = "") -> str | None:
    """Return why a study's published numbers are not of this run's protocol; None if they are.

    ``variant`` is the one that they belong to; empty for any of the study.
    """
    content = results.studies[study]
    if not content.published:
        return None
    if content.published_protocol is None:
        return "the protocol that they were measured by is not published"
    own = protocol.published_points().protocols[content.published_protocol]
    reason = protocol_obstacle(results.plan, results.curves, study, own, variant or None)
    return None if reason is None else f"they are of {own.dataset}, and {reason}"


def _groups(results: Results, study: str, styles: Styles) -> list[tuple[Table, list[str]]]:
    groups: dict[str, list[list[Cell]]] = {}
    notes: dict[str, dict[str, None]] = {}
    for (name, label, variant), cells in _rows(results, study).items():
        style = styles.get(variant)
        at, rate_index = _nearest(results, study, variant, cells)
        if style and rate_index is not None:
            at = f"{style.label}, {at}"
        for cell in cells:
            metric, against = find_metric(cell.metric), ""
            here = _measured(results, study, variant, metric, rate_index)
            if cell.anchor:
                against = styles[cell.anchor].label if cell.anchor in styles else cell.anchor
                here = _bd(results, study, cell)
            groups.setdefault(name, []).append(
                [
                    Cell(label, "head", marker=style),
                    text(metric.heading, f"against {against}" if against else ""),
                    figure(shown(metric, cell.value)),
                    here,
                    text(at),
                    text(cell.confidence),
                ]
            )
            remarks = notes.setdefault(name, {})
            remarks[f"Source: {cell.source}"] = None
            remarks |= {f"{label}, {metric.title}: {cell.note}": None} if cell.note else {}
    columns = ["Published as", "Metric", "Published", "Measured here", "Measured at", "Confidence"]
    return [
        (Table(f"{name}: published and measured here.", columns, rows), list(notes[name]))
        for name, rows in groups.items()
    ]


def _bd(results: Results, study: str, cell: PublishedCell) -> Cell:
    """Return the measured BD metric that corresponds to a published one, with its interval."""
    column, _, integrated = cell.metric.partition(":")
    side = "" if column == "bd_rate_pct" else "accuracy_"
    wanted = {"study": study, "metric": integrated, "variant": cell.variant, "anchor": cell.anchor}
    found = results.bd[(results.bd[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    if found.empty:
        return figure(DASH)
    row, metric = found.iloc[0], find_metric(cell.metric)
    bounds = shown_interval(metric, row[f"{side}low"], row[f"{side}high"])
    return figure(shown(metric, row[column]), bounds, row["flags"], side.replace("_", ":"))


def _nearest(
    results: Results, study: str, variant: str, cells: list[PublishedCell]
) -> tuple[str, int | None]:
    """Return where the measured curve is read: at the rate nearest to the published one."""
    curve = results.curve(study, variant)
    if curve.empty:
        return DASH, None
    means = curve.groupby("rate_index")["bpp"].mean()
    rate = next((cell.value for cell in cells if cell.metric == "bpp"), None)
    if rate is None and len(means) > 1:
        whole = any(cell.anchor for cell in cells)
        return "the whole curve" if whole else "range of the curve", None
    index = means.index[0] if rate is None else np.log(means / rate).abs().idxmin()
    return f"rate index {index}, {shown(find_metric('bpp'), means[index])} bpp", int(index)


def _measured(
    results: Results, study: str, variant: str, metric: Metric, rate_index: int | None
) -> Cell:
    """Return the mean over seeds at a rate index; without one, the range of the curve."""
    rows = results.curve(study, variant)
    if metric.name == "bpp":
        rows = rows.assign(value=rows["bpp"], low=math.nan, high=math.nan)
        rows = rows.drop_duplicates(["rate_index", "seed"])
    else:
        rows = rows[rows["metric"] == metric.name]
    rows = rows[np.isfinite(rows["value"].astype(float))]
    if rate_index is not None:
        rows = rows[rows["rate_index"] == rate_index]
    if rows.empty:
        return figure(DASH)
    values, row = rows["value"], rows.iloc[0]
    ends = [values.min(), values.max()] if rate_index is None else [values.mean()]
    alone = rate_index is not None and len(rows) == 1
    bounds = shown_interval(metric, row["low"], row["high"]) if alone else ""
    return figure(" to ".join(shown(metric, end) for end in ends), bounds)


# --- curves ---------------------------------------------------------------------------------------


def published_series(
    drawn: Sequence[PublishedCurveFile], metric: str, styles: Styles
) -> list[PublishedCurve]:
    """Return published curves of ``metric`` in the colour and shape of their variants.

    Those without a variant are grey.
    """
    curves: list[PublishedCurve] = []
    for entry in drawn:
        if entry.variant and entry.variant not in styles:
            continue  # it is in another plot
        own = _style(f"{entry.label} (published)", len(curves), styles.get(entry.variant or ""))
        found = read_curve_file(published_path(entry.file)).results
        key = find_metric(metric).json_key
        if key in found:
            known = np.isfinite(found[key])
            pairs = zip(found["bpp"][known].tolist(), found[key][known].tolist(), strict=True)
            curves.append(PublishedCurve(own, list(pairs)))
    return curves


def _style(label: str, place: int, variant: Style | None = None) -> Style:
    """Return the style of a published curve: its variant's, or grey with a shape by its place."""
    if variant is not None:
        return Style(label, variant.colour, variant.shape, PUBLISHED_DASHES[0], hollow=True)
    turn, shape = divmod(place, len(_SHAPES))
    dash = PUBLISHED_DASHES[turn % len(PUBLISHED_DASHES)]
    return Style(label, GREY, _SHAPES[shape], dash, hollow=True)


def _drawn(results: Results, study: str) -> tuple[list[PublishedCurveFile], list[str]]:
    """Return the curves that can be compared, and sentences on the others."""
    drawn: list[PublishedCurveFile] = []
    reasons: dict[str, list[str]] = {}
    for entry in results.studies[study].published_curves:
        reason = obstacle(results.plan, results.curves, study, entry)
        if reason is None:
            drawn.append(entry)
        else:
            reasons.setdefault(f"of {entry.dataset}, and {reason}", []).append(entry.label)
    return drawn, [
        f"Published curves are not drawn ({', '.join(labels)}): they are {reason}."
        for reason, labels in reasons.items()
    ]


def _curve_table(
    results: Results, study: str, drawn: Sequence[PublishedCurveFile], styles: Styles
) -> Table:
    """Return the distance of each measured curve from the published one, and the gains of both."""
    found = results.published[results.published["study"] == study]
    values = {(row.label, row.metric, row.what): row for row in rows_of(found)}
    base = next((r.against for (*_, w), r in values.items() if w == "published_bd_rate_pct"), "")
    anchor = next((entry.variant for entry in drawn if entry.label == base), None)
    bd = results.bd[(results.bd["study"] == study) & (results.bd["anchor"] == anchor)]
    measured = {(row.variant, row.metric): row for row in rows_of(bd)}
    rows = []
    for entry in drawn:
        style = styles.get(entry.variant or "")
        for name in dict.fromkeys(metric for label, metric, _ in values if label == entry.label):
            own = {what: values.get((entry.label, name, what)) for what in found["what"]}
            metric, far = find_metric(name), DASH
            if (quality := own.get("max_quality_difference")) is not None:
                far = f"{number(quality.value * metric.factor, metric.digits + 1)} {metric.unit}"
            rows.append(
                [
                    Cell(entry.label, "head", marker=style),
                    text(style.label if style else DASH),
                    text(metric.title),
                    _percent(own.get("bd_rate_pct")),
                    _percent(own.get("max_bpp_difference_pct"), signs=False),
                    figure(far.strip()),
                    _percent(own.get("published_bd_rate_pct")),
                    _percent(measured.get((entry.variant, name)), "bd_rate_pct"),
                ]
            )
    columns = ["Published", "Measured here", "Metric", "BD-rate of the two"]
    columns += ["Largest difference of rate", "Largest difference of quality"]
    against = f"BD-rate against {base or 'an anchor'}"
    columns += [f"{against}, published", f"{against}, measured"]
    return Table("Measured curves against the published ones, on the same images.", columns, rows)


def _percent(row: Any, name: str = "value", signs: bool = True) -> Cell:
    value = getattr(row, name, math.nan)
    if not is_number(value):
        return figure(DASH)
    flags = ", ".join(f for f in str(row.flags).split(";") if not f.startswith("accuracy:"))
    words = signed(value, 1, " %") if signs else f"{number(value, 2)} %"
    return figure(words, flags, row.flags)


# --- published points by the same protocol --------------------------------------------------------


def points_series(found: Iterable[Beside], metric: str, role: str | None) -> list[PublishedCurve]:
    """Return published points of the same network as curves of a plot of ``metric``.

    ``role`` is that of its data set; None if the plot has all roles.
    """
    own = [b for b in found if not b.drop and b.curve.metric == metric and role in (None, b.role)]
    return [PublishedCurve(_point_style(b, n), list(b.curve.points)) for n, b in enumerate(own)]


def loss_plots(results: Results, study: str, found: Sequence[Beside], styles: Styles) -> list[Plot]:
    """Return a plot of the loss from original images for every metric with other networks' points.

    Each data set has its own. ``found`` is what may be drawn beside the study.
    """
    groups: dict[tuple[str, str], list[Beside]] = {}
    for b in found:
        if b.drop:
            groups.setdefault((b.curve.metric, b.role), []).append(b)
    return [_loss_plot(results, study, own, styles) for own in groups.values()]


def _loss_plot(results: Results, study: str, own: list[Beside], styles: Styles) -> Plot:
    metric, role, references = find_metric(own[0].curve.metric), own[0].role, own[0].references
    content = results.studies[study].variants
    variants = {
        key: style
        for key, style in styles.items()
        if style.is_curve and content[style.name].dataset == role
    }
    # Every network loses from its own value; one without original images from the first.
    first = next(iter(references.values()))
    by_label = {s.label: references.get(content[s.name].task, first) for s in variants.values()}
    points = [
        PublishedCurve(_point_style(b, n, network=True), [(r, -x) for r, x in b.losses])
        for n, b in enumerate(own)
    ]
    plot = rate_plot(results, study, metric.name, role, variants, points)
    for row in plot.rows:
        row["value"] = by_label.get(row["label"], 0.0) * metric.factor - row["value"]
        row["shown"] = f"{row['value']:.{metric.digits}f}"
        if row.get("low") is not None:
            # Of the value; that of the loss would need the reference's resamples.
            row |= {"low": None, "high": None, "interval": "not computed"}
    words = f"Loss of {metric.heading} from original images"
    name, note = f"{plot.name}-loss", f"Other networks: lower is better. {plot.note}".strip()
    return replace(plot, name=name, title=words, axis=words, note=note)


def sources(found: Sequence[Beside]) -> list[str]:
    """Return a sentence on every source, and on what differs where only losses are drawn."""
    points = protocol.published_points()
    lines = []
    for b in found:
        source, network = points.sources[b.curve.source], points.protocols[b.curve.protocol].network
        lines.append(f"Published points: {source.paper}; {source.address} ({source.licence})")
        if b.drop and network:
            lines.append(f"Of {network.name} only the loss of accuracy is drawn, since {b.why}.")
        if b.curve.note:
            lines.append(f"{b.curve.label}: {b.curve.note}")
    return list(dict.fromkeys(lines))


def _point_style(b: Beside, index: int, network: bool = False) -> Style:
    points = protocol.published_points()
    words = [str(points.sources[b.curve.source].year)]
    own = points.protocols[b.curve.protocol].network
    words += [own.name] if network and own is not None else []
    words += ["est."] if b.curve.rate == "estimate" else []
    return _style(f"{b.curve.label} ({', '.join(words)})", index)
