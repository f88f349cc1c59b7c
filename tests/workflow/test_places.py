"""Snakemake in folders with odd names, from other folders, and for users without a name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import Checkout, add_fetched_data
from icmbench.utils.files import read_json

BIN = Path(sys.executable).parent
ODD = "ein 'Ort' \"für\" 50% & #1"
TINY = ("scale=smoke", "studies=classical", "classical_codecs=jpeg")
NAMELESS = ("unshare", "--user", "--map-user=12345", "--map-group=12345")


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    folder = tmp_path / ODD
    folder.mkdir()
    return folder


def call(cwd: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("LOGNAME", "USER", "XDG_CACHE_HOME")}
    kept |= {"XDG_CACHE_HOME": str(cwd), **env}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=kept)


def dry_run(cwd: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return call(cwd, str(BIN / "snakemake"), "--dry-run", "--cores", "1", *arguments, **env)


def planned(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in root.rglob("*.json")}


@pytest.mark.parametrize("kind", ["snakefile", "directory", "configfile"])
def test_snakemake_starts_in_another_directory(repository: Path, odd: Path, kind: str) -> None:
    """The plan of a run is below the working directory, and only there."""
    command = ["--snakefile", str(repository / "Snakefile"), "--config", *TINY]
    start = odd
    if kind == "directory":
        start = odd.parent
        command += ["results=ré s'ults #2", "--directory", ODD]
    if kind == "configfile":
        (odd / "meine ä.yaml").write_text('results: "ré s\'ults #2"\nseeds: 7\n')
        command += ["--configfile", "meine ä.yaml"]
    done = dry_run(start, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    results = "results" if kind == "snakefile" else "ré s'ults #2"
    plan = planned(odd / results / "smoke")
    assert len(plan) == 4  # the plan, and one job each of data, code and evaluate
    assert ("seed7" in plan["plan.json"]) == (kind == "configfile")


def test_plan_checks_what_snakemake_runs(repository: Path, tmp_path: Path) -> None:
    """The file has no ``studies``: both take those of config.yaml."""
    options = ["--configfile", "mine.yaml", "--config", "scale=smoke", "tracking={mlflow: false}"]
    found = []
    for name in ("verb", "snakemake"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "mine.yaml").write_text("seeds: [3, 4]\nclassical_codecs: [jpeg, x265-444]\n")
        if name == "verb":
            done = call(folder, sys.executable, "-m", "icmbench", "plan", *options)
        else:
            done = dry_run(folder, "-s", str(repository / "Snakefile"), *options)
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(planned(folder / "results/smoke"))
    assert found[0] == found[1] and len(found[0]) > 100
    assert '"mlflow": false' in found[0]["plan.json"] and "seed4" in found[0]["plan.json"]


def test_snakemake_shows_the_right_spelling_of_a_dotted_key(
    repository: Path, tmp_path: Path
) -> None:
    snakefile = str(repository / "Snakefile")
    done = dry_run(tmp_path, "-s", snakefile, "--config", "tracking.mlflow=false")
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "'tracking={mlflow: false}'" in said
    assert "Traceback" not in said


def test_dry_run_counts_the_jobs(repository: Path, tmp_path: Path) -> None:
    command = ["-s", str(repository / "Snakefile"), "--config", "scale=smoke"]
    short = dry_run(tmp_path, *command)
    said = short.stdout + short.stderr
    assert short.returncode == 0, said
    assert len(said.splitlines()) < 60 and "code_classical" in said
    each = dry_run(tmp_path, "--printshellcmds", *command)
    assert len((each.stdout + each.stderr).splitlines()) > 500


needs_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*NAMELESS, "true"]).returncode != 0,
    reason="needs user namespaces",
)


@needs_namespaces
def test_user_without_a_name_or_a_home(repository: Path, odd: Path) -> None:
    command = [*NAMELESS, str(BIN / "snakemake"), "-n", "-s", str(repository / "Snakefile")]
    command += ["--config", *TINY]
    home = odd / "home"
    home.mkdir(mode=0o555)
    done = call(odd, *command, HOME=str(home))
    assert done.returncode == 0, done.stdout + done.stderr
    failed = call(odd, *command, HOME=str(home), XDG_CACHE_HOME=str(home / "cache"))
    said = failed.stdout + failed.stderr
    assert failed.returncode == 1 and "set XDG_CACHE_HOME" in said and "Traceback" not in said


@needs_namespaces
@pytest.mark.slow
def test_run_in_an_odd_place_by_a_user_without_a_name(repository: Path, odd: Path) -> None:
    """Checkout, results and fetched data have odd names; git refuses the checkout."""
    checkout = Checkout(odd / "Ärger 'x'", repository, TINY)
    add_fetched_data(checkout, repository)
    (checkout.folder / "data").rename(checkout.folder / "d'a ä")
    home = odd / "home"
    home.mkdir(mode=0o555)
    options = ["--config", *TINY, "results=ré s'ults #2", 'data={directory: "d\'a ä"}']
    done = call(
        checkout.folder,
        *(*NAMELESS, str(BIN / "snakemake"), "--cores", "1", "--max-jobs-per-timespan", "100/1s"),
        *options,
        HOME=str(home),
        PYTHONPATH=str(checkout.folder / "workflow"),
        GIT_TEST_ASSUME_DIFFERENT_OWNER="1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    root = checkout.folder / "ré s'ults #2/smoke"
    assert (root / "report/index.html").is_file() and len(list(root.glob("runs/**/records.*"))) > 1
    assert read_json(root / "tracking.json")["status"] == "done"
    assert (checkout.folder / "d'a ä/toy.dvc").is_file()
    evaluations = [read_json(path) for path in root.glob("runs/**/evaluate.json")]
    assert all("dubious" in one["environment"]["git_problem"] for one in evaluations)


def test_make_commands_are_valid_in_an_odd_folder(repository: Path, odd: Path) -> None:
    shutil.copy(repository / "Makefile", odd)
    for name in ("uv.lock", "pyproject.toml"):
        (odd / name).touch()
    for target in ("ui", "report", "smoke", "lock"):
        commands = call(odd, "make", "-n", target).stdout
        assert commands and call(odd, "sh", "-n", "-c", commands).returncode == 0, commands
