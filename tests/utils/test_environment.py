"""Beside results: the commit or why it is not known, changes to it without secrets, packages."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from icmbench.utils import environment
from icmbench.utils.environment import describe_environment


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def describe() -> environment.Environment:
    return environment._describe.__wrapped__(None)


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


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout with one commit, which the package seems to be in."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "code.py").write_text("steps = 1\n")
    (folder / "prod.env").write_text("A=1\n")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "m"],
    ):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    monkeypatch.setattr(environment, "__file__", str(folder / "environment.py"))
    environment._describe.cache_clear()
    yield folder
    environment._describe.cache_clear()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The folder of a job in a results folder."""
    (tmp_path / "results/mini/runs/a").mkdir(parents=True)
    (tmp_path / "results/mini/plan.json").write_text("{}")
    return tmp_path / "results/mini/runs/a"


def sources(output: Path) -> str:
    environment._describe.cache_clear()
    return (output.parents[1] / describe_environment(output)["sources"]).read_text()


def test_sources_can_be_applied_to_the_commit(checkout: Path, output: Path, tmp_path: Path) -> None:
    (checkout / "code.py").write_text("steps = 2\n")
    text = sources(output)
    found = describe_environment(output)
    assert found["git_dirty"] and found["git_commit"] in text and "numpy==" in text
    git = ["git", "-C", str(checkout)]
    subprocess.run([*git, "checkout", "-q", "."], check=True)
    subprocess.run([*git, "apply"], input=text, text=True, check=True)
    assert (checkout / "code.py").read_text() == "steps = 2\n"


def test_sources_are_written_once(checkout: Path, output: Path) -> None:
    sources(output)
    sources(output.with_name("b"))
    (checkout / "code.py").write_text("steps = 2\n")
    sources(output)
    assert len(list(output.parents[1].glob("provenance/*"))) == 2


def test_sources_hide_secrets(
    checkout: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "canary-one")
    (checkout / "code.py").write_text(
        "a = 'canary-one'\npassword: canary-two\nurl = 'http://me:canary-three@host/'\n"
    )
    (checkout / "prod.env").write_text("A=canary-four\n")
    text = sources(output)
    assert "canary" not in text and "+password:" in text and "M prod.env" in text


def test_sources_are_bounded(checkout: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_LONGEST", 1000)
    (checkout / "code.py").write_text("x\n" * 100_000)
    _, _, diff = sources(output).partition("# Changes")
    assert len(diff) < 1200 and "1000 of" in diff


def test_job_outside_a_results_folder_leaves_nothing(checkout: Path, tmp_path: Path) -> None:
    assert "sources" not in describe_environment(tmp_path / "alone")
    assert {path.name for path in tmp_path.iterdir()} == {"checkout"}
