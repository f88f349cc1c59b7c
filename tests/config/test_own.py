"""Data sets and tasks of config.yaml: laid over the scale, several of one network, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from icmbench.config.job_settings import data_job, evaluate_job
from icmbench.config.plan import Plan, Point, load_plan
from icmbench.config.validate import task_entry
from icmbench.errors import UserError
from icmbench.workflow import Workflow

DETECTOR = {"network": "torchvision-detector", "model": "fasterrcnn_resnet50_fpn"}


@pytest.fixture
def load(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that plans a study of two tasks on a folder of one image."""
    monkeypatch.delenv("ICMBENCH_MIRROR", raising=False)
    (tmp_path / "val").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "val/1.png")
    (tmp_path / "net.onnx").write_bytes(b"not opened by a plan")

    def make(task_from: Any = None, **changes: Any) -> Plan:
        common = {"codec": "jpeg", "mode": "baseline", "dataset": "mine", "ladder": "q"}
        study = {
            "name": "twice", "title": "t", "summary": "s",
            "reference": {"authors": "a", "venue": "v", "year": 2026},
            "ladders": {"q": {"parameter": "quality", "values": [10], "origin": "ours"}},
            "variants": {
                name: {**common, "label": name, "task": name, "task_from": task_from}
                for name in ("first", "second")
            },
            "comparisons": [
                {"anchor": "first", "variants": ["first"], "metrics": ["box_map"]}
            ],
        }  # fmt: skip
        (tmp_path / "twice.yaml").write_text(yaml.safe_dump(study))
        run = {
            "scale": "mini", "studies": ["twice"], "study_folders": [str(tmp_path)],
            "classical_codecs": ["jpeg"], "results": str(tmp_path / "results"),
            "datasets": {"mine": {"images": str(tmp_path / "val"), "annotations": str(
                tmp_path / "net.onnx")}},
            "tasks": {"first": DETECTOR, "second": {**DETECTOR, "truth": "originals"}},
        }  # fmt: skip
        return load_plan(repository / "config.yaml", {**run, **changes})

    return make


def job(plan: Plan, variant: str) -> Any:
    return evaluate_job(plan, Point("twice", variant, 0, 0))


def test_two_tasks_of_one_network_have_their_own_parameters(load: Any) -> None:
    plan = load()
    first, second = job(plan, "first"), job(plan, "second")
    assert (first.task.name, second.task.name) == ("first", "second")
    assert first.task.network == second.task.network == "torchvision-detector"
    assert first.task.metrics == ["box_map", "box_map50", "box_map75"]
    assert second.task.metrics[0] == "agreement_box_map"
    assert first.task.needs.truth == "boxes" and first.task.needs.labels == "coco-91"
    assert second.task.needs.truth == "none"
    # Published accuracies are those of float32, whatever the scale's precision.
    assert first.precision == "fp32"
    # The scale's own tasks are still there, and those of config.yaml are none of the registry.
    assert task_entry(plan.scale, "faster-rcnn").name == "faster-rcnn"


def test_fixed_networks_have_their_published_weights_without_a_word(load: Any) -> None:
    # Scale mini takes `pretrained` from the zoo, which has none of these.
    for task_from in (None, "pretrained"):
        spec = job(load(task_from), "first").task
        assert spec.weights.source == "pretrained" and spec.starts_pretrained


def test_own_images_are_a_data_job_that_every_need_is_checked_in(load: Any) -> None:
    plan = load()
    own = data_job(plan, "mine")
    assert own.settings.source == "folder" and own.name == "mine"
    assert {needs.truth for needs in own.checks[0].needs} == {"boxes", "none"}
    assert [network.name for network in own.networks] == ["first", "second"]
    state = Workflow(plan).images_state(type("Wildcards", (), {"role": "mine"}))
    assert len(state) == 64


