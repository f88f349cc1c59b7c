"""Faster R-CNN with torchvision's COCO weights is torchvision's own network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.faster_rcnn import FasterRCNN_ResNet50_FPN_Weights

from icmbench.tasks import FasterRcnnParameters
from icmbench.tasks.faster_rcnn import FasterRcnn
from icmbench.train.system import System, part_parameters, set_modes

COCO = FasterRCNN_ResNet50_FPN_Weights.COCO_V1
PARAMETERS = FasterRcnnParameters(backbone="resnet50-fpn", classes=91, short_side=64, long_side=64)


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand in for the download: other statistics in every batch norm."""
    torch.manual_seed(0)
    random = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    for module in random.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    state = random.state_dict()
    monkeypatch.setattr(type(COCO), "get_state_dict", lambda *_, **__: state)
    return state


@pytest.fixture
def ours(weights: dict[str, Any]) -> FasterRcnn:
    detector = FasterRcnn(PARAMETERS, pretrained=True)
    detector.load_pretrained()
    return detector


def test_it_computes_what_torchvisions_network_computes(ours: FasterRcnn) -> None:
    theirs = fasterrcnn_resnet50_fpn(weights=COCO, min_size=64, max_size=64).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found, expected = ours.eval().network.backbone(image), theirs.backbone(image)
    assert found.keys() == expected.keys()
    for name, level in expected.items():
        assert torch.equal(found[name], level), name


def test_what_is_trained_is_what_torchvision_trains(ours: FasterRcnn) -> None:
    theirs = fasterrcnn_resnet50_fpn(weights=COCO)
    expected = {name for name, p in theirs.named_parameters() if p.requires_grad}
    system = System(None, ours, False, {"task": 1.0})
    set_modes(system, ["task"])
    found = {name for name, p in ours.network.named_parameters() if p.requires_grad}
    assert found == expected and len(found) < len(list(theirs.parameters()))
    groups = part_parameters(None, ours, ["task"])
    assert len(groups["task"]) == len(expected)


def test_statistics_of_batch_norm_stay(ours: FasterRcnn, weights: dict[str, Any]) -> None:
    system = System(None, ours, False, {"task": 1.0})
    set_modes(system, ["task"])
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    ours.losses([torch.rand(3, 64, 64)], [target])
    state = ours.network.state_dict()
    for name, value in weights.items():
        if name.endswith(("running_mean", "running_var")):
            assert torch.equal(state[name], value), name


def test_one_to_be_trained_from_random_weights_has_ordinary_batch_norm() -> None:
    detector = FasterRcnn(PARAMETERS)
    assert any(isinstance(module, nn.BatchNorm2d) for module in detector.modules())
    assert detector.part_modules() == {"detector": [detector.network]}
