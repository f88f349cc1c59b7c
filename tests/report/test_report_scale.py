"""Reports of large studies: pages of bounded size that say what they leave out, linear work."""

from __future__ import annotations

import contextlib
import cProfile
import dataclasses
import pstats
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pandas as pd
import pytest

from icmbench.analyse.run import analyse_run
from icmbench.errors import UserError
from icmbench.evaluate.records import read_records, write_records
from icmbench.report import assemble, charts, selection
from icmbench.report.build import build_report
from icmbench.report.records import load_records
from icmbench.report.results import Results, load_results
from icmbench.report.selection import select
from icmbench.report.style import variant_styles
from icmbench.utils.files import read_json

SMALL, LARGE = 100, 200
LIMIT = 60  # operating points of a page; a variant has 25


class Built(NamedTuple):
    """A report: its folder, the work it took and the size of each page."""

    root: Path
    calls: int
    passes: int
    sizes: dict[str, int]


class Counted(list[Any]):
    """A list that counts how often it is gone through."""

    passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return super().__iter__()


def draw_nothing(spec: object, formats: Sequence[str]) -> dict[str, bytes]:
    return dict.fromkeys(formats, b"<svg/>")


@pytest.fixture(scope="module")
def analysed(scale: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Result folders of generated studies; nothing of them is a real measurement."""
    roots = {}
    for points in (SMALL, LARGE):
        with scale.checkout(points, analysis={"resamples": 5}) as folder:
            root = scale.results(folder, points, images=3)
            with contextlib.chdir(folder):
                analyse_run(root)
            roots[points] = tmp_path_factory.mktemp("scale") / "smoke"
            shutil.copytree(root, roots[points])
    return roots


@pytest.fixture(scope="module")
def cut(analysed: dict[int, Path]) -> dict[int, Built]:
    """Reports with a limit that both studies exceed. Drawing files is Vega's work, not measured."""
    built = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "MAX_POINTS", LIMIT)
        patch.setattr(charts, "figure_files", draw_nothing)
        charts.javascript()  # cached: the first report would pay for both
        for points, root in analysed.items():
            results = load_results(root)
            rows, planned = Counted(results.curves), Counted(results.plan["points"])
            plan = results.plan | {"points": planned}
            counted = dataclasses.replace(results, curves=rows, plan=plan)
            patch.setattr(assemble, "load_results", lambda root, counted=counted: counted)
            profile = cProfile.Profile()
            profile.runcall(build_report, root)
            calls = int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]
            sizes = {page.name: page.stat().st_size for page in (root / "report").glob("*.html")}
            built[points] = Built(root, calls, rows.passes + planned.passes, sizes)
    return built


def test_work_is_linear_and_pages_do_not_grow(cut: dict[int, Built]) -> None:
    small, large = cut[SMALL], cut[LARGE]
    # Once for each plot or table, however many variants there are.
    assert 0 < large.passes == small.passes < 100
    assert large.calls < LARGE / SMALL * small.calls
    assert set(large.sizes) == set(small.sizes)
    for page, size in small.sizes.items():
        assert large.sizes[page] < 1.02 * size + 1000, page


def test_what_a_page_leaves_out_is_said_and_lies_beside_it(cut: dict[int, Built]) -> None:
    root = cut[LARGE].root
    points = read_json(root / "plan.json")["points"]
    text = (root / "report/generated.html").read_text()
    variants = len({point["variant"] for point in points})
    (notice,) = re.findall(r'<p class="notice" role="note">(Only .*?)</p>', text)
    assert f"Only 2 of {variants} variants" in notice
    assert f"50 of {len(points)} operating points" in notice
    for page in ("generated.html", "task-detection.html", "classical.html"):
        content = (root / "report" / page).read_text()
        assert "Only 2 of" in content, page
        targets = set(re.findall(r'<a (?:download="[^"]*" )?href="([^"#:]+)"', content))
        assert {"../tables/curves.csv"} < targets
        for target in targets:
            assert (root / "report" / target).exists(), target
    # Beside plots of seven metrics, key figures, deltas, complexity, and four more tables.
    assert text.count(f"2 of {variants} variants are shown; all of them:") >= 12
    tables = root / "report/tables"
    evaluated = [point for point in points if point["evaluated"]]
    assert len(pd.read_csv(tables / "generated-cost.csv")) == len(points)
    assert len(pd.read_csv(tables / "generated-complexity.csv")) == len(evaluated)
    trained = {point["variant"] for point in points if point["trained"]}
    assert len(pd.read_csv(tables / "generated-trainings.csv")) == len(trained)
    assert len(pd.read_csv(tables / "generated-rate-settings.csv")) == 1 + LARGE // 100


