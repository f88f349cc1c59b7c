from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toy_source import Toy

from icmbench.data import pointer
from icmbench.data.fetch import fetch
from icmbench.errors import UserError

ROOT = Path(__file__).parents[2]


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _dvc(folder: Path, *arguments: str) -> str:
    return _run(folder, sys.executable, "-m", "dvc", *arguments)


@pytest.fixture
def repository(toy: Toy) -> Path:
    """A Git repository with this one's DVC settings and the toy's data folder in it."""
    root = toy.data_dir.parent
    _run(root, "git", "init", "-q")
    shutil.copytree(
        ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "*.local")
    )
    shutil.copy(ROOT / ".dvcignore", root)
    # Not '/data/*': DVC then takes the whole of data/ for ignored and does not see the pointers.
    (root / ".gitignore").write_text("/data/?*\n!/data/*.dvc\n/.dvc/cache\n/.dvc/tmp\n")
    return root


def test_the_first_fetch_writes_the_pointer_dvc_would_write(toy: Toy, repository: Path) -> None:
    manifest = json.loads(toy.fetch().read_text())
    assert pointer.read_md5(toy.data_dir / "toy.dvc") == manifest["dvc_md5"]
    # Nothing was copied into DVC's cache.
    assert not (repository / ".dvc" / "cache").exists()
    # Git sees the pointer and no data.
    listed = _run(repository, "git", "status", "--short", "-uall", "data").split()
    assert listed == ["??", "data/toy.dvc"]


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("opened", [False, True])
def test_a_pointer_that_a_kill_prevented_is_written_later(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, opened: bool
) -> None:
    def killed(*_: object) -> None:
        if opened:  # DVC writes it in place
            (toy.data_dir / "toy.dvc").touch()
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(pointer, "add", killed)
        with pytest.raises(SystemExit):
            toy.fetch()
    assert (toy.data_dir / "toy.dvc").exists() is opened
    manifest = json.loads(toy.fetch().read_text())
    assert pointer.read_md5(toy.data_dir / "toy.dvc") == manifest["dvc_md5"]


def test_a_pointer_to_other_data_is_an_error_and_stays(toy: Toy) -> None:
    text = f"outs:\n- md5: {'0' * 32}.dir\n  path: toy\n"
    toy.data_dir.mkdir()
    (toy.data_dir / "toy.dvc").write_text(text)
    with pytest.raises(UserError, match=rf"toy\.dvc: points to md5 {'0' * 32}\.dir, the data have"):
        toy.fetch()
    toy.assert_nothing()
    assert (toy.data_dir / "toy.dvc").read_text() == text


def test_a_pointer_changed_after_the_fetch_is_noticed(toy: Toy) -> None:
    toy.fetch()
    (toy.data_dir / "toy.dvc").write_text(f"outs:\n- md5: {'0' * 32}.dir\n  path: toy\n")
    with pytest.raises(UserError, match="points to md5"):
        toy.fetch()


def test_a_subset_gets_no_pointer(toy: Toy, repository: Path, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy", images=2)
    toy.fetch(tmp_path / "mirror")
    assert not (toy.data_dir / "toy.dvc").exists()


def test_a_broken_pointer_is_named(toy: Toy) -> None:
    toy.data_dir.mkdir()
    (toy.data_dir / "toy.dvc").write_text("outs: []\n")
    with pytest.raises(UserError, match=r"toy\.dvc: outs\[0\]\.md5"):
        toy.fetch()


def test_the_dvc_remote_comes_first(toy: Toy, repository: Path, tmp_path: Path) -> None:
    toy.fetch()
    _dvc(repository, "remote", "add", "-q", "--default", "store", str(tmp_path / "store"))
    _dvc(repository, "commit", "-q", "data/toy.dvc")
    _dvc(repository, "push", "-q", "data/toy.dvc")
    assert "up to date" in _dvc(repository, "status", "data/toy.dvc")
    text = (toy.data_dir / "toy.dvc").read_text()

    def forget() -> None:
        for path in (repository / ".dvc" / "cache", toy.folder, toy.data_dir / ".icmbench"):
            shutil.rmtree(path, ignore_errors=True)
        toy.manifest.unlink(missing_ok=True)
        toy.server.requests.clear()

    forget()
    manifest = json.loads(toy.fetch().read_text())
    assert manifest["source"] == "dvc" and toy.server.requests == []
    toy.assert_whole()
    assert (toy.data_dir / "toy.dvc").read_text() == text

    # A pull that was killed half-way: the marker tells, and the half folder goes.
    forget()
    toy.write_unpacked(toy.folder, images=1)
    (toy.data_dir / ".icmbench").mkdir()
    (toy.data_dir / ".icmbench" / "toy.pulling").touch()
    assert json.loads(toy.fetch().read_text())["source"] == "dvc"
    toy.assert_whole()

    # A remote that lost the data: the address is next.
    forget()
    shutil.rmtree(tmp_path / "store")
    assert json.loads(toy.fetch().read_text())["source"] == "address"
    toy.assert_whole()
    assert (toy.data_dir / "toy.dvc").read_text() == text


def test_outside_a_dvc_repository_nothing_is_asked_of_dvc(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("dvc was called")

    monkeypatch.setattr(pointer, "_dvc", never)
    fetch("toy", data_dir=toy.data_dir, mirror=None, catalogue=toy.catalogue)
    toy.assert_whole()
