"""Tasks on the split ResNet: probes and detectors, on images and on features."""

from __future__ import annotations

import copy
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from icmbench.codecs.base import Features
from icmbench.data.specs import Needs
from icmbench.errors import UserError
from icmbench.networks.backbone import SplitResNet
from icmbench.networks.batchnorm import batch_norms, frozen_statistics
from icmbench.networks.weights import load_part
from icmbench.tasks.classification import classify, hits
from icmbench.tasks.entries import ProbeParameters, ResnetRcnnParameters
from icmbench.tasks.probe import FeatureProbe, Probe
from icmbench.tasks.resnet_rcnn import FeatureRcnn, ResnetRcnn
from icmbench.train.batches import Batch
from icmbench.train.checkpoint import save_weights
from icmbench.train.distributed import synchronise_batch_norm
from icmbench.train.system import System, set_modes

TINY = {"backbone_blocks": [1, 1, 1, 1], "backbone_width": 8}
FOUR = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}


def probe(kind: type[FeatureProbe] = Probe, classes: int = 3) -> FeatureProbe:
    torch.manual_seed(0)
    return kind(ProbeParameters.model_validate({**TINY, "classes": classes}))


def detector(kind: type[FeatureRcnn] = ResnetRcnn, masks: bool = False, **more: Any) -> FeatureRcnn:
    torch.manual_seed(0)
    settings = {**TINY, "size": "small", "classes": 3, "masks": masks, **more}
    return kind(ResnetRcnnParameters.model_validate(settings))


# --- probes -------------------------------------------------------------------------------------


def striped(labels: list[int]) -> list[Tensor]:
    """Return noisy images whose colour is their class."""
    images = 0.3 * torch.rand(len(labels), 3, 64, 64)
    for image, label in zip(images, labels, strict=True):
        image[label] += 0.6
    return list(images)


