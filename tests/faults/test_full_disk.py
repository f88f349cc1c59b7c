"""A full disk in each phase: one line that names a file, nothing half done, then equal results."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from disk import full, small_disk
from fault_study import prepare, prepare_short
from same_results import assert_same_file, assert_same_files, tracked

from checkout import HERE, Checkout
from icmbench.utils.files import read_json

CHAIN = "chamain2021/hyperprior/reconstruction/mse"


@dataclass(frozen=True)
class Phase:
    """A verb with its settings, what Snakemake takes for done, and all else that it leaves."""

    verb: str
    settings: str
    output: str
    leaves: tuple[str, ...]


def _in_plan(verb: str, settings: str, output: str, *leaves: str) -> Phase:
    return Phase(verb, f"results/smoke/plan/{settings}.json", output, leaves)


PHASES = {
    "fetch": _in_plan("data", "data/photographs", "data/toy.manifest.json",
        "data/toy", "data/toy.files.sha256", "data/toy.dvc", "data/.icmbench"),
    "generate": _in_plan("data", "data/detection", "results/smoke/data/detection/manifest.json",
        "results/smoke/data/detection"),
    "anchors": _in_plan("code", "code/detection-test/classical/jpeg/quality-10",
        "results/smoke/encoded/detection-test/classical/jpeg/quality-10/decode.json",
        "results/smoke/encoded/detection-test/classical/jpeg/quality-10", "results/cache"),
    "train": _in_plan("train", f"train/{CHAIN}/rate1-seed0",
        f"results/smoke/runs/{CHAIN}/rate1-seed0/weights.pt",
        *(f"results/smoke/runs/{CHAIN}/rate1-seed0/{name}"
          for name in ("checkpoint.pt", "run.json", "metrics.jsonl"))),
    "encode": _in_plan("encode", f"code/photographs-test/{CHAIN}",
        f"results/smoke/encoded/photographs-test/{CHAIN}/encoded.json",
        f"results/smoke/encoded/photographs-test/{CHAIN}/*/encode*",
        f"results/smoke/encoded/photographs-test/{CHAIN}/*/bitstreams.zip"),
    "decode": _in_plan("decode", f"code/photographs-test/{CHAIN}",
        f"results/smoke/encoded/photographs-test/{CHAIN}/decoded.json",
        f"results/smoke/encoded/photographs-test/{CHAIN}/*/decode*"),
    "evaluate": _in_plan("evaluate", "evaluate/chamain2021/jpeg/faster-rcnn/baseline",
        "results/smoke/runs/chamain2021/jpeg/faster-rcnn/baseline/evaluated.json",
        "results/smoke/runs/chamain2021/jpeg/faster-rcnn/baseline"),
    "analyse": Phase("analyse", "results/smoke", "results/smoke/tables/claims_parts.csv",
        ("results/smoke/tables", "results/smoke/curves")),
    "report": Phase("report", "results/smoke", "results/smoke/report/index.html",
        ("results/smoke/report",)),
    "track": Phase("track", "results/smoke", "results/smoke/tracking.json",
        ("results/mlflow.db", "results/mlartifacts")),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A whole run on a disk of its own."""
    with small_disk(tmp_path_factory.mktemp("disk"), 500) as disk:
        checkout = prepare(disk, repository)
        checkout.run(*HERE)
        yield checkout


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("free", [0, 12_288])
@pytest.mark.parametrize("name", PHASES)
def test_a_phase_on_a_full_disk(whole: Checkout, tmp_path: Path, name: str, free: int) -> None:
    """With room for nothing, and for the first of its files."""
    phase, disk = PHASES[name], whole.folder
    runs = tracked(whole)
    kept = _set_aside(phase, whole, tmp_path / "kept")
    with full(disk, free):
        done = _verb(phase, whole)
    said = done.stderr
    assert "Traceback" not in said, said
    if name == "track" and done.returncode == 0:
        # MLflow fails no workflow: it warns, and tracking.json says that the import failed.
        assert read_json(disk / phase.output)["status"] == "failed"
        (disk / phase.output).unlink()
        said = said.replace("icmbench: warning: ", "icmbench: error: ")
    else:
        assert done.returncode == 1, said
    errors = [line for line in said.splitlines() if line.startswith("icmbench: error: ")]
    assert len(errors) == 1, said
    assert "No space left on device" in errors[0] or "disk is full" in errors[0], errors
    assert any(part in errors[0] for part in ("results/", " data:")), errors[0]
    assert not (disk / phase.output).exists()
    done = _verb(phase, whole)
    assert done.returncode == 0, done.stderr
    for path in kept:
        assert_same_file(disk / path, tmp_path / "kept" / path)
    assert tracked(whole) == runs


def _set_aside(phase: Phase, checkout: Checkout, place: Path) -> list[str]:
    """Move what a phase leaves to another place, and return which files can be compared."""
    kept = []
    found = [path for name in phase.leaves for path in checkout.folder.glob(name)]
    for source in (*found, checkout.folder / phase.output):
        target = place / source.relative_to(checkout.folder)
        if target.exists():
            continue  # moved with its folder
        target.parent.mkdir(parents=True, exist_ok=True)
        files = [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]
        kept += [str(path.relative_to(checkout.folder)) for path in files]
        shutil.move(source, target)
    # The cache has entries of other jobs, too; what MLflow holds is compared run by run.
    apart = ("results/cache", "results/ml", "results/smoke/tracking.json", "data/.icmbench")
    return [name for name in kept if not name.startswith(apart)]


def _verb(phase: Phase, checkout: Checkout) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "ICMBENCH_"))}
    env |= {"PYTHONPATH": str(checkout.folder / "workflow"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "icmbench", phase.verb, phase.settings],
        cwd=checkout.folder,
        env=env,
        capture_output=True,
        text=True,
    )


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_workflow_on_a_full_disk_goes_on_when_there_is_room(
    repository: Path, tmp_path: Path
) -> None:
    target = ("results/smoke/tables/bd.csv", *HERE)
    expected = prepare_short(tmp_path / "undisturbed", repository)
    expected.run(*target)
    found = prepare_short(tmp_path / "disturbed", repository)
    with small_disk(found.folder / "results", 20) as disk:
        with full(disk, 200_000):
            assert found.start(*target).wait() == 1
        assert "results/" in (line := _only_reason(found.said)), line
        found.run(*target)
        assert_same_files(found, expected)


def _only_reason(said: str) -> str:
    lines = [line for line in said.splitlines() if "No space left on device" in line]
    assert lines, said
    return next(line for line in lines if line.startswith("icmbench: error: "))
