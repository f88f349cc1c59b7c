"""Mask R-CNN, its targets, and the network in front of it that changes what it sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as run_lengths

from icmbench.data.dataset import Split
from icmbench.data.masks import decode_masks, encode_masks
from icmbench.errors import UserError
from icmbench.networks.weights import load_part
from icmbench.tasks import AdaptedMaskRcnnParameters, MaskRcnnParameters
from icmbench.tasks.adaptation import DynamicTransformation
from icmbench.tasks.mask_rcnn import AdaptedMaskRcnn, MaskRcnn
from icmbench.train.batches import batches
from icmbench.train.checkpoint import save_weights
from icmbench.train.system import System, part_parameters, set_modes

SMALL = {"backbone": "small", "width": 8, "classes": 6, "short_side": 128, "long_side": 128}
FIVE = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg", "loss_mask"}


def targets_of(scenes: dict[str, Any], flip: bool, step: int = 0) -> Any:
    schedule = {"batch_size": 4, "crop": None, "flip": flip}
    return next(batches(Split(scenes, "train"), 0, schedule, range(step, step + 1), "masks"))


def test_masks_fill_their_boxes_also_when_mirrored(scenes: dict[str, Any]) -> None:
    for flip in (False, True):
        batch = targets_of(scenes, flip)
        for target in batch.targets:
            assert target["masks"].shape == (len(target["boxes"]), 128, 128)
            for box, mask in zip(target["boxes"], target["masks"], strict=True):
                rows, columns = np.nonzero(mask.numpy())
                around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert np.abs(np.array(around) - box.numpy()).max() <= 1


def test_polygons_and_run_lengths_become_the_masks_pycocotools_makes() -> None:
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


def test_predicted_masks_return_to_native_pixels() -> None:
    probabilities = torch.zeros(16, 20)
    probabilities[4:8, 5:15] = 0.9
    (coded,) = encode_masks(probabilities[None, None], 40, 32)
    assert coded["size"] == [32, 40] and isinstance(coded["counts"], str)
    assert run_lengths.toBbox(coded) == pytest.approx([10, 8, 20, 8], abs=1)


def test_the_adaptation_begins_as_nothing_and_has_the_stated_size() -> None:
    torch.manual_seed(0)
    images = torch.rand(1, 3, 40, 56)
    network = DynamicTransformation(16)
    assert torch.equal(network(images), images)
    sizes = {
        n: sum(p.numel() for p in DynamicTransformation(n).parameters()) for n in (32, 64, 128)
    }
    # 0.04, 0.15 and 0.57 million, as counted for the figure's layout
    assert sizes[32] == pytest.approx(0.04e6, rel=0.1)
    assert sizes[64] == pytest.approx(0.15e6, rel=0.04)
    assert sizes[128] == pytest.approx(0.57e6, rel=0.02)


def test_only_the_adaptation_learns_before_a_frozen_detector(scenes: dict[str, Any]) -> None:
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
        terms = system(targets_of(scenes, False, step))
        assert set(terms) >= FIVE | {"task"}
        assert float(terms["task"]) == pytest.approx(sum(float(terms[name]) for name in FIVE))
        optimiser.zero_grad()
        terms["task"].backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in groups["task"])
    for name, value in task.network.state_dict().items():
        assert torch.equal(value, before[name]), name  # batch norm's statistics, too


def test_an_adapted_detector_starts_from_one_without(tmp_path: Any) -> None:
    torch.manual_seed(0)
    plain = MaskRcnn(MaskRcnnParameters(**SMALL))
    save_weights(tmp_path / "weights.pt", None, plain, {})
    adapted = AdaptedMaskRcnn(AdaptedMaskRcnnParameters(**SMALL))
    load_part(adapted, tmp_path / "weights.pt", "task", partial=True)
    images = [torch.rand(3, 128, 128)]
    for one, other in zip(plain.predict(images), adapted.predict(images), strict=True):
        assert set(one) == {"boxes", "labels", "scores", "masks"}
        assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(UserError, match="Missing key"):
        load_part(adapted, tmp_path / "weights.pt", "task")


def test_nothing_that_fits_is_an_error(tmp_path: Any) -> None:
    torch.save({"task": {"elsewhere": torch.zeros(2)}}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="nothing in it fits this task"):
        load_part(MaskRcnn(MaskRcnnParameters(**SMALL)), tmp_path / "weights.pt", "task", True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "millions"), [("resnet50-fpn-v2", 46.4), ("resnext101-32x8d-fpn", 107.6)]
)
def test_full_size_layouts(backbone: Any, millions: float) -> None:
    network = MaskRcnn(MaskRcnnParameters(backbone=backbone))
    count = sum(p.numel() for p in network.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.01)
    if backbone != "resnet50-fpn-v2":
        with pytest.raises(UserError, match="resnet50-fpn-v2 only"):
            network.load_pretrained()
