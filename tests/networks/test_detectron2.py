"""Detectron2's Mask R-CNN in torchvision's layout: shapes, colours, classes, anchors, pooling."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import roi_align

from icmbench.errors import DamagedFile, UserError
from icmbench.networks.detectron2 import CATEGORIES, convert, convert_file
from icmbench.tasks.detector_parts import AlignedPooler, ExactAnchors
from icmbench.tasks.detectors import MaskRcnn
from icmbench.tasks.entries import MaskRcnnParameters

BLOCKS = (3, 4, 23, 3)
MEAN, STD = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]  # BGR, of its configuration


def detectron2_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of mask_rcnn_X_101_32x8d_FPN_3x, written from its configuration."""
    shapes: dict[str, tuple[int, ...]] = {"pixel_mean": (3, 1, 1), "pixel_std": (3, 1, 1)}

    def convolution(name: str, *shape: int, norm: bool = False, bias: bool = False) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]
        for part in ("weight", "bias", "running_mean", "running_var") if norm else ():
            shapes[f"{name}.norm.{part}"] = shape[:1]

    convolution("backbone.bottom_up.stem.conv1", 64, 3, 7, 7, norm=True)
    before = 64
    for stage, blocks in enumerate(BLOCKS):
        width, after = 256 * 2**stage, 256 * 2**stage
        for block in range(blocks):
            name = f"backbone.bottom_up.res{stage + 2}.{block}"
            if block == 0:
                convolution(f"{name}.shortcut", after, before, 1, 1, norm=True)
            convolution(f"{name}.conv1", width, before, 1, 1, norm=True)
            convolution(f"{name}.conv2", width, width // 32, 3, 3, norm=True)
            convolution(f"{name}.conv3", after, width, 1, 1, norm=True)
            before = after
        convolution(f"backbone.fpn_lateral{stage + 2}", 256, after, 1, 1, bias=True)
        convolution(f"backbone.fpn_output{stage + 2}", 256, 256, 3, 3, bias=True)
        shapes[f"proposal_generator.anchor_generator.cell_anchors.{stage}"] = (3, 4)
    convolution("proposal_generator.rpn_head.conv", 256, 256, 3, 3, bias=True)
    convolution("proposal_generator.rpn_head.objectness_logits", 3, 256, 1, 1, bias=True)
    convolution("proposal_generator.rpn_head.anchor_deltas", 12, 256, 1, 1, bias=True)
    convolution("roi_heads.box_head.fc1", 1024, 256 * 49, bias=True)
    convolution("roi_heads.box_head.fc2", 1024, 1024, bias=True)
    convolution("roi_heads.box_predictor.cls_score", 81, 1024, bias=True)
    convolution("roi_heads.box_predictor.bbox_pred", 320, 1024, bias=True)
    for layer in range(1, 5):
        convolution(f"roi_heads.mask_head.mask_fcn{layer}", 256, 256, 3, 3, bias=True)
    convolution("roi_heads.mask_head.deconv", 256, 256, 2, 2, bias=True)
    convolution("roi_heads.mask_head.predictor", 80, 256, 1, 1, bias=True)
    return shapes


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    # Values of small tensors only: those whose order is checked.
    values = {
        name: torch.randn(shape, generator=generator)
        if np.prod(shape) < 400_000
        else torch.zeros(()).expand(shape)
        for name, shape in detectron2_shapes().items()
    }
    values["pixel_mean"] = torch.tensor(MEAN)[:, None, None]
    values["pixel_std"] = torch.tensor(STD)[:, None, None]
    return values


def test_every_weight_has_a_place_of_its_shape(state: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        network = MaskRcnn(MaskRcnnParameters(backbone="resnext101-32x8d-fpn", layout="detectron2"))
    converted = convert(state)
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    assert {name: value.shape for name, value in converted.items()} == wanted


def test_images_are_normalised_as_in_detectron2(state: dict[str, Tensor]) -> None:
    """RGB in [0, 1] through torchvision's transform; BGR up to 255 through Detectron2's."""
    image = torch.rand(3, 32, 32)
    transform = GeneralizedRCNNTransform(32, 32, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    ours = conv2d(
        transform.normalize(image)[None], convert(state)["network.backbone.body.conv1.weight"]
    )
    blue_first = 255 * image.flip(0)
    normalised = (blue_first - state["pixel_mean"]) / state["pixel_std"]
    theirs = conv2d(normalised[None], state["backbone.bottom_up.stem.conv1.weight"])
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_classes_are_numbered_as_coco_does(state: dict[str, Tensor]) -> None:
    converted = convert(state)
    theirs = state["roi_heads.box_predictor.cls_score.bias"]
    ours = converted["network.roi_heads.box_predictor.cls_score.bias"]
    assert (CATEGORIES[0], CATEGORIES[11], CATEGORIES[79], len(CATEGORIES)) == (1, 13, 90, 80)
    assert ours[0] == theirs[80] and ours[1] == theirs[0]
    assert ours[13] == theirs[11] and ours[90] == theirs[79]  # stop sign, toothbrush
    torch.testing.assert_close(ours.softmax(0)[[0, *CATEGORIES]], theirs.softmax(0).roll(1))
    boxes = converted["network.roi_heads.box_predictor.bbox_pred.bias"].reshape(91, 4)
    expected = state["roi_heads.box_predictor.bbox_pred.bias"].reshape(80, 4)
    torch.testing.assert_close(boxes[CATEGORIES], expected)
    masks = converted["network.roi_heads.mask_predictor.mask_fcn_logits.bias"]
    torch.testing.assert_close(masks[CATEGORIES], state["roi_heads.mask_head.predictor.bias"])


def test_anchors_are_not_rounded() -> None:
    """Area 32 x 32, twice as high as wide: 22.627 by 45.255."""
    anchors = ExactAnchors(((32,),), ((0.5, 1.0, 2.0),)).generate_anchors([32], [0.5, 1.0, 2.0])
    side = 32 / np.sqrt(2)
    expected = [[-side, -side / 2, side, side / 2], [-16, -16, 16, 16],
                [-side / 2, -side, side / 2, side]]  # fmt: skip
    np.testing.assert_allclose(anchors.numpy(), expected, rtol=1e-6)


def test_pooling_is_aligned_on_every_level() -> None:
    maps = {str(i): torch.rand(2, 4, 64 // 2**i, 64 // 2**i) for i in range(4)}
    # Of 20, 120 and 250 pixels: levels 2, 3 and 4.
    boxes = [
        torch.tensor([[10.0, 20, 30, 40], [5, 5, 125, 125]]),
        torch.tensor([[1.0, 2, 251, 252]]),
    ]
    pooled = AlignedPooler(list("0123"), 7)(maps, boxes, [(256, 256)] * 2)
    for row, (image, box, level) in enumerate(
        [(0, boxes[0][0], 0), (0, boxes[0][1], 1), (1, boxes[1][0], 2)]
    ):
        roi = torch.cat([torch.tensor([float(image)]), box])[None]
        expected = roi_align(maps[str(level)], roi, 7, 1 / 4 / 2**level, 0, aligned=True)
        torch.testing.assert_close(pooled[row], expected[0])


def test_another_network_or_normalisation_is_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(UserError, match="res7"):
        convert({"backbone.bottom_up.res7.norm.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="pixel_std"):
        convert({**state, "pixel_std": torch.ones(3)})
    with pytest.raises(UserError, match="21 classes"):
        convert({"roi_heads.box_predictor.cls_score.bias": torch.zeros(21)})


class _Harm:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("harm",))


def test_files_are_read_without_running_what_is_in_them(tmp_path: Path) -> None:
    source = tmp_path / "model.pkl"
    bias = np.arange(80, dtype=np.float32)
    source.write_bytes(pickle.dumps({"model": {"roi_heads.mask_head.predictor.bias": bias}}, 2))
    target = convert_file(source, tmp_path / "weights.pt")
    (weight,) = torch.load(target, weights_only=True)["task"].values()
    np.testing.assert_array_equal(weight.numpy()[CATEGORIES], bias)
    source.write_bytes(pickle.dumps({"model": {"x": _Harm()}}))
    with pytest.raises(DamagedFile, match="mkdir"):
        convert_file(source, tmp_path / "weights.pt")
    assert not Path("harm").exists()
    with pytest.raises(UserError, match=r"none\.pkl"):
        convert_file(tmp_path / "none.pkl", target)
