"""Files and labels of ImageNet: against torchvision's readers and a hand-made development kit."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from icmbench.data.manifest import Manifest, write_manifest
from icmbench.data.readers.imagenet import ImageNetIndex, index
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


def _write_manifest(folder: Path, digest: str = "a", *, subset: bool = False) -> None:
    manifest = Manifest(
        name="imagenet1k",
        version="test",
        source="found",
        subset=subset,
        counts={},
        files=1,
        bytes=1,
        digest=digest,
        dvc_md5="0",
        archives=[],
        icmbench="0",
    )
    write_manifest(folder.with_name(f"{folder.name}.manifest.json"), manifest)


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
    _write_manifest(folder)
    return folder


def _index(folder: Path, split: Any) -> ImageNetIndex:
    return index(folder, split, folder.parent / f"{split}.json")


def test_train_agrees_with_torchvisions_image_folder(folder: Path) -> None:
    from torchvision.datasets import ImageFolder

    (folder / "train" / "readme.txt").touch()
    (folder / "train" / WNIDS[0] / "notes.txt").touch()
    found = _index(folder, "train")
    reference = ImageFolder(folder / "train")
    assert [folder / file for file in found.files] == [Path(p) for p, _ in reference.samples]
    assert found.labels == reference.targets
    assert found.wnids == reference.classes
    assert np.bincount(found.labels).tolist() == [5, 4, 3, 2]


def test_val_agrees_with_torchvisions_reader_of_the_kit(
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
    found = _index(folder, "val")
    assert [found.wnids[label] for label in found.labels] == wnids
    assert dict(zip(found.wnids, found.classes, strict=True)) == {
        wnid: ", ".join(names) for wnid, names in words.items()
    }


def test_val_by_hand(folder: Path) -> None:
    found = _index(folder, "val")
    assert found.files == [f"val/ILSVRC2012_val_0000000{n}.JPEG" for n in range(1, 6)]
    assert found.labels == LABELS
    assert found.wnids == WNIDS
    assert found.classes == ["tench, Tinca tinca", "crane", "kit fox, Vulpes macrotis", "crane"]


def test_a_part_of_the_data_keeps_its_labels(folder: Path) -> None:
    whole = {split: _index(folder, split) for split in ("train", "val")}
    (folder / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    for path in (folder / "train" / WNIDS[1]).iterdir():
        path.unlink()
    _write_manifest(folder, "b", subset=True)
    for split, dropped in (("train", f"train/{WNIDS[1]}/"), ("val", "val/ILSVRC2012_val_00000002")):
        pairs = zip(whole[split].files, whole[split].labels, strict=True)
        kept = [pair for pair in pairs if not pair[0].startswith(dropped)]
        found = _index(folder, split)
        assert list(zip(found.files, found.labels, strict=True)) == kept
        assert found.wnids == WNIDS


@pytest.mark.parametrize("split", ["train", "val"])
def test_cache_is_used_until_the_manifest_changes(folder: Path, split: str) -> None:
    first = _index(folder, split)
    changed = [*SYNSETS[:3], (4, "n01440764", "another name", 0)]
    _write_meta(folder / "devkit" / "data" / "meta.mat", changed)
    assert _index(folder, split) == first
    _write_manifest(folder, "b")
    assert _index(folder, split).classes[0] == "another name"


def test_splits_do_not_share_a_cache(folder: Path) -> None:
    cache = folder.parent / "index.json"
    train, val = index(folder, "train", cache), index(folder, "val", cache)
    assert len(train.files) == 14
    assert len(val.files) == 5


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": "another"}'])
def test_damaged_cache_is_made_again(folder: Path, content: str) -> None:
    cache = folder.parent / "val.json"
    cache.write_text(content)
    assert _index(folder, "val").labels == LABELS
    assert json.loads(cache.read_text())["labels"] == LABELS


def _fails(folder: Path, split: str, path: Path, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        _index(folder, split)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert problem in message
    assert "\n" not in message


def test_no_manifest(folder: Path) -> None:
    path = folder.parent / "imagenet1k.manifest.json"
    path.unlink()
    _fails(folder, "val", path, "no such manifest")


def test_unknown_split(folder: Path) -> None:
    with pytest.raises(UserError, match="no split 'test'; choose train or val"):
        _index(folder, "test")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (TRUTH[:4], "4 lines, none for image ILSVRC2012_val_00000005.JPEG"),
        ([*TRUTH, 1], "6 lines for 5 images"),
        ([*TRUTH[:4], 5], "line 5: '5' is no ILSVRC2012_ID"),
        ([*TRUTH[:4], 1001], "line 5: '1001' is no ILSVRC2012_ID"),
        ([*TRUTH[:4], "tench"], "line 5: 'tench' is no ILSVRC2012_ID"),
        ([], "0 lines, none for"),
    ],
)
def test_damaged_ground_truth(folder: Path, lines: list[Any], problem: str) -> None:
    _truth(folder).write_text("".join(f"{line}\n" for line in lines))
    _fails(folder, "val", _truth(folder), problem)


def test_ground_truth_that_is_no_text(folder: Path) -> None:
    _truth(folder).write_bytes(b"\x89PNG\xff")
    _fails(folder, "val", _truth(folder), "not a text of numbers")
    _truth(folder).unlink()
    _fails(folder, "val", _truth(folder), "no such file")


def test_missing_validation_image(folder: Path) -> None:
    (folder / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    _fails(folder, "val", _truth(folder), "5 lines for 4 images")


def test_validation_image_with_another_name(folder: Path) -> None:
    _touch(folder / "val" / "extra.JPEG")
    _fails(folder, "val", folder / "val" / "extra.JPEG", "its class is not known")


def test_class_folder_that_is_no_class(folder: Path) -> None:
    _touch(folder / "train" / "n02512053" / "n02512053_1.JPEG")
    _fails(folder, "train", folder / "train" / "n02512053", "not a class of")


def test_class_without_images(folder: Path) -> None:
    for path in (folder / "train" / WNIDS[2]).iterdir():
        path.unlink()
    _fails(folder, "train", folder / "train" / WNIDS[2], "no image of this class")


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_and_empty_folders(folder: Path, split: str) -> None:
    (folder / split).rename(folder / "elsewhere")
    _fails(folder, split, folder / split, "no such folder")
    (folder / split).mkdir()
    _fails(folder, split, folder / split, "holds no")


def test_damaged_meta(folder: Path) -> None:
    path = folder / "devkit" / "data" / "meta.mat"
    whole = path.read_bytes()
    for content in (b"", b"no MAT file", whole[: len(whole) // 2]):
        path.write_bytes(content)
        _fails(folder, "val", path, "not the development kit's list of classes")
    savemat(path, {"another": [1]})
    _fails(folder, "val", path, "not the development kit's list of classes")
    _write_meta(path, [*SYNSETS, (2, "n00000009", "twice", 0)])
    _fails(folder, "val", path, "5 classes with 5 WordNet ids and 4 ILSVRC2012_IDs")
    _write_meta(path, SYNSETS[4:])
    _fails(folder, "val", path, "0 classes")
    path.unlink()
    _fails(folder, "val", path, "no such file")
