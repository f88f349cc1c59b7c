"""YOLOX-nano as a task: input, accuracy on photographs, and gradients that teach a codec."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from icmbench.config.job_settings import data_job, evaluate_job
from icmbench.config.plan import Plan, Point, load_plan
from icmbench.data.dataset import Split
from icmbench.data.prepare import prepare
from icmbench.errors import UserError
from icmbench.evaluate.statistics import AveragePrecisionStatistics
from icmbench.jobs import TrainJob
from icmbench.metrics.average_precision import match_detections
from icmbench.networks.build import build_codec, build_task
from icmbench.registry import TASKS
from icmbench.tasks.yolox import Yolox, letterbox
from icmbench.train.batches import Batch
from icmbench.train.system import System, set_modes

PHOTOGRAPHS = Path("data/photographs/coco")
ORIGINAL = Point("photos", "uncoded/yolox-nano/original", 0, 0)
Code = Callable[[Image.Image], io.BytesIO]


@pytest.fixture(scope="module")
def task() -> Yolox:
    yolox = Yolox(TASKS["yolox-nano"].parameters())
    yolox.load_pretrained()
    return yolox.eval()


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def test_letterbox_pads_right_and_below_and_turns_channels() -> None:
    image = torch.zeros(3, 480, 640)
    image[0] = 1.0  # red
    boxed = letterbox(image)
    assert boxed.shape == (3, 416, 416)
    assert boxed[:, :312].flatten(1).mean(1).tolist() == pytest.approx([0, 0, 255])
    assert (boxed[:, 312:] == 114).all()
    assert (letterbox(image.transpose(1, 2))[:, :, 312:] == 114).all()


def accuracy(
    task: Yolox, folder: Path, truth: Path, code: Code | None = None
) -> tuple[float, float]:
    """Return box mAP and bpp of the images that an annotation file lists."""
    annotations = json.loads(truth.read_text())
    ids = sorted(category["id"] for category in annotations["categories"])
    rows: list[Any] = []
    bits = pixels = 0
    for entry in annotations["images"]:
        image = Image.open(folder / entry["file_name"]).convert("RGB")
        pixels += image.width * image.height
        if code is not None:
            data = code(image)
            bits += 8 * len(data.getvalue())
            image = Image.open(data)
        found = task.predict([tensor(image)])[0]
        boxes = found["boxes"].clone()
        boxes[:, 2:] -= boxes[:, :2]
        rows += [
            {"image_id": entry["id"], "category_id": ids[label], "bbox": box, "score": score}
            for box, label, score in zip(
                boxes.tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True
            )
        ]
    images = [entry["id"] for entry in annotations["images"]]
    matches = match_detections(annotations, rows, "bbox", images)
    return AveragePrecisionStatistics(matches).metrics()["box_map"], bits / pixels


def pillow(kind: str, **settings: int) -> Code:
    def code(image: Image.Image) -> io.BytesIO:
        data = io.BytesIO()
        # Without the metadata that Pillow would carry over.
        Image.fromarray(np.array(image)).save(data, kind, **settings)
        return data

    return code


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ICMBENCH_MIRROR", raising=False)
        folder = tmp_path_factory.mktemp("photos")
        # Manifests are written beside a data set.
        (folder / "data").mkdir()
        shutil.copy("data/catalogue.yaml", folder / "data")
        (folder / "data/photographs").symlink_to(Path("data/photographs").resolve())
        return load_plan(
            "config.yaml",
            {
                "scale": "mini",
                "studies": ["photos"],
                "results": str(folder / "results"),
                "data": {"directory": str(folder / "data")},
            },
        )


@pytest.mark.slow
def test_yolox_on_the_photographs_has_its_accuracy(plan: Plan) -> None:
    prepare(data_job(plan, "detection-photographs"))
    job = evaluate_job(plan, ORIGINAL).model_copy(update={"precision": "fp32"})
    split = Split(job.dataset, "test", needs=job.task.needs)
    assert len(split) == 66
    outcome = Yolox.evaluate(job, split)
    # Measured independently, with the ONNX file.
    assert outcome.metrics["box_map"] == pytest.approx(0.317, abs=0.005)
    assert outcome.metrics["box_map50"] == pytest.approx(0.494, abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "bpp", "box_map"),
    [
        (pillow("JPEG", quality=20), 0.524, 0.295),
        (pillow("AVIF", quality=20, speed=6), 0.173, 0.287),
    ],
)
def test_yolox_on_coded_photographs_has_its_accuracy(
    task: Yolox, code: Code, bpp: float, box_map: float
) -> None:
    found, rate = accuracy(task, PHOTOGRAPHS, PHOTOGRAPHS / "instances.json", code)
    assert rate == pytest.approx(bpp, abs=0.001)
    assert found == pytest.approx(box_map, abs=0.01)


@pytest.mark.mirror
@pytest.mark.slow
def test_yolox_on_the_mirror_has_its_accuracy(task: Yolox, mirror: Path) -> None:
    truth = mirror / "coco2017/instances_val2017.json"
    if not truth.is_file() or len(json.loads(truth.read_text())["images"]) != 206:
        pytest.skip(f"{truth} is not the subset of 206 images that was measured")
    found, _ = accuracy(task, mirror / "coco2017/val2017", truth)
    assert found == pytest.approx(0.285, abs=0.002)


def test_features_teach_the_image(task: Yolox) -> None:
    original = tensor(Image.open(PHOTOGRAPHS / "000000005001.jpg"))[:, :96, :128].contiguous()
    same = task.losses([original], [{"original": original}])
    assert set(same) == {"features"} and same["features"].item() == 0
    decoded = (original + 0.1 * torch.randn(original.shape)).requires_grad_()
    task.losses([decoded], [{"original": original}])["features"].backward()
    assert decoded.grad is not None and decoded.grad.abs().amax((1, 2)).min() > 0
    # A step down the gradient brings the features nearer.
    step = 1e-3 * decoded.grad / decoded.grad.abs().max()
    before, after = (
        task.losses([image], [{"original": original}])["features"].item()
        for image in (decoded.detach(), decoded.detach() - step)
    )
    assert after < before


def test_frozen_yolox_trains_a_codec(train_job: Callable[..., TrainJob], plan: Plan) -> None:
    # With noise: untrained latents all round to zero, and would give the synthesis no gradient.
    job = train_job("hyperprior/faster-rcnn/j-ft-noise")
    task = build_task(evaluate_job(plan, ORIGINAL).task)
    system = System(build_codec(job.codec), task, True, {"task": 1.0, "bpp": 1.0})
    set_modes(system, ["codec"])
    image = tensor(Image.open(PHOTOGRAPHS / "000000005001.jpg"))[:, :128, :128].contiguous()
    terms = system(Batch([image], [{}]))
    assert terms["task"] == terms["features"] > 0
    system.loss(terms).backward()
    assert all(parameter.grad is None for parameter in task.parameters())
    assert all(float(p.grad.abs().sum()) > 0 for p in system.codec.network.g_s.parameters())


def test_published_weights_serve_a_scale_with_a_zoo(plan: Plan) -> None:
    job = evaluate_job(plan, ORIGINAL)
    assert plan.scale.pretrained == "zoo" and job.task.weights.source == "pretrained"


def test_yolox_has_no_part_to_train(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        Path("workflow/studies/photos.yaml")
        .read_text()
        .replace("name: photos", "name: own")
        .replace(
            "    task_from: pretrained\n",
            "    task_from: pretrained\n    train: {parts: [task], loss: {task: 1.0}, "
            "schedule: fast, origin: ours}\n",
            1,
        )
    )
    overrides = {"scale": "smoke", "studies": ["own"], "study_folders": [str(tmp_path)]}
    with pytest.raises(UserError, match=r"train\.parts.*'task'"):
        load_plan("config.yaml", overrides)
