"""The wheel: what it carries, and a run from it in a folder without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from icmbench.utils.files import read_json, write_json

CLASSICAL = ("scale=smoke", "studies=[classical]", "classical_codecs=[jpeg]")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's packages, in a folder that comes before the packages of this environment."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


def call(folder: Path, python: Path, *arguments: str, **more: str) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ICMBENCH_", "MLFLOW_"))}
    env.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(python), "-m", *arguments], cwd=folder, capture_output=True, text=True, env=env | more
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def run_tools(folder: Path, python: Path, **more: str) -> None:
    """Use the verbs that need no workflow, from an empty folder."""
    planned = call(folder, python, "icmbench", "plan", "--config", "scale=smoke", **more)
    assert "results/smoke/plan.json" in planned
    mini = ("plan", "--config", "studies=[chamain2021]")  # starts from weights of the zoo
    assert "results/mini/plan.json" in call(folder, python, "icmbench", *mini, **more)
    assert "jpegxl" in call(folder, python, "icmbench", "codecs", **more)
    call(folder, python, "icmbench", "fetch", "photographs", **more)
    assert len(list((folder / "data/photographs/coco").glob("*.jpg"))) > 60
    Image.new("RGB", (32, 32), "red").save(folder / "1.png")
    assert '"psnr-rgb"' in call(folder, python, "icmbench", "rd", "jpeg", ".", "30", **more)


def run_workflow(folder: Path, python: Path, **more: str) -> Path:
    """Run one classical codec, from nothing to the report; return the Snakefile."""
    snakefile = call(folder, python, "icmbench", "snakefile", **more).strip()
    options = ("--cores", "1", "--max-jobs-per-timespan", "100/1s", "--config", *CLASSICAL)
    said = call(folder, python, "snakemake", "--snakefile", snakefile, *options, **more)
    root = folder / "results/smoke"
    assert str(root.relative_to(folder) / "report/index.html") in said.splitlines()[-1]
    assert len(list(root.glob("report/figures/**/*.pdf"))) > 0
    return Path(snakefile)


def run_eval(folder: Path, python: Path, **more: str) -> None:
    """Compare two codecs on an image, in one command."""
    codecs = ("--codec", "jpeg=30,60,80", "--codec", "webp=30,60,80", "--anchor", "jpeg")
    images = ("--images", str(folder / "images"), "--output", str(folder / "mine"))
    (folder / "images").mkdir()
    Image.effect_mandelbrot((64, 64), (-2.0, -1.5, 1.0, 1.5), 50).convert("RGB").save(
        folder / "images/1.png"
    )
    said = call(folder, python, "icmbench", "eval", *images, *codecs, **more)
    assert "BD-rate" in said
    assert len((folder / "mine/own/tables/curves.csv").read_text().splitlines()) > 6


def test_wheel_carries_every_file_of_the_workflow(wheel: Path, repository: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "workflow", "Snakefile", "config.yaml", "data/[cp]*"],
        cwd=repository, capture_output=True, text=True, check=True,
    )  # fmt: skip
    with zipfile.ZipFile(wheel) as packed:
        held = {packed.read(name) for name in packed.namelist()}
    tracked = [repository / name for name in listed.stdout.splitlines()]
    assert len(tracked) > 200
    assert [path for path in tracked if path.is_file() and path.read_bytes() not in held] == []


@pytest.mark.slow
def test_wheel_runs_from_an_empty_folder(site: Path, tmp_path: Path) -> None:
    # A repository of the user's around the package is not that of icmbench.
    subprocess.run(["git", "init", "-q"], cwd=site, check=True)
    origin = {"url": "http://example.org/", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}
    write_json(next(site.glob("icmbench-*.dist-info")) / "direct_url.json", origin)
    python = Path(sys.executable)
    run_tools(tmp_path, python, PYTHONPATH=str(site))
    run_eval(tmp_path, python, PYTHONPATH=str(site))
    snakefile = run_workflow(tmp_path, python, PYTHONPATH=str(site))
    assert snakefile == site / "icmbench/shipped/Snakefile"
    evaluated = next((tmp_path / "results/smoke").glob("runs/**/evaluate.json"))
    environment = read_json(evaluated)["environment"]
    assert environment["git_commit"] == "c0ffee" and "git_problem" not in environment


@pytest.mark.install
@pytest.mark.timeout(3600)
def test_wheel_installs_with_all_it_needs(wheel: Path, repository: Path, tmp_path: Path) -> None:
    """Without extras, beside no checkout: MLflow is left out with one line."""
    uv = shutil.which("uv", path=os.pathsep.join([os.environ["PATH"], str(repository / ".uv/bin")]))
    if uv is None:
        pytest.skip("uv is neither on PATH nor in .uv/bin")
    version = ".".join(map(str, sys.version_info[:2]))
    subprocess.run([uv, "venv", "-q", "--python", version, "venv"], cwd=tmp_path, check=True)
    python = tmp_path / "venv/bin/python"
    install = [uv, "pip", "install", "-q", "--python", str(python), str(wheel)]
    subprocess.run(install, check=True)
    (tmp_path / "empty").mkdir()
    run_tools(tmp_path / "empty", python)
    run_eval(tmp_path / "empty", python)
    assert run_workflow(tmp_path / "empty", python).is_relative_to(tmp_path / "venv")
    tracked = read_json(tmp_path / "empty/results/smoke/tracking.json")
    assert tracked["status"] == "failed" and "pip install mlflow" in tracked["problems"][0]
