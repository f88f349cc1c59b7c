"""One plot of rate against a metric: on the page, as files and as a table."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from icmbench.registry import PIXEL_METRICS
from icmbench.report import charts
from icmbench.report.chart_data import PublishedCurve, Series, rate_chart
from icmbench.report.drawing import data_uri
from icmbench.report.outputs import FIGURES, FOLDER
from icmbench.report.results import Results, Row
from icmbench.report.selection import Rest
from icmbench.report.style import Metric, VariantStyle
from icmbench.report.tables import Table, curve_table
from icmbench.utils.files import write_bytes


@dataclass(frozen=True)
class Plot:
    """One plot on a page.

    Attributes:
        name: unique in the report; also the stem of the figure's files.
        group: plots whose legends highlight together.
        metric: of the vertical axis.
        summary: what it shows, for readers who do not see it.
        series: entries of its legend, by study; one unnamed group where there is one study.
        spec: Vega-Lite specification; None where there is nothing to draw.
        svg_uri: the figure as a data URI, shown without JavaScript and in print.
        svg_save: address of the figure as SVG.
        pdf_save: the same as PDF.
        dashed: whether published curves are among its lines.
        same_codec: labels of variants whose curves must coincide, one text per group.
        table: the numbers.
        rest: where the numbers are, of which a part is drawn; the page then has no table of them.
    """

    name: str
    group: str
    metric: Metric
    summary: str
    series: dict[str, list[Series]]
    spec: dict[str, Any] | None
    svg_uri: str
    svg_save: str
    pdf_save: str
    dashed: bool
    same_codec: list[str]
    table: Table
    rest: Rest | None = None


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
        name: str,
        metric: Metric,
        styles: dict[str, VariantStyle],
        *,
        formats: Sequence[str],
        group: str,
        words: str = "",
        published: Sequence[Row] = (),
        curves: Sequence[PublishedCurve] = (),
        rest: Rest | None = None,
    ) -> Plot:
        """Draw rate against ``metric`` and write ``report/figures/<name>.*``.

        Args:
            name: stem of the files.
            metric: of the vertical axis.
            styles: of the variants.
            formats: suffixes of the files; svg and pdf among them.
            group: plots whose legends highlight together.
            words: added to the metric's title, e.g. the role of the data set.
            published: points beside the measured ones, see :func:`rate_chart`.
            curves: published curves, likewise.
            rest: where the numbers of all variants are, where ``styles`` are not of all. To keep
                such a page small its plots have no tables, and their files lie beside it.
        """
        if words:
            metric = replace(metric, title=f"{metric.title}, {words}")
        chart = rate_chart(self.results, metric, styles, published, curves)
        files = charts.figure_files(
            charts.vega_lite(chart, legend=True, width=charts.FILE_WIDTH), formats
        )
        for suffix, content in files.items():
            path = self.results.root / FIGURES / f"{name}.{suffix}"
            write_bytes(path, content)
            self.files.append(path)
        shown = bool(chart.points or chart.references)
        named = ", ".join(series.label for series in chart.series) or "no variant"
        references = "".join(f"; reference: {row['text']}" for row in chart.references)
        svg_uri = data_uri("image/svg+xml", files["svg"])
        table = curve_table(self.results, metric, {} if rest else styles)
        return Plot(
            name=name,
            group=group,
            metric=metric,
            summary=f"{metric.heading} over rate in bits per pixel, for {named}{references}.",
            series=_by_study(chart.series),
            spec=charts.vega_lite(chart, legend=False, width="container") if shown else None,
            svg_uri=svg_uri,
            svg_save=_beside(name, "svg") if rest else svg_uri,
            pdf_save=_beside(name, "pdf") if rest else data_uri("application/pdf", files["pdf"]),
            dashed=bool(curves),
            same_codec=same_codec(self.results, styles) if metric.name in PIXEL_METRICS else [],
            table=table,
            rest=rest,
        )


def _beside(name: str, suffix: str) -> str:
    """Return the address of a figure's file from a page."""
    return f"{FIGURES.removeprefix(FOLDER + '/')}/{name}.{suffix}"


def _by_study(series: Sequence[Series]) -> dict[str, list[Series]]:
    if len({entry.study for entry in series if entry.study}) < 2:
        return {"": list(series)}
    groups: dict[str, list[Series]] = {}
    for entry in series:
        groups.setdefault(entry.study, []).append(entry)
    return groups


def same_codec(
    results: Results, styles: dict[str, VariantStyle], drawn: Container[str] | None = None
) -> list[str]:
    """Return the labels of variants that share every encoding, so also their image quality.

    Args:
        results: the results folder.
        styles: of the variants.
        drawn: keys of those with a curve, the first of its group; others are left out.
    """
    groups = [
        keys
        for keys in _sharing(results, styles).values()
        if len(keys) > 1 and (drawn is None or keys[0] in drawn)
    ]
    return [" = ".join(styles[key].label for key in keys) for keys in groups]


def distinct_codecs(results: Results, styles: dict[str, VariantStyle]) -> dict[str, VariantStyle]:
    """Return the styles without variants whose encodings another one before them has."""
    return {keys[0]: styles[keys[0]] for keys in _sharing(results, styles).values()}


def _sharing(results: Results, styles: dict[str, VariantStyle]) -> dict[tuple[str, ...], list[str]]:
    """Return the keys of ``styles`` by the encodings of their operating points."""
    encodings: dict[tuple[str, str], list[str]] = {}
    for point in results.plan["points"]:
        if point["evaluated"] and point["encoding"] is not None:
            place = (point["study"], point["variant"])
            encodings.setdefault(place, []).append(point["encoding"])
    groups: dict[tuple[str, ...], list[str]] = {}
    for key, style in styles.items():
        found = tuple(encodings.get((style.study, style.name), ()))
        if found:
            groups.setdefault(found, []).append(key)
    return groups
