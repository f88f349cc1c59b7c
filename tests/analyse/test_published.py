"""Published curves: when they may be compared, and the numbers that come out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from icmbench.analyse.published import COLUMNS, obstacle, published_results
from icmbench.config.run import RunConfig
from icmbench.config.scale import Scale
from icmbench.config.study import PublishedCurveFile, Study
from icmbench.config.summary import PlanSummary, PointSummary
from icmbench.config.validate import check_all
from icmbench.data.specs import DatasetSpec, EmbeddedScenes
from icmbench.errors import UserError
from icmbench.plugins import load_modules
from icmbench.registry import CODECS

WORKFLOW = Path(__file__).parents[2] / "workflow"
# Those of zhu2024 are read off a figure; all others are whole files of CompressAI.
FOLDER = WORKFLOW / "studies/published"
CURVES = [path for path in FOLDER.glob("*.json") if not path.name.startswith("zhu2024")]
BPG, VTM, HM, JPEG = (
    f"{name}/reconstruction/photographs" for name in ("bpg-444-x265", "vtm-444", "hm-444", "jpeg")
)
KODAK = {"source": "catalogue", "name": "kodak", "splits": {"test": {"images": "."}}}


def file(name: str) -> dict[str, list[float]]:
    content = json.loads((WORKFLOW / "studies/published" / f"{name}.json").read_text())
    return content["results"]


@pytest.fixture
def study() -> dict[str, Any]:
    content = yaml.safe_load((WORKFLOW / "studies/classical.yaml").read_text())
    content["comparisons"] = [{"anchor": BPG, "variants": [VTM, HM, JPEG], "metrics": ["psnr"]}]
    return content


def plan_of(study: dict[str, Any], dataset: dict[str, Any] = KODAK) -> PlanSummary:
    point = {"study": "anchors", "rate_index": 0, "seed": 0, "label": "", "codec": "", "task": "",
             "mode": "", "dataset": "photographs", "key": "", "folder": "", "trained": False,
             "evaluated": True, "encoding": "x", "scale": "tiny", "rate_parameter": None,
             "rate_value": None}  # fmt: skip
    role = {"role": "photographs", "folder": "", "manifest": "", "settings": dataset}
    return PlanSummary.model_construct(
        studies={"anchors": Study.model_validate(study)},
        datasets={"photographs": DatasetSpec.model_validate(role)},
        points=[PointSummary.model_validate(point | {"variant": v}) for v in study["variants"]],
    )


def curves_of(variants: dict[str, Any], n_images: int = 24) -> pd.DataFrame:
    """Rows of curves.csv with PSNR, from (rates, qualities) by variant."""
    return pd.DataFrame(
        [
            {
                "study": "anchors",
                "variant": variant,
                "rate_index": index,
                "seed": 0,
                "bpp_mean": rate,
                "metric": "psnr",
                "value": quality,
                "n_images": n_images,
            }
            for variant, (rates, qualities) in variants.items()
            for index, (rate, quality) in enumerate(zip(rates, qualities, strict=True))
        ]
    )


def value(table: pd.DataFrame, label: str, what: str, metric: str = "psnr") -> Any:
    chosen = table[(table.label == label) & (table.what == what) & (table.metric == metric)]
    assert len(chosen) == 1
    return chosen.iloc[0]


def psnr_curve(name: str, points: int | None = None) -> tuple[Any, Any]:
    results = file(name)
    return np.array(results["bpp"][:points]), np.array(results["psnr-rgb"][:points])


def test_published_results_of_equal_curves_are_zero(study: Any) -> None:
    measured = {BPG: psnr_curve("bpg_444_x265_ycbcr"), JPEG: psnr_curve("jpeg")}
    table = published_results(plan_of(study), curves_of(measured))
    assert list(table.columns) == COLUMNS
    for label, points in (("BPG 4:4:4", 8), ("JPEG", 19)):
        row = value(table, label, "bd_rate_pct")
        assert row.value == pytest.approx(0.0, abs=1e-9)
        assert (row.n_points, row.n_points_against, row.overlap) == (points, points, 1.0)
        assert value(table, label, "max_bpp_difference_pct").value == 0
        assert value(table, label, "max_quality_difference").value == 0
    # Nothing was measured of MS-SSIM, so only published curves are compared.
    assert set(table[table.metric == "ms_ssim"].what) == {"published_bd_rate_pct"}


def test_published_results_give_known_distances(study: Any) -> None:
    """Twice the published rate at equal quality is a BD-rate of 100 %."""
    rates, levels = psnr_curve("hm")
    table = published_results(plan_of(study), curves_of({HM: (2 * rates, levels)}))
    assert value(table, "HM 4:4:4", "bd_rate_pct").value == pytest.approx(100)
    assert value(table, "HM 4:4:4", "max_bpp_difference_pct").value == pytest.approx(100)
    assert value(table, "HM 4:4:4", "max_quality_difference").value == 0
    shifted = levels + np.array([0, 0, 0.3, 0, -0.4, 0, 0, 0])
    table = published_results(plan_of(study), curves_of({HM: (rates, shifted)}))
    assert value(table, "HM 4:4:4", "max_quality_difference").value == pytest.approx(0.4)
    # Points that cannot be paired have no distance.
    table = published_results(plan_of(study), curves_of({HM: (rates[:4], levels[:4])}))
    assert set(table[table.label == "HM 4:4:4"].what) == {"bd_rate_pct"}


def test_published_results_compare_published_curves(study: Any) -> None:
    """BD-rates over the six lowest points, as computed independently: HM +0.5 %, VTM -21.1 %."""
    names = {BPG: "bpg_444_x265_ycbcr", HM: "hm", VTM: "vtm"}
    six = curves_of({variant: psnr_curve(name, 6) for variant, name in names.items()})
    table = published_results(plan_of(study), six)
    for label, expected in (("HM 4:4:4", 0.5), ("VTM 4:4:4", -21.1)):
        row = value(table, label, "published_bd_rate_pct")
        assert row.value == pytest.approx(expected, abs=0.05)
        assert (row.against, row.n_points, row.n_points_against) == ("BPG 4:4:4", 6, 6)
    assert "BPG 4:4:4" not in set(table[table.what == "published_bd_rate_pct"].label)
    # A learned codec has all its points: they stand beside no measured curve.
    assert value(table, "Joint autoregressive", "published_bd_rate_pct").n_points == 8
    assert value(table, "Joint autoregressive", "published_bd_rate_pct").variant == ""
    # All eight points, where the older PSNR of VTM and HM counts most.
    eight = curves_of({variant: psnr_curve(name) for variant, name in names.items()})
    table = published_results(plan_of(study), eight)
    assert value(table, "VTM 4:4:4", "published_bd_rate_pct").value == pytest.approx(-18.0, abs=0.1)


def test_published_results_need_a_published_anchor(study: Any) -> None:
    study["comparisons"] = []
    table = published_results(plan_of(study), curves_of({HM: psnr_curve("hm")}))
    assert "published_bd_rate_pct" not in set(table.what)


@pytest.mark.parametrize(
    ("change", "images", "word"),
    [
        ({}, 24, None),
        ({"name": "coco2017"}, 24, "coco2017"),
        ({"allow_subset": True}, 24, "subset"),
        ({"short_side": 320}, 24, "resized"),
        ({"center_crop": 64}, 24, "cropped"),
        ({"rate_pixels": "coded"}, 24, "coded pixels"),
        ({"splits": {"test": {"images": ".", "limit": 4}}}, 4, "4 of its 24 images"),
        ({}, 23, "23 of its 24 images"),
    ],
)
def test_obstacle_accepts_only_the_same_complete_data_set(
    study: Any, change: dict[str, Any], images: int, word: str | None
) -> None:
    check_obstacle(study, KODAK | change, images, word)


def test_obstacle_of_generated_images(study: Any) -> None:
    scenes = {"source": "embedded-scenes", "train": 0, "val": 0, "test": 24}
    check_obstacle(study, scenes, 24, "generated")


def check_obstacle(study: Any, dataset: dict[str, Any], images: int, word: str | None) -> None:
    plan, curves = plan_of(study, dataset), curves_of({HM: psnr_curve("hm")}, images)
    for label in ("HM 4:4:4", "ELIC"):  # with a variant, and without one
        reason = obstacle(plan, curves, "anchors", curve_named(plan, label))
        assert reason is None if word is None else word in str(reason)
    table = published_results(plan, curves)
    assert list(table.columns) == COLUMNS
    assert table.empty is (word is not None)


def test_obstacle_of_a_variant_that_was_not_measured(study: Any) -> None:
    plan = plan_of(study)
    curves = curves_of({HM: psnr_curve("hm")})
    assert obstacle(plan, curves, "anchors", curve_named(plan, "VTM 4:4:4")) is not None


def curve_named(plan: PlanSummary, label: str) -> PublishedCurveFile:
    (entry,) = (e for e in plan.studies["anchors"].published_curves if e.label == label)
    return entry


def check(content: dict[str, Any]) -> None:
    load_modules([])
    scenes = EmbeddedScenes(source="embedded-scenes", size=192, train=0, val=0, test=2)
    scale = Scale(name="tiny", description="", datasets={"photographs": scenes})
    check_all(RunConfig(), scale, {"anchors": Study.model_validate(content)})


def test_check_all_names_faults_in_published_curves() -> None:
    content = yaml.safe_load((WORKFLOW / "studies/classical.yaml").read_text())
    check(content)
    for key, bad, words in (
        ("file", "published/nowhere.json", ["published_curves.2.file"]),
        ("variant", "nothing", ["published_curves.2.variant", JPEG]),
        ("label", "JPEG", ["published_curves.2.label"]),
    ):
        changed = json.loads(json.dumps(content))
        changed["published_curves"][2][key] = bad
        with pytest.raises(UserError) as caught:
            check(changed)
        for word in ["workflow/studies/classical.yaml", repr(bad), *words]:
            assert word in str(caught.value)


def test_check_all_refuses_a_duplicate_published_number() -> None:
    content = yaml.safe_load((WORKFLOW / "studies/classical.yaml").read_text())
    cell = {"label": "Ours", "group": "Table 1", "variant": HM, "metric": "bd_rate_pct:psnr",
            "value": -10.0, "anchor": JPEG, "source": "p. 1", "confidence": "high"}  # fmt: skip
    check(content | {"published": [cell, cell | {"anchor": BPG, "value": -3.0}]})
    with pytest.raises(UserError, match=r"published\.1.*'Ours'"):
        check(content | {"published": [cell, cell | {"value": -3.0}]})


def test_classical_study_has_every_codec_and_file() -> None:
    load_modules([])
    study = Study.model_validate(yaml.safe_load((WORKFLOW / "studies/classical.yaml").read_text()))
    anchors = [name for name in CODECS.names() if CODECS[name].kind == "classical"]
    assert sorted(variant.codec for variant in study.variants.values()) == sorted(anchors)
    for name, variant in study.variants.items():
        assert name == f"{variant.codec}/reconstruction/photographs"
    files = {path.name for path in CURVES}
    assert {Path(curve.file).name for curve in study.published_curves} == files


def test_published_files_equal_those_of_compressai(mirror: Path) -> None:
    for path in CURVES:
        ours = json.loads(path.read_text())
        theirs = json.loads((mirror / "published/kodak" / path.name).read_text())
        assert ours["name"] == theirs["name"]
        assert "BSD-3-Clause-Clear" in ours["source"]
        for key, values in ours["results"].items():
            assert values == theirs["results"][key]
