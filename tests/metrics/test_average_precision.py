"""AP re-accumulated from matches against pycocotools itself."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icmbench.errors import UserError
from icmbench.metrics.average_precision import (
    _RECALLS,
    _thresholds_reached,
    average_precision,
    average_precision_by_category,
    average_precision_resampled,
    coco_stats,
    match_detections,
)

Coco = dict[str, Any]
Detections = list[dict[str, Any]]


def random_set(seed: int, *, images: int = 12, tied: bool = False) -> tuple[Coco, Detections]:
    """Objects of all sizes, some crowds, good and bad boxes; category 4 has no object.

    ``tied``: scores from a coarse grid, equal across images but never within one and a category.
    """
    rng = np.random.default_rng(seed)
    objects: list[dict[str, Any]] = []
    detections: Detections = []
    for image in range(images):
        for category in (1, 2, 3, 4):
            scores = rng.permutation(40)[:14] / 40 if tied else rng.random(14)
            boxes = []
            for _ in range(0 if category == 4 else rng.integers(0, 5)):
                size = rng.choice([20.0, 60.0, 150.0]) * rng.uniform(0.7, 1.4, 2)
                box = [*rng.uniform(0, 300, 2), *size]
                boxes.append(box)
                objects.append(
                    {
                        "id": len(objects),  # starts at 0 on purpose
                        "image_id": image,
                        "category_id": category,
                        "bbox": box,
                        "area": box[2] * box[3] * 0.9,
                        "iscrowd": int(rng.random() < 0.1),
                    }
                )
            found = [np.array(b) + rng.normal(0, 6, 4) for b in boxes for _ in range(2)]
            found += [rng.uniform(10, 200, 4) for _ in range(rng.integers(0, 5))]
            detections += [
                {
                    "image_id": image,
                    "category_id": category,
                    "bbox": np.maximum(box, 1).tolist(),
                    "score": float(score),
                }
                for box, score in zip(found, scores, strict=False)
            ]
    coco = {
        "images": [{"id": image, "width": 640, "height": 480} for image in range(images)],
        "categories": [{"id": c, "name": str(c)} for c in (1, 2, 3, 4)],
        "annotations": objects,
    }
    return coco, detections


def copied(coco: Coco, detections: Detections, weights: np.ndarray) -> tuple[Coco, Detections]:
    """The data set with ``weights[i]`` copies of image i, with adjacent ids."""
    images, objects, results = [], [], []
    for image in coco["images"]:
        for number in range(weights[image["id"]]):
            new = image["id"] * 100 + number
            images.append({**image, "id": new})
            objects += [
                {**o, "image_id": new} for o in coco["annotations"] if o["image_id"] == image["id"]
            ]
            results += [{**d, "image_id": new} for d in detections if d["image_id"] == image["id"]]
    return {**coco, "images": images, "annotations": objects}, results


def six(stats: list[float]) -> list[float]:
    """AP values of pycocotools with NaN for its -1."""
    return [np.nan if value == -1 else value for value in stats[:6]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tied", [False, True])
def test_average_precision_equals_pycocotools(seed: int, tied: bool) -> None:
    coco, detections = random_set(seed, tied=tied)
    values = average_precision(match_detections(coco, detections, "bbox"))
    assert list(values) == ["map", "map50", "map75", "map_small", "map_medium", "map_large"]
    expected = six(coco_stats(coco, detections, "bbox"))
    assert list(values.values()) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert 0 < values["map"] < values["map50"] < 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tied", [False, True])
def test_average_precision_with_weights_equals_copied_images(seed: int, tied: bool) -> None:
    coco, detections = random_set(seed, tied=tied)
    matches = match_detections(coco, detections, "bbox")
    images = len(coco["images"])
    weights = np.random.default_rng(seed + 100).multinomial(images, [1 / images] * images)
    assert weights.max() > 1
    assert weights.min() == 0
    expected = six(coco_stats(*copied(coco, detections, weights), "bbox"))
    values = average_precision(matches, weights)
    assert list(values.values()) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_average_precision_with_weights_that_remove_a_category() -> None:
    coco, detections = random_set(0)
    coco["annotations"] = [
        o for o in coco["annotations"] if o["category_id"] != 3 or o["image_id"] == 0
    ]
    weights = np.array([0] + [2] * 11)
    expected = six(coco_stats(*copied(coco, detections, weights), "bbox"))
    values = average_precision(match_detections(coco, detections, "bbox"), weights)
    assert list(values.values()) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_average_precision_resampled_equals_single_calls() -> None:
    coco, detections = random_set(3)
    matches = match_detections(coco, detections, "bbox")
    weights = np.random.default_rng(5).multinomial(12, [1 / 12] * 12, size=70)
    rows = average_precision_resampled(matches, weights)
    for index in (0, 31, 32, 69):
        single = average_precision(matches, weights[index])
        for name, values in rows.items():
            assert values.shape == (70,)
            assert values[index] == pytest.approx(single[name], abs=1e-14)
    assert rows["map"].std() > 0


def test_average_precision_equals_a_case_by_hand() -> None:
    """Two objects; a hit, a miss, a hit: AP = 51/101 x 1 + 50/101 x 2/3 at every IoU."""
    coco = {
        "images": [{"id": 7}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": n, "image_id": 7, "category_id": 1, "bbox": box, "area": 2500.0, "iscrowd": 0}
            for n, box in enumerate([[0, 0, 50, 50], [100, 100, 50, 50]])
        ],
    }
    boxes = [([0, 0, 50, 50], 0.9), ([200, 0, 50, 50], 0.8), ([100, 100, 50, 50], 0.7)]
    detections = [
        {"image_id": 7, "category_id": 1, "bbox": box, "score": score} for box, score in boxes
    ]
    values = average_precision(match_detections(coco, detections, "bbox"))
    expected = 51 / 101 + 50 / 101 * 2 / 3
    assert values["map"] == pytest.approx(expected)
    assert values["map_medium"] == pytest.approx(expected)
    assert np.isnan(values["map_small"])
    # Three copies of the only image: same curve, with six objects.
    assert average_precision(match_detections(coco, detections, "bbox"), [3])[
        "map"
    ] == pytest.approx(expected)


def test_thresholds_reached_equals_searchsorted() -> None:
    for objects in (*range(1, 301), 997, 1000, 12_300):
        recall = np.arange(objects + 1) / objects
        expected = np.searchsorted(_RECALLS, recall, side="right")
        assert np.array_equal(_thresholds_reached(recall), expected), objects


def test_average_precision_without_detections_or_objects() -> None:
    coco, detections = random_set(1)
    assert average_precision(match_detections(coco, [], "bbox"))["map"] == 0.0
    assert coco_stats(coco, [], "bbox")[0] == 0.0
    empty = {**coco, "annotations": []}
    assert np.isnan(average_precision(match_detections(empty, detections, "bbox"))["map"])
    none = average_precision(match_detections(coco, detections, "bbox"), np.zeros(12, int))
    assert np.isnan(list(none.values())).all()


def test_match_detections_on_a_subset_of_images() -> None:
    coco, detections = random_set(2)
    keep = [1, 4, 5, 9]
    weights = np.isin(np.arange(12), keep).astype(int)
    subset = average_precision(match_detections(coco, detections, "bbox", keep))
    weighted = average_precision(match_detections(coco, detections, "bbox"), weights)
    assert subset == pytest.approx(weighted, nan_ok=True)


def test_match_detections_keeps_its_arguments() -> None:
    coco, detections = random_set(4)
    both = [{**d, "segmentation": {"size": [480, 640], "counts": "0"}} for d in detections]
    before = copy.deepcopy((coco, both))
    values = average_precision(match_detections(coco, both, "bbox"))
    assert (coco, both) == before
    assert values == average_precision(match_detections(coco, detections, "bbox"))


def test_match_detections_uses_the_area_of_a_mask() -> None:
    """A small false mask counts among small objects, whatever its box is."""
    from pycocotools import mask as coder

    def square(x: int, side: int) -> dict[str, Any]:
        pixels = np.zeros((100, 100), np.uint8, order="F")
        pixels[10 : 10 + side, x : x + side] = 1
        return coder.encode(pixels)

    common = {"image_id": 1, "category_id": 1}
    coco = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{**common, "id": 1, "segmentation": square(0, 20), "area": 400}],
    }
    false = {**common, "segmentation": square(50, 10), "bbox": [0, 0, 100, 100], "score": 0.9}
    true = {**common, "segmentation": square(0, 20), "bbox": [0, 10, 20, 20], "score": 0.8}
    values = average_precision(match_detections(coco, [false, true], "segm"))
    assert values["map_small"] == values["map"] == pytest.approx(0.5)


def test_match_detections_errors_name_the_cause() -> None:
    coco, detections = random_set(0)
    with pytest.raises(UserError, match="detections: image 99"):
        match_detections(coco, [{**detections[0], "image_id": 99}], "bbox")
    with pytest.raises(UserError, match="image_ids: image 50"):
        match_detections(coco, detections, "bbox", [1, 50])
    with pytest.raises(UserError, match="segmentation"):
        match_detections(coco, detections, "segm")
    with pytest.raises(UserError, match="keypoints"):
        match_detections(coco, detections, "keypoints")  # type: ignore[arg-type]
    matches = match_detections(coco, detections, "bbox")
    for wrong in (np.ones(11, int), np.ones(12), np.full(12, -1)):
        with pytest.raises(ValueError, match="weights"):
            average_precision(matches, wrong)


@pytest.mark.mirror
@pytest.mark.parametrize(("iou_type", "kind"), [("bbox", "fakebbox"), ("segm", "fakesegm")])
def test_coco_stats_reproduce_the_coco_demo(iou_type: Any, kind: str) -> None:
    """The COCO API's demo: 100 val2014 images, values as published with the API."""
    folder = Path(os.environ.get("ICMBENCH_MIRROR", "")) / "coco_eval"
    if not os.environ.get("ICMBENCH_MIRROR") or not folder.is_dir():
        pytest.skip("ICMBENCH_MIRROR does not name a folder with coco_eval/")
    coco = json.loads((folder / "instances_val2014_100.json").read_text())
    detections = json.loads((folder / f"instances_val2014_{kind}100_results.json").read_text())
    expected = json.loads((folder / "expected_stats.json").read_text())["expected"][iou_type]
    stats = coco_stats(coco, detections, iou_type)
    assert stats == pytest.approx(list(expected.values()), abs=1e-9)
    values = average_precision(match_detections(coco, detections, iou_type))
    assert list(values.values()) == pytest.approx(list(expected.values())[:6], abs=1e-9)


def test_average_precision_of_a_category_is_pycocotools_on_it_alone() -> None:
    annotations, detections = random_set(5)
    found = average_precision_by_category(match_detections(annotations, detections, "bbox"))
    assert sorted(found) == [1, 2, 3]  # category 4 has no object
    for category, (value, count) in found.items():
        own = [o for o in annotations["annotations"] if o["category_id"] == category]
        alone = {**annotations, "categories": [{"id": category}], "annotations": own}
        rows = [row for row in detections if row["category_id"] == category]
        assert value == pytest.approx(coco_stats(alone, rows, "bbox")[0], abs=1e-12)
        assert count == sum(not o["iscrowd"] for o in own)
