"""The report as a whole: its files, links and downloads, and what missing inputs do to it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from parsed_page import ParsedPage
from PIL import Image

from icmbench.analyse.agreement import TABLE, agreement
from icmbench.analyse.record import compare_records
from icmbench.analyse.tables import write_result_table
from icmbench.config.summary import read_summary
from icmbench.errors import UserError
from icmbench.metrics.catalogue import METRICS
from icmbench.report.entry import card, what_ran
from icmbench.report.outputs import expected_outputs
from icmbench.report.pages import build_report
from icmbench.report.results import load_results
from icmbench.report.style import variant_styles
from icmbench.utils.files import read_json, write_json

STUDY = "somewhere2021"
T_FT, J_FT = "jpeg/faster-rcnn/t-ft", "hyperprior/faster-rcnn/j-ft"
PAGES = ("index", STUDY, "photographs2020", "task-detection", "task-image-quality", "methods")


def page_of(root: Path, name: str = STUDY) -> ParsedPage:
    return ParsedPage(root / f"report/{name}.html")


def all_text(root: Path) -> str:
    return " ".join(ParsedPage(path).text for path in sorted((root / "report").glob("*.html")))


def test_report_has_exactly_the_expected_files(built: Path) -> None:
    expected = expected_outputs(read_summary(built))
    assert expected[:6] == [f"report/{name}.html" for name in PAGES]
    assert "report/figures/task-detection-rate-box_map-detection.pdf" in expected
    assert "report/figures/task-image-quality-rate-psnr-detection.svg" in expected
    assert "report/figures/somewhere2021-rate-box_map.png" in expected
    assert "report/figures/photographs2020-rate-box_map.svg" not in expected
    assert f"report/figures/{STUDY}-leading.svg" in expected
    files = [path for path in (built / "report").rglob("*") if path.is_file()]
    found = {path.relative_to(built).as_posix() for path in files if path.parent.name != "images"}
    assert found == set(expected)
    images = sorted((built / "report/images").iterdir())
    assert len(images) == 2 * 3  # two images, each as original and of two variants
    assert all(Image.open(path).size == (128, 128) for path in images)


@pytest.mark.parametrize("name", PAGES)
def test_page_needs_no_network_and_its_links_resolve(built: Path, name: str) -> None:
    page = page_of(built, name)
    assert len(page.ids) == len(set(page.ids))
    for tag, address in page.addresses:
        if tag == "a" and address.startswith("https://"):
            continue
        place, _, identity = address.partition("#")
        if address != "data:,":  # an icon
            assert not place or (built / "report" / place).exists(), address
        if identity:
            ids = page_of(built, Path(place).stem).ids if place else page.ids
            assert identity in ids, address
    text = (built / f"report/{name}.html").read_text(encoding="utf-8")
    assert text.count('aria-current="page"') == 1
    assert "data:image" not in text and len(text) < 1_500_000  # images are linked
    style = (built / "report/report.css").read_text()
    assert "url(" not in style and "@import" not in style


@pytest.mark.parametrize("name", PAGES)
def test_rows_of_tables_fill_their_columns(built: Path, name: str) -> None:
    for header, *rows in page_of(built, name).tables:
        assert {len(row) for row in rows} <= {len(header)}


def test_entry_page_states_the_seconds_of_every_phase(root: Path) -> None:
    assert what_ran(load_results(root)).endswith("CPU seconds: 0 (no logs).")
    for name, seconds in {"train/a": 70, "classical/b": 30}.items():
        path = root / f"logs/{name}.log"
        path.parent.mkdir(parents=True)
        path.write_text(f"took 100.0 s, {seconds}.0 CPU s, 100 MB\n")
    ran = what_ran(load_results(root))
    assert ran.endswith("are evaluated. CPU seconds: 100 (classical 30, train 70).")


def test_entry_page_shows_what_differs_from_the_record(root: Path) -> None:
    curves = pd.read_csv(root / "tables/curves.csv")
    chosen = (curves["variant"] == "hyperprior/faster-rcnn/j-ft") & (curves["metric"] == "box_map")
    index = curves[chosen].index[0]
    measured = f"{100 * float(curves.loc[index, 'value']):.1f}"
    curves.loc[index, ["value", "low", "high"]] = [0.9, 0.899, 0.901]
    record = root.parent / "record"
    write_result_table(record / "curves.csv", curves)
    write_result_table(root / TABLE, compare_records([record], root).table)
    build_report(root)
    page = page_of(root, "index")
    assert agreement(root) in page.texts["record"]
    (_, row), *_ = [t for t in page.tables if t[0][-1] == "Difference"]
    assert row[3:5] == ["90.0", measured]


def test_plots_of_a_page_have_the_measured_points(built: Path) -> None:
    curves = pd.read_csv(built / "tables/curves.csv")
    coded = curves[(curves["study"] == STUDY) & (curves["codec"] != "uncoded")]
    rates = {round(rate, 6) for rate in coded["bpp"]}
    page = page_of(built)
    assert len(page.plots) == 6
    for plot in page.plots:
        found = [row["bpp"] for row in plot["data"]["values"] if row["bpp"] is not None]
        assert found and {round(rate, 6) for rate in found} <= rates
    labels = {row["label"] for row in page.plots[0]["data"]["values"]}
    assert labels == {"Original images", "JPEG", "JPEG, T-FT", "J-FT"}


def test_pages_across_studies(built: Path) -> None:
    people = page_of(built, "task-image-quality")
    assert "role-detection" in people.ids
    # Variants with the same bitstreams have one curve.
    assert "somewhere2021: JPEG = somewhere2021: JPEG, T-FT" in people.text
    drawn = {row["label"] for row in people.plots[0]["data"]["values"]}
    assert drawn == {"somewhere2021: JPEG", "somewhere2021: J-FT", "photographs2020: JPEG"}
    machines = page_of(built, "task-detection")
    drawn = {row["label"] for row in machines.plots[0]["data"]["values"]}
    assert drawn == {"Original images", "JPEG", "JPEG, T-FT", "J-FT"}


def test_entry_page_names_the_largest_gain(built: Path) -> None:
    entry = page_of(built, "index")
    bd = pd.read_csv(built / "tables/bd.csv").set_index("variant")
    larger = bd.loc["hyperprior/faster-rcnn/j-ft"]
    assert larger["bd_accuracy_points"] > 4 and "accuracy:low-overlap" in larger["flags"]
    # A number that decides nothing leads nothing.
    words = "At equal rate against “JPEG”, the best is “JPEG, T-FT”, which gains 4.0 points of Box"
    assert words in entry.texts["studies"]
    assert ("img", f"figures/{STUDY}-leading.svg") in entry.addresses
    assert "15 of 15 operating points" in entry.text  # of both studies
    assert "Box mAP over rate" not in entry.text and "PSNR over rate." in entry.text


def claim(root: Path, variant: str) -> None:
    """Add a claim about a variant to the plan."""
    plan = read_json(root / "plan.json")
    anchor = "jpeg/faster-rcnn/baseline"
    stated = {"form": "bd", "variant": variant, "anchor": anchor, "metric": "box_map"}
    stated |= {"sentence": "It gains.", "source": "here", "expect": "above"}
    plan["studies"][STUDY]["claims"] = {"gains": stated}
    write_json(root / "plan.json", plan)


@pytest.mark.parametrize(
    ("about", "gain", "lit", "says"),
    [
        (J_FT, -1.5, ["JPEG", "J-FT", "JPEG, T-FT"],
         ["“JPEG”, “J-FT” loses 1.5 points of Box mAP", "others is “JPEG, T-FT”, which gains 4.0"]),
        (J_FT, None, ["JPEG", "J-FT", "JPEG, T-FT"],
         ["“J-FT” cannot be compared", "the best of the others is “JPEG, T-FT”, which gains 4.0"]),
        (T_FT, None, ["JPEG", "JPEG, T-FT"], ["“JPEG, T-FT” gains 4.0 points"]),
        (T_FT, 6.0, ["JPEG", "JPEG, T-FT", "J-FT"],
         ["“JPEG, T-FT” gains 4.0 points", "the best of the others is “J-FT”, which gains 6.0"]),
    ],
)  # fmt: skip
def test_card_shows_what_the_study_is_about(
    root: Path, about: str, gain: float | None, lit: list[str], says: list[str]
) -> None:
    """Also if another variant gains more, or if its gain is not known."""
    claim(root, about)
    if gain is not None:
        bd = pd.read_csv(root / "tables/bd.csv")
        own = (bd["variant"] == J_FT) & (bd["metric"] == "box_map")
        bd.loc[own, "bd_accuracy_points"] = gain
        bd["flags"] = bd["flags"].astype(object).where(~own, "")
        write_result_table(root / "tables/bd.csv", bd)
    results = load_results(root)
    styles = variant_styles(results.plan, STUDY)
    found = card(results, STUDY, styles)
    assert [style.label for style in found["named"]] == lit
    assert all(words in found["sentence"] for words in says)
    svg = (root / f"report/figures/{STUDY}-leading.svg").read_text()
    for name in (T_FT, J_FT):
        assert (styles[name].colour in svg) == (styles[name].label in lit)


def test_each_plot_has_its_own_curves_on_at_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a plot of image quality, T-FT shares the curve of JPEG."""
    monkeypatch.setattr("icmbench.report.charts.FRAME", 1)
    claim(root, T_FT)
    build_report(root)
    page = page_of(root)
    on = [plot["params"][0]["value"] for plot in page.plots]
    assert on[:2] == [["Original images", "JPEG, T-FT"], ["JPEG"]]
    text = (root / f"report/{STUDY}.html").read_text()
    assert text.count('aria-pressed="true" data-label=') == 3


