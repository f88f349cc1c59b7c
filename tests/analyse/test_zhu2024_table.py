"""The Kodak column of the paper's table, recomputed from the published curves it was made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from icmbench.analyse.compressai_json import read_curve_file
from icmbench.config.load import load_scale, load_study
from icmbench.config.study import Study, published_path
from icmbench.metrics.bd import bd_rate_pct

WORKFLOW = Path(__file__).parents[2] / "workflow"
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
    anchor = kodak_curve(study, "hevc/reconstruction/photographs")
    result = bd_rate_pct(*anchor, *kodak_curve(study, variant), method="cubic")
    assert result.value == pytest.approx(printed, abs=0.05)
    (cell,) = [
        c for c in study.published if c.variant == variant and c.metric == "bd_rate_pct:psnr"
    ]
    assert cell.value == printed


def test_digitised_curves_are_labelled(study: Study) -> None:
    curves = [curve for curve in study.published_curves if curve.dataset == "coco2017"]
    assert len(curves) == 7
    for curve in curves:
        results = read_curve_file(published_path(curve.file)).results
        assert {"bpp", "box-map", "mask-map"} == set(results)
        assert (results["box-map"] > results["mask-map"]).all()
        assert "digitised" in curve.label and "read off" in curve.note