def test_a_later_report_of_all_removes_the_tables(
    cut: dict[int, Built], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "smoke"
    shutil.copytree(cut[SMALL].root, root)
    monkeypatch.setattr(charts, "figure_files", draw_nothing)
    build_report(root)
    assert not list((root / "report/tables").glob("*.csv"))
    text = (root / "report/generated.html").read_text()
    assert 'role="note">Only' not in text
    assert "are shown; all of them" not in text
    evaluated = [p for p in read_json(root / "plan.json")["points"] if p["evaluated"]]
    key_figures = text.split('id="generated-key-figures"')[1].split("</section>")[0]
    assert f"<summary>{len(evaluated)} operating points</summary>" in key_figures


@pytest.fixture(scope="module")
def results(made_results: Path) -> Results:
    return load_results(made_results)


def test_variants_that_claims_name_come_first(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = "somewhere2021"
    styles = variant_styles(results.plan, study)
    whole = select(results, styles)
    assert whole.styles is styles
    assert not whole.partial
    assert whole.notice == ""
    assert whole.rest("tables/bd.csv") is None

    monkeypatch.setattr(selection, "MAX_VARIANTS", 2)
    # Without claims: what images show.
    imaged = ["jpeg/faster-rcnn/baseline", "hyperprior/faster-rcnn/j-ft"]
    assert list(select(results, styles).styles) == imaged
    plan = results.plan | {"studies": dict(results.plan["studies"])}
    claims = {"one": {"form": "value", "variant": "jpeg/faster-rcnn/t-ft", "metric": "box_map"}}
    plan["studies"][study] = plan["studies"][study] | {"claims": claims}
    claimed = Results(results.root, plan, results.curves, [], None, {}, {})
    chosen = select(claimed, styles)
    assert list(chosen.styles) == ["jpeg/faster-rcnn/baseline", "jpeg/faster-rcnn/t-ft"]
    assert (chosen.variants, chosen.points, chosen.all_points) == (4, 8, 13)
    place = chosen.rest("report/tables/x.csv")
    assert place is not None
    assert place.address == "tables/x.csv"
    # A variant larger than the limit is shown alone.
    monkeypatch.setattr(selection, "MAX_POINTS", 3)
    assert list(select(claimed, styles).styles) == ["jpeg/faster-rcnn/t-ft"]


def test_records_are_summed_across_row_groups(made_results: Path, tmp_path: Path) -> None:
    source = made_results / "tables/records.parquet"
    whole, path = load_records(source), tmp_path / "records.parquet"
    frame = read_records(source)
    frame.to_parquet(path, index=False, row_group_size=4)  # six images a point: cut inside
    parts = load_records(path)
    assert parts.points == whole.points
    names = ["study", "variant", "rate_index", "seed"]
    for name, own in frame.groupby(names, sort=False):
        found = parts.points[name]
        assert frame.iloc[found.rows].equals(own)
        assert found.bits == own["bits"].sum()
        assert found.checked == 6
        assert found.wrong == (~own["roundtrip_ok"]).sum()
        images = parts.images(name)
        assert images is not None
        shown = own[["image_id", "pixels", "bits", "psnr"]].reset_index(drop=True)
        pd.testing.assert_frame_equal(images, shown)
    assert parts.images(("nothing", "like", 0, 0)) is None


def test_records_that_are_not_sorted_or_not_whole_are_refused(
    made_results: Path, tmp_path: Path
) -> None:
    frame = read_records(made_results / "tables/records.parquet")
    path = tmp_path / "records.parquet"
    pd.concat([frame.iloc[3:], frame.iloc[:3]]).to_parquet(path, index=False)
    with pytest.raises(UserError, match="do not stand together; repeat the analysis"):
        load_records(path)
    write_records(path, frame)
    whole = pd.read_parquet(path)
    whole.drop(columns="bits").to_parquet(path, index=False)
    with pytest.raises(UserError, match="column 'bits' is missing"):
        load_records(path)
    content = (made_results / "tables/records.parquet").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cannot be read .*; repeat the analysis"):
        load_records(path)
