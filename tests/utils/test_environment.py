"""The commit that a result is of, or why it is not known."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from icmbench.utils import environment


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def describe() -> environment.Environment:
    return environment.describe_environment.__wrapped__()


def test_environment_without_a_repository(here: Path) -> None:
    found = describe()
    assert found["git_commit"] is None and found["git_dirty"] is None
    assert "git_problem" not in found


def test_environment_says_that_git_refused_and_why(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (["init", "-q"], [*names, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *command], cwd=here, check=True)
    found = describe()
    assert found["git_dirty"] is False and len(found["git_commit"] or "") == 40
    assert "git_problem" not in found
    (here / "new").touch()
    assert describe()["git_dirty"] is True
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    found = describe()
    assert found["git_commit"] is None and found["git_dirty"] is None
    assert "dubious ownership" in found["git_problem"]


def test_environment_without_git(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    assert "git" in describe()["git_problem"]
