"""VOC's annotations become COCO's: against torchvision's reader, pycocotools and counts by hand."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from icmbench.data.readers.voc import CLASSES, coco_annotations
from icmbench.errors import UserError

Box = tuple[float, float, float, float]
Object = tuple[str, Box, int | None]

SETS = ["VOC2007/trainval", "VOC2012/trainval"]
PARTS = (
    "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax>"
    "</bndbox></part>"
)


def _xml(width: int, height: int, objects: list[Object]) -> str:
    lines = [f"<annotation><size><width>{width}</width><height>{height}</height></size>"]
    for name, (left, top, right, bottom), difficult in objects:
        mark = "" if difficult is None else f"<difficult>{difficult}</difficult>"
        # VOC2012 gives the corners in another order than VOC2007: only their names count.
        lines.append(
            f"<object><name>{name}</name>{mark}<bndbox><xmax>{right}</xmax><xmin>{left}</xmin>"
            f"<ymax>{bottom}</ymax><ymin>{top}</ymin></bndbox>{PARTS}</object>"
        )
    return "\n".join([*lines, "</annotation>"])


def _add(folder: Path, year: str, name: str, text: str, size: tuple[int, int] = (40, 30)) -> None:
    for part in ("Annotations", "JPEGImages"):
        (folder / year / part).mkdir(parents=True, exist_ok=True)
    (folder / year / "Annotations" / f"{name}.xml").write_text(text)
    Image.new("RGB", size).save(folder / year / "JPEGImages" / f"{name}.jpg")


def _list(folder: Path, chosen: str, names: list[str]) -> None:
    year, name = chosen.split("/")
    path = folder / year / "ImageSets" / "Main" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{entry}\n" for entry in names))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two years; image 2007_000027 of VOC2012 is another one than 000027 of VOC2007."""
    folder = tmp_path / "VOCdevkit"
    rng = random.Random(5)
    images = {
        "VOC2007/trainval": ["000027", "000005"],
        "VOC2007/test": ["000001"],
        "VOC2012/trainval": ["2008_000008", "2007_000027"],
    }
    for chosen, names in images.items():
        _list(folder, chosen, names)
        for name in names:
            width, height = rng.randint(20, 60), rng.randint(20, 60)
            objects: list[Object] = []
            for _ in range(rng.randint(0, 3)):
                left, top = rng.randint(1, width), rng.randint(1, height)
                box = (left, top, rng.randint(left, width), rng.randint(top, height))
                objects.append((rng.choice(CLASSES), box, rng.choice([0, 1, None])))
            text = _xml(width, height, objects)
            _add(folder, chosen[:7], name, text, (width, height))
    return folder


