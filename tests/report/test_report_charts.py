"""Plots against the result tables, and what a browser or a printer gets of them."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import altair as alt
import pandas as pd

from icmbench.config.study import Comparison
from icmbench.report.charts import leading_labels, panels_of, rate_plot, training_plot
from icmbench.report.outputs import FORMATS
from icmbench.report.published import published_part, published_series
from icmbench.report.results import Results, load_results
from icmbench.report.style import COLOURS, Style, joint_styles, variant_styles

STUDY, PHOTOGRAPHS = "somewhere2021", "photographs2020"
J_FT = "hyperprior/faster-rcnn/j-ft"


def test_plot_has_the_values_of_the_table(results: Results) -> None:
    styles = variant_styles(results.plan, STUDY)
    plot = rate_plot(results, STUDY, "box_map", None, styles)
    assert [entry.label for entry in plot.series] == [
        "Original images",
        "JPEG",
        "JPEG, T-FT",
        "J-FT",
    ]
    curves = results.curves[results.curves["metric"] == "box_map"]
    coded = curves["codec"] != "uncoded"
    shown = {(row["label"], row["bpp"]): row for row in plot.rows}
    assert len(shown) == len(plot.rows) == len(curves) == 13
    for row in curves[coded].itertuples():
        point = shown[styles[row.variant].label, row.bpp]
        ends = [100 * end for end in (row.low, row.value, row.high)]
        assert [point["low"], point["value"], point["high"]] == ends
        assert point["href"] == f"../runs/{STUDY}/{row.variant}/rate{row.rate_index}-seed0/"
    # Original images have no rate of their own: they are a reference line.
    assert shown["Original images", None]["value"] == 100 * curves[~coded]["value"].item()
    table = pd.read_csv(io.BytesIO(plot.files()["csv"]), float_precision="round_trip")
    assert table["value"].tolist() == [row["value"] for row in plot.rows]


def test_lines_join_means_over_seeds(make_folder: Callable[..., Path]) -> None:
    """The symbols of a figure are those of every seed, its lines those of their means."""
    results = load_results(make_folder("tiny", [0, 1]))
    styles = {J_FT: variant_styles(results.plan, STUDY)[J_FT]}
    plot = rate_plot(results, STUDY, "box_map", None, styles)
    assert len(plot.rows) == 8
    svg = plot.svg().decode()
    assert svg.count('aria-roledescription="point"') == 8
    (line,) = re.findall(r'aria-roledescription="line mark"[^>]* d="([^"]*)"', svg)
    assert len(re.findall("[ML]", line)) == 4


def test_published_curves_are_drawn_below_and_unlike_measured_ones(comparable: Path) -> None:
    results = load_results(comparable)
    styles = variant_styles(results.plan, PHOTOGRAPHS)
    published = published_series(published_part(results, PHOTOGRAPHS, styles).drawn, "psnr", styles)
    plot = rate_plot(results, PHOTOGRAPHS, "psnr", None, styles, published)
    assert [entry.hollow for entry in plot.series] == [False, True, True]
    theirs = [row.get("hollow", False) for row in plot.rows]
    assert theirs == [True] * (19 + 6) + [False] * 2  # later rows lie above
    symbols = plot.live["layer"][-1]["encoding"]
    fills = symbols["fill"]["scale"]["range"]
    assert fills == [plot.series[0].colour, "transparent", "transparent"]


def test_at_most_eight_curves_of_a_panel_are_drawn_at_first(results: Results) -> None:
    compared = Comparison(anchor="v11", variants=["v5", "v7"], metrics=["box_map"])
    own = [Style(f"v{i}", "#000000", study=STUDY, name=f"v{i}") for i in range(12)]
    line = Style("pixels", "#000000", study=STUDY, name="pixels", is_curve=False)
    plain = "jpeg/faster-rcnn/baseline"  # any content

    def on(
        codecs: list[str], gains: dict[str, float], tasks: str = "x" * 12
    ) -> tuple[set[str], dict[str, list[str]]]:
        study = results.studies[STUDY]
        variants = {
            style.name: study.variants[plain].model_copy(update={"codec": codec, "task": task})
            for style, codec, task in zip(
                [*own, line], [*codecs, "uncoded"], f"{tasks}x", strict=True
            )
        }
        update = {"comparisons": comparisons, "variants": variants}
        studies = results.plan.studies | {STUDY: study.model_copy(update=update)}
        bd = [
            {"study": STUDY, "metric": "box_map", "anchor": "v11", "variant": name, "flags": "",
             "bd_accuracy_points": gain}
            for name, gain in gains.items()
        ]  # fmt: skip
        plan = results.plan.model_copy(update={"studies": studies})
        changed = dataclasses.replace(results, plan=plan, bd=pd.DataFrame(bd))
        panels = panels_of(changed.studies, [*own, line])
        return set(leading_labels(changed, [*own, line], panels)), panels

    comparisons = [compared]
    # Those of the leading comparison come first; lines without a rate are no curves.
    every = [f"codec{i}" for i in range(12)]
    shown, panels = on(every, {"v5": -1.0})
    assert shown == {"pixels", "v11", "v5", "v7", *(f"v{i}" for i in (0, 1, 2, 3, 4))}
    assert panels["v3"] == panels["pixels"] == [""]
    # Of more than eight of a comparison, those that gain most.
    comparisons = [compared.model_copy(update={"variants": [f"v{i}" for i in range(11)]})]
    shown, _ = on(every, {f"v{i}": float(i) for i in range(11)})
    assert shown == {"pixels", "v11", *(f"v{i}" for i in range(4, 11))}
    # Where codecs have several curves, each codec has a panel, with the anchor.
    shown, panels = on(["a", "a", "b", "b"] * 3, {})
    assert len(shown) == 13
    assert panels["v0"] == ["a"] and panels["v2"] == ["b"]
    assert panels["v11"] == panels["pixels"] == ["a", "b"]
    # Where several networks judge all codecs, each network has a panel of its own.
    comparisons.append(Comparison(anchor="v0", variants=["v1"], metrics=["box_map"]))
    shown, panels = on(["a", "a", "b", "b"] * 3, {}, "yyyyyyxxxxxx")
    assert len(shown) == 13
    assert panels["v0"] == panels["v2"] == ["y"] and panels["v11"] == panels["pixels"] == ["x"]


def test_figure_of_several_studies_has_a_panel_for_each(results: Results) -> None:
    names = [(p.study, p.variant) for p in results.plan.points]
    styles = joint_styles(results.plan, names)
    plot = rate_plot(results, "task-image-quality", "psnr", "detection", styles)
    assert "somewhere2021: JPEG = somewhere2021: JPEG, T-FT" in plot.note  # drawn once
    assert len(plot.series) == 3
    assert plot.live["facet"]["sort"] == [STUDY, PHOTOGRAPHS]
    svg = plot.svg().decode()
    assert f">{STUDY}<" in svg and f">{PHOTOGRAPHS}<" in svg


def test_loss_of_training_runs_is_thinned(root: Path) -> None:
    path = root / f"runs/{STUDY}/{J_FT}/rate1-seed0/metrics.jsonl"
    rows = [{"step": s, "split": "train", "values": {"loss": 1 / s}} for s in range(1, 1001)]
    rows.append({"step": 1000, "split": "val", "values": {"loss": 5.0}})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = load_results(root)
    plot = training_plot(results, STUDY, variant_styles(results.plan, STUDY))
    assert [entry.label for entry in plot.series] == ["J-FT"]
    assert 50 <= len(plot.rows) <= 100
    assert all(row["value"] == 1 / row["bpp"] for row in plot.rows)
    assert plot.positive and plot.svg().startswith(b"<svg")


def test_specifications_are_valid_vega_lite(comparable: Path) -> None:
    results = load_results(comparable)
    styles = variant_styles(results.plan, PHOTOGRAPHS)
    published = published_series(published_part(results, PHOTOGRAPHS, styles).drawn, "psnr", styles)
    joint = joint_styles(results.plan, [(p.study, p.variant) for p in results.plan.points])
    for plot in (
        rate_plot(results, PHOTOGRAPHS, "psnr", None, styles, published),
        rate_plot(results, STUDY, "box_map", None, variant_styles(results.plan, STUDY)),
        rate_plot(results, "task", "psnr", "detection", joint),
    ):
        alt.Chart.from_dict(plot.live, validate=True)


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


def test_figures_are_made_in_every_format(results: Results) -> None:
    styles = variant_styles(results.plan, STUDY)
    plot = rate_plot(results, STUDY, "box_map", None, styles)
    files = plot.files()
    assert tuple(files) == FORMATS
    starts = {"svg": b"<svg", "pdf": b"%PDF", "png": b"\x89PNG", "csv": b"label,"}
    assert all(files[suffix].startswith(start) for suffix, start in starts.items())
    assert all(entry.label.encode() in files["svg"] for entry in plot.series)
    # A metric that nothing has is drawn as well: file names follow from the plan.
    assert set(rate_plot(results, STUDY, "top1", None, styles).files()) == set(FORMATS)
