"""Generated scenes: deterministic, and annotations that COCO's own tools agree with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pycocotools import mask as rle

from icmbench.data.specs import DatasetSpec, EmbeddedScenes
from icmbench.data.synthetic.scenes import CATEGORIES, generate, make_scene
from icmbench.utils.files import read_json

CONFIG = EmbeddedScenes(source="embedded-scenes", size=128, train=6, val=2, test=3)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_generate_gives_equal_bytes_for_any_number_of_processes(tmp_path: Path) -> None:
    generate(CONFIG, tmp_path / "a")
    generate(CONFIG, tmp_path / "b", processes=2)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_generate_extends_a_split_without_changing_its_images(tmp_path: Path) -> None:
    generate(CONFIG, tmp_path / "a")
    generate(CONFIG.model_copy(update={"train": 8}), tmp_path / "b")
    small, large = (read_json(tmp_path / n / "instances_train.json") for n in "ab")
    assert large["images"][:6] == small["images"]
    assert (tmp_path / "a/test.zip").read_bytes() == (tmp_path / "b/test.zip").read_bytes()


def test_annotations_agree_with_pycocotools(scenes: DatasetSpec) -> None:
    for split in ("train", "val", "test"):
        coco = read_json(Path(scenes.folder) / f"instances_{split}.json")
        assert [c["name"] for c in coco["categories"]] == list(CATEGORIES)
        for annotation in coco["annotations"]:
            height, width = annotation["segmentation"]["size"]
            encoded = rle.frPyObjects(annotation["segmentation"], height, width)
            mask = rle.decode(encoded)
            assert mask.shape == (128, 128)
            assert mask.sum() == annotation["area"] > 0
            assert rle.toBbox(encoded).tolist() == annotation["bbox"]


def test_scene_masks_do_not_overlap_although_objects_do() -> None:
    overlapped = 0
    for index in range(40):
        scene = make_scene(np.random.default_rng([7, index]), 128)
        assert scene.image.shape == (128, 128, 3) and scene.image.dtype == np.uint8
        assert len(scene.labels) == len(scene.masks)
        assert scene.masks.sum(0).max(initial=0) <= 1
        boxes = [np.argwhere(m) for m in scene.masks]
        overlapped += any(
            (a.min(0) <= b.max(0)).all() and (b.min(0) <= a.max(0)).all()
            for i, a in enumerate(boxes)
            for b in boxes[:i]
        )
    assert overlapped > 5


def test_scene_classes_occur_about_equally() -> None:
    counts = np.zeros(len(CATEGORIES) + 1)
    for index in range(150):
        for label in make_scene(np.random.default_rng([8, index]), 96).labels:
            counts[label] += 1
    assert (counts[1:] / counts.sum()).min() > 0.5 / len(CATEGORIES)
