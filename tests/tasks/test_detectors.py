"""torchvision's detectors: same network, boxes in float32, masks, and the adaptation network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as run_lengths
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.faster_rcnn import FasterRCNN_ResNet50_FPN_Weights

from icmbench.data.dataset import Split
from icmbench.data.masks import decode_masks, encode_masks
from icmbench.data.specs import DatasetSpec
from icmbench.errors import UserError
from icmbench.jobs import Schedule
from icmbench.networks.weights import load_part
from icmbench.registry import TASKS
from icmbench.tasks.detection import predict_all
from icmbench.tasks.detectors import (
    AdaptedMaskRcnn,
    DynamicTransformation,
    FasterRcnn,
    MaskRcnn,
)
from icmbench.tasks.entries import (
    AdaptedMaskRcnnParameters,
    FasterRcnnParameters,
    MaskRcnnParameters,
)
from icmbench.train.batches import batches
from icmbench.train.checkpoint import save_weights
from icmbench.train.system import System, part_parameters, set_modes

SMALL: dict[str, Any] = {
    "backbone": "small", "width": 8, "classes": 6, "short_side": 128, "long_side": 128
}  # fmt: skip
FIVE = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg", "loss_mask"}
COCO = FasterRCNN_ResNet50_FPN_Weights.COCO_V1
FULL = FasterRcnnParameters(backbone="resnet50-fpn", classes=91, short_side=64, long_side=64)


def batch_of(scenes: DatasetSpec, flip: bool, step: int = 0) -> Any:
    schedule = Schedule(steps=9, batch_size=4, flip=flip, optimisers={}, origin="ours")
    return next(batches(Split(scenes, "train"), 0, schedule, range(step, step + 1), "masks"))


# --- torchvision's own network --------------------------------------------------------------------


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replaces the download: other statistics in every batch norm."""
    torch.manual_seed(0)
    random = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    for module in random.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    state = random.state_dict()
    monkeypatch.setattr(type(COCO), "get_state_dict", lambda *_, **__: state)
    monkeypatch.setattr("icmbench.tasks.detectors.load_published", lambda _: state)
    return state


@pytest.fixture
def pretrained(weights: dict[str, Any]) -> FasterRcnn:
    detector = FasterRcnn(FULL, pretrained=True)
    detector.load_pretrained()
    return detector


def test_pretrained_detector_computes_what_torchvisions_computes(pretrained: FasterRcnn) -> None:
    theirs = fasterrcnn_resnet50_fpn(weights=COCO, min_size=64, max_size=64).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found, expected = pretrained.eval().network.backbone(image), theirs.backbone(image)
    assert found.keys() == expected.keys()
    for name, level in expected.items():
        assert torch.equal(found[name], level), name


def test_pretrained_detector_trains_what_torchvision_trains(
    pretrained: FasterRcnn, weights: dict[str, Any]
) -> None:
    theirs = fasterrcnn_resnet50_fpn(weights=COCO)
    expected = {name for name, p in theirs.named_parameters() if p.requires_grad}
    system = System(None, pretrained, False, {"task": 1.0})
    set_modes(system, ["task"])
    found = {name for name, p in pretrained.network.named_parameters() if p.requires_grad}
    assert found == expected and len(found) < len(list(theirs.parameters()))
    assert len(part_parameters(None, pretrained, ["task"])["task"]) == len(expected)
    # Statistics of batch norm stay.
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    pretrained.losses([torch.rand(3, 64, 64)], [target])
    state = pretrained.network.state_dict()
    for name, value in weights.items():
        if name.endswith(("running_mean", "running_var")):
            assert torch.equal(state[name], value), name


def test_detector_from_random_weights_has_ordinary_batch_norm() -> None:
    detector = FasterRcnn(FULL)
    assert any(isinstance(module, nn.BatchNorm2d) for module in detector.modules())
    assert detector.part_modules() == {"detector": [detector.network]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "millions"), [("resnet50-fpn-v2", 46.4), ("resnext101-32x8d-fpn", 107.6)]
)
def test_mask_rcnn_has_the_published_size(backbone: Any, millions: float) -> None:
    parameters = MaskRcnnParameters(backbone=backbone)
    count = sum(p.numel() for p in MaskRcnn(parameters).parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.01)
    assert TASKS["mask-rcnn"].has_pretrained(parameters) == (backbone == "resnet50-fpn-v2")


# --- boxes in float32 -----------------------------------------------------------------------------

SIDE = 1024


