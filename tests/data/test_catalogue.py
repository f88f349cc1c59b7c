from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from icmbench.data.catalogue import LayoutItem, find, list_catalogue, load_catalogue
from icmbench.data.pointer import read_md5
from icmbench.errors import UserError

ROOT = Path(__file__).parents[2]
REAL = ROOT / "data" / "catalogue.yaml"
SIX = {"kodak", "coco2017", "voc0712", "imagenet1k", "celeba", "celebamask_hq"}


def test_catalogue_describes_the_data_sets_of_the_studies() -> None:
    catalogue = load_catalogue(REAL)
    assert set(catalogue) == {*SIX, "coco2017_500", "coco2017_train", "nips2017", "photographs"}
    for entry in catalogue.values():
        names = [archive.name for archive in entry.archives]
        assert len(set(names)) == len(names)
        if any(archive.url is None for archive in entry.archives):
            assert entry.account.how
        # Each file that is taken as it is belongs to the layout.
        assert all(entry.wants(path) for path in entry.single_files())


def test_catalogue_checksums_agree_with_torchvision() -> None:
    torchvision = pytest.importorskip("torchvision.datasets")
    published = {
        row["filename"]: row["md5"]
        for row in torchvision.voc.DATASET_YEAR_DICT.values()
        if "2008" not in row["url"]  # lists the file name of 2012
    }
    published |= {name: md5 for _, md5, name in torchvision.CelebA.file_list}
    published |= dict(torchvision.imagenet.ARCHIVE_META.values())
    ours = {
        archive.name: archive.md5
        for entry in load_catalogue(REAL).values()
        for archive in entry.archives
    }
    shared = ours.keys() & published.keys()
    assert len(shared) == 9
    assert {name: ours[name] for name in shared} == {name: published[name] for name in shared}


def test_kodak_pointer_has_a_checksum() -> None:
    md5 = read_md5(ROOT / "data" / "kodak.dvc")
    assert md5 is not None and re.fullmatch(r"[0-9a-f]{32}\.dir", md5)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("img/*.png", "img/1.png", True),
        ("img/*.png", "img/sub/1.png", False),
        ("img/*.png", "img/1.png/x", False),
        ("img/*.png", "1.png", False),
        ("*/*.png", "a/1.png", True),
        ("list.txt", "list.txt", True),
        ("list.txt", "img/list.txt", False),
    ],
)
def test_layout_star_stays_in_its_folder(pattern: str, path: str, matches: bool) -> None:
    assert LayoutItem(path=pattern).matches(path) is matches


def _break(content: dict[str, Any], keys: list[Any], value: Any) -> None:
    for key in keys[:-1]:
        content = content[key]
    content[keys[-1]] = value


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["kodak", "licence"], None),
        (["kodak", "colour"], "red"),
        (["kodak", "archives", 0, "sha256"], "abc"),
        (["kodak", "archives", 0, "bytes"], "many"),
        (["kodak", "archives", 0, "unpack"], "rar"),
        (["kodak", "archives", 0, "into"], "../elsewhere"),
        (["kodak", "archives", 0, "name"], "../kodim01.png"),
        (["kodak", "archives", 0, "url"], "file:///etc/passwd"),
        (["imagenet1k", "archives", 2], {"name": "x", "unpack": "zip", "url": "http://x"}),
        (["kodak", "layout", 0, "count"], 0),
        (["kodak", "account", "needed"], "perhaps"),
    ],
)
def test_load_catalogue_names_a_wrong_value(tmp_path: Path, keys: list[Any], value: Any) -> None:
    content = yaml.safe_load(REAL.read_text())
    _break(content, keys, value)
    path = tmp_path / "catalogue.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as caught:
        load_catalogue(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {'.'.join(map(str, keys))}: ")
    assert repr(value) in message and "\n" not in message


@pytest.mark.parametrize(
    ("text", "fragment"), [("a: [1,\n", "YAML"), ("[]", "top level"), (None, "no such file")]
)
def test_load_catalogue_names_an_unreadable_file(
    tmp_path: Path, text: str | None, fragment: str
) -> None:
    path = tmp_path / "catalogue.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=fragment) as caught:
        load_catalogue(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_find_lists_the_known_data_sets() -> None:
    with pytest.raises(UserError, match=r"'kodac'.*kodak"):
        find(REAL, "kodac")


def test_list_catalogue_shows_sizes_and_files_to_place() -> None:
    lines = {line.split()[0]: line for line in list_catalogue(REAL).splitlines()}
    assert set(lines) > SIX
    assert "20.4 GB" in lines["coco2017"]
    assert "downloads/imagenet1k/ILSVRC2012_img_val.tar" in lines["imagenet1k"]
    assert " needed " in lines["imagenet1k"]
