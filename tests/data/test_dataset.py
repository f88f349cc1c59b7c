"""One view of every data set: sizes, crops, boxes and labels."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from icmbench.data.dataset import Split
from icmbench.data.specs import DatasetSpec
from icmbench.errors import UserError

PLACE = {"images": "val", "annotations": "val.json"}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Three images of 60 x 40 pixels: with two objects, a crowd, and nothing."""
    (tmp_path / "val").mkdir()
    rng = np.random.default_rng(2)
    for number in (1, 2, 3):
        image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"val/{number}.png")
    objects = [(1, 7, [0, 0, 10, 10], 0), (1, 9, [10, 5, 30, 20], 0), (2, 9, [0, 0, 50, 30], 1)]
    content = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "width": 60, "height": 40} for n in (3, 1, 2)
        ],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": box,
             "area": box[2] * box[3], "iscrowd": crowd}
            for i, (image, category, box, crowd) in enumerate(objects)
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 7, "name": "cat"}],
    }  # fmt: skip
    (tmp_path / "val.json").write_text(json.dumps(content))
    return tmp_path


def test_split_has_boxes_and_labels_of_its_images(coco: Path, fetched: Any) -> None:
    split = Split(fetched(coco, "toy", PLACE), "test")
    assert split.ids == [1, 2, 3] and split.native_size(0) == (60, 40)
    boxes, labels = split.target(0, 120, 20)
    assert boxes.tolist() == [[0, 0, 20, 5], [20, 2.5, 80, 12.5]] and labels.tolist() == [7, 9]
    assert len(split.target(1, 60, 40)[1]) == 0  # a crowd is not trained on
    assert split.classes == ["nothing", "cat", "dog"]
    assert [split.label(i) for i in range(3)] == [2, 0, 0]  # the largest object that is not a crowd
    limited = Split(fetched(coco, "toy", {**PLACE, "limit": 1}), "test")
    assert limited.ids == [1]
    assert limited.annotations is not None and len(limited.annotations["annotations"]) == 2


def test_split_resizes_and_crops_to_the_coded_size(coco: Path, fetched: Any) -> None:
    settings = {"short_side": 30, "center_crop": 32, "rate_pixels": "coded"}
    dataset = fetched(coco, "toy", PLACE, **settings)
    split = Split(dataset, "test")
    assert split.image(0).shape == (30, 32, 3) and split.size(0) == (30, 32)
    assert split.rate_pixels(0) == 30 * 32 and split.native_size(0) == (60, 40)
    whole = Split(dataset, "train")  # training takes its own crops
    assert whole.image(0).shape == (40, 60, 3) and whole.size(0) == (40, 60)
    bounded = Split(fetched(coco, "toy", PLACE, short_side=80, long_side=90), "test")
    assert bounded.image(0).shape == (60, 90, 3) and bounded.rate_pixels(0) == 2400


@pytest.mark.parametrize("size", [(60, 40), (62, 47), (40, 75)])
def test_bilinear_resizing_and_crop_are_those_of_torchvisions_presets(
    coco: Path, fetched: Any, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    image.save(coco / "val/1.png")
    content = json.loads((coco / "val.json").read_text())
    content["images"][1] |= {"width": size[0], "height": size[1]}
    (coco / "val.json").write_text(json.dumps(content))
    settings = {"short_side": 32, "center_crop": 28, "rate_pixels": "coded"}
    split = Split(fetched(coco, "toy", PLACE, **settings, resize_filter="bilinear"), "test")
    preset = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(28)])
    assert np.array_equal(split.image(0), np.asarray(preset(image)))
    # The filter of every data set before there was a choice; their settings stay as they were.
    default = fetched(coco, "toy", PLACE, **settings)
    cubic = transforms.Resize(32, transforms.InterpolationMode.BICUBIC)
    expected = transforms.CenterCrop(28)(cubic(image))
    assert np.array_equal(Split(default, "test").image(0), np.asarray(expected))
    assert "resize_filter" not in default.model_dump()["settings"]
    assert DatasetSpec.model_validate_json(split.dataset.model_dump_json()) == split.dataset


def test_split_gives_decoded_images_of_all_shares_and_names_a_damaged_one(
    coco: Path, fetched: Any, tmp_path: Path
) -> None:
    dataset = fetched(coco, "toy", PLACE)
    original = Split(dataset, "test")
    archives = [tmp_path / "chunk0.zip", tmp_path / "chunk1.zip"]
    for archive, numbers in zip(archives, ((1, 3), (2,)), strict=True):
        with zipfile.ZipFile(archive, "w") as bundle:
            for number in numbers:
                bundle.write(coco / f"val/{number}.png", f"{number}.png")
    data = bytearray(archives[1].read_bytes())
    data[100] ^= 1
    archives[1].write_bytes(data)
    split = pickle.loads(pickle.dumps(Split(dataset, "test", archives)))
    assert np.array_equal(split.image(0), original.image(0))
    assert np.array_equal(split.image(2), original.image(2))
    with pytest.raises(UserError, match=r"chunk1\.zip/2\.png"):
        split.image(1)


def test_split_names_missing_and_ambiguous_files(coco: Path, fetched: Any) -> None:
    bare = fetched(coco, "toy", {"images": "val"})
    with pytest.raises(UserError, match=r"'val'.*train"):
        Split(bare, "val")
    with pytest.raises(UserError, match=r"toy.*classes"):
        Split(bare, "test").label(0)
    with pytest.raises(UserError, match=r"toy.*face attributes"):
        _ = Split(bare, "test").faces
    (coco / "val/2.png").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"val/2\.png"):
        Split(bare, "test").image(1)
    (coco / "val/1.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="duplicate image '1'"):
        Split(bare, "test")
    with pytest.raises(UserError, match=r"nowhere"):
        Split(fetched(coco, "toy", {"images": "nowhere"}), "test")


def test_splits_of_scenes_do_not_share_images(scenes: DatasetSpec) -> None:
    ids = [set(Split(scenes, split).ids) for split in ("train", "val", "test")]
    assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])
    images = [Split(scenes, split).image(0) for split in ("train", "val", "test")]
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.mirror
def test_split_of_real_coco(mirror: Path, fetched: Any) -> None:
    place = {"images": "val2017", "annotations": "instances_val2017.json", "limit": 5}
    dataset = fetched(mirror / "coco2017", "coco2017", place, short_side=320, long_side=544)
    split = Split(dataset, "test")
    assert len(split) == 5
    for index in range(5):
        height, width = split.image(index).shape[:2]
        assert min(height, width) <= 320 and max(height, width) <= 544
        boxes, labels = split.target(index, width, height)
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes <= [width + 1, height + 1] * 2).all()
        assert ((labels >= 1) & (labels <= 90)).all()
