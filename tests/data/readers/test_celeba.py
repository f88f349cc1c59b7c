"""CelebA and CelebAMask-HQ as published: splits, attributes, merged masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icmbench.data.readers.faces import PARSING, CelebA, CelebAMaskHQ, open_faces
from icmbench.errors import UserError

PLACE = {"images": "x", "layout": "celeba"}


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    (tmp_path / "list_attr_celeba.txt").write_text(
        "3\nSmiling Young \n000001.jpg -1  1\n000002.jpg  1  1\n000003.jpg -1 -1\n"
    )
    (tmp_path / "list_eval_partition.txt").write_text("000003.jpg 2\n000001.jpg 0\n000002.jpg 0\n")
    return tmp_path


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    (tmp_path / "CelebAMask-HQ-attribute-anno.txt").write_text(
        "2\nSmiling Young\n0.jpg  -1 1\n2000.jpg  1 -1\n"
    )
    (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").write_text(
        "idx    orig_idx    orig_file\n0    119613    119614.jpg\n2000    182638    182639.jpg\n"
    )
    for folder in ("0", "1"):
        (tmp_path / "CelebAMask-HQ-mask-anno" / folder).mkdir(parents=True)
    return tmp_path


def paint(folder: Path, identity: int, part: str, rows: slice, columns: slice) -> None:
    mask = np.zeros((512, 512, 3), np.uint8)
    mask[rows, columns] = 255
    place = folder / "CelebAMask-HQ-mask-anno" / str(identity // 2000)
    Image.fromarray(mask).save(place / f"{identity:05d}_{part}.png")


def test_celebamask_hq_has_the_official_split(tmp_path: Path) -> None:
    """24,183 / 2,993 / 2,824: as many images on each side of the published bounds."""
    bounds = {"train": (0, 162_770), "val": (162_771, 182_637), "test": (182_638, 202_598)}
    counts = {"train": 24_183, "val": 2_993, "test": 2_824}
    originals = np.concatenate(
        [np.linspace(*bounds[name], count).round().astype(int) for name, count in counts.items()]
    )
    order = np.random.default_rng(0).permutation(30_000)
    lines = [f"{i} {k} {k + 1:06d}.jpg" for i, k in enumerate(originals[order])]
    (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").write_text(
        "\n".join(["idx orig_idx orig_file", *lines]) + "\n"
    )
    (tmp_path / "CelebAMask-HQ-attribute-anno.txt").write_text(
        "30000\nSmiling Young\n" + "".join(f"{i}.jpg  1 -1\n" for i in range(30_000))
    )
    found = {name: CelebAMaskHQ(tmp_path, name).ids for name in bounds}
    assert {name: len(ids) for name, ids in found.items()} == counts
    assert sorted(i for ids in found.values() for i in ids) == list(range(30_000))
    for name, (low, high) in bounds.items():
        own = originals[order][found[name]]
        assert own.min() == low and own.max() == high
        assert found[name] == sorted(found[name])
    assert CelebAMaskHQ(tmp_path, "test", 5).ids == found["test"][:5]


def test_celeba_has_its_own_partition_and_no_maps(celeba: Path, fetched: Any) -> None:
    dataset = fetched(celeba, "celeba", PLACE)
    train = open_faces(dataset, "train")
    assert train.ids == [1, 2] and open_faces(dataset, "test").ids == [3]
    assert train.attribute_names == ("Smiling", "Young") and train.parsing_names == ()
    assert train.attribute_table().tolist() == [[0, 1], [1, 1]]
    assert train.images / train.file(1) == celeba / "img_align_celeba/000001.jpg"
    assert train.parsing(1, (8, 8)) is None


def test_masks_are_merged_in_the_order_of_the_classes(masks: Path, fetched: Any) -> None:
    paint(masks, 0, "hair", slice(0, 256), slice(0, 512))
    paint(masks, 0, "skin", slice(128, 512), slice(128, 384))
    paint(masks, 0, "l_eye", slice(260, 300), slice(140, 200))
    paint(masks, 0, "eye_g", slice(250, 310), slice(130, 380))
    faces = open_faces(fetched(masks, "celebamask_hq", PLACE), "train")
    assert faces.ids == [0] and faces.attributes(0).tolist() == [0, 1]
    parsing = faces.parsing(0, (512, 512))
    assert parsing is not None and parsing.dtype == np.uint8
    number = {name: index for index, name in enumerate(PARSING)}
    assert (number["skin"], number["hair"], number["cloth"]) == (1, 13, 18)
    assert parsing[0, 0] == parsing[200, 200] == number["hair"]  # hair is painted over skin
    assert parsing[400, 200] == number["skin"]
    assert parsing[280, 150] == number["l_eye"]  # and eyes over glasses
    assert parsing[305, 300] == number["eye_g"]
    assert parsing[500, 10] == number["background"]
    small = faces.parsing(0, (128, 64))
    assert small is not None and small.shape == (128, 64)
    assert np.array_equal(np.unique(small), np.unique(parsing))


def test_masks_are_found_in_the_second_folder(masks: Path, fetched: Any) -> None:
    paint(masks, 2000, "hat", slice(0, 512), slice(0, 512))
    faces = open_faces(fetched(masks, "celebamask_hq", PLACE), "test")
    assert faces.ids == [2000] and faces.file(2000) == "2000.jpg"
    assert (faces.parsing(2000, (16, 16)) == PARSING.index("hat")).all()  # type: ignore[union-attr]


ATTRIBUTES = "list_attr_celeba.txt"
PARTITION = "list_eval_partition.txt"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (ATTRIBUTES, "-1 -1", "-1"),
        (ATTRIBUTES, "-1 -1", "-1 0"),
        (ATTRIBUTES, "-1 -1", "-1 x"),
        (ATTRIBUTES, "3\n", "4\n"),
        (ATTRIBUTES, "000002", "000001"),
        (ATTRIBUTES, "000002", "000004"),  # and so an image without attributes
        (ATTRIBUTES, "3\nSmiling Young", ""),
        (PARTITION, " 2", " 3"),
        (PARTITION, "000002", "000001"),
        (PARTITION, "000001", "\x89PNG"),
    ],
)
def test_celeba_names_a_damaged_list(celeba: Path, file: str, old: str, new: str) -> None:
    text = (celeba / file).read_text()
    assert old in text
    (celeba / file).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=file):
        CelebA(celeba, "train")


def test_faces_name_missing_files(masks: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"00000_\*\.png: no such file"):
        CelebAMaskHQ(masks, "train").parsing(0, (8, 8))
    with pytest.raises(UserError, match=r"list_eval_partition\.txt: no such file"):
        CelebA(tmp_path / "nowhere", "train")
