"""Nothing from outside is used unchecked: every kind of oddity is accepted rightly or refused."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icmbench.data import checks, image_checks
from icmbench.data.checks import check_role, labels_of
from icmbench.data.dataset import Split
from icmbench.data.masks import decode_masks
from icmbench.data.specs import DatasetSpec, Needs
from icmbench.errors import UserError
from icmbench.metrics.matching import match_detections
from odd_sets import COUNT, KINDS, PLACE, OddSet

BOXES = Needs(truth="boxes", classes=6)
MASKS = Needs(truth="masks", classes=6)


def _spec(fetched: Any, folder: Path) -> DatasetSpec:
    spec: DatasetSpec = fetched(folder, "odd", PLACE)
    return spec


def _numbers(split: Split, index: int, masks: bool) -> list[Any]:
    """Return all that jobs take from an image."""
    width, height = split.native_size(index)
    boxes, labels = split.target(index, width, height)
    own = [] if not masks else split.segmentations(index)
    area = decode_masks(own, (height, width), (height, width)).sum().item()
    pixels = split.image(index)
    return [boxes.tolist(), labels.tolist(), area, pixels.sum().item(), split.rate_pixels(index)]


def _matched(split: Split, indices: Sequence[int]) -> Any:
    """Return what pycocotools makes of slightly moved boxes on some images."""
    assert split.annotations is not None
    found: list[Any] = []
    for index in indices:
        for box, label in zip(*split.target(index, *split.native_size(index)), strict=True):
            x, y, right, bottom = map(float, box)
            moved = [x + 4, y, right - x, bottom - y]
            found.append({"image_id": split.ids[index], "category_id": split.category(int(label)),
                          "bbox": moved, "score": 0.5})  # fmt: skip
    ids = [split.ids[index] for index in indices]
    matches = match_detections(split.annotations, found, "bbox", ids)
    return matches.matched.sum().item(), matches.ground_truths.sum().item()


def _try(fetched: Any, folder: Path, changes: dict[int, str], needs: Needs, clean: Split) -> None:
    """Make a set with oddities by image, open it, and compare it with the clean one."""
    odd = OddSet(folder)
    for n, name in sorted(changes.items(), key=lambda item: not KINDS[item[1]].whole):
        KINDS[name].apply(odd, n)
    odd.write()
    kinds = [KINDS[name] for name in changes.values()]
    refusals = [
        kind.refused
        for kind in kinds
        if kind.refused is not None and (needs.truth == "masks" or not kind.masks_only)
    ]
    try:
        split = Split(_spec(fetched, folder), "test", needs=needs)
    except UserError as error:
        message = str(error)
        assert "\n" not in message and refusals, message
        assert len(changes) > 1 or refusals[0] in message
        return
    assert not refusals
    masks = needs.truth == "masks"
    place = {Path(str(name)).stem: i for i, name in enumerate(split._index.files)}
    same = []
    for n in range(COUNT):
        index = place[f"{n + 1:04d}"]
        if n not in changes or KINDS[changes[n]].same:
            assert _numbers(split, index, masks) == _numbers(clean, n, masks)
            same.append((index, n))
    assert _matched(split, [i for i, _ in same]) == _matched(clean, [n for _, n in same])
    for identity in split.ids:  # never a path
        assert Path(f"{identity}.png").name == f"{identity}.png" != str(identity)
        assert not str(identity).startswith(".")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, fetched: Any) -> Split:
    folder = tmp_path_factory.mktemp("clean") / "odd"
    OddSet(folder).write()
    return Split(_spec(fetched, folder), "test", needs=MASKS)


@pytest.mark.parametrize("needs", [BOXES, MASKS], ids=["boxes", "masks"])
@pytest.mark.parametrize("kind", KINDS)
def test_check_of_each_kind(
    tmp_path: Path, fetched: Any, clean: Split, kind: str, needs: Needs
) -> None:
    _try(fetched, tmp_path / "odd", {2: kind}, needs, clean)
    assert {path.name for path in tmp_path.iterdir()} <= {"odd", "outside2.png"}


def fuzz(examples: int) -> Any:
    """Return a test that combines one to three kinds at random."""
    names = st.sampled_from(sorted(KINDS))
    changes = st.dictionaries(st.integers(1, COUNT - 1), names, min_size=1, max_size=3).filter(
        lambda chosen: len({n for n in chosen.values() if KINDS[n].whole or "id" in n}) <= 1
    )

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(changes=changes, needs=st.sampled_from([BOXES, MASKS]))
    def test(
        tmp_path_factory: pytest.TempPathFactory,
        fetched: Any,
        clean: Split,
        changes: dict[int, str],
        needs: Needs,
    ) -> None:
        _try(fetched, tmp_path_factory.mktemp("fuzz") / "odd", changes, needs, clean)

    return test


test_check_of_combined_kinds = fuzz(50)
test_check_of_many_combined_kinds = pytest.mark.faults(fuzz(500))


def test_truncated_image_is_named_when_it_is_read(tmp_path: Path, fetched: Any) -> None:
    odd = OddSet(tmp_path / "odd")
    KINDS["truncated"].apply(odd, 2)
    odd.write()
    split = Split(_spec(fetched, odd.folder), "test")
    assert split.image(1).shape == (64, 96, 3)
    with pytest.raises(UserError, match=r"images/0003\.png"):
        split.image(2)


def test_check_counts_and_notes(
    tmp_path: Path, fetched: Any, caplog: pytest.LogCaptureFixture
) -> None:
    odd = OddSet(tmp_path / "odd")
    for n in (2, 3, 4):
        KINDS["size"].apply(odd, n)
    odd.write()
    with pytest.raises(UserError, match=r"0003\.png.*3 of 8"):
        Split(_spec(fetched, odd.folder), "test")
    other = OddSet(tmp_path / "noted")
    KINDS["deep"].apply(other, 2)
    KINDS["box-exceeds"].apply(other, 3)
    KINDS["area-missing"].apply(other, 4)
    other.write()
    with caplog.at_level(logging.WARNING):
        split = Split(_spec(fetched, other.folder), "test")
    assert "1 of 8 boxes" in caplog.text and "1 of 8 objects" in caplog.text
    assert "12" in caplog.text  # of 16 bits
    assert split.annotations is not None
    assert split.annotations["annotations"][3]["bbox"] == [60, 30, 36, 30]
    assert split.annotations["annotations"][4]["area"] == 1200


def test_check_is_remembered_with_the_digest(
    tmp_path: Path, fetched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = OddSet(tmp_path / "odd")
    odd.write()
    spec = _spec(fetched, odd.folder)
    Path(spec.manifest).write_text(json.dumps({"digest": "a"}))
    read: list[str] = []
    own = image_checks.read_header
    monkeypatch.setattr(image_checks, "read_header", lambda s: (read.append(str(s)), own(s))[1])
    first = Split(spec, "test", needs=MASKS)
    assert len(read) == COUNT
    again = Split(spec, "test", needs=MASKS)
    assert len(read) == COUNT and again.annotations == first.annotations
    odd.path(2).unlink()
    Path(spec.manifest).write_text(json.dumps({"digest": "b"}))
    with pytest.raises(UserError, match=r"0003\.png"):
        Split(spec, "test")


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.refused is None])
def test_copy_gives_what_the_annotation_file_gives(
    tmp_path: Path, fetched: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    odd = OddSet(tmp_path / "odd")
    KINDS[kind].apply(odd, 2)
    odd.write()
    spec = _spec(fetched, odd.folder)
    first = Split(spec, "test", needs=MASKS)  # without a manifest nothing is kept
    Path(spec.manifest).write_text(json.dumps({"digest": "a"}))
    check_role(spec, [MASKS])
    monkeypatch.setattr(checks, "open_index", None)  # the annotation file is not opened again
    copied = Split(spec, "test", needs=MASKS)
    assert copied.annotations == first.annotations and copied.classes == first.classes
    for index in range(len(first)):
        assert copied.label(index) == first.label(index)
        assert copied.native_size(index) == first.native_size(index)
        assert copied.segmentations(index) == first.segmentations(index)
        for ours, other in zip(copied.target(index, 9, 9), first.target(index, 9, 9), strict=True):
            assert np.array_equal(ours, other)
    worker = pickle.loads(pickle.dumps(copied))
    assert worker.segmentations(0) == first.segmentations(0)


@pytest.mark.parametrize("length", [None, 0, 500], ids=["missing", "empty", "cut"])
def test_damaged_copy_is_made_again(tmp_path: Path, fetched: Any, length: int | None) -> None:
    odd = OddSet(tmp_path / "odd")
    odd.write()
    spec = _spec(fetched, odd.folder)
    Path(spec.manifest).write_text(json.dumps({"digest": "a"}))
    first = Split(spec, "test")
    (copy,) = tmp_path.glob(".icmbench/checks/*.arrow")
    whole = copy.read_bytes()
    copy.unlink()
    if length is not None:
        copy.write_bytes(whole[:length])
    assert Split(spec, "test").annotations == first.annotations
    assert copy.read_bytes() == whole


def test_check_refuses_files_outside_the_digest(tmp_path: Path, fetched: Any) -> None:
    odd = OddSet(tmp_path / "odd")
    odd.write()
    names = ["annotations.json", *(f"images/{n:04d}.png" for n in range(1, COUNT))]
    listing = tmp_path / "odd.files.sha256"
    listing.write_text("".join(f"{'0' * 64}  {name}\n" for name in names))
    with pytest.raises(UserError, match=r"0008\.png.*odd\.files\.sha256"):
        Split(_spec(fetched, odd.folder), "test")


def test_check_of_a_role_names_what_its_tasks_lack(tmp_path: Path, fetched: Any) -> None:
    odd = OddSet(tmp_path / "odd")
    odd.write()
    spec = _spec(fetched, odd.folder)
    check_role(spec, [BOXES, MASKS, Needs(truth="label", classes=6)])
    for needs, text in (
        (Needs(truth="boxes", classes=5), "classes to 6"),
        (Needs(truth="label", classes=5), "classes to 6"),
    ):
        with pytest.raises(UserError, match=text):
            check_role(spec, [needs])
    bare = fetched(odd.folder, "odd", {"images": "images"})
    for truth, text in (("boxes", "annotations"), ("label", "classes")):
        with pytest.raises(UserError, match=text):
            check_role(bare, [Needs(truth=truth)])
    KINDS["category-zero"].apply(odd, 2)
    odd.write()
    check_role(spec, [BOXES])
    published = BOXES.model_copy(update={"published": True})
    with pytest.raises(UserError, match="published"):
        check_role(spec, [published])


def test_labels_mean_the_same_in_every_split(tmp_path: Path, fetched: Any) -> None:
    odd = OddSet(tmp_path / "odd")
    KINDS["category-zero"].apply(odd, 2)
    odd.write()
    text = json.loads((odd.folder / "annotations.json").read_text())
    text["categories"].append({"id": 9, "name": "other"})
    (odd.folder / "train.json").write_text(json.dumps(text))
    spec = _spec(fetched, odd.folder).model_dump()
    spec["settings"]["splits"]["train"]["annotations"] = "train.json"
    with pytest.raises(UserError, match="'other' with id 9"):
        Split(DatasetSpec.model_validate(spec), "test", needs=BOXES)


def test_categories_go_to_labels_and_back(tmp_path: Path, fetched: Any) -> None:
    odd = OddSet(tmp_path / "odd")
    KINDS["category-zero"].apply(odd, 2)
    odd.write()
    split = Split(_spec(fetched, odd.folder), "test", needs=Needs(truth="boxes", classes=8))
    labels = [int(split.target(i, 96, 64)[1][0]) for i in range(COUNT)]
    assert labels == [1 + n % 5 for n in range(1, COUNT + 1)]
    assert split.category(1) == 0 and split.category(5) == 4
    assert split.category(6) is None  # a class of the network without a category
    assert labels_of(list(range(1, 91)), 91) is None  # COCO keeps its numbers


def test_hidden_files_are_no_images(tmp_path: Path, fetched: Any) -> None:
    odd = OddSet(tmp_path / "odd")
    (odd.folder / "images/._0001.png").write_bytes(b"of macOS")
    split = Split(fetched(odd.folder, "odd", {"images": "images"}), "test")
    assert len(split) == COUNT and np.array_equal(split.ids, sorted(split.ids))