def test_probe_learns_separable_classes_by_its_last_layer() -> None:
    task = probe()
    tail = task.network.layer4[0].conv1.weight.clone()
    optimiser = torch.optim.SGD(task.part_modules()["classifier"][0].parameters(), lr=1.0)
    labels = [0, 1, 2] * 4
    targets = [{"label": torch.tensor(label)} for label in labels]
    task.train()
    for _ in range(30):
        loss = task.losses(striped(labels), targets)["cross_entropy"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert task.predict(striped([2, 0, 1, 1])).argmax(1).tolist() == [2, 0, 1, 1]
    assert torch.equal(task.network.layer4[0].conv1.weight, tail)
    assert task.network.bn1.num_batches_tracked == 0  # also in training mode


def test_probe_on_images_equals_probe_on_their_features() -> None:
    on_images, features = probe(), probe(FeatureProbe)
    features.load_state_dict(on_images.state_dict(), strict=False)
    images = [torch.rand(3, 100, 64), torch.rand(3, 70, 128)]
    padded = torch.stack([functional.pad(i, (0, 128 - i.shape[2], 0, 128 - i.shape[1]),
                                         mode="replicate") for i in images])  # fmt: skip
    values = on_images.eval().network.head(padded)
    logits = features.predict(Features(values, [(100, 64), (70, 128)], (128, 128)))
    assert torch.allclose(on_images.predict(images), logits, atol=1e-5)
    # Pooling leaves out cells (stride 32) that hold padding alone.
    last = on_images.network.tail(values)[-1]
    means = torch.stack([last[0, :, :4, :2].mean((1, 2)), last[1, :, :3, :].mean((1, 2))])
    assert torch.allclose(logits, on_images.classifier(means), atol=1e-5)


def test_probe_is_torchvisions_resnet() -> None:
    torch.manual_seed(0)
    reference = resnet50(weights=None).eval()
    task = Probe(ProbeParameters()).eval()
    assert sum(p.numel() for p in task.parameters()) == 25_557_032  # torchvision's count
    state = {task.rename_weight(n): v for n, v in reference.state_dict().items()}
    wrong = task.load_state_dict(state, strict=False)
    assert set(wrong.missing_keys) == {"network.fc.weight", "network.fc.bias"}
    task.classifier.load_state_dict(reference.fc.state_dict())
    image = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in
                 ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(task([image[0]]), reference((image - mean) / std), atol=1e-4)


@pytest.mark.parametrize("prefix", ["backbone.", "module.encoder_q.", "encoder_q.", ""])
def test_tasks_start_from_weights_of_a_codec_or_moco(prefix: str, tmp_path: Any) -> None:
    torch.manual_seed(5)
    source = SplitResNet(TINY["backbone_blocks"], TINY["backbone_width"], classes=3)
    state = {f"{prefix}{name}": value for name, value in source.state_dict().items()}
    for task in (probe(), probe(FeatureProbe), detector(), detector(FeatureRcnn)):
        before = {n: v.clone() for n, v in task.state_dict().items()}
        save_weights(tmp_path / "w.pt", None, SimpleNamespace(state_dict=lambda: state), {})
        load_part(task, tmp_path / "w.pt", "task", needed=("network.layer",))
        for name, value in task.state_dict().items():
            own = name.removeprefix("network.")
            if name.startswith("network.") and not own.startswith("fc"):
                assert torch.equal(value, source.state_dict()[own]), name
            else:
                assert torch.equal(value, before[name]), name


def test_parts_cover_all_weights() -> None:
    for task, parts in (
        (probe(), {"head", "tail", "classifier"}),
        (probe(FeatureProbe), {"tail", "classifier"}),
        (detector(), {"head", "tail", "detector"}),
        (detector(FeatureRcnn, masks=True), {"tail", "detector"}),
    ):
        modules = task.part_modules()
        assert set(modules) == parts
        listed = [p for part in modules.values() for m in part for p in m.parameters()]
        assert {id(p) for p in listed} == {id(p) for p in task.parameters()}
        assert len(listed) == len(list(task.parameters()))


def test_hits_of_one_image() -> None:
    logits = torch.tensor([0.1, 0.9, 0.3, 0.2, 0.0, -1.0, 0.5])
    assert hits(logits, 1) == {"top1": 1.0, "top5": 1.0}
    assert hits(logits, 0) == {"top1": 0.0, "top5": 1.0}  # fifth
    assert hits(logits, 4) == {"top1": 0.0, "top5": 0.0}  # sixth
    assert hits(logits[:3], 0) == {"top1": 0.0, "top5": 1.0}


def test_classify_counts_correct_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs, task and labels are given; what is averaged is tested."""
    scores = torch.tensor([[3.0, 2, 1], [1, 3, 2], [1, 2, 3], [3, 1, 2]])

    predictor = SimpleNamespace(
        inputs=lambda indices: [scores[i] for i in indices],
        predict=torch.stack,
        compute=SimpleNamespace(name="cpu"),
    )
    monkeypatch.setattr("icmbench.tasks.classification.Predictor", lambda job, split: predictor)

    class Labelled:
        ids = (7, 8, 9, 10)
        classes = ("a", "b", "c")

        def __len__(self) -> int:
            return 4

        def label(self, index: int) -> int:
            return (0, 1, 2, 2)[index]

    task = SimpleNamespace(parameters={}, needs=Needs(truth="label", classes=3))
    job: Any = SimpleNamespace(key="k", task=task)
    split: Any = Labelled()
    outcome = classify(job, split)
    assert outcome.metrics == {"top1": 0.75, "top5": 1.0}
    found = {own.name: (own.value, own.count) for own in outcome.per_class}
    assert found == {"a": (1.0, 1), "b": (1.0, 1), "c": (0.5, 2)}
    statistics = outcome.statistics["classification"]
    resampled = statistics.metrics_resampled(np.array([[0, 0, 0, 1], [1, 0, 0, 1]]))
    assert resampled["top1"].tolist() == [0, 0.5]
    assert statistics.image_ids.tolist() == ["7", "8", "9", "10"]


# --- detectors ----------------------------------------------------------------------------------


def two_squares(masks: bool) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Two images of different sizes, each with one square of another class."""
    images = [0.2 * torch.rand(3, 128, 128), 0.2 * torch.rand(3, 96, 112)]
    boxes = [(40, 32, 72, 64), (16, 48, 60, 92)]
    targets = []
    for label, (image, (x1, y1, x2, y2)) in enumerate(zip(images, boxes, strict=True), 1):
        image[label, y1:y2, x1:x2] = 1
        mask = torch.zeros(1, *image.shape[1:], dtype=torch.uint8)
        mask[0, y1:y2, x1:x2] = 1
        target = {
            "boxes": torch.tensor([[x1, y1, x2, y2]]).float(),
            "labels": torch.tensor([label]),
        }
        targets.append({**target, "masks": mask} if masks else target)
    return images, targets


def test_detector_learns_two_images() -> None:
    task = detector(masks=True)
    assert task.targets == "masks"
    torch.manual_seed(1)
    images, targets = two_squares(True)
    parameters = [p for n, p in task.named_parameters() if not n.startswith(HEAD)]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3)
    history = []
    for _ in range(70):
        task.train()
        losses = task.losses(images, targets)
        assert set(losses) == {*FOUR, "loss_mask"}
        loss = torch.stack(list(losses.values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert np.mean(history[-5:]) < 0.5 * np.mean(history[:5])
    assert task.network.bn1.num_batches_tracked == 0
    assert task.network.layer3[0].bn1.num_batches_tracked == 0
    for image, target, found in zip(images, targets, task.predict(images), strict=True):
        assert found["labels"][0] == target["labels"][0]
        assert overlap(found["boxes"][0], target["boxes"][0]) > 0.6
        assert found["masks"].shape[1:] == (1, *image.shape[1:])
        inside = found["masks"][0, 0] > 0.5
        assert (inside & (target["masks"][0] > 0)).sum() > 0.6 * target["masks"].sum()


HEAD = ("network.conv1", "network.bn1", "network.layer1")


def overlap(one: Tensor, other: Tensor) -> float:
    from torchvision.ops import box_iou

    return float(box_iou(one[None], other[None]))


def test_detector_keeps_boxes_inside_each_image_of_a_padded_batch() -> None:
    task = detector(FeatureRcnn, masks=True).eval()
    task.detector.roi_heads.score_thresh = 0.0
    torch.manual_seed(2)
    sizes = [(128, 128), (70, 90), (40, 128)]
    features = Features(5 * torch.rand(3, 32, 32, 32), sizes, (128, 128))
    proposed: list[Tensor] = []
    task.detector.rpn.register_forward_hook(lambda module, given, out: proposed.extend(out[0]))
    task.predict(features)
    for boxes, (height, width) in zip(proposed, sizes, strict=True):
        assert boxes.min() >= 0
        assert boxes[:, 0::2].max() <= width and boxes[:, 1::2].max() <= height
    for found, (height, width) in zip(task.predict(features), sizes, strict=True):
        boxes = found["boxes"]
        assert len(boxes) > 10
        assert boxes.min() >= 0
        assert boxes[:, [0, 2]].max() <= width and boxes[:, [1, 3]].max() <= height
        assert found["masks"].shape == (len(boxes), 1, height, width)


def test_detection_on_images_equals_detection_on_their_features() -> None:
    images, features = detector().eval(), detector(FeatureRcnn).eval()
    features.load_state_dict(
        {n: v for n, v in images.state_dict().items() if not n.startswith(HEAD)}
    )
    for task in (images, features):
        task.detector.roi_heads.score_thresh = 0.0
    image = torch.rand(3, 100, 120)
    padded = functional.pad(image[None], (0, 8, 0, 28), mode="replicate")
    values = images.network.head(padded).detach()
    (one,) = images.predict([image])
    (other,) = features.predict(Features(values, [(100, 120)], (128, 128)))
    assert len(one["boxes"]) > 10
    for name, value in one.items():
        assert torch.allclose(value, other[name], atol=1e-4), name


def test_detector_strides_do_not_depend_on_the_first_image() -> None:
    """An image of 40 x 40 padded to 64 x 64 would make torchvision guess half the strides."""
    task = detector(size="full")
    pool = task.detector.roi_heads.box_roi_pool
    assert pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    task.predict([torch.rand(3, 40, 40)])
    assert pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    assert detector().detector.roi_heads.box_roi_pool.scales == [1 / 8, 1 / 16, 1 / 32]


@pytest.mark.parametrize("masks", [False, True])
def test_full_detector_equals_torchvisions(masks: bool) -> None:
    """Same weights, same image, no resizing: the same detections as torchvision's own class."""
    task = detector(masks=masks, size="full", backbone_blocks=[3, 4, 6, 3], backbone_width=64)
    own = sum(p.numel() for p in task.parameters())
    # fasterrcnn_resnet50_fpn and maskrcnn_resnet50_fpn with 3 classes
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=torch.nn.BatchNorm2d
    )
    reference = (MaskRCNN if masks else FasterRCNN)(backbone, 3, min_size=128, max_size=128)
    assert own == sum(p.numel() for p in reference.parameters())
    backbone.body.load_state_dict(
        {n.removeprefix("network."): v for n, v in task.state_dict().items() if "network" in n}
    )
    backbone.fpn.load_state_dict(task.detector.pyramid.layers.state_dict())
    reference.rpn.load_state_dict(task.detector.rpn.state_dict())
    reference.roi_heads.load_state_dict(task.detector.roi_heads.state_dict())
    reference.eval()
    torch.manual_seed(3)
    image = torch.rand(3, 128, 128)
    for heads in (reference.roi_heads, task.detector.roi_heads):
        heads.score_thresh, heads.detections_per_img = 0.3, 20
    (found,) = task.predict([image])
    with torch.no_grad():
        (expected,) = reference([image])
    assert set(found) == set(expected) and len(expected["boxes"]) > 0
    difference = {name: (found[name] - value).abs().float() for name, value in expected.items()}
    # Convolutions round differently with the number of threads. Masks follow the edges of boxes.
    assert difference["labels"].max() == 0 and difference["scores"].max() < 1e-3
    assert difference["boxes"].max() < 0.05  # pixels
    assert not masks or difference["masks"].mean() < 1e-3


@pytest.mark.parametrize("kind", [FeatureProbe, Probe, FeatureRcnn, ResnetRcnn])
def test_losses_are_finite_under_autocast(kind: Any) -> None:
    task = probe(kind) if issubclass(kind, FeatureProbe) else detector(kind, masks=True)
    images, targets = two_squares(True)
    if isinstance(task, FeatureProbe):
        targets = [{"label": torch.tensor(1)}, {"label": torch.tensor(0)}]
    sizes = [(i.shape[1], i.shape[2]) for i in images]
    features = Features(torch.rand(2, 32, 32, 32), sizes, (128, 128))
    inputs = images if task.input_kind == "images" else features
    task.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = task.losses(inputs, targets)
        results = task.predict(inputs)
    assert all(torch.isfinite(loss) for loss in losses.values())
    torch.stack([loss.float() for loss in losses.values()]).sum().backward()
    assert all(p.grad is not None for m in task.part_modules()["tail"] for p in m.parameters())
    if isinstance(task, FeatureRcnn):
        assert all(result["boxes"].dtype == torch.float32 for result in results)
        # Anchors take their type from the pyramid: bfloat16 would shift them by pixels.
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
            levels = task.detector.pyramid(task._stages(task.features(inputs)))
        assert {level.dtype for level in levels.values()} == {torch.float32}


def test_detector_trains_on_an_image_without_objects() -> None:
    task = detector()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    task.train()
    losses = task.losses([torch.rand(3, 128, 128)], [empty])
    assert set(losses) == FOUR and all(torch.isfinite(loss) for loss in losses.values())


def test_detector_enlarges_what_was_coded_at_native_size() -> None:
    """The same boxes in native pixels as of the enlarged image; one that has the size stays."""
    task = detector(masks=True, short_side=128, long_side=192).eval()
    torch.manual_seed(2)
    native = torch.rand(3, 64, 80)
    large = functional.interpolate(
        native[None], (128, 160), mode="bilinear", align_corners=False, antialias=True
    )[0]
    (of_native,), (of_large,) = task.predict([native]), task.predict([large])
    assert len(of_native["boxes"]) > 0
    torch.testing.assert_close(2 * of_native["boxes"], of_large["boxes"])
    torch.testing.assert_close(of_native["scores"], of_large["scores"])
    plain = detector(masks=True).eval()
    torch.testing.assert_close(plain.predict([large])[0]["boxes"], of_large["boxes"])


def test_trained_batch_norm_is_that_of_torchvisions_pyramid() -> None:
    """A training step's levels and running averages; torchvision's FPN with batch norm, and ours.

    Frozen parts keep their averages: the head, and all of them while a validation runs.
    """
    task = detector(size="full", batch_norm="trained")
    system = System(None, task, False, {"task": 1.0})
    set_modes(system, ["task.tail", "task.detector"])
    reference = FeaturePyramidNetwork(
        list(task.network.channels), 256, LastLevelMaxPool(), torch.nn.BatchNorm2d
    )
    reference.load_state_dict(task.detector.pyramid.layers.state_dict())
    body = copy.deepcopy(task.network)
    images, targets = two_squares(False)
    images[1], targets[1] = images[0], targets[0]  # of one size: no padding
    before = {name: value.clone() for name, value in task.state_dict().items()}
    seen: list[Any] = []
    task.detector.pyramid.register_forward_hook(lambda module, given, out: seen.append(out))
    with frozen_statistics(system):
        system(Batch(images, targets))
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    system(Batch(images, targets))

    body.eval()
    values = body.head(torch.stack(images))
    for stage in body.tail_modules():
        stage.train()
    expected = reference(OrderedDict(enumerate([values, *body.tail(values)])))
    for level, other in zip(seen[1].values(), expected.values(), strict=True):
        torch.testing.assert_close(level, other, atol=1e-4, rtol=1e-3)  # of other memory formats
    after = task.state_dict()
    for ours, theirs in ((task.network, body), (task.detector.pyramid.layers, reference)):
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert not any(name.startswith(HEAD) for name in moved)
    for place in ("network.layer2.", "network.layer4.", "detector.pyramid.layers.layer_blocks.3"):
        assert any(n.startswith(place) and n.endswith("running_var") for n in moved), place


def test_batch_norm_of_several_processes_is_synchronised(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own layers, of the same tensors and modes; one process has ordinary ones."""
    task = detector(FeatureRcnn, batch_norm="trained")
    set_modes(System(None, task, False, {"task": 1.0}), ["task.detector"])
    state, modes = task.state_dict(), [module.training for module in task.modules()]
    synchronise_batch_norm(task, cuda=False)
    assert not any(isinstance(layer, torch.nn.SyncBatchNorm) for layer in batch_norms(task))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="devices to 1"):
        synchronise_batch_norm(task, cuda=False)
    synchronise_batch_norm(task, cuda=True)
    assert all(isinstance(layer, torch.nn.SyncBatchNorm) for layer in batch_norms(task))
    assert [module.training for module in task.modules()] == modes
    assert task.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in task.state_dict().items())
