"""Boxes are not rounded to the steps of bfloat16 where networks run in it."""

from typing import Any

import pytest
import torch

from icmbench.tasks import FasterRcnnParameters, MaskRcnnParameters
from icmbench.tasks.faster_rcnn import FasterRcnn
from icmbench.tasks.mask_rcnn import MaskRcnn

SIDE = 1024
SMALL = {"backbone": "small", "width": 8, "classes": 6, "short_side": SIDE, "long_side": SIDE}


@pytest.fixture(params=["faster-rcnn", "mask-rcnn"])
def detector(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    if request.param == "faster-rcnn":
        return FasterRcnn(FasterRcnnParameters(**SMALL))
    return MaskRcnn(MaskRcnnParameters(**SMALL))


def test_detections(detector: Any) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = detector.predict([torch.rand(3, SIDE, SIDE)])
    boxes = found["boxes"]
    assert boxes.dtype == found["scores"].dtype == torch.float32
    far = boxes[(boxes > 512) & (boxes < SIDE)]
    assert len(far) > 10
    assert (far % 4 != 0).float().mean() > 0.9


def test_anchors_and_losses(detector: Any) -> None:
    seen = []
    anchors = detector.network.rpn.anchor_generator
    anchors.register_forward_hook(lambda _, inputs, output: seen.extend(output))
    box = torch.tensor([[700.5, 600.25, 901.0, 820.75]])
    target = {"boxes": box, "labels": torch.tensor([1])}
    if detector.targets == "masks":
        target["masks"] = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
        target["masks"][0, 600:820, 700:901] = 1
    detector.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = detector.losses([torch.rand(3, SIDE, SIDE)], [target])
    assert {value.dtype for value in seen} == {torch.float32}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(torch.isfinite(loss) for loss in losses.values())
