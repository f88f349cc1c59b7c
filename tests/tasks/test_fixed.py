"""Networks that are used as they are: torchvision's, timm's, ONNX files, a class of one's own."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchmetrics.classification import MulticlassJaccardIndex
from torchvision.models import ResNet18_Weights, get_model
from torchvision.ops import nms
from torchvision.transforms import functional as transforms

from icmbench.data.dataset import Split
from icmbench.data.prepare import prepare
from icmbench.data.specs import DatasetSpec, FolderImages
from icmbench.errors import UserError
from icmbench.evaluate.point import evaluate
from icmbench.evaluate.predict import Predictor
from icmbench.evaluate.statistics import load_statistics
from icmbench.jobs import EvaluateJob, TaskSpec, WeightsSpec
from icmbench.metrics.average_precision import coco_stats
from icmbench.networks.build import build_task, check_network
from icmbench.plugins import load_modules
from icmbench.registry import TASKS
from icmbench.tasks.fixed.entries import InputParameters
from icmbench.tasks.fixed.preprocessing import prepare as prepare_input
from icmbench.tasks.fixed.yolox import yolox_boxes
from odd_sets import OddSet

load_modules()
NAMES = ["person", "tvmonitor", "cat", "sofa", "zebra"]
Job = Callable[..., EvaluateJob]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight annotated images of 96 x 64."""
    folder = tmp_path_factory.mktemp("own")
    odd = OddSet(folder)
    for category, name in zip(odd.content["categories"], NAMES, strict=True):
        category["name"] = name
    odd.write()
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> DatasetSpec:
    settings = FolderImages(
        images=str(folder / "images"), annotations=str(folder / "annotations.json")
    )
    found = DatasetSpec(
        role="mine", folder="", manifest=str(folder / "manifest.json"), settings=settings
    )
    prepare(found)
    return found


@pytest.fixture
def job(dataset: DatasetSpec, tmp_path: Path) -> Job:
    """Return a function that gives the evaluation of a task on the original images."""

    def make(network: str, data: DatasetSpec = dataset, **parameters: Any) -> EvaluateJob:
        return EvaluateJob(
            key="own/original/rate0-seed0", study="own", variant="original", mode="baseline",
            rate_index=0, seed=0, rate_parameter=None, rate_value=None, scale="smoke",
            output=str(tmp_path / "point"), codec="uncoded", decoder=None,
            task=task(network, **parameters), dataset=data, split="test", coded=None,
            threads=1, gpu=0, precision="fp32", modules=[],
        )  # fmt: skip

    return make


def task(network: str, source: str | None = None, **parameters: Any) -> TaskSpec:
    entry = TASKS[network]
    checked = entry.parameters.model_validate(parameters)
    assert entry.metrics_for is not None
    return TaskSpec(
        name="mine", network=network, parameters=checked.model_dump(),
        weights=WeightsSpec(source=source, part="task"), starts_pretrained=source == "pretrained",
        metrics=list(entry.metrics_for(checked)),
    )  # fmt: skip


def images(dataset: DatasetSpec, count: int = 2) -> list[Tensor]:
    split = Split(dataset, "test")
    return [transforms.to_tensor(Image.fromarray(split.image(n))) for n in range(count)]


def per_class(job: EvaluateJob) -> dict[tuple[str, str], tuple[float, int]]:
    rows = json.loads((Path(job.output) / "per_class.json").read_text())
    return {(own["metric"], own["name"]): (own["value"], own["count"]) for own in rows}


# --- by name --------------------------------------------------------------------------------------


def test_detector_of_torchvision_answers_what_its_model_answers(dataset: DatasetSpec) -> None:
    name, arguments = "ssdlite320_mobilenet_v3_large", {"score_thresh": 0.0}
    torch.manual_seed(1)
    theirs = get_model(name, weights=None, weights_backbone=None, num_classes=91, **arguments)
    torch.manual_seed(1)
    ours = build_task(task("torchvision-detector", "random", model=name, arguments=arguments))
    batch = images(dataset)
    found, expected = ours.predict(batch), theirs.eval()(batch)
    for own, their in zip(found, expected, strict=True):
        assert own.keys() == their.keys() == {"boxes", "scores", "labels"}
        assert torch.allclose(own["boxes"], their["boxes"], atol=1e-3)


