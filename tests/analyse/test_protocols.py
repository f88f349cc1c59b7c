"""Published points: their numbers, and when they share a plot with a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from icmbench.analyse.protocols import beside, set_obstacle
from icmbench.config.job_settings import summary
from icmbench.config.plan import load_plan
from icmbench.config.published import PointCurve, PublishedPoints, published_points
from icmbench.config.scale import Scale
from icmbench.config.study import Study
from icmbench.config.summary import PlanSummary
from icmbench.data.specs import DatasetSpec
from icmbench.metrics.bd import bd_accuracy, bd_rate_pct
from icmbench.plugins import load_modules
from icmbench.report.outputs import study_plots

COCO = {"source": "catalogue", "name": "coco2017",
        "splits": {"test": {"images": "val2017", "annotations": "a.json"}}}  # fmt: skip
X101 = {"backbone": "resnext101-32x8d-fpn"}
ORIGINALS, JPEG = "uncoded/mask-rcnn/pretrained", "jpeg/mask-rcnn/baseline"


def points_of(label: str) -> tuple[list[float], list[float]]:
    (curve,) = [c for c in published_points().curves if c.label == label]
    return [p[0] for p in curve.points], [p[1] for p in curve.points]


@pytest.mark.parametrize(
    ("codec", "accuracy", "rate"),
    [
        ("TransTIC", 9.956, -58.529),
        ("ICMH-Net", 3.360, -18.759),
        ("Adapt-ICMH", 16.901, None),
        ("Channel selection", 6.278, -37.178),
    ],
)
def test_bd_against_tic_is_as_published_and_refused_without_a_common_accuracy(
    codec: str, accuracy: float, rate: float | None
) -> None:
    """Xiong et al., CrossMambaTuning, 2026, table; -88.573 % there has no common accuracy."""
    anchor, test = points_of("TIC"), points_of(codec)
    found = bd_accuracy(*anchor, *test, method="cubic").value
    assert 100 * found == pytest.approx(accuracy, abs=5e-3)
    result = bd_rate_pct(*anchor, *test, method="cubic")
    if rate is None:
        assert np.isnan(result.value) and "no-overlap" in result.flags
    else:
        assert result.value == pytest.approx(rate, abs=5e-3)


def test_points_rise_in_rate_and_stay_below_the_uncompressed_value() -> None:
    points = published_points()
    for curve in points.curves:
        rates, values = np.array(curve.points).T
        assert (np.diff(rates) > 0).all() and (rates > 0).all()
        uncompressed = points.protocols[curve.protocol].uncompressed
        assert (values < uncompressed.get(curve.metric, 100.0)).all()


def study_of(task: str, metric: str) -> Study:
    reference = {"authors": "A", "venue": "V", "year": 2000}
    variant = {"task": task, "dataset": "images", "label": "", "mode": ""}
    return Study.model_validate(
        {
            "name": "own", "title": "", "reference": reference, "summary": "",
            "ladders": {"quality": {"parameter": "quality", "values": [10.0], "origin": "ours"}},
            "variants": {
                ORIGINALS: variant | {"codec": "uncoded", "task_from": "pretrained"},
                JPEG: variant | {"codec": "jpeg", "ladder": "quality",
                                 "task_from": {"variant": ORIGINALS, "rate": 0}},
            },
        }
    )  # fmt: skip


def found(
    dataset: dict[str, Any],
    values: dict[str, float],
    parameters: dict[str, Any],
    images: int = 5000,
) -> dict[str, bool]:
    """Return whether curves are drawn as losses, by protocol, for a study of Mask R-CNN."""
    load_modules([])
    role = {"role": "images", "folder": "", "manifest": "", "settings": dataset}
    scale = {"name": "s", "description": "", "datasets": {"images": dataset},
             "tasks": {"mask-rcnn": parameters}}  # fmt: skip
    plan = PlanSummary.model_construct(
        studies={"own": study_of("mask-rcnn", "box_map")},
        datasets={"images": DatasetSpec.model_validate(role)},
        scale=Scale.model_validate(scale),
    )
    rows = [
        {"study": "own", "variant": variant, "metric": metric, "value": value, "n_images": images}
        for metric, value in values.items()
        for variant in (ORIGINALS, JPEG)
    ]
    x101 = PointCurve(label="HM", source="gandor2022", protocol="coco-native-d2-maskrcnn-x101",
                      metric="box_map", rate="real", points=[(0.1, 0.2)])  # fmt: skip
    points = published_points().model_copy(update={"curves": [*published_points().curves, x101]})
    matches = beside(plan, pd.DataFrame(rows), "own", points)
    return {match.curve.protocol: match.drop for match in matches}


def test_points_of_other_networks_are_drawn_as_losses() -> None:
    drawn = found(COCO, {"box_map": 0.474, "mask_map": 0.418}, {"backbone": "resnet50-fpn-v2"})
    assert drawn == {
        "coco-native-d2-r50fpn3x": True,
        "coco-native-d2-retinanet-r50": True,
        "coco-native-d2-maskrcnn-x101": True,
    }


@pytest.mark.parametrize(
    ("box", "drop"), [(0.443, False), (0.4449, False), (0.4411, False), (0.4452, True)]
)
def test_points_of_the_network_need_its_uncompressed_value(box: float, drop: bool) -> None:
    """Within 0.2 points of average precision."""
    drawn = found(COCO, {"box_map": box, "mask_map": 0.395}, X101)
    assert drawn["coco-native-d2-maskrcnn-x101"] is drop
    # Equal accuracy of another network does not help.
    drawn = found(COCO, {"box_map": 0.443, "mask_map": 0.395}, {"backbone": "resnet50-fpn-v2"})
    assert drawn["coco-native-d2-maskrcnn-x101"]


@pytest.mark.parametrize(
    ("change", "images"),
    [
        ({"short_side": 800}, 5000),
        ({"rate_pixels": "coded"}, 5000),
        ({"allow_subset": True}, 5000),
        ({"name": "other"}, 5000),
        ({}, 4999),
    ],
)
def test_points_of_another_set_are_not_drawn_at_all(change: dict[str, Any], images: int) -> None:
    assert found(COCO | change, {"box_map": 0.443, "mask_map": 0.395}, X101, images) == {}


# --- one's own images and networks ----------------------------------------------------------------

FOLDER = {"source": "folder", "images": "/val"}
INVENTED = PublishedPoints.model_validate(
    {
        "protocols": {
            "mine": {"dataset": "somewhere", "images": 6, "rate_pixels": "native",
                     "network": {"name": "N"}, "uncompressed": {"box_map": 0.4}},
            "other": {"dataset": "somewhere", "images": 6, "rate_pixels": "native",
                      "network": {"name": "N"}, "uncompressed": {"box_map": 0.4}},
            "plain": {"dataset": "somewhere", "images": 6, "rate_pixels": "native"},
        },
        "sources": {"s": {"paper": "P", "address": "a", "licence": "none", "year": 2000}},
        "curves": [
            {"label": "X", "source": "s", "protocol": name, "metric": metric, "rate": "real",
             "points": [[0.1, 0.2]]}
            for name, metric in (("mine", "box_map"), ("other", "box_map"), ("plain", "psnr"))
        ],
    }
)  # fmt: skip


def own_run(
    box: float = 0.4,
    images: int = 6,
    protocol: str | None = "mine",
    network: str = "module",
    dataset: dict[str, Any] = FOLDER,
) -> dict[str, bool]:
    """Return whether curves are drawn as losses, by protocol, for a user's images and network."""
    load_modules([])
    role = {"role": "somewhere", "folder": "", "manifest": "", "settings": dataset}
    tasks = {"mine": {"network": network, "weights": "/w.pth"}}
    plan = PlanSummary.model_construct(
        studies={"own": study_of("mine", "box_map").model_copy(update={"protocol": protocol})},
        datasets={"images": DatasetSpec.model_validate(role)},
        scale=Scale.model_validate({"name": "s", "description": "", "tasks": tasks,
                                    "datasets": {"images": dataset}}),
    )  # fmt: skip
    rows = [
        {"study": "own", "variant": variant, "metric": metric, "value": value, "n_images": images}
        for variant in (ORIGINALS, JPEG)
        for metric, value in (("box_map", box), ("psnr", 30.0))
    ]
    matches = beside(plan, pd.DataFrame(rows), "own", INVENTED)
    return {match.curve.protocol: match.drop for match in matches}


