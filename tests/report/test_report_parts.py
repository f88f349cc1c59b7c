"""The parts of the report against the tables they are made from."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest
from PIL import Image

from icmbench.report.chart_data import RateChart, Series, rate_chart
from icmbench.report.charts import figure_files, rate_ticks, vega_lite
from icmbench.report.drawing import annotated
from icmbench.report.gallery import nearest_point
from icmbench.report.outputs import leading_metrics, study_metrics
from icmbench.report.provenance import (
    implementations,
    merged_settings,
    study_implementations,
)
from icmbench.report.published import published_groups, published_points
from icmbench.report.published_curves import published_part, published_series
from icmbench.report.results import Results, load_results
from icmbench.report.style import (
    COLOURS,
    SHAPES,
    interval,
    metric_style,
    number,
    plain,
    variant_styles,
)
from icmbench.report.tables import FLAGS, Table, bd_table, curve_table, key_figures
from icmbench.report.test_images import Originals, sort_ids
from icmbench.report.training import training_tables

STUDY = "somewhere2021"
J_FT = "hyperprior/faster-rcnn/j-ft"


@pytest.fixture(scope="module")
def results(made_results: Path) -> Results:
    return load_results(made_results)


@pytest.fixture(scope="module")
def curves(made_results: Path) -> pd.DataFrame:
    return pd.read_csv(made_results / "tables/curves.csv")


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_metrics_of_a_study(results: Results) -> None:
    assert leading_metrics(results.plan, STUDY) == ["box_map", "psnr"]
    every = ["box_map", "psnr", "box_map50", "box_map75", "psnr_ycbcr", "ms_ssim"]
    assert study_metrics(results.plan, STUDY) == every
    assert study_metrics(results.plan, "photographs2020") == ["psnr", "ms_ssim", "psnr_ycbcr"]


def test_key_figures_are_those_of_the_curves(results: Results, curves: pd.DataFrame) -> None:
    styles = variant_styles(results.plan, STUDY)
    metrics = [metric_style("box_map"), metric_style("psnr")]
    table = key_figures(results, STUDY, metrics, styles)
    assert len(table.rows) == 1 + 3 * 4
    for variant, rate in itertools.product(["jpeg/faster-rcnn/baseline", J_FT], range(4)):
        chosen = curves[(curves.variant == variant) & (curves.rate_index == rate)]
        chosen = chosen.set_index("metric")
        accuracy, psnr = chosen.loc["box_map"], chosen.loc["psnr"]
        start = next(i for i, row in enumerate(table.rows) if row[0].text == styles[variant].label)
        cells = table.rows[start + rate][-3:]
        assert cells[0].text == f"{accuracy.bpp:.4f}"
        assert cells[1].text == f"{100 * accuracy.value:.1f}"
        assert cells[1].note == f"[{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]"
        assert cells[2].text == f"{psnr.value:.2f}"
    # Original pixels come first, as in the study's file, and have no PSNR.
    assert [c.text for c in table.rows[0]][:3] == ["Original images", "\N{EN DASH}", "24.0000"]
    assert table.rows[0][-1].text == "\N{EN DASH}"


def test_table_under_a_plot_has_every_point(results: Results) -> None:
    styles = variant_styles(results.plan, STUDY)
    table = curve_table(results, metric_style("box_map"), styles)
    assert len(table.rows) == 13
    assert "Rate, estimated (bpp)" in table.columns
    row = next(row for row in table.rows if row[0].text == "JPEG")
    assert (row[2].text, row[2].note) == ("quality 5", "intra QP 2")
    assert texts(table)[0][2] == "\N{EN DASH}"  # original pixels


def test_bd_table(results: Results, made_results: Path) -> None:
    styles = variant_styles(results.plan, STUDY)
    shown = bd_table(results, STUDY, styles)
    assert shown is not None
    source = pd.read_csv(made_results / "tables/bd.csv").set_index("variant")
    assert [row[0] for row in texts(shown.table)] == ["JPEG, T-FT", "J-FT"]
    for row, variant in zip(shown.table.rows, ["jpeg/faster-rcnn/t-ft", J_FT], strict=True):
        expected = source.loc[variant]
        assert row[3].text == number(expected.bd_rate_pct, 1) + " %"
        assert row[3].note == interval(expected.low, expected.high, 1)
        assert row[4].text == f"+{expected.bd_accuracy_points:.2f} points"
        assert row[5].text == "pchip"
        assert row[6].text == f"{100 * expected.overlap:.0f} %"
    assert set(shown.flags) <= set(FLAGS)
    assert shown.images == [6] and shown.resamples == [40]
    assert bd_table(results, "photographs2020", styles) is None


def test_bd_table_says_what_is_undefined_and_lost(results: Results) -> None:
    row = dict(results.bd[0]) | {
        "metric": "psnr",
        "bd_rate_pct": float("nan"),
        "bd_accuracy_points": -0.25,
        "flags": "no-overlap;accuracy:non-monotone:2",
        "n_resamples_used": 0,
    }
    changed = Results(results.root, results.plan, results.curves, [row], None, {}, {})
    shown = bd_table(changed, STUDY, variant_styles(results.plan, STUDY))
    assert shown is not None and shown.incomplete
    cells = shown.table.rows[0]
    assert cells[3].text == "\N{EN DASH}" and "0 of 40 resamples" in cells[3].note
    assert cells[4].text == "\N{MINUS SIGN}0.25 dB"
    assert list(shown.flags) == ["no-overlap", "non-monotone"]
    assert "resamples" not in cells[4].note
    # Of the two metrics each may lose its own.
    row |= {"n_resamples_used": 40, "accuracy_n_resamples_used": 12}
    changed = Results(results.root, results.plan, results.curves, [row], None, {}, {})
    shown = bd_table(changed, STUDY, variant_styles(results.plan, STUDY))
    assert shown is not None and shown.incomplete
    cells = shown.table.rows[0]
    assert "resamples" not in cells[3].note and "12 of 40 resamples" in cells[4].note


def test_one_row_may_be_published_against_two_anchors(results: Results) -> None:
    anchors = ["jpeg/faster-rcnn/baseline", "jpeg/faster-rcnn/t-ft"]
    quoted = [
        {"group": "G", "label": "Ours", "variant": J_FT, "metric": "bd_rate_pct:box_map",
         "value": value, "anchor": anchor, "source": "s", "confidence": "high", "note": ""}
        for anchor, value in zip(anchors, (-10.0, -3.0), strict=True)
    ]  # fmt: skip
    plan = json.loads(json.dumps(results.plan))
    plan["studies"][STUDY]["published"] = quoted
    changed = Results(results.root, plan, results.curves, results.bd, None, {}, {})
    (group,) = published_groups(changed, STUDY, variant_styles(results.plan, STUDY))
    rows = [row[-5:] if place else row[1:] for place, row in enumerate(group.table.rows)]
    notes = [next(cell.note for cell in row if cell.note.startswith("against")) for row in rows]
    assert notes == ["against JPEG", "against JPEG, T-FT"]
    shown = [" ".join(cell.text for cell in row) for row in group.table.rows]
    assert "10.0" in shown[0] and "3.0" in shown[1]


def test_published_stands_beside_the_nearest_rate(results: Results, curves: pd.DataFrame) -> None:
    styles = variant_styles(results.plan, STUDY)
    (group,) = published_groups(results, STUDY, styles)
    assert group.name == "Table 1"
    rate, accuracy, alone = texts(group.table)
    mine = curves[(curves.variant == J_FT) & (curves.metric == "box_map")]
    nearest = mine.iloc[(mine.bpp / 0.5).transform("log").abs().argmin()]
    assert rate[:4] == ["J-FT", "Rate (bpp)", "0.5000", f"{nearest.bpp:.4f}"]
    assert f"rate index {nearest.rate_index}" in rate[4]
    assert accuracy == ["Box mAP (%)", "34.1", f"{100 * nearest.value:.1f}", "high"]
    dash = "\N{EN DASH}"
    assert alone == ["Theirs alone", "Box mAP (%)", "20.0", dash, dash, "low"]
    assert group.notes == ["Source: the talk", "J-FT, Box mAP: +4.6 % over T-FT"]
    assert published_points(results, STUDY, "box_map") == [
        {"label": "J-FT", "variant": J_FT, "bpp": 0.5, "value": 0.341}
    ]
    assert published_points(results, STUDY, "psnr") == []


PHOTOGRAPHS = "photographs2020"


def test_published_curves_are_drawn_where_they_can_be_compared(comparable: Path) -> None:
    results = load_results(comparable)
    styles = variant_styles(results.plan, PHOTOGRAPHS)
    then, elic = published_series(results, PHOTOGRAPHS, "psnr", styles)
    style = styles["jpeg/reconstruction/baseline"]
    assert (then.series.colour, then.series.shape) == (style.colour, style.shape)
    assert elic.series.colour not in COLOURS
    assert elic.series.label == "ELIC (published)"
    assert elic.rates == [0.1235, 0.1965, 0.3337, 0.4908, 0.7041, 0.8573]
    assert elic.qualities[0] == 29.113
    # ELIC has no MS-SSIM, and nobody publishes PSNR YCbCr.
    assert len(published_series(results, PHOTOGRAPHS, "ms_ssim", styles)) == 1
    assert published_series(results, PHOTOGRAPHS, "psnr_ycbcr", styles) == []

    chart = rate_chart(results, metric_style("psnr"), styles, (), [then, elic])
    assert [entry.hollow for entry in chart.series] == [False, True, True]
    assert len(chart.points) == 2 + 19 + 6
    spec = vega_lite(chart, legend=True, width=100)
    widths = [layer["mark"].get("strokeWidth") for layer in spec["layer"]]
    assert widths == [1.1, 1.2, 1.8, 1.5, 1.6]  # thin lines and small symbols below the measured
    assert len(spec["datasets"][spec["layer"][0]["data"]["name"]]) == 19 + 6
    assert spec["layer"][0]["encoding"]["strokeDash"]["scale"]["range"] == [[1, 0], [3, 3], [3, 3]]


def test_published_and_measured_curves_stand_in_tables(comparable: Path) -> None:
    results = load_results(comparable)
    part = published_part(results, PHOTOGRAPHS, variant_styles(results.plan, PHOTOGRAPHS))
    (table,) = part.tables  # no anchor, so no gains
    row = next(r for r in results.published if r["what"] == "bd_rate_pct" and r["metric"] == "psnr")
    psnr = texts(table)[0]
    assert psnr[:3] == ["JPEG then", "JPEG", "PSNR"]
    assert psnr[3].lstrip("+\N{MINUS SIGN}") == f"{abs(row['value']):.1f} %"
    assert psnr[4:] == ["\N{EN DASH}"] * 2  # 2 points against 19
    assert part.obstacles == []
    assert part.notes == ["Source of the published curves: somebody", "JPEG then: Another program."]


def test_published_and_measured_gains(comparable: Path) -> None:
    results = load_results(comparable)
    row = {"study": PHOTOGRAPHS, "metric": "psnr", "flags": ""}
    gain = {"what": "published_bd_rate_pct", "against": "JPEG then", "label": "ELIC"}
    published = [{**row, **gain, "variant": "", "value": -60.04}]
    changed = dataclasses.replace(results, published=published)
    styles = variant_styles(results.plan, PHOTOGRAPHS)
    (table,) = published_part(changed, PHOTOGRAPHS, styles).tables
    assert table.caption == "BD-rate against JPEG then: as published, and as measured here."
    minus, dash = "\N{MINUS SIGN}", "\N{EN DASH}"
    assert texts(table) == [["ELIC", "PSNR", f"{minus}60.0 %", dash]]


def test_published_curves_of_other_data_are_said_not_drawn(results: Results) -> None:
    styles = variant_styles(results.plan, PHOTOGRAPHS)
    assert published_series(results, PHOTOGRAPHS, "psnr", styles) == []
    part = published_part(results, PHOTOGRAPHS, styles)
    assert part.tables == part.notes == []
    assert part.obstacles == [
        "The published curves are not drawn: they are of kodak, and this run measured generated "
        "scenes."
    ]


def test_many_curves_are_told_apart() -> None:
    plan = {
        "studies": {
            "many": {
                "variants": {
                    str(i): {"label": str(i), "codec": "jpeg", "evaluate": True} for i in range(17)
                }
            }
        },
        "points": [{"study": "many", "variant": str(i)} for i in range(17)],
    }
    styles = variant_styles(plan, "many").values()
    assert len({(style.colour, style.dash) for style in styles}) == 17
    assert len({(style.colour, style.shape) for style in styles}) == 17


def test_chart_shows_what_the_table_says(results: Results, curves: pd.DataFrame) -> None:
    styles = variant_styles(results.plan, STUDY)
    chart = rate_chart(results, metric_style("box_map"), styles)
    assert [series.label for series in chart.series] == ["JPEG", "JPEG, T-FT", "J-FT"]
    mine = curves[(curves.metric == "box_map") & (curves.codec != "uncoded")]
    assert len(chart.points) == len(mine) == 12
    shown = {(row["label"], round(row["bpp"], 6)): row["value"] for row in chart.points}
    for row in mine.itertuples():
        key = (styles[row.variant].label, round(row.bpp, 6))
        assert shown[key] == pytest.approx(100 * row.value)
    (reference,) = chart.references
    original = curves[(curves.metric == "box_map") & (curves.codec == "uncoded")].value.iloc[0]
    assert reference["value"] == pytest.approx(100 * original)
    spec = json.dumps(vega_lite(chart, legend=True, width=100))
    assert '"type": "log"' in spec and '"strokeDash": [6, 4]' in spec


def test_lines_join_means_over_seeds(make_folder: Any) -> None:
    results = load_results(make_folder("tiny", [0, 1]))
    styles = variant_styles(results.plan, STUDY)
    chart = rate_chart(results, metric_style("box_map"), styles)
    assert len(chart.points) == 24
    assert [row["rate_index"] for row in chart.lines] == [0, 1, 2, 3] * 3
    seeds = [r for r in results.curve(STUDY, "box_map", J_FT) if r["rate_index"] == 1]
    assert len(seeds) == 2
    line = next(row for row in chart.lines if row["label"] == "J-FT" and row["rate_index"] == 1)
    assert line["value"] == pytest.approx(50 * (seeds[0]["value"] + seeds[1]["value"]))


@pytest.mark.parametrize(
    "rates", [[0.1, 1.0], [0.5], [0.44, 0.74], [0.501, 0.502], [0.0012, 30.0], [24.0], [0.099, 0.1]]
)
def test_rate_axis_labels_round_values_inside(rates: list[float]) -> None:
    ticks = rate_ticks(rates)
    low, high = ticks.domain
    assert low < min(rates) <= max(rates) < high
    assert 3 <= len(ticks.values) <= 20
    assert all(low <= value <= high for value in ticks.values)
    assert ticks.values == sorted(set(ticks.values))


def test_styles_tell_variants_apart_on_both_grounds(results: Results) -> None:
    assert len({(i % len(COLOURS), i % len(SHAPES)) for i in range(40)}) == 40
    for colour in COLOURS:
        for ground in ("#ffffff", "#14171a"):  # of style.css
            lighter, darker = sorted((luminance(colour), luminance(ground)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 3, (colour, ground)
    styles = variant_styles(results.plan, STUDY)
    curves = [style for style in styles.values() if style.is_curve]
    assert [style.colour for style in curves] == list(COLOURS[:3])


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_equal_labels_are_made_unique(results: Results) -> None:
    plan = json.loads(json.dumps(results.plan))
    variants = plan["studies"][STUDY]["variants"]
    variants["jpeg/faster-rcnn/t-ft"]["label"] = "JPEG"
    labels = [style.label for style in variant_styles(plan, STUDY).values()]
    assert labels == [
        "Original images",
        "JPEG (jpeg/faster-rcnn/baseline)",
        "JPEG (jpeg/faster-rcnn/t-ft)",
        "J-FT",
    ]


def test_nearest_operating_point(results: Results, curves: pd.DataFrame) -> None:
    mine = curves[(curves.variant == J_FT) & (curves.metric == "psnr")].set_index("rate_index")
    for index, rate in mine.bpp.items():
        point = nearest_point(results, STUDY, J_FT, rate * 1.01)
        assert point is not None and point["rate_index"] == index
    assert nearest_point(results, STUDY, "no/such/variant", 1.0) is None


def test_originals_of_a_fetched_data_set(results: Results, tmp_path: Path) -> None:
    """Images in a folder, with ids that are not file names, and a data set without annotations."""
    folder = tmp_path / "somewhere"
    (folder / "val").mkdir(parents=True)
    for name, colour in (("000007.png", "red"), ("kodim01.png", "blue")):
        Image.new("RGB", (400, 200), colour).save(folder / "val" / name)
    annotations = {
        "images": [{"id": 7, "file_name": "000007.png", "width": 400, "height": 200}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [{"image_id": 7, "category_id": 3, "bbox": [100, 50, 40, 20], "area": 800}],
    }
    (folder / "instances.json").write_text(json.dumps(annotations))
    dataset = {"source": "catalogue", "folder": str(folder), "manifest": str(folder / "m.json")}
    split = {"images": "val", "annotations": None, "layout": None, "limit": None}
    plain = dataset | {"splits": {"test": split}}
    annotated_ = dataset | {"splits": {"test": split | {"annotations": "instances.json"}}}
    plan = results.plan | {"datasets": {"plain": plain, "annotated": annotated_}}
    changed = Results(results.root, plan, [], [], None, {}, {})
    assert Originals(changed, "plain").ids() == ["000007", "kodim01"]
    originals = Originals(changed, "annotated")
    assert originals.ids() == ["7"] and originals.size("7") == (400, 200)
    (box,) = originals.boxes("7")
    assert box.text == "cat"
    # Reduced to 384 pixels: the box moves with the image.
    drawn = annotated(originals.image("7"), [box], (400, 200))
    assert drawn.size == (384, 192)
    assert drawn.getpixel((round(140 * 0.96) - 2, 60)) == (0xF0, 0xE4, 0x42)
    assert drawn.getpixel((115, 60)) == (255, 0, 0)


def test_programs_that_coded_are_listed(results: Results) -> None:
    assert texts(implementations(results)) == [
        ["bmshj2018-hyperprior", "test"],
        ["jpeg", "Pillow 13.0.0, libjpeg 3.1, quality 5 to 40, intra QP 2 to 37"],
        ["uncoded", "test"],
    ]
    styles = variant_styles(results.plan, "photographs2020")
    assert texts(study_implementations(results, "photographs2020", styles)) == [
        ["JPEG", "Pillow 13.0.0, libjpeg 3.1, quality 10 to 40, intra QP 7 to 37"]
    ]


def test_settings_of_one_curve_are_joined() -> None:
    lines = ["bpgenc 0.9.8, bpgenc 0a1b2c5d6e8f, chroma 4:4:4, qp 37, intra QP 34"]
    assert merged_settings(lines * 2) == lines
    more = [lines[0].replace("37", "7").replace("34", "4"), lines[0].replace("0.9.8", "0.9.9")]
    assert merged_settings([*lines, *more]) == [
        "bpgenc 0.9.8, bpgenc 0a1b2c5d6e8f, chroma 4:4:4, qp 7 to 37, intra QP 4 to 34",
        "bpgenc 0.9.9, bpgenc 0a1b2c5d6e8f, chroma 4:4:4, qp 37, intra QP 34",
    ]
    # Another digest or chroma format is another program.
    others = [lines[0].replace("0a1b2c5d6e8f", "112233556688"), lines[0].replace("4:4:4", "4:2:0")]
    assert merged_settings([*lines, *others]) == [*lines, *others]
    assert merged_settings([]) == []


def test_a_steered_term_is_told_in_words(results: Results) -> None:
    study = copy.deepcopy(results.plan["studies"][STUDY])
    (name,) = [n for n, v in study["variants"].items() if v["label"] == "J-FT"]
    training = study["variants"][name]["train"]
    training["loss"]["bpp"] = {"target": "$beta", "start": 4.0, "gain": 0.01}
    study["schedules"][training["schedule"]].update(crop=224, crop_area=[0.2, 1.0])
    tables = training_tables(study, variant_styles(results.plan, STUDY))
    words = " ".join(text for t in tables for row in texts(t) for text in row)
    assert "bpp steered to the ladder's beta (weight 4 at first, gain 0.01)" in words
    assert "crops of 224, resized from 20 to 100 % of the area" in words


def test_origins_are_visible(results: Results) -> None:
    styles = variant_styles(results.plan, STUDY)
    tables = training_tables(results.plan["studies"][STUDY], styles)
    origins = {
        row[0].text: cell.text
        for t in tables
        for row in t.rows
        for cell in row
        if cell.kind == "origin"
    }
    assert origins == {
        "beta": "ours",
        "quality": "read from a figure",
        "short": "published",
        "Original images": "ours",
        "JPEG, T-FT": "published",
        "J-FT": "published",
    }
    words = " ".join(text for t in tables for row in texts(t) for text in row)
    assert "beta \N{MULTIPLICATION SIGN} bpp" in words
    assert "task: Original images, rate index 0" in words
    assert "3, 1, 0.3, 0.1" in words


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (None, 1, "\N{EN DASH}"),
        (float("nan"), 1, "\N{EN DASH}"),
        (float("inf"), 1, "\N{INFINITY}"),
        (-1.25, 2, "\N{MINUS SIGN}1.25"),
        (-0.001, 2, "0.00"),
        (12.345, 1, "12.3"),
    ],
)
def test_numbers(value: float | None, digits: int, expected: str) -> None:
    assert number(value, digits) == expected


def test_settings_are_written_as_people_do() -> None:
    assert [plain(v) for v in (1e-4, 3.0, 180000, 2e-5, None)] == [
        "0.0001",
        "3",
        "180000",
        "2e-05",
        "\N{EN DASH}",
    ]


def test_ids_sort_as_numbers() -> None:
    assert sort_ids(["10", "9", "100"]) == ["9", "10", "100"]
    assert sort_ids(["kodim10", "kodim09"]) == ["kodim09", "kodim10"]


def test_unknown_metric_is_shown_as_it_stands() -> None:
    metric = metric_style("mask_iou")
    assert (metric.heading, metric.show(0.5)) == ("mask iou", "0.500")


def test_drawings_keep_to_the_schema(comparable: Path) -> None:
    """The pages leave this check out, because it takes most of their time."""
    results = load_results(comparable)
    styles = variant_styles(results.plan, PHOTOGRAPHS)
    published = published_series(results, PHOTOGRAPHS, "psnr", styles)
    chart = rate_chart(results, metric_style("psnr"), styles, (), published)
    box = variant_styles(results.plan, STUDY)
    for drawn in (chart, rate_chart(results, metric_style("box_map"), box)):
        spec = vega_lite(drawn, legend=True, width=100)
        alt.Chart.from_dict(spec, validate=True)
        assert {layer["data"]["name"] for layer in spec["layer"]} == set(spec["datasets"])


def test_texts_of_references_stand_apart() -> None:
    series = [Series("a", "#000000", SHAPES[0])]
    points = [{"label": "a", "bpp": 1.0, "value": value} for value in (0.0, 100.0)]
    references = [{"text": str(v), "value": v} for v in (50.0, 80.0, 79.0, 78.0)]
    chart = RateChart(metric_style("box_map"), series, points, [], references)
    rows = vega_lite(chart, legend=False, width=100)["datasets"]["references"]
    assert [row["value"] for row in rows] == [50.0, 78.0, 79.0, 80.0]
    places = [row["place"] for row in rows]
    assert places[:2] == [50.0, 80.0]  # above the highest line of the three
    assert all(b - a > 5 for a, b in itertools.pairwise(places))


def test_figures_are_made_in_the_formats_asked_for(results: Results) -> None:
    chart = rate_chart(results, metric_style("box_map"), variant_styles(results.plan, STUDY))
    spec = vega_lite(chart, legend=True, width=100)
    files = figure_files(spec, ("svg", "pdf"))
    assert list(files) == ["svg", "pdf"]
    pdf = files["pdf"]
    assert files["svg"].startswith(b"<svg") and pdf.startswith(b"%PDF")
    assert figure_files(spec, ("pdf",))["pdf"] == pdf
    # The cross-reference table still leads to every object.
    start = int(pdf.rpartition(b"startxref")[2].split()[0])
    entries = re.findall(rb"(\d{10}) \d{5} n", pdf[start:])
    assert len(entries) > 20
    for entry in entries:
        assert re.match(rb"\d+ 0 obj", pdf[int(entry) : int(entry) + 20])