@pytest.mark.parametrize("model", ["maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn"])
def test_detectors_of_torchvision_are_measured_by_what_they_find(model: str) -> None:
    metrics = task("torchvision-detector", "random", model=model).metrics
    assert ("mask_map" in metrics) == model.startswith("maskrcnn") and metrics[0] == "box_map"


def test_classifier_of_torchvision_reads_its_published_preprocessing(dataset: DatasetSpec) -> None:
    torch.manual_seed(2)
    theirs = get_model("resnet18", weights=None, num_classes=1000).eval()
    torch.manual_seed(2)
    ours = build_task(task("torchvision-classifier", "random", model="resnet18"))
    batch = images(dataset)
    preset = ResNet18_Weights.DEFAULT.transforms()
    inputs = torch.stack([preset(transforms.to_pil_image(image)) for image in batch])
    assert torch.allclose(ours.predict(batch), theirs(inputs), atol=1e-4)
    other = build_task(
        task("torchvision-classifier", "random", model="resnet18", preprocessing={"crop_size": 64})
    )
    assert other.preprocessed(batch[0]).shape == (1, 3, 64, 64)


def test_random_weights_are_the_same_for_every_variant(job: Job, dataset: DatasetSpec) -> None:
    split = Split(dataset, "test")
    given = job("torchvision-classifier", source="random", model="resnet18")
    one, other = (Predictor(given, split).network.network.fc.weight for _ in range(2))
    assert torch.equal(one, other)


def test_published_weights_are_loaded_and_their_classes_compared(
    monkeypatch: pytest.MonkeyPatch, dataset: DatasetSpec
) -> None:
    theirs = get_model("resnet18", weights=None).eval()
    weights = ResNet18_Weights.DEFAULT
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: theirs.state_dict())
    ours = build_task(task("torchvision-classifier", "pretrained", model="resnet18"))
    batch = images(dataset, 1)
    assert torch.allclose(ours.predict(batch), theirs(ours.preprocessed(batch[0])), atol=1e-4)
    wrong = task("torchvision-classifier", "pretrained", model="resnet18", classes=["cat", "dog"])
    with pytest.raises(UserError, match=r"1000 classes.*'classes'"):
        build_task(wrong)


def test_segmentation_network_of_torchvision_labels_every_pixel(dataset: DatasetSpec) -> None:
    name = "lraspp_mobilenet_v3_large"
    torch.manual_seed(3)
    theirs = get_model(name, weights=None, weights_backbone=None, num_classes=21).eval()
    torch.manual_seed(3)
    ours = build_task(
        task("torchvision-segmenter", "random", model=name, preprocessing={"resize_size": 128})
    )
    batch = images(dataset, 1)
    (found,) = ours.predict(batch)
    logits = theirs(ours.preprocessed(batch[0]))["out"]
    assert logits.shape[-2:] == (128, 192)
    resized = nn.functional.interpolate(logits, (64, 96), mode="bilinear", align_corners=False)
    assert (found == resized[0].argmax(0)).float().mean() > 0.999  # ties


def test_classifier_of_timm_reads_its_published_preprocessing(dataset: DatasetSpec) -> None:
    name = "test_efficientnet.r160_in1k"
    torch.manual_seed(4)
    theirs = timm.create_model(name, pretrained=False).eval()
    torch.manual_seed(4)
    ours = build_task(task("timm-classifier", "random", model=name))
    config = timm.data.resolve_model_data_config(theirs)
    preset = timm.data.create_transform(**config, is_training=False)
    batch = images(dataset)
    inputs = torch.stack([preset(transforms.to_pil_image(image)) for image in batch])
    assert inputs.shape[-2:] == (160, 160)
    assert torch.allclose(ours.predict(batch), theirs(inputs), atol=1e-4)