def test_points_of_a_stated_protocol_are_drawn() -> None:
    assert own_run() == own_run(box=0.402) == {"mine": False}
    assert own_run(protocol="plain") == {"plain": False}


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": None},  # nobody said whose images they are
        {"images": 5},
        {"dataset": FOLDER | {"short_side": 800}},
        {"dataset": FOLDER | {"rate_pixels": "coded"}},
        {"dataset": {"source": "embedded-scenes", "train": 1, "val": 1, "test": 6}},
    ],
)
def test_a_stated_protocol_needs_the_same_images(change: dict[str, Any]) -> None:
    assert own_run(**change) == {}


@pytest.mark.parametrize("change", [{"box": 0.3979}, {"box": 0.41}, {"network": "faster-rcnn"}])
def test_a_stated_protocol_needs_the_network_and_its_value(change: dict[str, Any]) -> None:
    """A network that the package knows is not another one because the user says so."""
    assert own_run(**change) == {"mine": True}


# --- study photos at scale paper ------------------------------------------------------------------

CROPS = {"duan2022": "classification-crop224", "adapticmh2024": "classification-crop256"}
ORIGINAL = {"resnet50-crop224": 0.7613, "resnet50-crop256": 0.767, "faster-rcnn-v1": 0.37}


@pytest.fixture(scope="module")
def paper(repository: Path) -> PlanSummary:
    given = {"scale": "paper", "studies": ["photos", "tang2025", "classical"]}
    return summary(load_plan(repository / "config.yaml", given, programs=False))


