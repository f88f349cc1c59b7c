"""Tables of a study against the result tables that they show."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from icmbench.config.study import Study, Weights
from icmbench.config.summary import PlanSummary
from icmbench.jobs import RateTarget
from icmbench.report.provenance import (
    cost_table,
    loaded_weights,
    totals,
    training_tables,
    training_warnings,
)
from icmbench.report.results import Results, load_results
from icmbench.report.style import Style, interval, number, plain, signed, variant_styles
from icmbench.report.tables import Table, bd_table, complexity_table, points_table, transfer_table

STUDY, PHOTOGRAPHS = "somewhere2021", "photographs2020"
J_FT, T_FT = "hyperprior/faster-rcnn/j-ft", "jpeg/faster-rcnn/t-ft"
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_points_are_those_of_the_curves(results: Results) -> None:
    styles = variant_styles(results.plan, STUDY)
    table = points_table(results, ["box_map", "psnr"], styles)
    rows = texts(table)
    assert len(rows) == 1 + 3 * 4
    # Original pixels come first, as in the study file, and have no PSNR.
    assert rows[0][:3] == ["Original images", DASH, "24.0000"] and rows[0][-1] == DASH
    shown = {(row[0], row[2]): cells for row, cells in zip(rows, table.rows, strict=True)}
    curves = results.curves[results.curves["study"] == STUDY]
    for row in curves[curves["metric"] == "box_map"].itertuples():
        cells = shown[styles[row.variant].label, f"{row.bpp:.4f}"]
        assert cells[0].link == f"../curves/{STUDY}/{row.variant}.json"
        assert cells[1].link == f"../runs/{STUDY}/{row.variant}/rate{row.rate_index}-seed0/"
        assert cells[3].text == f"{100 * row.value:.1f}"
        assert cells[3].note == f"[{100 * row.low:.1f}, {100 * row.high:.1f}]"
    for row in curves[curves["metric"] == "psnr"].itertuples():
        assert shown[styles[row.variant].label, f"{row.bpp:.4f}"][4].text == f"{row.value:.2f}"


def test_rates_far_from_their_target_have_a_warning(results: Results) -> None:
    content = results.studies[STUDY].model_dump()
    (curve,) = [c for _, c in results.curve(STUDY, J_FT, "box_map").groupby("variant")]
    rates = dict(zip(curve["rate_index"], curve["bpp"], strict=True))
    # Targets are the ladder: one 8 % and one 12 % below the measured rate, others as measured.
    ladder = [rates[0] / 1.08, rates[1] / 1.12, rates[2], rates[3] / 0.8]
    content["ladders"]["beta"]["values"] = ladder
    loss = content["variants"][J_FT]["train"]["loss"]
    loss["bpp"] = RateTarget(target="$beta").model_dump()
    study = Study.model_validate(content)
    plan = results.plan.model_copy(update={"studies": {**results.plan.studies, STUDY: study}})
    changed = dataclasses.replace(results, plan=plan)
    styles = variant_styles(plan, STUDY)
    table = points_table(changed, ["box_map"], styles)
    notes = {row[2].text: row[2].note for row in table.rows if row[2].note}
    assert set(notes) == {f"{rates[1]:.4f}", f"{rates[3]:.4f}"}
    assert "12 %" in notes[f"{rates[1]:.4f}"]
    assert f"{MINUS}20 %" in notes[f"{rates[3]:.4f}"]


def test_warnings_of_training_runs_are_at_their_points(results: Results) -> None:
    key = f"{STUDY}/{J_FT}/rate2-seed0"
    runs = {**results.runs, key: {**results.runs[key], "warnings": ["The adversary is nominal."]}}
    changed = dataclasses.replace(results, runs=runs)
    styles = variant_styles(results.plan, STUDY)
    table = points_table(changed, ["box_map"], styles)
    warned = [row[1].text for row in table.rows if row[1].note]
    assert warned == ["beta 0.3"]
    (line,) = training_warnings(changed, STUDY, styles)
    assert line.startswith("J-FT, beta 0.3: ") and "nominal" in line
    assert training_warnings(results, STUDY, styles) == []


def test_bd_table_values_and_flags(results: Results) -> None:
    styles = variant_styles(results.plan, STUDY)
    shown = bd_table(results, STUDY, styles)
    assert shown is not None
    source = results.bd.set_index("variant")
    assert [row[0] for row in texts(shown)] == ["JPEG, T-FT", "J-FT"]
    for row, variant in zip(shown.rows, ["jpeg/faster-rcnn/t-ft", J_FT], strict=True):
        expected = source.loc[variant]
        assert (row[1].text, row[2].text, row[6].note) == ("JPEG", "Box mAP", "pchip")
        assert row[3].text == signed(expected.bd_rate_pct, 1, " %")
        assert row[3].note == interval(expected.low, expected.high, 1)
        assert row[4].text == signed(expected.bd_accuracy_points, 2, " points")
        shares = (expected.overlap, expected.accuracy_overlap)
        assert row[5].text == " / ".join(f"{100 * share:.0f} %" for share in shares)
    assert "6 test images (40 resamples)" in shown.caption
    assert bd_table(results, "photographs2020", styles) is None


def test_bd_table_shows_undefined_and_lost_resamples(results: Results) -> None:
    row = results.bd.iloc[:1].assign(
        metric="psnr",
        bd_rate_pct=float("nan"),
        bd_accuracy_points=-0.25,
        flags="no-overlap;accuracy:non-monotone:2",
        n_resamples_used=0,
    )
    changed = dataclasses.replace(results, bd=row)
    shown = bd_table(changed, STUDY, variant_styles(results.plan, STUDY))
    assert shown is not None
    rate, accuracy = shown.rows[0][3:5]
    assert rate.text == DASH and "0 of 40 resamples" in rate.note
    assert accuracy.text == f"{MINUS}0.25 dB" and "resamples" not in accuracy.note


@pytest.mark.parametrize(
    ("flags", "grey"),
    [
        ("low-overlap;accuracy:duplicate-rates:1", [True, False]),
        ("non-monotone:1;few-points;accuracy:low-overlap", [True, True]),
        ("accuracy:few-points", [False, True]),
    ],
)
def test_bd_table_greys_what_decides_nothing(
    results: Results, flags: str, grey: list[bool]
) -> None:
    changed = dataclasses.replace(results, bd=results.bd.iloc[:1].assign(flags=flags))
    shown = bd_table(changed, STUDY, variant_styles(results.plan, STUDY))
    assert shown is not None
    assert [cell.grey for cell in shown.rows[0][3:5]] == grey


def test_complexity_ranges(results: Results) -> None:
    styles = variant_styles(results.plan, STUDY)
    table = complexity_table(results, STUDY, ["box_map"], styles)
    assert table is not None
    # Reconstruction is neither counted nor timed anywhere: it has no column.
    assert not [name for name in table.columns if name.startswith("Reconstruction")]
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in texts(table)}
    shown = rows["J-FT"]
    assert shown["Codec, million parameters"] == "5.00 to 5.03"
    assert shown["Task network, million parameters"] == "41.00"
    assert shown["Encoding, kMAC per pixel"] == "40.5"
    assert shown["Encoding, ms per image"] == "100.0"
    assert shown["Decoding, ms per image"] == "20.0 to 50.0"
    assert rows["JPEG"]["Codec, million parameters"] == DASH
    curve = 100 * results.curve(STUDY, J_FT, "box_map")["value"]
    assert shown["Box mAP (%)"] == f"{curve.min():.1f} to {curve.max():.1f}"
    assert shown["Task network, kMAC per pixel"] == "260.0"


def test_complexity_without_measurements_has_no_columns(results: Results) -> None:
    bare = {
        key: {name: value for name, value in content.items() if name != "complexity"}
        for key, content in results.evaluations.items()
    }
    changed = dataclasses.replace(results, evaluations=bare, records={})
    table = complexity_table(changed, STUDY, [], variant_styles(results.plan, STUDY))
    assert table is not None and table.columns == ["Variant", "Rate (bpp)"]


def test_cost_checks_and_programs(results: Results) -> None:
    table = cost_table(results, STUDY, variant_styles(results.plan, STUDY))
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in texts(table)}
    assert rows["J-FT"]["CPU s, training"] == "50" and rows["J-FT"]["CPU s, evaluation"] == "10"
    assert rows["J-FT"]["Wrong after decoding"] == "1 of 24"
    assert rows["J-FT"]["Real against estimated bits"] == "+2.04 %"
    assert rows["JPEG"]["CPU s, training"] == "0"
    assert rows["Original images"]["Wrong after decoding"] == DASH
    lines = [f"Pillow 13.0.0, libjpeg 3.1, quality {q}, intra QP {q - 3}" for q in (10, 40)]
    jpeg = cost_table(results, PHOTOGRAPHS, variant_styles(results.plan, PHOTOGRAPHS))
    assert [row[-1] for row in texts(jpeg)] == ["\n".join(lines)]
    # The encodings that two variants share count once.
    assert "47 of 48 coded images" in totals(results, STUDY)


def with_study(plan: PlanSummary, study: Study, **scale: Any) -> PlanSummary:
    return plan.model_copy(
        update={
            "studies": {**plan.studies, study.name: study},
            "scale": plan.scale.model_copy(update=scale),
        }
    )


@pytest.mark.parametrize(
    ("pretrained", "linear", "words"),
    [
        ("zoo", True, f"the zoo ({STUDY}/base), with a linear start"),
        ("published", False, f"published weights ({STUDY}/base), without a linear start"),
    ],
)
def test_learned_codecs_show_what_they_began_with(
    results: Results, pretrained: str, linear: bool, words: str
) -> None:
    """Also if they are not trained, and where another variant trained their weights."""
    study = results.studies[STUDY]
    base = study.variants[J_FT].model_copy(update={"codec_from": "pretrained", "train": None})
    own = study.variants[J_FT].model_copy(update={"codec_from": Weights(variant="base")})
    variants = {**study.variants, "base": base, J_FT: own}
    codecs = {"bmshj2018-hyperprior": {"linear_start": linear}}
    changed = study.model_copy(update={"variants": variants})
    plan = with_study(results.plan, changed, pretrained=pretrained, codecs=codecs)
    styles = variant_styles(results.plan, STUDY)
    styles["base"] = Style("Base", "#000000", study=STUDY, name="base")
    runs = {row[0].text: row for row in training_tables(plan, STUDY, styles)[-1].rows}
    began = "codec: bmshj2018-hyperprior, began with "
    assert began + words in runs["J-FT"][1].text
    assert began + words.replace(f" ({STUDY}/base)", "") in runs["Base"][1].text
    assert runs["Base"][2].text == "not trained" and "JPEG" not in runs


def test_training_tables_show_settings_and_origins(results: Results) -> None:
    tables = training_tables(results.plan, STUDY, variant_styles(results.plan, STUDY))
    cells = [(row[0].text, cell) for table in tables for row in table.rows for cell in row]
    assert {name: cell.text for name, cell in cells if cell.kind == "origin"} == {
        "beta": "ours",
        "quality": "read from a figure",
        "short": "published",
        "Original images": "ours",
        "JPEG, T-FT": "published",
        "J-FT": "published",
    }
    found = {(name, cell.text) for name, cell in cells}
    assert ("beta", "parameter: beta\nvalues: 3, 1, 0.3, 0.1") in found
    (j_ft,) = (text for name, text in found if name == "J-FT" and "loss" in text)
    assert "parts: codec, task" in j_ft and "bpp $beta" in j_ft
    assert "codec_from: random" in j_ft
    assert "bmshj2018-hyperprior, began with random weights, without a linear start" in j_ft
    assert "task_from: variant uncoded/faster-rcnn/pretrained, rate 0" in j_ft


def test_a_steered_loss_term_is_explained(results: Results) -> None:
    content = copy.deepcopy(results.studies[STUDY].model_dump())
    training = content["variants"][J_FT]["train"]
    training["loss"]["bpp"] = RateTarget(target="$beta", start=4.0, gain=0.01).model_dump()
    content["schedules"]["short"].update(crop=224, crop_area=[0.2, 1.0])
    plan = with_study(results.plan, Study.model_validate(content))
    tables = training_tables(plan, STUDY, variant_styles(results.plan, STUDY))
    words = " ".join(text for table in tables for row in texts(table) for text in row)
    for part in ("target $beta", "start 4", "gain 0.01", "crop: 224", "crop_area: 0.2, 1"):
        assert part in words


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (None, 1, DASH),
        (float("nan"), 1, DASH),
        (float("inf"), 1, "\N{INFINITY}"),
        (-1.25, 2, f"{MINUS}1.25"),
        (-0.001, 2, "0.00"),
        (12.345, 1, "12.3"),
    ],
)
def test_numbers(value: float | None, digits: int, expected: str) -> None:
    assert number(value, digits) == expected


def test_settings_are_in_usual_notation() -> None:
    values = (1e-4, 3.0, 180000, 2e-5, None)
    assert [plain(v) for v in values] == ["0.0001", "3", "180000", "2e-05", DASH]


def test_records_are_summed_by_point(results: Results, made_results: Path) -> None:
    frame = pd.read_parquet(made_results / "tables/records.parquet")
    names = ["study", "variant", "rate_index", "seed"]
    assert len(results.records) == len(frame.drop_duplicates(names))
    for name, own in frame.groupby(names, sort=False):
        found = results.records[name]
        assert found.bits == own["bits"].sum()
        assert (found.checked, found.wrong) == (6, (~own["roundtrip_ok"]).sum())
        assert found.decode_s == pytest.approx(own["decode_s"].mean(), nan_ok=True)
    point = results.points(STUDY, J_FT)[1]
    own = frame[(frame.variant == J_FT) & (frame.rate_index == 1)]
    assert results.images_of(point)["psnr"].tolist() == own["psnr"].tolist()


def test_results_of_several_seeds_have_a_seed_column(make_folder: Callable[..., Path]) -> None:
    results = load_results(make_folder("tiny", [0, 1]))
    styles = variant_styles(results.plan, STUDY)
    table = points_table(results, [], styles)
    place = table.columns.index("Seed")
    assert {row[place] for row in texts(table)} == {"0", "1"}


def test_seeds_that_change_nothing_lead_to_one_evaluation(make_folder: Callable[..., Path]) -> None:
    results = load_results(make_folder("tiny", [0, 1]))
    styles = variant_styles(results.plan, PHOTOGRAPHS)
    rows = points_table(results, ["psnr"], styles).rows
    assert not results.missing
    files = [(row[1].link, row[2].text) for row in rows]
    folder = f"../runs/{PHOTOGRAPHS}/jpeg/reconstruction/baseline"
    assert files == [(f"{folder}/rate{i}-seed0/", str(s)) for s in (0, 1) for i in (0, 1)]
    assert texts(cost_table(results, PHOTOGRAPHS, styles))[0][2] == "5"  # of two points, not four


def test_networks_that_judge_the_same_bitstreams_are_compared(results: Results) -> None:
    styles = variant_styles(results.plan, STUDY)
    joint = {f"{STUDY}/{name}": style for name, style in styles.items()}
    assert transfer_table(results, "detection", joint) is None  # one network, trained twice
    study = results.studies[STUDY]
    other = study.variants[T_FT].model_copy(update={"task": "mask-rcnn"})
    changed_study = study.model_copy(update={"variants": {**study.variants, T_FT: other}})
    plan = results.plan.model_copy(
        update={"studies": {**results.plan.studies, STUDY: changed_study}}
    )
    table = transfer_table(dataclasses.replace(results, plan=plan), "detection", joint)
    assert table is not None and table.columns[1:] == ["faster-rcnn", "mask-rcnn"]
    ((name, *judged),) = table.rows
    assert name.text == "JPEG"
    for cell, variant in zip(judged, ("jpeg/faster-rcnn/baseline", T_FT), strict=True):
        curve = results.curve(STUDY, variant, "box_map").set_index("rate_index")
        high, low = (f"{100 * curve.loc[n, 'value']:.1f} at {curve.loc[n, 'bpp']:.3f} bpp"
                     for n in (3, 0))  # fmt: skip
        assert (cell.text, cell.note) == (high, low)


def test_what_was_loaded_from_files_is_listed(results: Results) -> None:
    styles = variant_styles(results.plan, STUDY)
    point = next(p for p in results.plan.points if p.key in results.evaluations)
    record = {"file": "mine/det.pth", "sha256": "ab" * 32, "tensors": 3, "share": 0.9876,
              "missing": ["network.head.weight", "network.head.bias"], "unused": []}  # fmt: skip
    summary = {**results.evaluations[point.key], "weights": {"task": record}}
    changed = dataclasses.replace(results, evaluations={point.key: summary}, runs={})
    table = texts(loaded_weights(changed, point.study, variant_styles(results.plan, point.study)))
    assert [row[1:] for row in table] == [["task", "det.pth", "ab" * 6, "98.76 %", "network.head"]]
    assert not loaded_weights(results, STUDY, styles).rows
