"""Images of one's own: every form, their digest, and what is refused before work is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pydantic import TypeAdapter

from icmbench.data.checks import check_role
from icmbench.data.dataset import Split, data_digest
from icmbench.data.folder import folder_state
from icmbench.data.label_maps import VOID, objects_to_map
from icmbench.data.prepare import prepare
from icmbench.data.specs import Dataset, DatasetSpec, Needs
from icmbench.errors import UserError
from odd_sets import OddSet


def spec(folder: Path, **settings: Any) -> DatasetSpec:
    """Return the role ``mine`` as a plan makes it of these keys of config.yaml."""
    content = {
        key: str(folder / value) if key in ("images", "annotations", "maps") else value
        for key, value in settings.items()
    }
    dataset = DatasetSpec(
        role="mine",
        folder="",
        manifest=str(folder / "results" / "manifest.json"),
        settings=TypeAdapter(Dataset).validate_python(content),
    )
    assert dataset.settings.source == "folder"
    return dataset


def save(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two images of tenches and one of a goldfish, two of them with the same name."""
    for number, name in enumerate(("n01440764/1.png", "n01440764/2.png", "n01443537/1.png")):
        save(tmp_path / "val" / name, np.full((40, 50, 3), 60 * number))
    return tmp_path


# --- a folder, and a folder with annotations ------------------------------------------------------


def test_folder_of_images_is_measured_and_read(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "val" / f"{number}.png", np.full((20, 30, 3), number))
    dataset = spec(tmp_path, images="val", short_side=16)
    manifest = prepare(dataset)
    assert json.loads(manifest.read_text())["files"] == 3
    split = Split(dataset, "test")
    assert split.ids == ["0", "1", "2"] and split.image(2).max() == 2
    assert split.size(0) == (16, 24) and split.rate_pixels(0) == 600
    with pytest.raises(UserError, match="'train'"):
        Split(dataset, "train")


def test_digest_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / name / "val/1.png", np.zeros((20, 30, 3)))
    digests = []
    for name in ("a", "b"):
        dataset = spec(tmp_path / name, images="val")
        prepare(dataset)
        digests.append(data_digest(dataset))
    assert digests[0] == digests[1]
    before = folder_state(dataset)
    save(tmp_path / "b/val/1.png", np.ones((20, 30, 3)))
    assert folder_state(dataset) != before
    prepare(dataset)
    assert data_digest(dataset) != digests[0]


def test_annotated_folder_gives_the_labels_of_a_network_with_other_numbers(tmp_path: Path) -> None:
    odd = OddSet(tmp_path)
    names = ["person", "tvmonitor", "cat", "sofa", "zebra"]
    for category, name in zip(odd.content["categories"], names, strict=True):
        category["name"] = name
    odd.write()
    dataset = spec(tmp_path, images="images", annotations="annotations.json")
    prepare(dataset)
    for classes, expected in (("coco-91", 72), ("coco-80", 62)):
        needs = Needs(truth="boxes", labels=classes)
        check_role(dataset, [needs])
        split = Split(dataset, "test", needs=needs)
        place = next(n for n, own in enumerate(split.ids) if own == 1)  # of category 2
        assert split.target(place, 96, 64)[1].tolist() == [expected]
        assert split.category(expected) == 2
        assert split.category(3) is None  # a class that the set does not have
    with pytest.raises(UserError, match="zebra"):
        check_role(dataset, [Needs(truth="boxes", labels="voc-21")])


# --- a folder for each class ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("n01440764", "n01443537"), (0, 1)),
        (("0", "1"), (0, 1)),
        (("Tinca tinca", "goldfish"), (0, 1)),
        (("417", "3"), (417, 3)),
    ],
)
def test_folders_are_found_among_the_classes_of_a_published_classifier(
    classes: Path, names: tuple[str, str], labels: tuple[int, int]
) -> None:
    for old, new in zip(("n01440764", "n01443537"), names, strict=True):
        (classes / "val" / old).rename(classes / "val" / new)
    dataset = spec(classes, images="val", layout="classes")
    prepare(dataset)
    needs = Needs(truth="label", labels="imagenet-1k")
    check_role(dataset, [needs])
    split = Split(dataset, "test", needs=needs)
    found = {(split.label(n), int(split.image(n).max())) for n in range(len(split))}
    assert found == {(labels[0], 0), (labels[0], 60), (labels[1], 120)}
    assert len(set(split.ids)) == 3 and not any("/" in str(own) for own in split.ids)


def test_unknown_folder_is_refused_before_work_is_spent(classes: Path) -> None:
    (classes / "val/n01443537").rename(classes / "val/nemo")
    dataset = spec(classes, images="val", layout="classes")
    with pytest.raises(UserError, match=r"'nemo'.*imagenet-1k"):
        check_role(dataset, [Needs(truth="label", labels="imagenet-1k")])
    # A probe that is trained numbers them itself.
    assert Split(dataset, "test", needs=Needs(truth="label", classes=2)).label(2) == 1