@pytest.fixture(params=["faster-rcnn", "mask-rcnn"])
def detector(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    sizes = {**SMALL, "short_side": SIDE, "long_side": SIDE}
    if request.param == "faster-rcnn":
        return FasterRcnn(FasterRcnnParameters(**sizes))
    return MaskRcnn(MaskRcnnParameters(**sizes))


def test_detections_are_not_rounded_to_bfloat16(detector: Any) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = detector.predict([torch.rand(3, SIDE, SIDE)])
    boxes = found["boxes"]
    assert boxes.dtype == found["scores"].dtype == torch.float32
    far = boxes[(boxes > 512) & (boxes < SIDE)]
    assert len(far) > 10
    assert (far % 4 != 0).float().mean() > 0.9


def test_anchors_and_losses_are_not_rounded_to_bfloat16(detector: Any) -> None:
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


# --- masks ----------------------------------------------------------------------------------------


def test_detections_do_not_depend_on_the_batch(detector: Any) -> None:
    """Mixed sizes one by one and eight at a time; padding them to one size would change both."""
    torch.manual_seed(1)
    images = [torch.rand(3, *size) for size in [(96, 128), (128, 96), (96, 128), (112, 128)] * 2]

    class Images:
        ids = tuple(range(len(images)))
        __len__ = staticmethod(lambda: len(images))
        native_size = staticmethod(lambda i: (images[i].shape[2], images[i].shape[1]))

    class Network:
        inputs = staticmethod(lambda indices: [images[i] for i in indices])
        predict = staticmethod(lambda inputs: detector.predict(inputs))

    alone, together = (predict_all(Network, Images(), most, "", int) for most in (1, 8))
    assert len(alone) == len(together) > 8
    for one, other in zip(alone, together, strict=True):
        assert one["image_id"] == other["image_id"]
        np.testing.assert_allclose(one["bbox"], other["bbox"], atol=0.02)
        assert one["score"] == pytest.approx(other["score"], abs=2e-5)
    padded = [result["boxes"] for result in detector.predict(images)]
    single = [detector.predict([image])[0]["boxes"] for image in images]
    assert any(
        len(a) != len(b) or (a - b).abs().max() > 0.5 for a, b in zip(padded, single, strict=True)
    )


@pytest.mark.parametrize("flip", [False, True])
def test_masks_fill_their_boxes(scenes: DatasetSpec, flip: bool) -> None:
    for target in batch_of(scenes, flip).targets:
        assert target["masks"].shape == (len(target["boxes"]), 128, 128)
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            rows, columns = np.nonzero(mask.numpy())
            around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(np.array(around) - box.numpy()).max() <= 1


def test_decode_masks_equals_pycocotools() -> None:
    polygon = [[10.0, 10.0, 30.0, 10.0, 30.0, 25.0, 10.0, 25.0]]
    coded = run_lengths.merge(run_lengths.frPyObjects(polygon, 40, 50))
    binary = run_lengths.decode(coded)
    plain = {"size": [40, 50], "counts": [0, 3, 1997]}  # the first three pixels of a column
    masks = decode_masks([polygon, coded, plain], (40, 50), (40, 50))
    assert np.array_equal(masks[0], binary) and np.array_equal(masks[1], binary)
    assert masks[2].sum() == 3 and masks[2][:3, 0].all()
    halved = decode_masks([polygon], (40, 50), (20, 25))
    assert halved.shape == (1, 20, 25)
    assert 4 * halved.sum() == pytest.approx(binary.sum(), rel=0.1)
    assert decode_masks([], (40, 50), (20, 25)).shape == (0, 20, 25)


def test_encode_masks_returns_to_native_pixels() -> None:
    probabilities = torch.zeros(16, 20)
    probabilities[4:8, 5:15] = 0.9
    (coded,) = encode_masks(probabilities[None, None], 40, 32)
    assert coded["size"] == [32, 40] and isinstance(coded["counts"], str)
    assert run_lengths.toBbox(coded) == pytest.approx([10, 8, 20, 8], abs=1)


# --- adaptation -----------------------------------------------------------------------------------


def test_adaptation_is_the_identity_at_first_and_has_the_stated_size() -> None:
    torch.manual_seed(0)
    images = torch.rand(1, 3, 40, 56)
    assert torch.equal(DynamicTransformation(16)(images), images)
    # 0.04, 0.15 and 0.57 million, as counted for the figure's layout
    for width, millions in ((32, 0.04), (64, 0.15), (128, 0.57)):
        count = sum(p.numel() for p in DynamicTransformation(width).parameters()) / 1e6
        assert count == pytest.approx(millions, rel=0.1)


def test_only_the_adaptation_learns_before_a_frozen_detector(scenes: DatasetSpec) -> None:
    torch.manual_seed(0)
    task = AdaptedMaskRcnn(AdaptedMaskRcnnParameters(**SMALL, adaptation_width=8))
    system = System(None, task, False, {})
    parts = ["task.adaptation"]
    set_modes(system, parts)
    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    groups = part_parameters(None, task, parts)
    assert set(groups) == {"task"}
    assert {id(p) for p in groups["task"]} == {id(p) for p in task.adaptation.parameters()}
    optimiser = torch.optim.Adam(groups["task"], 1e-2)
    for step in range(2):  # the last layer is zero at first, so the others learn from step two
        terms = system(batch_of(scenes, False, step))
        assert set(terms) >= FIVE | {"task"}
        assert float(terms["task"]) == pytest.approx(sum(float(terms[name]) for name in FIVE))
        optimiser.zero_grad()
        terms["task"].backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in groups["task"])
    for name, value in task.network.state_dict().items():
        assert torch.equal(value, before[name]), name  # batch norm's statistics, too


def test_adapted_detector_starts_from_one_without(tmp_path: Any) -> None:
    torch.manual_seed(0)
    plain = MaskRcnn(MaskRcnnParameters(**SMALL))
    save_weights(tmp_path / "weights.pt", None, plain, {})
    adapted = AdaptedMaskRcnn(AdaptedMaskRcnnParameters(**SMALL))
    load_part(adapted, tmp_path / "weights.pt", "task", needed=("network.",))
    images = [torch.rand(3, 128, 128)]
    for one, other in zip(plain.predict(images), adapted.predict(images), strict=True):
        assert set(one) == {"boxes", "labels", "scores", "masks"}
        assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(UserError, match="adaptation"):
        load_part(adapted, tmp_path / "weights.pt", "task")


def test_load_part_refuses_weights_of_which_nothing_fits(tmp_path: Any) -> None:
    torch.save({"task": {"elsewhere": torch.zeros(2)}}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"weights\.pt"):
        load_part(MaskRcnn(MaskRcnnParameters(**SMALL)), tmp_path / "weights.pt", "task", ())