def test_weights_in_the_cache_of_the_hub_are_read_without_asking_it(
    dataset: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "test_efficientnet.r160_in1k"
    theirs = timm.create_model(name, pretrained=False)
    repository = tmp_path / f"models--timm--{name}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("abc")
    (repository / "snapshots/abc").mkdir(parents=True)
    save_file(theirs.state_dict(), repository / "snapshots/abc/model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("timm.models._hub.hf_hub_download", pytest.fail)
    ours = build_task(task("timm-classifier", "pretrained", model=name))
    own = ours.network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in theirs.state_dict().items())


@pytest.mark.parametrize(
    ("network", "parameters", "word"),
    [
        ("torchvision-detector", {"model": "fasterrcnn_resnet50"}, "fasterrcnn_resnet50_fpn"),
        ("torchvision-classifier", {"model": "fasterrcnn_resnet50_fpn"}, "choose from"),
        ("torchvision-classifier", {"model": "resnet18", "weights": "COCO"}, "IMAGENET1K_V1"),
        ("timm-classifier", {"model": "resnet5"}, "resnet50"),
    ],
)
def test_unknown_name_is_one_line_with_the_nearest(
    network: str, parameters: dict[str, Any], word: str
) -> None:
    for source in ("random", "pretrained"):  # nothing is downloaded before the name is known
        with pytest.raises(UserError, match=word):
            check_network(task(network, source, **parameters))


# --- ONNX files -----------------------------------------------------------------------------------


def onnx_file(path: Path, nodes: list[Any], shape: list[Any], constants: dict[str, Any]) -> str:
    """Write a file with the input ``image`` whose outputs are those of the last nodes."""
    outputs = [own for node in nodes for own in node.output if own.startswith("out")]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info(own) for own in outputs],
        [numpy_helper.from_array(np.asarray(value), own) for own, value in constants.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return str(path)


@pytest.fixture
def mean_colour(tmp_path: Path) -> str:
    """A classifier whose logits are the means of the three channels."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["out"]),
    ]
    return onnx_file(tmp_path / "mean.onnx", nodes, [1, 3, "h", "w"], {})


@pytest.fixture
def colours(tmp_path: Path) -> DatasetSpec:
    """Two red images, one green, one that is blue in a folder called red."""
    for number, (name, channel) in enumerate((("red", 0), ("red", 0), ("green", 1), ("red", 2))):
        pixels = np.full((40, 40, 3), 30 * number, np.uint8)
        pixels[..., channel] = 200
        path = tmp_path / "colours" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    settings = FolderImages(images=str(tmp_path / "colours"), layout="classes")
    found = DatasetSpec(
        role="colours", folder="", manifest=str(tmp_path / "manifest.json"), settings=settings
    )
    prepare(found)
    return found


def test_onnx_classifier_is_evaluated_by_class(
    job: Job, mean_colour: str, colours: DatasetSpec
) -> None:
    own = job("onnx-classifier", colours, file=mean_colour, classes=["red", "green", "blue"])
    summary = evaluate(own)
    assert summary.metrics["top1"] == 0.75 and summary.metrics["top5"] == 1.0
    assert per_class(own) == {("top1", "red"): (2 / 3, 3), ("top1", "green"): (1.0, 1)}
    assert summary.environment["device"].startswith("cpu")


def test_onnx_classifier_agrees_with_itself_on_originals(
    job: Job, mean_colour: str, colours: DatasetSpec
) -> None:
    own = job("onnx-classifier", colours, file=mean_colour, classes=["a", "b", "c"],
              truth="originals")  # fmt: skip
    metrics = evaluate(own).metrics
    assert metrics["agreement_top1"] == 1.0 and "top1" not in metrics
    statistics = load_statistics(Path(own.output) / "statistics-classification.npz")
    assert statistics.metrics() == {"agreement_top1": 1.0, "agreement_top5": 1.0}
    assert per_class(own)["agreement_top1", "c"] == (1.0, 1)


def test_onnx_file_of_another_checksum_or_number_of_classes_is_refused(
    mean_colour: str, tmp_path: Path
) -> None:
    file = {"file": mean_colour, "classes": ["a", "b"]}
    with pytest.raises(UserError, match="checksum"):
        check_network(task("onnx-classifier", sha256="0" * 64, **file))
    with pytest.raises(UserError, match="3 classes"):
        build_task(task("onnx-classifier", **file)).predict([torch.rand(3, 8, 8)])
    (tmp_path / "odd.onnx").write_bytes(b"no network")
    odd = task("onnx-classifier", file=str(tmp_path / "odd.onnx"), classes=["a"])
    with pytest.raises(UserError, match=r"odd\.onnx.*export it again"):
        build_task(odd).predict([torch.rand(3, 8, 8)])


@pytest.fixture
def fixed_boxes(tmp_path: Path) -> str:
    """A detector that finds the same two boxes, centre and size, in every input."""
    boxes = np.array([[60.0, 42.0, 80.0, 60.0], [20, 20, 10, 10]], np.float32)
    constants = {
        "b": boxes, "s": np.array([0.9, 0.3], np.float32), "l": np.array([74, 1], np.int64),
    }  # fmt: skip
    nodes = [helper.make_node("Identity", [own], [f"out_{own}"]) for own in ("b", "s", "l")]
    return onnx_file(tmp_path / "boxes.onnx", nodes, [1, 3, "h", "w"], constants)


def test_onnx_detector_is_measured_as_pycocotools_measures_it(
    job: Job, fixed_boxes: str, dataset: DatasetSpec
) -> None:
    own = job(
        "onnx-detector", file=fixed_boxes, output="boxes", box_format="cxcywh", classes="coco-91",
        names={"boxes": "out_b", "scores": "out_s", "labels": "out_l"},
        input={"stretch": [128, 192]},
    )  # fmt: skip
    # Label 74 is coco-91's mouse, which the set does not have; 1 is person.
    metrics = evaluate(own).metrics
    rows = json.loads((Path(own.output) / "predictions.json").read_text())
    assert len(rows) == 8 and {row["category_id"] for row in rows} == {1}
    assert rows[0]["bbox"] == [7.5, 7.5, 5.0, 5.0]  # half of the stretched input
    truth = Split(dataset, "test").annotations
    assert truth is not None
    expected = coco_stats(truth, rows, "bbox")
    assert metrics["box_map"] == pytest.approx(expected[0])
    assert {name for _, name in per_class(own)} == set(NAMES)


def test_detector_without_a_class_of_the_data_set_is_refused(job: Job, fixed_boxes: str) -> None:
    own = job("onnx-detector", file=fixed_boxes, output="boxes", classes=["person", "cat"])
    with pytest.raises(UserError, match=r"'tvmonitor' is not one of the 2"):
        evaluate(own)


def test_detector_agrees_with_what_it_finds_on_originals(job: Job, fixed_boxes: str) -> None:
    own = job(
        "onnx-detector", file=fixed_boxes, output="boxes", box_format="cxcywh", classes="coco-91",
        names={"boxes": "out_b", "scores": "out_s", "labels": "out_l"}, truth="originals",
    )  # fmt: skip
    metrics = evaluate(own).metrics
    assert metrics["agreement_box_map"] == 1.0 and "box_map" not in metrics
    # The box below the threshold is no truth.
    assert per_class(own) == {("agreement_box_map", "mouse"): (1.0, 8)}


def test_yolox_grid_is_decoded_as_published() -> None:
    torch.manual_seed(5)
    height, width, classes = 64, 96, 3
    cells = [(s, r, c) for s in (8, 16, 32) for r in range(height // s) for c in range(width // s)]
    grid = torch.rand(len(cells), 5 + classes)
    found = yolox_boxes(grid, (height, width), 0.3, 0.5)
    expected = []
    for own, (stride, row, column) in zip(grid.tolist(), cells, strict=True):
        x, y = (own[0] + column) * stride, (own[1] + row) * stride
        w, h = math.exp(own[2]) * stride, math.exp(own[3]) * stride
        label = max(range(classes), key=lambda n: own[5 + n])
        score = own[4] * own[5 + label]
        if score >= 0.3:
            expected.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2, score, label])
    rows = []
    for label in range(classes):
        own = torch.tensor([row for row in expected if row[5] == label])
        rows += own[nms(own[:, :4], own[:, 4], 0.5)].tolist()
    rows.sort(key=lambda row: -row[4])
    assert 1 < len(rows) < len(expected)
    ours = torch.cat([found["boxes"], found["scores"][:, None], found["labels"][:, None]], 1)
    assert torch.allclose(ours, torch.tensor(rows), atol=1e-4)
    with pytest.raises(UserError, match="cells"):
        yolox_boxes(grid[1:], (height, width), 0.3, 0.5)


def test_onnx_segmenter_has_the_iou_of_torchmetrics(job: Job, folder: Path, tmp_path: Path) -> None:
    """The logits are the three channels: red is no object, green cat, blue person."""
    node = helper.make_node("Identity", ["image"], ["out"])
    file = onnx_file(tmp_path / "channels.onnx", [node], [1, 3, "h", "w"], {})
    own = job("onnx-segmenter", file=file, classes=["background", "cat", "person"])
    metrics = evaluate(own).metrics
    split = Split(own.dataset, "test", needs=own.task.needs)
    reference = MulticlassJaccardIndex(3, average="none", ignore_index=255)
    right = total = 0
    for index in range(len(split)):
        truth = torch.from_numpy(split.label_map(index).copy()).long()
        found = torch.from_numpy(split.image(index).argmax(2))
        reference.update(found[None], truth[None])
        right += int((found == truth).sum())
        total += truth.numel()
    expected = reference.compute()
    assert metrics["miou"] == pytest.approx(float(expected.mean()), abs=1e-6)
    assert metrics["pixel_accuracy"] == pytest.approx(right / total)
    by_class = per_class(own)
    assert by_class["iou", "cat"][0] == pytest.approx(float(expected[1]), abs=1e-6)
    assert by_class["iou", "person"][1] == sum(
        int((split.label_map(n) == 2).sum()) for n in range(len(split))
    )


# --- preprocessing --------------------------------------------------------------------------------


def test_letterbox_goes_to_the_input_and_back() -> None:
    image = torch.rand(3, 60, 90)
    settings = InputParameters(letterbox=[64, 64], channels="bgr", range=255, antialias=False)
    placed = prepare_input(image, settings)
    assert placed.values.shape == (3, 64, 64)
    assert (placed.values[:, 42:] == 114).all() and placed.values[:, :42].max() > 200
    alone = nn.functional.interpolate(image[None], (42, 64), mode="bilinear")[0]
    assert torch.allclose(placed.values[2, :42], alone[0] * 255, atol=0.51)
    boxes = placed.to_image(torch.tensor([[0.0, 0.0, 64.0, 64 * 60 / 90]]))
    assert torch.allclose(boxes, torch.tensor([[0.0, 0.0, 90.0, 60.0]]))


@pytest.mark.parametrize("size", [(70, 90), (90, 70), (40, 40)])
def test_short_side_and_crop_are_those_of_torchvision(size: tuple[int, int]) -> None:
    torch.manual_seed(6)
    pixels = (torch.rand(3, *size) * 255).byte()
    settings = InputParameters(
        short_side=48, crop=[32, 40], mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]
    )
    resized = transforms.resize(transforms.to_pil_image(pixels), 48)
    cut = transforms.to_tensor(transforms.center_crop(resized, [32, 40]))
    expected = transforms.normalize(cut, settings.mean, settings.std)
    found = prepare_input(pixels / 255, settings).values
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 2 / 255 / 0.224  # Pillow rounds between the passes


# --- a class of one's own -------------------------------------------------------------------------

OWN = """
from torch import nn

class Brightest(nn.Module):
    def __init__(self, offset):
        super().__init__()
        self.offset = offset

    def predict(self, images):
        return [image.argmax(0).byte() * 0 + self.offset for image in images]
"""


def test_class_of_ones_own_is_judged_by_its_answers(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "brightest.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings: dict[str, Any] = {
        "implementation": "brightest:Brightest", "answer": "maps", "arguments": {"offset": 1}
    }  # fmt: skip
    own = job("module", classes=["background", "cat"], **settings)
    assert own.task.metrics[0] == "miou"
    metrics = evaluate(own).metrics
    split = Split(own.dataset, "test", needs=own.task.needs)
    cat = np.mean([(split.label_map(n) == 1).mean() for n in range(len(split))])
    assert metrics["pixel_accuracy"] == pytest.approx(cat) and 0 < cat < 0.2
    assert metrics["miou"] == pytest.approx(cat / 2)
    sys.modules.pop("brightest")
    with pytest.raises(UserError, match=r"brightest:Darkest.*PYTHONPATH"):
        build_task(task("module", classes=["a"], **{**settings, "implementation":
                        "brightest:Darkest"}))  # fmt: skip
