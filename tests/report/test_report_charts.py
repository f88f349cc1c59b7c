"""Plots against the result tables, and what a browser or a printer gets of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import altair as alt
import pytest

from icmbench.metrics.catalogue import find_metric
from icmbench.report.charts import (
    PublishedCurve,
    RateChart,
    figure_files,
    rate_chart,
    rate_ticks,
    vega_lite,
)
from icmbench.report.published import published_part, published_series
from icmbench.report.results import Results, load_results
from icmbench.report.style import COLOURS, SHAPES, Style, variant_styles

STUDY, PHOTOGRAPHS = "somewhere2021", "photographs2020"
J_FT = "hyperprior/faster-rcnn/j-ft"


def test_chart_has_the_values_of_the_table(results: Results) -> None:
    styles = variant_styles(results.plan, STUDY)
    chart = rate_chart(results, find_metric("box_map"), styles)
    assert [series.label for series in chart.series] == ["JPEG", "JPEG, T-FT", "J-FT"]
    curves = results.curves[results.curves["metric"] == "box_map"]
    coded = curves["codec"] != "uncoded"
    shown = {(row["label"], row["bpp"]): row for row in chart.points}
    assert len(shown) == len(chart.points) == coded.sum() == 12
    for row in curves[coded].itertuples():
        point = shown[styles[row.variant].label, row.bpp]
        ends = [100 * end for end in (row.low, row.value, row.high)]
        assert [point["low"], point["value"], point["high"]] == ends
    # Original images have no rate of their own: they are a reference line.
    (reference,) = chart.references
    assert reference["value"] == 100 * curves[~coded]["value"].item()
    spec = vega_lite(chart, legend=True)
    drawn = [row for rows in spec["datasets"].values() for row in rows]
    assert all(row in drawn for row in (*chart.points, *chart.lines))


def test_lines_join_means_over_seeds(make_folder: Callable[..., Path]) -> None:
    results = load_results(make_folder("tiny", [0, 1]))
    styles = variant_styles(results.plan, STUDY)
    chart = rate_chart(results, find_metric("box_map"), styles)
    assert len(chart.points) == 24
    assert [row["rate_index"] for row in chart.lines] == [0, 1, 2, 3] * 3
    curve = results.curve(STUDY, J_FT, "box_map")
    seeds = curve[curve["rate_index"] == 1]["value"]
    line = next(row for row in chart.lines if row["label"] == "J-FT" and row["rate_index"] == 1)
    assert len(seeds) == 2 and line["value"] == pytest.approx(100 * seeds.mean())


def test_published_curves_are_drawn_below_and_unlike_measured_ones(comparable: Path) -> None:
    results = load_results(comparable)
    styles = variant_styles(results.plan, PHOTOGRAPHS)
    published = published_series(published_part(results, PHOTOGRAPHS, styles).drawn, "psnr", styles)
    chart = rate_chart(results, find_metric("psnr"), styles, published)
    assert [entry.hollow for entry in chart.series] == [False, True, True]
    assert len(chart.points) == 2 + 19 + 6
    spec = vega_lite(chart, legend=True)
    layers = [
        [row["label"] for row in spec["datasets"][layer["data"]["name"]]] for layer in spec["layer"]
    ]
    theirs = [all("(published)" in label for label in labels) for labels in layers]
    assert theirs == sorted(theirs, reverse=True) and {True, False} == set(theirs)
    points = next(layer for layer in spec["layer"] if layer["mark"]["type"] == "point")
    fills = points["encoding"]["fill"]["scale"]["range"]
    assert fills == [chart.series[0].colour, "transparent", "transparent"]
    alone = [PublishedCurve(Style("x", "#000000", hollow=True), [1.0], [30.0], joined=False)]
    assert not rate_chart(results, find_metric("psnr"), {}, alone).lines


def test_specifications_are_valid_vega_lite(comparable: Path) -> None:
    """Pages leave this check out, because it takes most of their time."""
    results = load_results(comparable)
    styles = variant_styles(results.plan, PHOTOGRAPHS)
    published = published_series(published_part(results, PHOTOGRAPHS, styles).drawn, "psnr", styles)
    box = variant_styles(results.plan, STUDY)
    for chart in (
        rate_chart(results, find_metric("psnr"), styles, published),
        rate_chart(results, find_metric("box_map"), box),
        rate_chart(results, find_metric("top1"), box),
    ):
        spec = vega_lite(chart, legend=True)
        alt.Chart.from_dict(spec, validate=True)


@pytest.mark.parametrize(
    "rates", [[0.1, 1.0], [0.5], [0.44, 0.74], [0.501, 0.502], [0.0012, 30.0], [24.0], [0.099, 0.1]]
)
def test_rate_axis_labels_round_values_inside(rates: list[float]) -> None:
    (low, high), values = rate_ticks(rates)
    assert low < min(rates) <= max(rates) < high
    assert 3 <= len(values) <= 20
    assert all(low <= value <= high for value in values)
    assert values == sorted(set(values))


def test_texts_of_references_do_not_overlap() -> None:
    points = [{"label": "a", "bpp": 1.0, "value": value} for value in (0.0, 100.0)]
    references = [{"text": str(v), "value": v} for v in (50.0, 80.0, 79.0, 78.0)]
    series = [Style("a", "#000000", SHAPES[0])]
    chart = RateChart(find_metric("box_map"), series, points, [], references)
    rows = vega_lite(chart, legend=False)["datasets"]["references"]
    assert [row["value"] for row in rows] == [50.0, 78.0, 79.0, 80.0]
    places = [row["place"] for row in rows]
    assert places[:2] == [50.0, 80.0]  # above the highest line of the three
    assert all(b - a > 5 for a, b in itertools.pairwise(places))


def test_colours_have_contrast_on_both_grounds() -> None:
    for colour in COLOURS:
        for ground in ("#ffffff", "#14171a"):  # of style.css
            lighter, darker = sorted((luminance(colour), luminance(ground)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 3, (colour, ground)


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_figures_are_made_in_the_formats_asked_for(results: Results) -> None:
    chart = rate_chart(results, find_metric("box_map"), variant_styles(results.plan, STUDY))
    files = figure_files(vega_lite(chart, legend=True), ("svg", "pdf"))
    assert list(files) == ["svg", "pdf"]
    assert files["svg"].startswith(b"<svg") and files["pdf"].startswith(b"%PDF")
    assert all(series.label.encode() in files["svg"] for series in chart.series)
