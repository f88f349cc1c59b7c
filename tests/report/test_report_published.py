"""Published numbers and curves next to the measured ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from icmbench.analyse.protocols import Beside
from icmbench.config.published import published_points as protocol_points
from icmbench.config.study import PublishedCell
from icmbench.report.published import (
    loss_plots,
    points_series,
    published_part,
    published_points,
    published_series,
)
from icmbench.report.results import Results, load_results
from icmbench.report.style import COLOURS, variant_styles
from icmbench.report.tables import Table

STUDY, PHOTOGRAPHS = "somewhere2021", "photographs2020"
J_FT = "hyperprior/faster-rcnn/j-ft"
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_published_numbers_are_compared_at_the_nearest_rate(results: Results) -> None:
    part = published_part(results, STUDY, variant_styles(results.plan, STUDY))
    ((table, notes),) = part.groups
    rate, accuracy, alone = texts(table)
    mine = results.curve(STUDY, J_FT, "box_map")
    nearest = mine.iloc[(mine["bpp"] / 0.5).transform("log").abs().argmin()]
    assert rate[:4] == ["J-FT", "Rate (bpp)", "0.5000", f"{nearest.bpp:.4f}"]
    assert f"rate index {nearest.rate_index}" in rate[4]
    assert accuracy[1:4] == ["Box mAP (%)", "34.1", f"{100 * nearest.value:.1f}"]
    assert accuracy[5] == "high"
    assert alone == ["Theirs alone", "Box mAP (%)", "20.0", DASH, DASH, "low"]
    assert notes == ["Source: the talk", "J-FT, Box mAP: +4.6 % over T-FT"]


def test_published_bd_is_compared_with_the_same_anchor(results: Results) -> None:
    anchors = ["jpeg/faster-rcnn/baseline", "jpeg/faster-rcnn/t-ft"]
    quoted = [
        PublishedCell(
            group="G",
            label="Ours",
            variant=J_FT,
            metric="bd_rate_pct:box_map",
            value=value,
            anchor=anchor,
            source="s",
            confidence="high",
        )
        for anchor, value in zip(anchors, (-10.0, -3.0), strict=True)
    ]
    studies = dict(results.plan.studies)
    studies[STUDY] = studies[STUDY].model_copy(update={"published": quoted})
    plan = results.plan.model_copy(update={"studies": studies})
    changed = dataclasses.replace(results, plan=plan)
    ((table, _),) = published_part(changed, STUDY, variant_styles(plan, STUDY)).groups
    assert [row[1].note for row in table.rows] == ["against JPEG", "against JPEG, T-FT"]
    assert [row[2].text for row in table.rows] == [f"{MINUS}10.00", f"{MINUS}3.00"]
    measured = results.bd[results.bd["variant"] == J_FT]["bd_rate_pct"].item()
    shown = [row[3].text.replace(MINUS, "-") for row in table.rows]
    assert shown == [f"{measured:.2f}", DASH]  # the second pair was not compared


def test_published_points_are_drawn_by_the_protocol_of_the_run(
    comparable: Path, results: Results, theirs: Callable[..., None]
) -> None:
    """The set, its images and preprocessing, the network and its value on original images."""
    own = load_results(comparable)
    styles = variant_styles(own.plan, STUDY)

    def drawn(run: Results, protocol: str | None = "theirs") -> bool:
        study = run.plan.studies[STUDY].model_copy(update={"published_protocol": protocol})
        plan = run.plan.model_copy(update={"studies": {**run.plan.studies, STUDY: study}})
        named = dataclasses.replace(run, plan=plan)
        curves = published_points(named, STUDY, "box_map", styles)
        assert published_points(named, STUDY, "psnr", styles) == []
        assert published_part(named, STUDY, styles).comparable == bool(curves)
        for curve in curves:
            assert curve.points == [(0.5, 0.341)]
            assert curve.style.colour == styles[J_FT].colour
        return bool(curves)

    theirs()
    assert drawn(own)
    assert not drawn(own, None)
    assert not drawn(results)  # generated scenes
    theirs(above=0.0019)
    assert drawn(own)
    others: list[dict[str, Any]] = [
        {"above": 0.0021},
        {"images": 7},
        {"short_side": 256},
        {"dataset": "coco2017"},
        {"network": {"task": ["mask-rcnn"]}},
        {"network": {"weights": "published"}},  # the task was trained here
    ]
    for changes in others:
        theirs(**changes)
        assert not drawn(own), changes


def test_published_curves_have_the_colour_of_their_variant(comparable: Path) -> None:
    results = load_results(comparable)
    styles = variant_styles(results.plan, PHOTOGRAPHS)
    drawn = published_part(results, PHOTOGRAPHS, styles).drawn
    then, elic = published_series(drawn, "psnr", styles)
    style = styles["jpeg/reconstruction/baseline"]
    assert (then.style.colour, then.style.shape) == (style.colour, style.shape)
    assert elic.style.colour not in COLOURS
    assert [rate for rate, _ in elic.points] == [0.1235, 0.1965, 0.3337, 0.4908, 0.7041, 0.8573]
    assert elic.points[0][1] == 29.113
    # ELIC has no MS-SSIM, and nobody publishes PSNR YCbCr.
    assert len(published_series(drawn, "ms_ssim", styles)) == 1
    assert published_series(drawn, "psnr_ycbcr", styles) == []


def test_measured_curves_are_compared_with_published_ones(comparable: Path) -> None:
    results = load_results(comparable)
    part = published_part(results, PHOTOGRAPHS, variant_styles(results.plan, PHOTOGRAPHS))
    table = part.curves
    assert table is not None
    rows = results.published
    value = rows[(rows["what"] == "bd_rate_pct") & (rows["metric"] == "psnr")]["value"].item()
    psnr = next(row for row in texts(table) if row[2] == "PSNR")
    assert psnr[:3] == ["JPEG then", "JPEG", "PSNR"]
    assert psnr[3].lstrip(f"+{MINUS}") == f"{abs(value):.1f} %"
    assert psnr[4:] == [DASH] * 4  # 2 points against 19, and no anchor
    assert part.notes[1:] == ["JPEG then: Another program."]
    # Everything that is published was measured on the same images.
    assert part.comparable


def test_published_gains_are_compared_with_measured_ones(comparable: Path) -> None:
    results = load_results(comparable)
    row = {"study": PHOTOGRAPHS, "metric": "psnr", "flags": "", "variant": "", "value": -60.04}
    row |= {"what": "published_bd_rate_pct", "against": "JPEG then", "label": "ELIC"}
    changed = dataclasses.replace(results, published=pd.DataFrame([row]))
    styles = variant_styles(results.plan, PHOTOGRAPHS)
    table = published_part(changed, PHOTOGRAPHS, styles).curves
    assert table is not None and "against JPEG then" in table.columns[6]
    assert texts(table) == [["ELIC", DASH, "PSNR", DASH, DASH, DASH, f"{MINUS}60.0 %", DASH]]


def test_published_curves_of_other_data_are_not_drawn(results: Results) -> None:
    part = published_part(results, PHOTOGRAPHS, variant_styles(results.plan, PHOTOGRAPHS))
    assert part.drawn == [] and part.curves is None
    (sentence,) = part.notes
    assert "kodak" in sentence and "generated images" in sentence


def test_points_of_other_networks_are_drawn_as_losses(results: Results) -> None:
    """The measured curves of that plot are their network's accuracy on originals minus theirs."""
    styles = variant_styles(results.plan, STUDY)
    role = next(iter(results.plan.datasets))
    (_, retina) = [c for c in protocol_points().curves if c.source == "gandor2022"]
    same = Beside(retina, role, {"another": 0.9, "faster-rcnn": 0.5}, drop=False)
    (curve,) = points_series([same], "box_map", role)
    assert curve.points[0] == (0.2725, 0.029389)
    assert points_series([same], "box_map", "another role") == []
    assert loss_plots(results, STUDY, [same], styles) == []
    other = dataclasses.replace(same, drop=True, why="it differs")
    (plot,) = loss_plots(results, STUDY, [other], styles)
    theirs = [row["value"] for row in plot.rows if row.get("hollow")]
    assert len(theirs) == 10 and theirs[0] == pytest.approx(100 * (0.3868 - 0.029389))
    ours = [row["value"] for row in plot.rows if row["label"] == styles[J_FT].label]
    measured = results.curve(STUDY, J_FT, "box_map")["value"]
    assert ours == pytest.approx((100 * (0.5 - measured)).tolist())
    elsewhere = dataclasses.replace(other, role="cropped", references={"another": 0.9})
    datasets = results.plan.datasets | {"cropped": results.plan.datasets[role]}
    plan = results.plan.model_copy(update={"datasets": datasets})
    plots = loss_plots(dataclasses.replace(results, plan=plan), STUDY, [other, elsewhere], styles)
    assert [plot.name.rpartition("-rate-")[2] for plot in plots] == [
        f"box_map-{own}-loss" for own in (role, "cropped")
    ]
