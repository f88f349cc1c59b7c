"""The Kodak column of the paper's table, recomputed from the published curves it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icmbench.analyse.compressai_json import read_curve_file
from icmbench.config.claims import DifferenceClaim
from icmbench.config.load import load_scale, load_study
from icmbench.config.plan import load_plan
from icmbench.config.study import Study, published_path
from icmbench.metrics.bd import bd_accuracy, bd_rate_pct

WORKFLOW = Path(__file__).parents[2] / "workflow"
HEVC = "hevc/reconstruction/photographs"
POINTS = 4  # QP 47 to 32, or qualities 1 to 4: the four lowest rates of each file


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(WORKFLOW / "studies", "zhu2024", load_scale(WORKFLOW / "scales", "paper"))


def kodak_curve(study: Study, variant: str) -> tuple[list[float], list[float]]:
    (entry,) = [c for c in study.published_curves if c.variant == variant and c.dataset == "kodak"]
    results = read_curve_file(published_path(entry.file)).results
    return list(results["bpp"][:POINTS]), list(results["psnr-rgb"][:POINTS])


@pytest.mark.parametrize(
    ("codec", "printed"),
    [("vvc", -25.20), ("bmshj2018-hyperprior", 7.68), ("mbt2018", -13.85),
     ("cheng2020-attn", -19.76), ("ours", -21.50)],
)  # fmt: skip
def test_bd_rate_reproduces_the_kodak_column(study: Study, codec: str, printed: float) -> None:
    variant = f"{codec}/reconstruction/photographs"
    assert study.variants[HEVC].codec == "hm-444-truncated"  # as the published curve was made
    anchor = kodak_curve(study, HEVC)
    result = bd_rate_pct(*anchor, *kodak_curve(study, variant), method="cubic")
    assert result.value == pytest.approx(printed, abs=0.05)
    (cell,) = [
        c for c in study.published if c.variant == variant and c.metric == "bd_rate_pct:psnr"
    ]
    assert (cell.value, cell.anchor) == (printed, HEVC)


def test_the_default_page_has_the_kodak_column(repository: Path, tmp_path: Path) -> None:
    overrides = {"scale": "mini", "studies": ["zhu2024"], "results": str(tmp_path)}
    study = load_plan(repository / "config.yaml", overrides).studies["zhu2024"]
    assert sum(cell.metric == "bd_rate_pct:psnr" for cell in study.published) == 5
    assert HEVC in {curve.variant for curve in study.published_curves}
    assert HEVC in {comparison.anchor for comparison in study.comparisons}


@pytest.mark.parametrize(("metric", "claim"), [("box-map", ""), ("mask-map", "-for-masks")])
def test_gains_are_those_of_the_digitised_curves(study: Study, metric: str, claim: str) -> None:
    stated = study.claims[f"task-loss-is-the-larger-part{claim}"]
    assert isinstance(stated, DifferenceClaim)
    curves = {
        curve.variant: read_curve_file(published_path(curve.file)).results
        for curve in study.published_curves
        if curve.dataset == "coco2017"
    }

    def gain(effect: Any) -> float:
        sides = (curves[effect.anchor], curves[effect.variant])
        return bd_accuracy(*(s[key] for s in sides for key in ("bpp", metric))).value

    difference = 100 * (gain(stated.first) - gain(stated.second))
    assert stated.published == pytest.approx(difference, abs=0.005)


def test_digitised_curves_are_labelled(study: Study) -> None:
    curves = [curve for curve in study.published_curves if curve.dataset == "coco2017"]
    assert len(curves) == 7
    for curve in curves:
        results = read_curve_file(published_path(curve.file)).results
        assert {"bpp", "box-map", "mask-map"} == set(results)
        assert (results["box-map"] > results["mask-map"]).all()
        assert "digitised" in curve.label and "read off" in curve.note
