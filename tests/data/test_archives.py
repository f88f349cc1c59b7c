from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from icmbench.data.archives import unpack
from icmbench.data.catalogue import Archive
from icmbench.errors import UserError


def _tar(path: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as bundle:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                bundle.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                bundle.addfile(info, io.BytesIO(member[1]))
    return path


def _special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _zip(path: Path, name: str, content: bytes, mode: int = 0) -> Path:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # set afterwards: the constructor would normalise it
    info.external_attr = mode << 16
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("good.txt", b"good")
        bundle.writestr(info, content)
    return path


def _unpack(source: Path, target: Path, **options: Any) -> None:
    kind = "zip" if source.suffix == ".zip" else "tar"
    archive = Archive.model_validate({"name": source.name, "unpack": kind, **options})
    unpack(source, archive, target, lambda path: True)


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


BAD_NAMES = ["/etc/evil", "../evil", "a/../../evil", "C:/evil", "a\\..\\evil", "new\nline"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("strip", [0, 1])
def test_unpack_refuses_paths_that_leave_the_folder(
    tmp_path: Path, name: str, kind: str, strip: int
) -> None:
    target = tmp_path / "in" / "deep"
    if kind == "zip":
        source = _zip(tmp_path / "a.zip", name, b"evil")
    else:
        source = _tar(tmp_path / "a.tar", ("good.txt", b"good"), (name, b"evil"))
    with pytest.raises(UserError) as caught:
        _unpack(source, target, strip=strip)
    assert str(source) in str(caught.value) and repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*evil*")) and not Path("/etc/evil").exists()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "../.."),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_unpack_refuses_links_and_devices_in_a_tar(
    tmp_path: Path, kind: bytes, target: str
) -> None:
    source = _tar(tmp_path / "a.tar", _special("x", kind, target), ("x/evil", b"evil"))
    with pytest.raises(UserError, match=r"a\.tar: member 'x' refused"):
        _unpack(source, tmp_path / "out")
    assert not list(tmp_path.rglob("x"))


def test_unpack_refuses_links_in_a_zip(tmp_path: Path) -> None:
    source = _zip(tmp_path / "a.zip", "x", b"/etc", mode=stat.S_IFLNK | 0o777)
    with pytest.raises(UserError, match=r"a\.zip: member 'x' refused"):
        _unpack(source, tmp_path / "out")


def test_unpack_refuses_members_that_are_not_wanted(tmp_path: Path) -> None:
    source = _tar(tmp_path / "a.tar", ("../evil", b"evil"))
    archive = Archive(name="a.tar", unpack="tar")
    with pytest.raises(UserError, match="evil"):
        unpack(source, archive, tmp_path / "out", lambda path: False)


def test_unpack_strips_moves_and_selects(tmp_path: Path) -> None:
    source = _tar(tmp_path / "a.tar", ("./top/a.txt", b"a"), ("top/b.txt", b"b"), ("c.txt", b"c"))
    archive = Archive(name="a.tar", unpack="tar", strip=1, into="sub")
    unpack(source, archive, tmp_path / "out", lambda path: path != "sub/b.txt")
    assert _tree(tmp_path / "out") == {"sub/a.txt": b"a"}


def test_unpack_of_a_tar_of_tars(tmp_path: Path) -> None:
    inner = {f"n0{i}": _tar(tmp_path / f"n0{i}.tar", (f"n0{i}_1.JPEG", b"%d" % i)) for i in (1, 2)}
    source = _tar(tmp_path / "all.tar", *((f"{k}.tar", p.read_bytes()) for k, p in inner.items()))
    _unpack(source, tmp_path / "out", nested=True, into="train")
    assert _tree(tmp_path / "out") == {
        "train/n01/n01_1.JPEG": b"1",
        "train/n02/n02_1.JPEG": b"2",
    }
    leaving = _tar(tmp_path / "n03.tar", ("../../evil", b"evil"))
    source = _tar(tmp_path / "all.tar", ("n03.tar", leaving.read_bytes()))
    with pytest.raises(UserError, match="evil"):
        _unpack(source, tmp_path / "out", nested=True)
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_unpack_names_a_damaged_archive(tmp_path: Path, kind: str) -> None:
    source = tmp_path / f"a.{kind}"
    source.write_bytes(b"neither zip nor tar" * 100)
    with pytest.raises(UserError, match=rf"a\.{kind}: cannot be read"):
        _unpack(source, tmp_path / "out")


def test_unpack_finds_a_flipped_byte_in_a_zip(tmp_path: Path) -> None:
    source = _zip(tmp_path / "a.zip", "b.txt", b"B" * 100)
    source.write_bytes(source.read_bytes().replace(b"BBBB", b"BBCB", 1))
    with pytest.raises(UserError, match=r"a\.zip: cannot be read"):
        _unpack(source, tmp_path / "out")
