"""The photographs in the repository: whole, unchanged, and each with its licence."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from icmbench.data.catalogue import find
from icmbench.data.fetch import fetch
from icmbench.data.manifest import read_manifest
from icmbench.errors import UserError

MOST_BYTES = 30_000_000


@pytest.fixture
def data_dir(repository: Path, tmp_path: Path) -> Path:
    shutil.copytree(repository / "data/photographs", tmp_path / "photographs")
    return tmp_path


def fetched(data_dir: Path, repository: Path) -> Path:
    catalogue = repository / "data/catalogue.yaml"
    return fetch("photographs", data_dir=data_dir, mirror=None, catalogue=catalogue)


def test_photographs_are_those_of_the_catalogue(data_dir: Path, repository: Path) -> None:
    manifest = read_manifest(fetched(data_dir, repository))
    entry = find(repository / "data/catalogue.yaml", "photographs")
    assert manifest is not None and not manifest.subset
    assert manifest.files == len(entry.files) == 66 + 64 + 4
    assert manifest.bytes < MOST_BYTES


def test_photographs_that_changed_are_refused(data_dir: Path, repository: Path) -> None:
    image = data_dir / "photographs/coco/000000005001.jpg"
    data = image.read_bytes()
    image.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match=r"000000005001\.jpg: checksum mismatch"):
        fetched(data_dir, repository)
    image.unlink()
    with pytest.raises(UserError, match="65 files"):
        fetched(data_dir, repository)


def test_photographs_are_copied_into_a_data_folder_elsewhere(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_manifest(fetched(tmp_path / "elsewhere", repository))
    shutil.copytree(repository / "data/photographs", tmp_path / "here/photographs")
    again = read_manifest(fetched(tmp_path / "here", repository))
    assert first == again and first is not None
    monkeypatch.setattr("icmbench.data.fetch.shipped_folder", lambda: tmp_path)
    with pytest.raises(UserError, match=r"photographs: no such file.*repository"):
        fetched(tmp_path / "nowhere", repository)


def test_every_photograph_is_attributed_under_a_licence_that_allows_it(repository: Path) -> None:
    folder = repository / "data/photographs"
    with (folder / "attribution.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["file"]: row for row in csv.DictReader(stream)}
    images = [*folder.glob("coco/*.jpg"), *folder.glob("nips2017/*.png")]
    assert set(rows) == {path.relative_to(folder).as_posix() for path in images}
    coco = json.loads((folder / "coco/instances.json").read_text())
    licences = {licence["id"]: licence["url"] for licence in coco["licenses"]}
    for entry in coco["images"]:
        row = rows[f"coco/{entry['file_name']}"]
        assert row["licence_url"] == licences[entry["license"]]
        assert row["original"] == entry["flickr_url"] and row["as_published"] == entry["coco_url"]
    with (folder / "nips2017/images.csv").open(encoding="utf-8", newline="") as stream:
        for own in csv.DictReader(stream):
            row = rows[f"nips2017/{own['ImageId']}.png"]
            assert (row["author"], row["page"]) == (own["Author"], own["OriginalLandingURL"])
            assert row["licence_url"] == own["License"]
    for row in rows.values():
        assert "/licenses/by/" in row["licence_url"] or "/licenses/by-sa/" in row["licence_url"]
        assert "flickr.com/" in row["page"]


@pytest.mark.mirror
def test_photographs_are_the_published_files(repository: Path, mirror: Path) -> None:
    folder = repository / "data/photographs"
    places = {"coco/*.jpg": "coco2017/val2017", "nips2017/*.png": "nips2017/images"}
    for pattern, place in places.items():
        if not (mirror / place).is_dir():
            pytest.skip(f"{mirror / place} is not there")
        for path in folder.glob(pattern):
            assert path.read_bytes() == (mirror / place / path.name).read_bytes(), path.name
    own = json.loads((folder / "coco/instances.json").read_text())
    whole = json.loads((mirror / "coco2017/instances_val2017.json").read_text())
    ids = {entry["id"] for entry in own["images"]}
    assert own["categories"] == whole["categories"] and own["licenses"] == whole["licenses"]
    assert own["images"] == [entry for entry in whole["images"] if entry["id"] in ids]
    assert own["annotations"] == [a for a in whole["annotations"] if a["image_id"] in ids]