def test_files_of_a_task_are_inputs_of_its_evaluation(load: Any, tmp_path: Path) -> None:
    file = str(tmp_path / "net.onnx")
    own = {"network": "onnx-detector", "file": file, "output": "yolox", "classes": "coco-80"}
    plan = load(tasks={"first": own, "second": own})
    assert job(plan, "first").task.files == [file]
    inputs = Workflow(plan).evaluate_inputs(type("Wildcards", (), {"curve": "twice/first"}))
    assert file in inputs
    assert job(plan, "first").task.weights.source is None
    # Studies may ask for a network's published weights: those in a file of one's own, then.
    assert job(load("pretrained", tasks={"first": own, "second": own}), "first").task == (
        job(plan, "first").task
    )
    with pytest.raises(UserError, match=r"first.task_from': 'random' but the task has no weights"):
        load("random", tasks={"first": own, "second": own})


def test_a_network_of_a_shipped_study_is_replaced_in_the_configuration(
    repository: Path, tmp_path: Path
) -> None:
    """As docs/own-networks.md shows it."""
    page = (repository / "docs/own-networks.md").read_text()
    example = page.split("## In a shipped study")[1].split("```yaml")[1].split("```")[0]
    own = yaml.safe_load(example)
    plan = load_plan(
        repository / "config.yaml", {"results": str(tmp_path), "studies": ["photos"], **own}
    )
    point = Point("photos", "jpeg/efficientnet/baseline", 0, 0)
    spec = evaluate_job(plan, point).task
    assert spec.network == "module" and spec.weights.source is None
    assert spec.metrics[0] == "top1" and not spec.starts_pretrained
    assert not plan.unavailable  # weights of timm's are not needed


FAULTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"tasks": {"first": {"network": "torchvision-detectors"}, "second": DETECTOR}},
     ["tasks.first.network", "torchvision-detector"]),
    ({"tasks": {"first": {**DETECTOR, "weight": "x"}, "second": DETECTOR}},
     ["tasks.first", "'weights'"]),
    ({"tasks": {"first": DETECTOR}}, ["variants.second.task", "'second'"]),
    ({"tasks": {"first": DETECTOR, "second": DETECTOR, "mask-rcnn": DETECTOR}},
     ["tasks.mask-rcnn.network", "another name"]),
    ({"tasks": {"first": {"network": "onnx-classifier", "file": "no.onnx",
                          "classes": ["a"]}, "second": DETECTOR}},
     ["tasks.first", "no.onnx", "box_map"]),
    ({"datasets": {"mine": {"images": "no"}}}, ["datasets.mine", "'no'"]),
    ({"datasets": {"mine": {"folder": "val"}}}, ["datasets.mine", "'folder'"]),
    ({"datasets": {}}, ["variants.first.dataset", "'mine'"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), FAULTS)
def test_fault_in_own_data_sets_and_tasks(
    load: Any, change: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        load(**change)
    for word in words:
        assert word in str(caught.value)


def test_fixed_network_cannot_be_trained(load: Any, tmp_path: Path, repository: Path) -> None:
    load()
    path = tmp_path / "twice.yaml"
    study = yaml.safe_load(path.read_text())
    study["schedules"] = {"s": {"steps": 1, "batch_size": 1, "origin": "ours", "optimisers": {
        "task": {"name": "adam", "lr": 0.1}}}}  # fmt: skip
    study["variants"]["first"]["train"] = {
        "parts": ["task"], "loss": {"task": 1.0}, "schedule": "s", "origin": "ours"
    }  # fmt: skip
    path.write_text(yaml.safe_dump(study))
    run = {"scale": "mini", "studies": ["twice"], "study_folders": [str(tmp_path)]}
    own = {"datasets": {"mine": {"images": str(tmp_path / "val")}}}
    with pytest.raises(UserError, match="trainable part"):
        load_plan(
            repository / "config.yaml",
            {**run, **own, "classical_codecs": ["jpeg"],
             "tasks": {"first": DETECTOR, "second": DETECTOR}},
        )  # fmt: skip
