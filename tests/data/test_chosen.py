"""Images chosen from an annotation file by a rule: the same ones everywhere, each checked."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from toy_source import Server, zip_bytes

from icmbench.data.chosen import keep_chosen
from icmbench.data.classes import find_labels
from icmbench.data.fetch import fetch
from icmbench.data.index import open_index
from icmbench.data.manifest import read_manifest
from icmbench.data.readers.nips2017 import labels_of
from icmbench.data.specs import DatasetSpec
from icmbench.errors import UserError

COUNT = 3


def _jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), (shade, 80, 120)).save(buffer, "JPEG")
    return buffer.getvalue()


class Source:
    """Eight images behind an address, their annotations in a zip, and a catalogue of three."""

    def __init__(self, root: Path, server: Server) -> None:
        self.root, self.server = root, server
        self.images = {f"{n:012d}.jpg": _jpeg(20 * n) for n in range(1, 9)}
        entries = [
            {"id": n, "file_name": name, "width": 24, "height": 16}
            for n, name in enumerate(self.images, 1)
        ]
        objects = [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 5, 5]} for n in range(1, 9)
        ]
        self.annotations: dict[str, Any] = {
            "info": {"year": 2017},
            "images": entries,
            "annotations": objects,
            "categories": [{"id": 1, "name": "cat"}],
        }
        bundle = zip_bytes({"annotations/val.json": json.dumps(self.annotations).encode()})
        server.files = {"a.zip": bundle, **{f"val/{k}": v for k, v in self.images.items()}}
        self.catalogue = root / "catalogue.yaml"
        entry = {
            "title": "Toy",
            "version": "1",
            "homepage": "http://127.0.0.1/",
            "licence": "none",
            "licence_url": "http://127.0.0.1/",
            "account": {"needed": False},
            "citation": "none",
            "archives": [
                {
                    "name": "a.zip",
                    "url": f"{server.address}/a.zip",
                    "sha256": hashlib.sha256(bundle).hexdigest(),
                    "unpack": "zip",
                    "strip": 1,
                }
            ],
            "chosen": {
                "annotations": "val.json",
                "images": "val",
                "url": f"{server.address}/val/",
                "count": COUNT,
                "bytes": 1,
            },
            "mirrored_as": "whole",
            "layout": [{"path": "val/*.jpg", "count": COUNT}, {"path": "val.json"}],
        }
        self.catalogue.write_text(yaml.safe_dump({"some": entry}))

    @property
    def expected(self) -> list[str]:
        by_digest = sorted(self.images, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        return sorted(by_digest[:COUNT])

    def fetch(self, mirror: Path | None = None) -> Path:
        data = self.root / "data"
        fetch("some", data_dir=data, mirror=mirror, catalogue=self.catalogue)
        return data / "some"

    def mirror(self, names: list[str]) -> Path:
        folder = self.root / "mirror/whole/val"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(self.images[name])
        (folder.parent / "val.json").write_text(json.dumps(self.annotations))
        return self.root / "mirror"


@pytest.fixture
def source(tmp_path: Path, toy: object, server: Server) -> Source:
    return Source(tmp_path, server)  # `toy` shortens the waits between tries


def test_chosen_images_are_fetched_one_by_one_with_their_annotations(source: Source) -> None:
    folder = source.fetch()
    assert sorted(path.name for path in folder.glob("val/*.jpg")) == source.expected
    for name in source.expected:
        assert (folder / "val" / name).read_bytes() == source.images[name]
    kept = json.loads((folder / "val.json").read_text())
    assert [entry["file_name"] for entry in kept["images"]] == source.expected
    ids = {entry["id"] for entry in kept["images"]}
    assert {own["image_id"] for own in kept["annotations"]} == ids
    assert kept["info"] == {"year": 2017}
    manifest = read_manifest(source.root / "data/some.manifest.json")
    assert manifest is not None and manifest.source == "archives" and not manifest.subset
    assert not list((source.root / "data/downloads/some").glob("*"))


def test_chosen_images_of_the_mirror_are_not_downloaded(source: Source) -> None:
    first = source.expected[0]
    folder = source.fetch(source.mirror([first]))
    assert sorted(path.name for path in folder.glob("val/*.jpg")) == source.expected
    asked = {path for path, _ in source.server.requests}
    assert asked == {f"/val/{name}" for name in source.expected[1:]}


@pytest.mark.parametrize("damage", ["truncated", "other size", "missing"])
def test_damaged_image_leaves_no_data_set_and_is_fetched_again(source: Source, damage: str) -> None:
    last = f"val/{source.expected[-1]}"
    good = source.server.files[last]
    buffer = io.BytesIO()
    Image.new("RGB", (16, 24)).save(buffer, "JPEG")
    bad = {"truncated": good[: len(good) // 2], "other size": buffer.getvalue()}
    if damage == "missing":
        del source.server.files[last]
    else:
        source.server.files[last] = bad[damage]
    with pytest.raises(UserError, match=source.expected[-1]):
        source.fetch()
    assert not (source.root / "data/some").exists()
    source.server.files[last] = good
    source.server.requests.clear()
    assert (source.fetch() / last).read_bytes() == good
    # What had arrived is not asked for again.
    asked = [path for path, _ in source.server.requests if path.startswith("/val/")]
    assert asked == [f"/{last}"]


def test_images_are_chosen_from_the_table_of_nips_2017(tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    names = [f"{n:016x}" for n in range(6)]
    rows = [f"{name},http://x/{name},{100 + n}\n" for n, name in enumerate(names)]
    table.write_text("ImageId,URL,TrueLabel\n" + "".join(rows))
    before = table.read_bytes()
    assert set(keep_chosen(table, 6)) == {f"{name}.png" for name in names}
    assert table.read_bytes() == before
    chosen = keep_chosen(table, 2)
    digests = sorted(names, key=lambda name: hashlib.sha256(f"{name}.png".encode()).hexdigest())
    assert list(chosen) == sorted(f"{name}.png" for name in digests[:2])
    assert labels_of(table) == {f"{n}.png": 99 + names.index(n) for n in sorted(digests[:2])}


def test_classes_of_nips_2017_are_imagenets(repository: Path) -> None:
    place = {"images": "nips2017", "annotations": "nips2017/images.csv", "layout": "nips2017"}
    dataset = DatasetSpec.model_validate(
        {
            "role": "classification-photographs",
            "folder": str(repository / "data/photographs"),
            "manifest": "unused",
            "settings": {"source": "catalogue", "name": "photographs", "splits": {"test": place}},
        }
    )
    index = open_index(dataset, "test")
    assert len(index.files) == len(set(index.ids)) == 64
    assert index.labels is not None
    label = dict(zip(index.files, index.labels, strict=True))["0c7ac4a8c9dfa802.png"]
    assert label == 305  # TrueLabel 306: ImageNet counts from 0
    assert find_labels(index.classes, "imagenet-1k")["305"] == 305