def test_coco_annotations_agree_with_torchvision(folder: Path) -> None:
    from torchvision.datasets import VOCDetection

    found = coco_annotations(folder, SETS)
    of_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in found["images"]}
    for annotation in found["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    names = {category["id"]: category["name"] for category in found["categories"]}
    images = iter(found["images"])
    objects = 0
    for year in ("2007", "2012"):
        reference = VOCDetection(folder.parent, year, "trainval")
        for path, (opened, target) in zip(reference.images, reference, strict=True):
            image = next(images)
            assert folder / image["file_name"] == Path(path)
            assert (image["width"], image["height"]) == opened.size
            expected = [
                (
                    item["name"],
                    *(float(item["bndbox"][key]) for key in ("xmin", "ymin", "xmax", "ymax")),
                    int(item.get("difficult", 0)),
                )
                for item in target["annotation"].get("object", [])
            ]
            given = [
                (names[a["category_id"]], x + 1, y + 1, x + w, y + h, a["iscrowd"])
                for a in of_image[image["id"]]
                for x, y, w, h in [a["bbox"]]
            ]
            assert given == expected
            objects += len(expected)
    assert next(images, None) is None
    assert objects == len(found["annotations"]) > 4


def test_coco_annotations_ids_do_not_depend_on_the_sets(folder: Path) -> None:
    found = coco_annotations(folder, SETS)
    assert [image["id"] for image in found["images"]] == [27, 5, 2008000008, 2007000027]
    alone = coco_annotations(folder, ["VOC2012/trainval"])
    assert alone["images"] == found["images"][2:]
    assert [a["id"] for a in found["annotations"]] == list(range(1, len(found["annotations"]) + 1))


def test_coco_annotations_boxes_by_hand(tmp_path: Path) -> None:
    objects: list[Object] = [
        ("aeroplane", (1, 1, 40, 30), 0),
        ("tvmonitor", (40, 30, 40, 30), 1),
        ("person", (1.5, 2.25, 10.5, 3.25), None),
    ]
    _add(tmp_path, "VOC2007", "000001", _xml(40, 30, objects))
    _list(tmp_path, "VOC2007/test", ["000001"])
    found = coco_annotations(tmp_path, ["VOC2007/test"])["annotations"]
    assert [a["bbox"] for a in found] == [[0, 0, 40, 30], [39, 29, 1, 1], [0.5, 1.25, 10, 2]]
    assert [a["area"] for a in found] == [1200, 1, 20]
    assert [a["category_id"] for a in found] == [1, 20, 15]
    assert [a["iscrowd"] for a in found] == [0, 1, 0]


def test_difficult_objects_are_ignored_by_pycocotools(tmp_path: Path) -> None:
    from icmbench.metrics.matching import coco_stats

    objects: list[Object] = [("dog", (1, 1, 10, 10), 0), ("dog", (21, 11, 40, 30), 1)]
    _add(tmp_path, "VOC2007", "000001", _xml(40, 30, objects))
    _list(tmp_path, "VOC2007/test", ["000001"])
    truth = coco_annotations(tmp_path, ["VOC2007/test"])
    dog = CLASSES.index("dog") + 1
    hit = {"image_id": 1, "category_id": dog, "bbox": [0, 0, 10, 10], "score": 0.5}
    difficult = {"image_id": 1, "category_id": dog, "bbox": [20, 10, 20, 20], "score": 0.9}
    assert coco_stats(truth, [hit], "bbox")[0] == pytest.approx(1)
    assert coco_stats(truth, [hit, difficult], "bbox")[0] == pytest.approx(1)
    # Without its annotation, the same detection is a false alarm above the hit.
    plain = copy.deepcopy(truth)
    plain["annotations"].pop()
    assert coco_stats(plain, [hit, difficult], "bbox")[0] == pytest.approx(0.5)


GOOD = _xml(40, 30, [("dog", (1, 1, 10, 10), 0)])
DAMAGED = {
    "broken": GOOD[:-5],
    "empty": "",
    "entities": f'<!DOCTYPE x [<!ENTITY a "a">]>{GOOD}',
    "no-size": GOOD.replace("size>", "measure>"),
    "no-width": GOOD.replace("width>", "breadth>"),
    "zero-size": _xml(0, 30, []),
    "words": GOOD.replace("<xmin>1<", "<xmin>left<"),
    "nan": GOOD.replace("<xmin>1<", "<xmin>nan<"),
    "class": GOOD.replace("dog", "wolf"),
    "no-name": GOOD.replace("<name>dog</name>", ""),
    "no-box": GOOD.replace(PARTS, "").replace("bndbox>", "box>"),
    "reversed": _xml(40, 30, [("dog", (10, 1, 9, 5), 0)]),
    "difficult": _xml(40, 30, [("dog", (1, 1, 9, 5), 2)]),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_coco_annotations_name_a_damaged_file(tmp_path: Path, case: str) -> None:
    assert DAMAGED[case] != GOOD
    _add(tmp_path, "VOC2007", "000001", DAMAGED[case])
    _list(tmp_path, "VOC2007/test", ["000001"])
    with pytest.raises(UserError) as caught:
        coco_annotations(tmp_path, ["VOC2007/test"])
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'VOC2007' / 'Annotations' / '000001.xml'}: ")
    assert "\n" not in message


@pytest.mark.parametrize("missing", ["JPEGImages/000001.jpg", "Annotations/000001.xml"])
def test_coco_annotations_name_a_missing_file(folder: Path, missing: str) -> None:
    path = folder / "VOC2007" / missing
    path.unlink()
    with pytest.raises(UserError) as caught:
        coco_annotations(folder, ["VOC2007/test"])
    assert str(caught.value).startswith(f"{path}: no such file")


def test_coco_annotations_name_a_missing_folder(folder: Path) -> None:
    (folder / "VOC2007" / "JPEGImages").rename(folder / "elsewhere")
    with pytest.raises(UserError, match=r"VOC2007/JPEGImages"):
        coco_annotations(folder, SETS)


@pytest.mark.parametrize("chosen", ["test", "VOC2007/../x", "2007/test", "VOC2007/test.txt"])
def test_coco_annotations_refuse_malformed_sets(folder: Path, chosen: str) -> None:
    with pytest.raises(UserError, match="VOC2007/trainval") as caught:
        coco_annotations(folder, [chosen])
    assert repr(chosen) in str(caught.value)


def test_coco_annotations_list_the_known_sets(folder: Path) -> None:
    with pytest.raises(UserError, match="VOC2007/test, VOC2007/trainval, VOC2012/trainval"):
        coco_annotations(folder, ["VOC2012/test"])


def test_coco_annotations_refuse_sets_that_overlap(folder: Path) -> None:
    _list(folder, "VOC2007/train", ["000005"])
    with pytest.raises(UserError, match=r"VOC2007/trainval.*VOC2007/train.*000005"):
        coco_annotations(folder, ["VOC2007/trainval", "VOC2007/train"])


@pytest.mark.parametrize(
    ("names", "fragment"),
    [
        (["000001", "../000002"], "../000002"),
        (["000001 -1"], "-1"),
        (["000001", "", "000001"], "000001"),
    ],
)
def test_coco_annotations_name_a_damaged_list(
    folder: Path, names: list[str], fragment: str
) -> None:
    _list(folder, "VOC2007/test", names)
    with pytest.raises(UserError) as caught:
        coco_annotations(folder, ["VOC2007/test"])
    assert "test" in str(caught.value) and fragment in str(caught.value)
