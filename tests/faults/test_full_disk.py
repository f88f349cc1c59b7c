"""A full disk in each step: one line names a file, nothing half written remains, and a repetition
gives equal results.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk import full, small_disk
from fault_study import prepare, prepare_short
from same_results import assert_same_file, assert_same_files, tracked

from checkout import HERE, Checkout
from icmbench.utils.files import read_json

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3600)]
ROOT = "results/smoke"
CHAIN = "chamain2021/hyperprior/reconstruction/mse"
TRAINED = f"{ROOT}/runs/{CHAIN}/rate1-seed0"
CODED = f"{ROOT}/encoded/photographs-test/{CHAIN}"
HEVC = f"{ROOT}/encoded/detection-test/classical/x265-444"
EVALUATED = f"{ROOT}/runs/chamain2021/hevc/faster-rcnn/baseline"

#: Verb, its argument, its output for Snakemake, and patterns of everything else that it writes.
STEPS = {
    "fetch": ("data", f"{ROOT}/plan/data/photographs.json", "data/toy.manifest.json",
              ("data/toy", "data/toy.files.sha256", "data/toy.dvc", "data/.icmbench")),
    "generate": ("data", f"{ROOT}/plan/data/detection.json",
                 f"{ROOT}/data/detection/manifest.json", (f"{ROOT}/data/detection",)),
    "classical": ("code", f"{ROOT}/plan/code/detection-test/classical/x265-444.json",
                  f"{HEVC}/decoded.json", (HEVC, "results/cache")),
    "train": ("train", f"{ROOT}/plan/train/{CHAIN}/rate1-seed0.json", f"{TRAINED}/weights.pt",
              tuple(f"{TRAINED}/{x}" for x in ("checkpoint.pt", "run.json", "metrics.jsonl"))),
    "encode": ("encode", f"{ROOT}/plan/code/photographs-test/{CHAIN}.json",
               f"{CODED}/encoded.json", (f"{CODED}/*/encode*", f"{CODED}/*/bitstreams.zip")),
    "decode": ("decode", f"{ROOT}/plan/code/photographs-test/{CHAIN}.json",
               f"{CODED}/decoded.json", (f"{CODED}/*/decode*",)),
    "evaluate": ("evaluate", f"{ROOT}/plan/evaluate/chamain2021/hevc/faster-rcnn/baseline.json",
                 f"{EVALUATED}/evaluated.json", (EVALUATED,)),
    "analyse": ("analyse", ROOT, f"{ROOT}/tables/claims_parts.csv",
                (f"{ROOT}/tables", f"{ROOT}/curves")),
    "report": ("report", ROOT, f"{ROOT}/report/index.html", (f"{ROOT}/report",)),
    "track": ("track", ROOT, f"{ROOT}/tracking.json", ("results/mlflow.db", "results/mlartifacts")),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A complete run on a disk of its own."""
    with small_disk(tmp_path_factory.mktemp("disk"), 500) as disk:
        checkout = prepare(disk, repository)
        checkout.run(*HERE)
        yield checkout


@pytest.mark.parametrize("free", [0, 12_288])
@pytest.mark.parametrize("name", STEPS)
def test_step_on_a_full_disk_can_be_repeated(
    whole: Checkout, tmp_path: Path, name: str, free: int
) -> None:
    """With space for nothing, and for the first of its files."""
    verb, argument, output, patterns = STEPS[name]
    disk, runs = whole.folder, tracked(whole)
    kept = move_away(disk, (*patterns, output), tmp_path / "kept")
    with full(disk, free):
        done = run_verb(whole, verb, argument)
    assert "Traceback" not in done.stderr, done.stderr
    if name == "track" and done.returncode == 0:
        # A failed import does not fail a workflow: tracking.json records it.
        assert read_json(disk / output)["status"] == "failed"
        (disk / output).unlink()
    else:
        assert done.returncode == 1, done.stderr
        (line,) = (x for x in done.stderr.splitlines() if x.startswith("icmbench: error: "))
        assert "No space left on device" in line or "disk is full" in line, line
        assert any(part in line for part in ("results/", " data:")), line
    assert not (disk / output).exists()
    done = run_verb(whole, verb, argument)
    assert done.returncode == 0, done.stderr
    for path in kept:
        assert_same_file(disk / path, tmp_path / "kept" / path)
    assert tracked(whole) == runs


def move_away(folder: Path, patterns: tuple[str, ...], place: Path) -> list[str]:
    """Move files and folders to another place, and return the files that can be compared."""
    for source in [path for pattern in patterns for path in folder.glob(pattern)]:
        if source.exists():  # not moved with its folder
            target = place / source.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, target)
    # The cache has entries of other jobs too; MLflow's content is compared run by run.
    apart = ("results/cache", "results/ml", "results/smoke/tracking.json", "data/.icmbench")
    names = [str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()]
    return [name for name in names if not name.startswith(apart)]


def run_verb(checkout: Checkout, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "ICMBENCH_"))}
    env |= {"PYTHONPATH": str(checkout.folder / "workflow"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "icmbench", *arguments]
    return subprocess.run(command, cwd=checkout.folder, env=env, capture_output=True, text=True)


def test_workflow_resumes_after_a_full_disk(repository: Path, tmp_path: Path) -> None:
    target = ("results/smoke/tables/bd.csv", *HERE)
    expected = prepare_short(tmp_path / "undisturbed", repository)
    expected.run(*target)
    found = prepare_short(tmp_path / "disturbed", repository)
    with small_disk(found.folder / "results", 20) as disk:
        with full(disk, 200_000):
            assert found.start(*target).wait() == 1
        lines = [line for line in found.said.splitlines() if "No space left on device" in line]
        assert any("icmbench: error: " in line and "results/" in line for line in lines)
        found.run(*target)
        assert_same_files(found, expected)