def matched(plan: PlanSummary) -> dict[tuple[str, str], bool]:
    """Return whether only losses are drawn, by source and role, with the published accuracies."""
    variants = plan.studies["photos"].variants
    rows = [
        {"study": "photos", "variant": name, "value": ORIGINAL.get(variant.task, 0.3),
         "metric": "top1" if "resnet" in variant.task else "box_map",
         "n_images": 50000 if "resnet" in variant.task else 5000}
        for name, variant in variants.items()
    ]  # fmt: skip
    near = beside(plan, pd.DataFrame(rows), "photos")
    return {(match.curve.source, match.role): match.drop for match in near}


def test_published_points_lie_beside_the_crop_that_they_were_measured_on(
    paper: PlanSummary,
) -> None:
    coco = ("gandor2022", "detection-photographs")  # of another network
    assert matched(paper) == {**dict.fromkeys(CROPS.items(), False), coco: True}
    roles = {role for metric, role in study_plots(paper, "photos") if metric == "top1"}
    assert roles == set(CROPS.values())


def test_roles_of_scale_paper_are_those_of_a_protocol(paper: PlanSummary) -> None:
    """The images of tang2025 are resized in another way."""
    points, found = published_points(), {}
    for name, protocol in points.protocols.items():
        own = [
            r for r, d in paper.datasets.items() if not set_obstacle(d, protocol.images, protocol)
        ]
        found[name] = own
    assert "classification" in paper.datasets
    assert found["in1k-r50v1-crop224"] == ["classification-crop224"]
    assert found["in1k-r50v1-crop256"] == ["classification-crop256"]
    assert found["coco-native-d2-r50fpn3x"] == ["detection-photographs"]
    assert found["kodak-rgb"] == ["photographs"]


@pytest.mark.parametrize(
    "change",
    [
        {"preprocessing": {}},  # the preset's, which resizes the crop to 256 and crops again
        {"preprocessing": {"resize_size": 256, "crop_size": 224}},
        {"weights": "IMAGENET1K_V2"},
        {"arguments": {"norm_layer": None}},
    ],
)
def test_preprocessing_is_part_of_the_protocol(paper: PlanSummary, change: dict[str, Any]) -> None:
    tasks = dict(paper.scale.tasks)
    tasks["resnet50-crop224"] = tasks["resnet50-crop224"] | change
    scale = paper.scale.model_copy(update={"tasks": tasks})
    drawn = matched(paper.model_copy(update={"scale": scale}))
    assert [drawn[key] for key in CROPS.items()] == [True, False]


def test_resizing_is_part_of_the_protocol(paper: PlanSummary) -> None:
    datasets = dict(paper.datasets)
    role = "classification-crop256"
    settings = datasets[role].settings.model_copy(update={"resize_filter": "bicubic"})
    datasets[role] = datasets[role].model_copy(update={"settings": settings})
    drawn = matched(paper.model_copy(update={"datasets": datasets}))
    assert ("duan2022", CROPS["duan2022"]) in drawn and ("adapticmh2024", role) not in drawn
