from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle

from icmbench.data.dataset import Split
from icmbench.data.specs import EmbeddedScenes
from icmbench.data.synthetic.scenes import CATEGORIES, generate, make_scene
from icmbench.utils.files import read_json

CONFIG = EmbeddedScenes(source="embedded-scenes", size=128, train=6, val=2, test=3)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_same_seed_same_bytes_whatever_the_number_of_processes(tmp_path: Path) -> None:
    generate(CONFIG, tmp_path / "a")
    generate(CONFIG, tmp_path / "b", processes=2)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_larger_split_begins_with_the_smaller_one(tmp_path: Path) -> None:
    generate(CONFIG, tmp_path / "a")
    generate(CONFIG.model_copy(update={"train": 8}), tmp_path / "b")
    small, large = (read_json(tmp_path / n / "instances_train.json") for n in "ab")
    assert large["images"][:6] == small["images"]
    assert (tmp_path / "a/test.zip").read_bytes() == (tmp_path / "b/test.zip").read_bytes()


def test_annotations_are_what_coco_tools_read(scenes: dict) -> None:
    for split in ("train", "val", "test"):
        coco = read_json(Path(scenes["folder"]) / f"instances_{split}.json")
        assert [c["name"] for c in coco["categories"]] == list(CATEGORIES)
        for annotation in coco["annotations"]:
            height, width = annotation["segmentation"]["size"]
            encoded = rle.frPyObjects(annotation["segmentation"], height, width)
            mask = rle.decode(encoded)
            assert mask.shape == (128, 128)
            assert mask.sum() == annotation["area"] > 0
            assert rle.toBbox(encoded).tolist() == annotation["bbox"]


def test_splits_do_not_share_images(scenes: dict) -> None:
    ids = [set(Split(scenes, split).ids) for split in ("train", "val", "test")]
    assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])
    images = [Split(scenes, split).image(0) for split in ("train", "val", "test")]
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_visible_masks_do_not_overlap_and_hidden_objects_are_dropped() -> None:
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
    assert overlapped > 5, "scenes must hold objects that hide each other"


def test_every_class_occurs_about_equally() -> None:
    counts = np.zeros(len(CATEGORIES) + 1)
    for index in range(150):
        for label in make_scene(np.random.default_rng([8, index]), 96).labels:
            counts[label] += 1
    share = counts[1:] / counts.sum()
    assert share.min() > 0.5 / len(CATEGORIES)


def test_targets_scale_with_the_image(scenes: dict) -> None:
    split = Split(scenes, "train")
    index = next(i for i in range(len(split)) if len(split.target(i, 128, 128)[1]))
    boxes, labels = split.target(index, 128, 128)
    twice, same = split.target(index, 256, 64)
    assert np.allclose(twice, boxes * [2, 0.5, 2, 0.5]) and (labels == same).all()


def test_real_coco_targets(mirror: Path) -> None:
    dataset = {
        "role": "detection", "source": "catalogue", "name": "coco2017",
        "folder": str(mirror / "coco2017"), "manifest": "", "short_side": 320, "long_side": 544,
        "splits": {
            "val": {"images": "val2017", "annotations": "instances_val2017.json", "limit": 5}
        },
    }  # fmt: skip
    split = Split(dataset, "val")
    assert len(split) == 5
    for index in range(5):
        height, width = split.image(index).shape[:2]
        assert min(height, width) <= 320 and max(height, width) <= 544
        boxes, labels = split.target(index, width, height)
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes <= [width + 1, height + 1] * 2).all()
        assert ((labels >= 1) & (labels <= 90)).all()


def test_a_missing_archive_is_one_clear_error(scenes: dict, tmp_path: Path) -> None:
    from icmbench.errors import UserError

    with pytest.raises(UserError, match="no such folder or archive of images"):
        Split({**scenes, "folder": str(tmp_path)}, "train")
