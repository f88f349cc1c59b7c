"""Puts the report together: reads the results, draws, fills the page, writes the files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from icmbench.files import write_bytes, write_text
from icmbench.registry import CODECS, PIXEL_METRICS
from icmbench.report import charts
from icmbench.report.claims import ClaimRows, glance_table, load_claims, study_claims
from icmbench.report.drawing import data_uri
from icmbench.report.outputs import (
    FIGURES,
    PAGE,
    PICTURES,
    figure_name,
    leading_metrics,
    study_plots,
)
from icmbench.report.page import Page, Plot, StudyPage, render
from icmbench.report.pictures import MIN_SCORE, Pictures
from icmbench.report.provenance import (
    cost_table,
    dataset_table,
    environments,
    implementations,
    study_implementations,
    totals,
)
from icmbench.report.published import comparable, published_groups, published_points
from icmbench.report.published_curves import published_part, published_series
from icmbench.report.results import Results, load_results
from icmbench.report.style import Metric, VariantStyle, metric_style, variant_styles
from icmbench.report.tables import bd_table, curve_table, key_figures
from icmbench.report.training import training_tables


def assemble(root: Path) -> list[Path]:
    """Write the report of ``results/<scale>``; see :func:`icmbench.report.build.build_report`."""
    results = load_results(root)
    claims = load_claims(results)
    pictures = Pictures(results)
    figures: list[Path] = []
    studies = [
        _study_page(results, name, claims, pictures, figures)
        for name in results.plan["run"]["studies"]
    ]
    page = Page(
        scale=results.plan["scale"],
        studies=studies,
        claims=glance_table(claims, results),
        datasets=dataset_table(results),
        implementations=implementations(results),
        environments=environments(results),
        missing=[*results.missing, *claims.missing],
        confidence=results.confidence,
        date=results.date,
        seeds=results.plan["run"]["seeds"],
        min_score=MIN_SCORE,
    )
    write_text(root / PAGE, render(page, charts.javascript()))
    written = sorted([root / PAGE, *figures, *pictures.files])
    _remove_stale(root, set(written))
    return written


def _study_page(
    results: Results, name: str, claims: ClaimRows, pictures: Pictures, figures: list[Path]
) -> StudyPage:
    study = results.plan["studies"][name]
    styles = variant_styles(results.plan, name)
    leading = leading_metrics(results.plan, name)
    curves = published_part(results, name, styles)
    # Without networks, the data set alone makes the published set-up.
    classical = all(CODECS[v["codec"]].kind == "anchor" for v in study["variants"].values())
    plots = [
        (metric, _plot(results, name, metric_style(metric), role, styles, figures))
        for metric, role in study_plots(results.plan, name)
    ]
    return StudyPage(
        name=name,
        study=study,
        claims=study_claims(claims, results, name, styles),
        key_figures=key_figures(results, name, [metric_style(m) for m in leading], styles),
        plots=[plot for metric, plot in plots if metric in leading],
        more_plots=[plot for metric, plot in plots if metric not in leading],
        bd=bd_table(results, name, styles),
        published=published_groups(results, name, styles),
        published_curves=curves,
        comparable=comparable(results) or (classical and bool(curves.tables)),
        galleries=pictures.galleries(name, styles),
        training=training_tables(study, styles),
        implementations=study_implementations(results, name, styles),
        cost=cost_table(results, name, styles),
        totals=totals(results, name),
    )


def _plot(
    results: Results,
    study: str,
    metric: Metric,
    role: str | None,
    styles: dict[str, VariantStyle],
    figures: list[Path],
) -> Plot:
    if role is not None:
        variants = results.plan["studies"][study]["variants"]
        styles = {name: s for name, s in styles.items() if variants[name]["dataset"] == role}
        metric = replace(metric, title=f"{metric.title}, {role}")
    # Published numbers hold for the published set-up; elsewhere they stand in a table only.
    published = published_points(results, study, metric.name) if comparable(results) else []
    curves = published_series(results, study, metric.name, styles)
    chart = charts.rate_chart(results, study, metric, styles, published, curves)
    name = figure_name(study, metric.name, role)
    files = charts.figure_files(charts.vega_lite(chart, legend=True, width=charts.FILE_WIDTH))
    for suffix, content in files.items():
        path = results.root / FIGURES / f"{name}.{suffix}"
        write_bytes(path, content)
        figures.append(path)
    shown = bool(chart.points or chart.references)
    named = ", ".join(series.label for series in chart.series) or "no variant"
    references = "".join(f"; reference: {row['text']}" for row in chart.references)
    return Plot(
        name=name,
        metric=metric,
        summary=f"{metric.heading} over rate in bits per pixel, for {named}{references}.",
        series=chart.series,
        spec=charts.vega_lite(chart, legend=False, width="container") if shown else None,
        svg_uri=data_uri("image/svg+xml", files["svg"]),
        dashed=bool(curves),
        same_codec=_same_codec(results, study, styles) if metric.name in PIXEL_METRICS else [],
        table=curve_table(results, study, metric, styles),
    )


def _same_codec(results: Results, study: str, styles: dict[str, VariantStyle]) -> list[str]:
    """Return the labels of variants that share every encoding, so also their picture quality."""
    encodings: dict[str, list[str]] = {}
    for point in results.points(study):
        shown = point["evaluated"] and point["variant"] in styles
        if shown and point["encoding"] is not None:
            encodings.setdefault(point["variant"], []).append(point["encoding"])
    groups: dict[tuple[str, ...], list[str]] = {}
    for variant, keys in encodings.items():
        groups.setdefault(tuple(keys), []).append(styles[variant].label)
    return [" = ".join(labels) for labels in groups.values() if len(labels) > 1]


def _remove_stale(root: Path, written: set[Path]) -> None:
    """Remove pictures and figures that an earlier report left and this one does not have."""
    for folder in (root / PICTURES, root / FIGURES):
        for path in folder.glob("*"):
            if path.suffix in (".png", ".svg") and path not in written:
                path.unlink()
