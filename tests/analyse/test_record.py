"""The results of record: BD follows from the curves, and the points can be measured again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import bjontegaard
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from icmbench.config.job_settings import classical_spec
from icmbench.config.plan import Point, load_plan
from icmbench.evaluate.classical import open_codec
from icmbench.evaluate.statistics import AveragePrecisionStatistics
from icmbench.metrics.average_precision import match_detections
from icmbench.metrics.bd import bd_accuracy, bd_rate_pct
from icmbench.registry import TASKS
from icmbench.tasks.yolox import Yolox

RECORD = Path(__file__).parents[2] / "results/record/photos"


@pytest.fixture(scope="module", params=["", "mirror"])
def record(request: pytest.FixtureRequest) -> Path:
    """The 66 photographs of the repository, and the sets of which a mirror had a part."""
    return RECORD / request.param


@pytest.fixture(scope="module")
def curves(record: Path) -> Any:
    """Return a function that gives rates and qualities of a curve."""
    return curves_of(record)


def curves_of(record: Path) -> Any:
    table = pd.read_csv(record / "curves.csv").sort_values("rate_index")

    def curve(variant: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        own = table[(table["variant"] == variant) & (table["metric"] == metric)]
        return own["bpp"].to_numpy(), own["value"].to_numpy()

    return curve


def in_shown_unit(metric: str, difference: float) -> float:
    return difference if metric.startswith("psnr") else 100 * difference


def test_bd_of_record_follows_from_its_curves(record: Path, curves: Any) -> None:
    rows = pd.read_csv(record / "bd.csv").to_dict("records")
    assert len(rows) == {"photos": 41, "mirror": 63}[record.name]
    for row in rows:
        if row["metric"] == "ms_ssim":
            continue  # compared in another form, see docs/methods.md
        pair = (*curves(row["anchor"], row["metric"]), *curves(row["variant"], row["metric"]))
        rate, accuracy = bd_rate_pct(*pair).value, bd_accuracy(*pair).value
        what = (row["variant"], row["anchor"], row["metric"])
        assert rate == pytest.approx(row["bd_rate_pct"], abs=1e-4), what
        gain = in_shown_unit(row["metric"], accuracy)
        assert gain == pytest.approx(row["bd_accuracy_points"], abs=1e-4), what


def test_bd_of_record_agrees_with_another_implementation(record: Path, curves: Any) -> None:
    compared = 0
    for row in pd.read_csv(record / "bd.csv").to_dict("records"):
        if not row["metric"].startswith("psnr"):  # accuracies do not always rise
            continue
        anchor, test = curves(row["anchor"], row["metric"]), curves(row["variant"], row["metric"])
        other = bjontegaard.bd_rate(
            *anchor, *test, method="pchip", require_matching_points=False, min_overlap=0
        )
        assert other == pytest.approx(row["bd_rate_pct"], abs=0.01)
        compared += 1
    assert compared == {"photos": 18, "mirror": 28}[record.name]


def test_curves_in_compressai_shape_are_those_of_the_table(record: Path, curves: Any) -> None:
    files = sorted((record / "json").glob("*.json"))
    assert len(files) == {"photos": 9, "mirror": 20}[record.name]
    for path in files:
        content = json.loads(path.read_text())
        metric = "top1" if "efficientnet" in content["name"] else "box_map"
        rates, values = curves(content["name"], metric)
        assert content["results"][metric.replace("_", "-")] == pytest.approx(values, rel=1e-9)
        if not content["name"].startswith("uncoded"):
            assert content["results"]["bpp"] == pytest.approx(rates, rel=1e-9)


@pytest.mark.slow
def test_two_points_of_record_are_measured_again(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ICMBENCH_MIRROR", raising=False)
    folder = repository / "data/photographs/coco"
    measure_again(repository, tmp_path, folder, folder / "instances.json", RECORD)


@pytest.mark.slow
@pytest.mark.mirror
def test_two_points_of_the_mirror_are_measured_again(
    repository: Path, tmp_path: Path, mirror: Path
) -> None:
    coco = mirror / "coco2017"
    truth = coco / "instances_val2017.json"
    measure_again(repository, tmp_path, coco / "val2017", truth, RECORD / "mirror")


def measure_again(
    repository: Path, results: Path, folder: Path, annotations: Path, record: Path
) -> None:
    """Code, decode and judge the images of a folder, and compare with a record."""
    given = {"scale": "mini", "studies": ["photos"], "results": str(results)}
    plan = load_plan(repository / "config.yaml", given)
    task = Yolox(TASKS["yolox-nano"].parameters())
    task.load_pretrained()
    truth = json.loads(annotations.read_text())
    images = [entry for entry in truth["images"] if (folder / entry["file_name"]).is_file()]
    categories = sorted(entry["id"] for entry in truth["categories"])
    curves = curves_of(record)
    for variant in ("jpeg/yolox-nano/baseline", "avif-420/yolox-nano/baseline"):
        codec = open_codec(classical_spec(plan, Point("photos", variant, 1, 0)))
        bits = pixels = 0
        found: list[Any] = []
        for entry in images:
            image = np.array(Image.open(folder / entry["file_name"]).convert("RGB"))
            data = codec.encode(image).data
            bits, pixels = bits + 8 * len(data), pixels + image.shape[0] * image.shape[1]
            decoded = torch.from_numpy(codec.decode(data).copy()).permute(2, 0, 1).float() / 255
            answer = task.predict([decoded])[0]
            boxes = answer["boxes"].clone()
            boxes[:, 2:] -= boxes[:, :2]
            answers = zip(
                boxes.tolist(), answer["labels"].tolist(), answer["scores"].tolist(), strict=True
            )
            found += [
                {
                    "image_id": entry["id"],
                    "category_id": categories[label],
                    "bbox": box,
                    "score": score,
                }
                for box, label, score in answers
            ]
        ids = [entry["id"] for entry in images]
        matches = match_detections(truth, found, "bbox", ids)
        accuracy = AveragePrecisionStatistics(matches).metrics()["box_map"]
        rates, values = curves(variant, "box_map")
        assert math.isclose(bits / pixels, rates[1], rel_tol=1e-6), variant
        assert accuracy == pytest.approx(values[1], abs=1e-3), variant