def test_folder_without_classes_has_no_labels(tmp_path: Path) -> None:
    save(tmp_path / "val/1.png", np.zeros((20, 30, 3)))
    with pytest.raises(UserError, match="no classes"):
        check_role(spec(tmp_path, images="val"), [Needs(truth="label", labels="imagenet-1k")])


# --- label maps -----------------------------------------------------------------------------------


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Two images with a map each, and one without."""
    for number in range(3):
        save(tmp_path / "images" / f"{number}.jpg", np.full((32, 48, 3), number))
    first = np.zeros((32, 48))
    first[:, 24:] = 1
    first[0] = VOID
    save(tmp_path / "maps/0.png", first)
    palette = Image.new("P", (48, 32), 2)
    palette.putpalette([0, 0, 0, 9, 9, 9, 200, 100, 50])
    palette.save(tmp_path / "maps/1.png")
    return tmp_path


def test_label_maps_are_read_with_palette_and_void(maps: Path) -> None:
    dataset = spec(maps, images="images", maps="maps", short_side=16)
    prepare(dataset)
    needs = Needs(truth="maps", labels=["background", "a", "b"])
    check_role(dataset, [needs])
    split = Split(dataset, "test", needs=needs)
    assert split.ids == ["0", "1"]  # the third has no map
    assert split.label_map(0).shape == (16, 24) == split.size(0)
    assert split.label_map(0)[8].tolist() == [0] * 12 + [1] * 12
    assert (split.label_map(1) == 2).all()


def test_label_maps_of_other_indices_are_matched_by_name(maps: Path) -> None:
    dataset = spec(maps, images="images", maps="maps", classes=["background", "b", "a"])
    needs = Needs(truth="maps", labels=["background", "a", "b"])
    check_role(dataset, [needs])
    found = Split(dataset, "test", needs=needs).label_map(0)
    assert found[0, 0] == VOID and found[8, 0] == 0 and found[8, 40] == 2


@pytest.mark.parametrize(
    ("labels", "change", "word"),
    [
        (["background", "a"], None, "up to 2"),
        (["background", "a", "b"], "size", r"0\.png.*40 x 32"),
        (["background", "a", "b"], "mode", r"0\.png.*RGB"),
        (["background", "a", "b"], "name", r"9\.png"),
    ],
)
def test_label_maps_that_do_not_fit_are_refused(
    maps: Path, labels: list[str], change: str | None, word: str
) -> None:
    path = maps / "maps/0.png"
    if change == "size":
        save(path, np.zeros((32, 40)))
    if change == "mode":
        save(path, np.zeros((32, 48, 3)))
    if change == "name":
        path.rename(path.with_name("9.png"))
    with pytest.raises(UserError, match=word):
        check_role(spec(maps, images="images", maps="maps"), [Needs(truth="maps", labels=labels)])


def _torchvisions(objects: list[Any], labels: dict[int, int], height: int, width: int) -> Any:
    """``references/segmentation/coco_utils.py`` of torchvision, its own words shortened."""
    kept = [own for own in objects if own["category_id"] in labels]
    if not kept:
        return torch.zeros((height, width), dtype=torch.uint8)
    masks = []
    for own in kept:
        mask = coco_mask.decode(coco_mask.frPyObjects(own["segmentation"], height, width))
        masks.append(torch.as_tensor(mask, dtype=torch.uint8).any(dim=2))
    stacked = torch.stack(masks)
    cats = torch.as_tensor([labels[own["category_id"]] for own in kept], dtype=torch.uint8)
    target, _ = (stacked * cats[:, None, None]).max(dim=0)
    target[stacked.sum(0) > 1] = 255
    return target


def test_maps_of_objects_are_torchvisions() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        objects: list[Any] = [
            {
                "category_id": int(rng.integers(1, 5)),
                "segmentation": [rng.uniform(0, 60, 8).tolist() for _ in range(rng.integers(1, 3))],
            }
            for _ in range(rng.integers(0, 6))
        ]
        labels = {1: 7, 3: 20}
        expected = _torchvisions(objects, labels, 64, 60)
        assert (objects_to_map(objects, labels, 64, 60) == expected.numpy()).all()


def test_annotated_folder_serves_segmentation(tmp_path: Path) -> None:
    odd = OddSet(tmp_path)
    odd.content["categories"][1]["name"] = "cat"
    odd.write()
    dataset = spec(tmp_path, images="images", annotations="annotations.json")
    needs = Needs(truth="maps", labels="voc-21")
    check_role(dataset, [needs])
    split = Split(dataset, "test", needs=needs)
    found = split.label_map(0)  # image 1, category 2
    assert (found == 8).sum() == 1200 and set(np.unique(found)) == {0, 8}
    assert set(np.unique(split.label_map(1))) == {0}
    with pytest.raises(UserError, match="none of its annotated categories"):
        check_role(dataset, [Needs(truth="maps", labels=["background", "dog"])])
