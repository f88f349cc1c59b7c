from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toy_source import Toy

from icmbench.data import pointer
from icmbench.errors import UserError

ROOT = Path(__file__).parents[2]


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _dvc(folder: Path, *arguments: str) -> None:
    _run(folder, sys.executable, "-m", "dvc", *arguments)


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


def _pointer_to_other_data(toy: Toy) -> Path:
    path = toy.data_dir / "toy.dvc"
    path.write_text(f"outs:\n- md5: {'0' * 32}.dir\n  path: toy\n")
    return path


def test_first_fetch_writes_the_pointer_that_dvc_would(toy: Toy, repository: Path) -> None:
    manifest = json.loads(toy.fetch().read_text())
    path = toy.data_dir / "toy.dvc"
    text = path.read_text()
    assert pointer.read_md5(path) == manifest["dvc_md5"]
    # Git sees the pointer and no data.
    listed = _run(repository, "git", "status", "--short", "-uall", "data").split()
    assert listed == ["??", "data/toy.dvc"]
    path.unlink()
    _dvc(repository, "add", "-q", "--no-commit", "data/toy")
    assert path.read_text() == text


@pytest.mark.usefixtures("repository")
def test_fetch_writes_a_pointer_that_a_kill_prevented(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(pointer, "write", killed)
        with pytest.raises(SystemExit):
            toy.fetch()
    assert not (toy.data_dir / "toy.dvc").exists()
    manifest = json.loads(toy.fetch().read_text())
    assert pointer.read_md5(toy.data_dir / "toy.dvc") == manifest["dvc_md5"]


def test_fetch_refuses_data_that_differ_from_the_pointer(toy: Toy) -> None:
    toy.data_dir.mkdir()
    path = _pointer_to_other_data(toy)
    text = path.read_text()
    with pytest.raises(UserError, match=rf"toy\.dvc: checksum mismatch.*{'0' * 32}\.dir"):
        toy.fetch()
    toy.assert_nothing()
    assert path.read_text() == text
    path.unlink()
    toy.fetch()
    _pointer_to_other_data(toy)
    with pytest.raises(UserError, match=r"toy\.dvc: checksum mismatch"):
        toy.fetch()


@pytest.mark.usefixtures("repository")
def test_fetch_writes_no_pointer_of_a_subset(toy: Toy, tmp_path: Path) -> None:
    toy.write_unpacked(tmp_path / "mirror" / "toy", images=2)
    toy.fetch(tmp_path / "mirror")
    assert not (toy.data_dir / "toy.dvc").exists()


def test_fetch_names_a_damaged_pointer(toy: Toy) -> None:
    toy.data_dir.mkdir()
    (toy.data_dir / "toy.dvc").write_text("outs: []\n")
    with pytest.raises(UserError, match=r"toy\.dvc: .*outs\[0\]\.md5"):
        toy.fetch()


def test_fetch_takes_the_dvc_remote_first(toy: Toy, repository: Path, tmp_path: Path) -> None:
    toy.fetch()
    _dvc(repository, "remote", "add", "-q", "--default", "store", str(tmp_path / "store"))
    _dvc(repository, "commit", "-q", "data/toy.dvc")
    _dvc(repository, "push", "-q", "data/toy.dvc")
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
    # A remote that lost the data: the address is next.
    forget()
    shutil.rmtree(tmp_path / "store")
    assert json.loads(toy.fetch().read_text())["source"] == "archives"
    toy.assert_whole()
    assert (toy.data_dir / "toy.dvc").read_text() == text


def test_fetch_without_dvc_takes_the_next_source(
    toy: Toy, repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    toy.fetch()
    shutil.rmtree(toy.folder)
    toy.manifest.unlink()
    monkeypatch.setitem(sys.modules, "dvc.api", None)
    with caplog.at_level("INFO"):
        assert json.loads(toy.fetch().read_text())["source"] == "archives"
    toy.assert_whole()
    assert "pip install dvc" in caplog.text
