"""Files and labels of ImageNet: against torchvision's readers and a hand-made development kit."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from icmbench.data.readers.imagenet import index
from icmbench.errors import UserError

# Ids in another order than WordNet ids, as in the real kit, and two inner nodes of the tree.
SYNSETS = [
    (1, "n02119789", "kit fox, Vulpes macrotis", 0),
    (2, "n02012849", "crane", 0),
    (3, "n03126707", "crane", 0),
    (4, "n01440764", "tench, Tinca tinca", 0),
    (1001, "n00001740", "entity", 2),
    (1002, "n02512053", "fish", 1),
]
WNIDS = ["n01440764", "n02012849", "n02119789", "n03126707"]
TRUTH = [4, 1, 1, 3, 2]
LABELS = [0, 2, 2, 3, 1]  # the same by hand


def _write_meta(path: Path, synsets: list[tuple[int, str, str, int]]) -> None:
    # Fields and their order as in the real file.
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")
    rows = np.empty((len(synsets), 1), [(name, object) for name in fields])
    for row, (identity, wnid, words, children) in enumerate(synsets):
        rows[row, 0] = (identity, wnid, words, "gloss", children, np.arange(children))
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"synsets": rows})


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _truth(folder: Path) -> Path:
    return folder / "devkit" / "data" / "ILSVRC2012_validation_ground_truth.txt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four classes with 2, 3, 4 and 5 training images, five validation images."""
    folder = tmp_path / "imagenet1k"
    _write_meta(folder / "devkit" / "data" / "meta.mat", SYNSETS)
    _truth(folder).write_text("".join(f"{identity}\n" for identity in TRUTH))
    for images, wnid in enumerate(reversed(WNIDS), start=2):
        for number in range(images):
            _touch(folder / "train" / wnid / f"{wnid}_{977 * number + 3}.JPEG")
    for number in range(1, 6):
        _touch(folder / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    return folder


def test_index_of_train_agrees_with_torchvision(folder: Path) -> None:
    from torchvision.datasets import ImageFolder

    (folder / "train" / "readme.txt").touch()
    (folder / "train" / WNIDS[0] / "notes.txt").touch()
    found = index(folder, "train")
    reference = ImageFolder(folder / "train")
    assert [folder / file for file in found.files] == [Path(p) for p, _ in reference.samples]
    assert found.labels == reference.targets
    assert found.wnids == reference.classes
    assert np.bincount(found.labels).tolist() == [5, 4, 3, 2]


def test_index_of_val_agrees_with_torchvision(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import imagenet as reference

    archive = folder.parent / "devkit.tar.gz"
    with tarfile.open(archive, "w:gz") as bundle:
        bundle.add(folder / "devkit", "ILSVRC2012_devkit_t12")
    md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(reference.ARCHIVE_META, "devkit", (archive.name, md5))
    reference.parse_devkit_archive(folder.parent)
    words, wnids = reference.load_meta_file(folder.parent)
    found = index(folder, "val")
    assert [found.wnids[label] for label in found.labels] == wnids
    assert dict(zip(found.wnids, found.classes, strict=True)) == {
        wnid: ", ".join(names) for wnid, names in words.items()
    }


def test_index_of_val_by_hand(folder: Path) -> None:
    found = index(folder, "val")
    assert found.files == [f"val/ILSVRC2012_val_0000000{n}.JPEG" for n in range(1, 6)]
    assert found.labels == LABELS
    assert found.wnids == WNIDS
    assert found.classes == ["tench, Tinca tinca", "crane", "kit fox, Vulpes macrotis", "crane"]


def test_index_of_a_part_keeps_its_labels(folder: Path) -> None:
    whole = {"train": index(folder, "train"), "val": index(folder, "val")}
    (folder / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    for path in (folder / "train" / WNIDS[1]).iterdir():
        path.unlink()
    dropped = {"train": f"train/{WNIDS[1]}/", "val": "val/ILSVRC2012_val_00000002"}
    for split, prefix in dropped.items():
        pairs = zip(whole[split].files, whole[split].labels, strict=True)
        kept = [pair for pair in pairs if not pair[0].startswith(prefix)]
        found = index(folder, split)  # type: ignore[arg-type]
        assert list(zip(found.files, found.labels, strict=True)) == kept
        assert found.wnids == WNIDS


def _fails(folder: Path, split: Any, path: Path, *fragments: str) -> None:
    with pytest.raises(UserError) as caught:
        index(folder, split)
    message = str(caught.value)
    assert message.startswith(f"{path}") and "\n" not in message
    assert all(fragment in message for fragment in fragments), message


@pytest.mark.parametrize(
    ("lines", "fragment"),
    [
        ([*TRUTH[:4], 5], "ILSVRC2012_ID 5"),
        ([*TRUTH[:4], 1001], "ILSVRC2012_ID 1001"),  # an inner node of the tree
        ([*TRUTH[:4], "tench"], "tench"),
    ],
)
def test_index_names_damaged_ground_truth(folder: Path, lines: list[Any], fragment: str) -> None:
    _truth(folder).write_text("".join(f"{line}\n" for line in lines))
    _fails(folder, "val", _truth(folder), fragment)


def test_index_names_unreadable_ground_truth(folder: Path) -> None:
    _truth(folder).write_bytes(b"\x89PNG\xff")
    _fails(folder, "val", _truth(folder))
    _truth(folder).unlink()
    _fails(folder, "val", _truth(folder), "no such file")


def test_index_names_images_of_unknown_class(folder: Path) -> None:
    _truth(folder).write_text("".join(f"{identity}\n" for identity in TRUTH[:4]))
    _fails(folder, "val", folder / "val" / "ILSVRC2012_val_00000005.JPEG", "4 lines")
    _touch(folder / "val" / "extra.JPEG")
    _truth(folder).write_text("".join(f"{identity}\n" for identity in TRUTH))
    _fails(folder, "val", folder / "val" / "extra.JPEG")
    _touch(folder / "train" / "n02512053" / "n02512053_1.JPEG")
    _fails(folder, "train", folder / "train" / "n02512053", "meta.mat")


@pytest.mark.parametrize("split", ["train", "val"])
def test_index_names_missing_and_empty_folders(folder: Path, split: str) -> None:
    (folder / split).rename(folder / "elsewhere")
    _fails(folder, split, folder / split, "no such file")
    (folder / split).mkdir()
    _fails(folder, split, folder / split, "no such file")


def test_index_names_a_damaged_list_of_classes(folder: Path) -> None:
    path = folder / "devkit" / "data" / "meta.mat"
    whole = path.read_bytes()
    for content in (b"", b"not a MAT file", whole[: len(whole) // 2]):
        path.write_bytes(content)
        _fails(folder, "val", path)
    savemat(path, {"another": [1]})
    _fails(folder, "val", path)
    _write_meta(path, [*SYNSETS, (2, "n00000009", "twice", 0)])
    _fails(folder, "val", path, "5 classes", "4 ILSVRC2012_IDs")
    _write_meta(path, SYNSETS[4:])
    _fails(folder, "val", path, "0 classes")
    path.unlink()
    _fails(folder, "val", path, "no such file")