def test_gain_of_a_metric_of_which_less_is_better_is_positive(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``bd.csv`` has the sign already."""
    results = load_results(root)
    styles = variant_styles(results.plan, STUDY)
    found = card(results, STUDY, styles)
    less = replace(METRICS["box_map"], better="lower")
    monkeypatch.setitem(METRICS._entries, "box_map", less)
    again = card(results, STUDY, styles)
    assert again["named"] == found["named"] and again["sentence"] == found["sentence"]


def test_pages_show_provenance_and_escape_texts(built: Path) -> None:
    assert "<with markup>" not in (built / f"report/{STUDY}.html").read_text()
    text = all_text(built)
    for words in (
        "A study <with markup> & more",
        "Something a reader must know.",
        "0123456789abcdef",
        "9.9.9",
        "feedc0ffeefe",
        "6 test images (40 resamples)",
        "47 of 48 coded images",
    ):
        assert words in text, words


def test_environment_links_to_changes_and_packages(built: Path) -> None:
    linked = {address for tag, address in page_of(built, "methods").addresses if tag == "a"}
    assert "../provenance/0123456789ab.txt" in linked


def test_curves_excluded_by_the_configuration_are_listed(root: Path) -> None:
    plan = read_json(root / "plan.json")
    plan["left_out"] = ["study 'classical': curves of vtm-444 are left out"]
    write_json(root / "plan.json", plan)
    build_report(root)
    text = page_of(root, "index").text
    assert "study 'classical': curves of vtm-444 are left out" in text
    assert "incomplete" not in text


def test_published_numbers_are_drawn_only_under_published_conditions(
    built: Path, comparable: Path, theirs: Callable[..., None], tmp_path: Path
) -> None:
    named = Path(shutil.copytree(comparable, tmp_path / "named"))
    plan = read_json(named / "plan.json")
    plan["studies"][STUDY]["published_protocol"] = "theirs"
    write_json(named / "plan.json", plan)
    theirs()
    build_report(named)
    for root, name, label, task in (
        (named, STUDY, "J-FT (published)", "task-detection"),
        (comparable, "photographs2020", "ELIC (published)", "task-image-quality"),
    ):
        svg = f"report/figures/{name}-rate-{'box_map' if name == STUDY else 'psnr'}.svg"
        assert label in (root / svg).read_text()
        assert label not in (built / svg).read_text()
        # Also across studies, in the panel of its own.
        plot, before = (page_of(folder, task).plots[0] for folder in (root, built))
        label = label if name == STUDY else f"{name}: {label}"
        assert {row["study"] for row in plot["data"]["values"] if row["label"] == label} == {name}
        assert label in plot["params"][0]["value"]
        assert label not in {row["label"] for row in before["data"]["values"]}


def test_missing_files_are_listed_on_the_pages(root: Path) -> None:
    for path in root.glob("tables/*"):
        path.unlink()
    for path in [*root.rglob("decoded.zip"), *root.rglob("run.json"), *root.rglob("evaluate.json")]:
        path.unlink()
    shutil.rmtree(root / "data")
    stale = [root / "report/images/somewhere2021-9-1.png", root / "report/task-of-old.html"]
    for path in stale:  # of an earlier report
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"old")
    build_report(root)
    assert not any(path.exists() for path in stale)
    text = page_of(root, "index").text
    for name in ("curves.csv", "bd.csv", "records.parquet", "published.csv"):
        assert f"tables/{name} is missing" in text
    assert "not trained yet" in text and "not evaluated yet" in text
    expected = expected_outputs(read_summary(root))
    assert all((root / name).is_file() for name in expected)


def test_unfinished_training_runs_are_listed(root: Path) -> None:
    path = next(root.rglob("j-ft/rate2-seed0/run.json"))
    write_json(path, read_json(path) | {"status": "interrupted", "finished": None})
    (sentence,) = load_results(root).missing
    assert "j-ft/rate2-seed0" in sentence


def test_training_that_no_evaluated_point_needs_is_not_missed(root: Path) -> None:
    plan = read_json(root / "plan.json")
    for point in plan["points"]:
        point["evaluated"] &= "j-ft/rate2-seed0" not in point["key"]
    write_json(root / "plan.json", plan)
    next(root.rglob("j-ft/rate2-seed0/run.json")).unlink()
    assert load_results(root).missing == []


def test_damaged_inputs_are_named(tmp_path: Path, root: Path) -> None:
    with pytest.raises(UserError, match=r"plan\.json"):
        build_report(tmp_path / "nowhere")
    curves = root / "tables/curves.csv"
    good = curves.read_text()
    curves.write_text(good.replace("bpp_estimated", "other"))
    with pytest.raises(UserError, match="'bpp_estimated'"):
        build_report(root)
    curves.write_text(good)
    records = root / "tables/records.parquet"
    content = records.read_bytes()
    records.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"records\.parquet"):
        build_report(root)
    records.write_bytes(content)
    next(root.rglob("run.json")).write_text("{")
    with pytest.raises(UserError, match=r"run\.json"):
        build_report(root)


def test_report_imports_no_network_library(built: Path) -> None:
    before, after = (set(line.split()) for line in (built / "modules").read_text().splitlines())
    assert not {"altair", "pandas", "vl_convert", "numpy", "PIL"} & before
    assert not {"torch", "torchvision", "compressai", "mlflow"} & after
