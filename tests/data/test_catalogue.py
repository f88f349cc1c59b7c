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


def test_the_catalogue_has_the_data_sets_of_the_studies() -> None:
    catalogue = load_catalogue(REAL)
    assert set(catalogue) == SIX
    for name, entry in catalogue.items():
        names = [archive.name for archive in entry.archives]
        assert len(set(names)) == len(names)
        for archive in entry.archives:
            # Whatever is downloaded without a person looking on is verified.
            assert archive.verifiable or archive.url is None, (name, archive.name)
        if any(archive.url is None for archive in entry.archives):
            assert entry.account.how
        # Each file that is taken as it is belongs to the layout.
        assert all(entry.wants(path) for path in entry.single_files())


def test_published_checksums_agree_with_torchvision() -> None:
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


def test_the_kodak_pointer_is_there() -> None:
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
def test_a_star_stays_in_its_folder(pattern: str, path: str, matches: bool) -> None:
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
        (["kodak", "layout", 0, "count"], 0),
        (["kodak", "account", "needed"], "perhaps"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, keys: list[Any], value: Any) -> None:
    content = yaml.safe_load(REAL.read_text())
    _break(content, keys, value)
    path = tmp_path / "catalogue.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as caught:
        load_catalogue(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {'.'.join(map(str, keys))}: ")
    assert repr(value) in message and "\n" not in message


def test_unreadable_catalogues(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.yaml"
    with pytest.raises(UserError, match="no such catalogue"):
        load_catalogue(path)
    path.write_text("a: [1,\n")
    with pytest.raises(UserError, match="not valid YAML") as caught:
        load_catalogue(path)
    assert "\n" not in str(caught.value)
    path.write_text("[]")
    with pytest.raises(UserError, match=r"\(top level\)"):
        load_catalogue(path)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(UserError, match=r"kodac: no such data set .*kodak"):
        find(REAL, "kodac")


def test_the_table_says_what_to_place_where() -> None:
    table = list_catalogue(REAL)
    lines = {line.split()[0]: line for line in table.splitlines()}
    assert set(lines) > SIX
    assert "nothing (fetched)" in lines["coco2017"] and "20.4 GB" in lines["coco2017"]
    assert "downloads/imagenet1k/ILSVRC2012_img_val.tar" in lines["imagenet1k"]
    assert " needed " in lines["imagenet1k"]
