"""One plot of rate against a metric: on the page, as files and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from icmbench.metrics.catalogue import PIXEL_METRICS, Metric, find_metric
from icmbench.report import charts
from icmbench.report.charts import PublishedCurve, rate_chart
from icmbench.report.drawing import data_uri
from icmbench.report.outputs import FIGURES, figure_name
from icmbench.report.results import Results
from icmbench.report.style import Style, Styles
from icmbench.report.tables import Table, curve_table
from icmbench.utils.files import write_bytes


@dataclass(frozen=True)
class Plot:
    """One plot on a page.

    Attributes:
        name: unique in the report; also the stem of the figure's files.
        group: plots whose legends highlight together.
        metric: of the vertical axis.
        summary: its content, for readers who do not see it.
        series: entries of its legend by study; one unnamed group if there is one study.
        spec: Vega-Lite specification; None if there is nothing to draw.
        svg_uri: the figure as a data URI, shown without JavaScript and in print.
        pdf_uri: the same as PDF.
        dashed: whether published curves are among its lines.
        same_codec: labels of variants whose curves must coincide, one text per group.
        table: the numbers.
    """

    name: str
    group: str
    metric: Metric
    summary: str
    series: dict[str, list[Style]]
    spec: dict[str, Any] | None
    svg_uri: str
    pdf_uri: str
    dashed: bool
    same_codec: list[str]
    table: Table


@dataclass(eq=False)
class Plotter:
    """Draws the plots of a report.

    Attributes:
        results: the results folder.
        files: figures written so far.
    """

    results: Results
    files: list[Path] = field(default_factory=list)

    def plot(
        self,
        page: str,
        name: str,
        role: str | None,
        styles: Styles,
        *,
        formats: Sequence[str],
        group: str,
        published: Sequence[PublishedCurve] = (),
    ) -> Plot:
        """Draw rate against a metric and write ``report/figures/<page>-rate-<metric>*``.

        Args:
            page: name of the study, ``task-<family>`` or ``human-vision``.
            name: of the metric.
            role: of the data set, if the page has several.
            styles: of the variants.
            formats: suffixes of the files; svg and pdf among them.
            group: plots whose legends highlight together.
            published: curves that can be compared with the measured ones.
        """
        metric, stem = find_metric(name), figure_name(page, name, role)
        if role:
            metric = replace(metric, title=f"{metric.title}, {role}")
        chart = rate_chart(self.results, metric, styles, published)
        files = charts.figure_files(charts.vega_lite(chart, legend=True), formats)
        for suffix, content in files.items():
            path = self.results.root / FIGURES / f"{stem}.{suffix}"
            write_bytes(path, content)
            self.files.append(path)
        labels = ", ".join(series.label for series in chart.series) or "no variant"
        references = "".join(f"; reference: {row['text']}" for row in chart.references)
        drawn = bool(chart.points or chart.references)
        return Plot(
            name=stem,
            group=group,
            metric=metric,
            summary=f"{metric.heading} over rate in bits per pixel, for {labels}{references}.",
            series=_by_study(chart.series),
            spec=charts.vega_lite(chart, legend=False, width="container") if drawn else None,
            svg_uri=data_uri("image/svg+xml", files["svg"]),
            pdf_uri=data_uri("application/pdf", files["pdf"]),
            dashed=any(curve.joined for curve in published),
            same_codec=same_codec(self.results, styles) if name in PIXEL_METRICS else [],
            table=curve_table(self.results, metric, styles),
        )


def _by_study(series: Sequence[Style]) -> dict[str, list[Style]]:
    if len({entry.study for entry in series if entry.study}) < 2:
        return {"": list(series)}
    groups: dict[str, list[Style]] = {}
    for entry in series:
        groups.setdefault(entry.study, []).append(entry)
    return groups


def same_codec(results: Results, styles: Styles) -> list[str]:
    """Return the labels of variants that share every encoding, and so their image quality."""
    groups = [keys for keys in _sharing(results, styles) if len(keys) > 1]
    return [" = ".join(styles[key].label for key in keys) for keys in groups]


def distinct_codecs(results: Results, styles: Styles) -> Styles:
    """Return the styles without variants that share every encoding with an earlier one."""
    return {keys[0]: styles[keys[0]] for keys in _sharing(results, styles)}


def _sharing(results: Results, styles: Styles) -> list[list[str]]:
    """Return the keys of ``styles``, those with equal encodings together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for key, style in styles.items():
        points = results.points(style.study, style.name)
        found = tuple(p.encoding for p in points if p.evaluated and p.encoding is not None)
        if found:
            groups.setdefault(found, []).append(key)
    return list(groups.values())
