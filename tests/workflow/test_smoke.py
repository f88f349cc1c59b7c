"""The whole workflow at scale smoke, from nothing to report and MLflow, and then again."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from checkout import HERE, copy_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

BIN = Path(sys.executable).parent
# zhu2024 has a test of its own below, for the part of it that differs from the others. Variants
# that do not lead run in test_all_variants.py.
STUDIES = ["studies=[chamain2021,classical]"]


def snakemake(
    folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "ICMBENCH_"))}
    # As if the environment were not activated: the workflow must find its own Python.
    env["PATH"] = os.pathsep.join(p for p in env["PATH"].split(os.pathsep) if Path(p) != BIN)
    return subprocess.run(
        [str(BIN / "snakemake"), *HERE, "--config", "scale=smoke", *STUDIES, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**env, **environment},
    )


@pytest.fixture(scope="module")
def run(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workflow's own files, run once."""
    folder = tmp_path_factory.mktemp("workflow")
    copy_files(repository, folder)
    done = snakemake(folder)
    assert done.returncode == 0, done.stderr[-6000:]
    (folder / "terminal.log").write_text(done.stdout + done.stderr)
    return folder


def test_smoke_run_prints_little_and_ends_with_its_report(run: Path) -> None:
    lines = (run / "terminal.log").read_text().splitlines()
    assert len(lines) < 60
    assert lines[-1].endswith("results/smoke/report/index.html")


def test_smoke_run_is_complete(run: Path) -> None:
    root = run / "results" / "smoke"
    records = pd.read_parquet(root / "tables/records.parquet")
    counts = records.groupby(["study", "variant", "rate_index"]).size()
    photographs = counts.index.get_level_values("variant").str.endswith("/photographs")
    assert (counts[~photographs] == 12).all() and (counts[photographs] == 2).all()  # test images
    assert len(counts.loc["chamain2021"]) == 20 + 2 and len(counts.loc["classical"]) == 9 * 2
    coded = records[records["codec"] != "uncoded"]
    assert coded["roundtrip_ok"].all() and (coded["bits"] > 0).all()
    logs = list((root / "logs").rglob("*.log"))
    lasts = [log.read_text().splitlines()[-1] for log in logs]
    took = r"icmbench: took \d+\.\d s, \d+\.\d CPU s, \d+ MB"
    assert len(logs) > 50 and all(re.fullmatch(took, last) for last in lasts)
    assert coded["psnr_ycbcr"].notna().all()
    rows = list(csv.DictReader((root / "tables/curves.csv").open()))
    assert {row["variant"] for row in rows} == set(records["variant"])
    variants = {row["variant"] for row in csv.DictReader((root / "tables/bd.csv").open())}
    assert "hyperprior/faster-rcnn/j-ft" in variants
    curve = json.loads((root / "curves/chamain2021/hyperprior/faster-rcnn/j-ft.json").read_text())
    assert set(curve["results"]) >= {"bpp", "box-map", "psnr-rgb"}
    for name in (
        "chamain2021-rate-box_map",
        "chamain2021-rate-psnr",
        "classical-rate-psnr_ycbcr",
    ):
        for suffix in ("svg", "pdf", "png"):
            assert (root / f"report/figures/{name}.{suffix}").stat().st_size > 1000
    page = (root / "report/index.html").read_text()
    assert "chamain2021" in page and not re.search(r'(src|href)="https?://[^"]+\.(js|css)', page)


def test_smoke_rates_are_file_sizes(run: Path) -> None:
    import zipfile

    root = run / "results" / "smoke"
    records = pd.read_parquet(root / "tables/records.parquet")
    point = "chamain2021/hyperprior/faster-rcnn/j-ft/rate1-seed0"
    with zipfile.ZipFile(root / "encoded/detection-test" / point / "bitstreams.zip") as archive:
        sizes = {
            name.removesuffix(".bin"): 8 * len(archive.read(name)) for name in archive.namelist()
        }
    own = records[
        (records["variant"] == "hyperprior/faster-rcnn/j-ft") & (records["rate_index"] == 1)
    ]
    assert dict(zip(own["image_id"], own["bits"], strict=True)) == sizes


def test_smoke_mlflow_has_every_operating_point(run: Path) -> None:
    assert json.loads((run / "results/smoke/tracking.json").read_text())["status"] == "done"
    program = f"""
import mlflow
client = mlflow.MlflowClient("sqlite:///{run}/results/mlflow.db")
experiments = [e.experiment_id for e in client.search_experiments() if "chamain2021" in e.name]
runs = client.search_runs(experiments, max_results=1000)
print(sum("rate_index" in r.data.tags and "box_map" in r.data.metrics for r in runs))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(done.stdout.split()[-1]) >= 17, done.stderr[-2000:]


def test_smoke_second_run_has_nothing_to_do(run: Path) -> None:
    began = time.monotonic()
    done = snakemake(run)
    seconds = time.monotonic() - began
    assert done.returncode == 0 and "Nothing to be done" in done.stderr, done.stderr[-2000:]
    assert seconds < 30  # 5 s on an idle machine, see docs/dev/measured.md


def test_smoke_snakemake_report(run: Path) -> None:
    done = snakemake(run, "--report", "report.html")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (run / "report.html").stat().st_size > 100_000


def test_smoke_deleted_weights_are_restored_without_training(run: Path) -> None:
    point = run / "results/smoke/runs/chamain2021/hyperprior/faster-rcnn/j-ft/rate0-seed0"
    weights, started = point / "weights.pt", json.loads((point / "run.json").read_text())["started"]
    content = weights.read_bytes()
    weights.unlink()
    done = snakemake(run, "--", str(weights.relative_to(run)))
    assert done.returncode == 0, done.stderr[-3000:]
    assert weights.read_bytes() == content
    assert json.loads((point / "run.json").read_text())["started"] == started


def test_smoke_wrong_setting_stops_before_any_job(run: Path) -> None:
    done = snakemake(run, "--config", "scale=smoke", "seeds=[x]", "--dry-run")
    assert done.returncode != 0
    assert "key 'seeds.0'" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_smoke_ignores_a_dead_tracking_server(run: Path) -> None:
    state = run / "results/smoke/tracking.json"
    state.unlink()
    done = snakemake(run, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(state.read_text())["status"] == "failed"


# The images have 128 pixels a side; MS-SSIM, which needs torch, is defined from 161 on.
TORCH_FREE = [
    ("data", "plan/data/detection.json"),
    ("code", "plan/code/detection-test/classical/x265-444.json"),
    ("code", "plan/code/detection-test/classical/vvenc-ffmpeg-420.json"),
    ("analyse", "plan.json"),
    ("report", "plan.json"),
]


@pytest.mark.parametrize(("verb", "argument"), TORCH_FREE)
def test_smoke_jobs_without_networks_do_not_import_torch(
    run: Path, verb: str, argument: str
) -> None:
    program = f"""
import sys
sys.modules["torch"] = None  # importing it raises
from icmbench.cli import main
sys.exit(main([{verb!r}, "results/smoke/{argument}"]))
"""
    shutil.rmtree(run / "results/cache", ignore_errors=True)  # so that coding really runs
    done = subprocess.run([sys.executable, "-c", program], cwd=run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_smoke_zhu2024_trains_codes_and_evaluates_the_method(run: Path) -> None:
    """One bitstream for people and machines, also for the ablation.

    This test must be the last: it replaces the plan that the others read.
    """
    curves = ("adapted-mask-rcnn/joint", "mask-rcnn/without-adaptation",
              "reconstruction/photographs")  # fmt: skip
    targets = [f"results/smoke/runs/zhu2024/ours/{name}/evaluated.json" for name in curves]
    done = snakemake(run, "studies=[zhu2024]", "--", *targets)
    assert done.returncode == 0, done.stderr[-4000:]
    root = run / "results/smoke/runs/zhu2024/ours"
    frames = [
        pd.read_parquet(root / name / "rate1-seed0/records.parquet")[["image_id", "bits", "psnr"]]
        for name in curves[:2]
    ]
    pd.testing.assert_frame_equal(*frames)
    result = json.loads((root / curves[0] / "rate1-seed0/evaluate.json").read_text())
    assert {"box_map", "mask_map", "psnr"} <= set(result["metrics"])
    # Mask R-CNN, the base codec's chain and the one it starts from, the method at two rates; what
    # they need of the other study existed.
    assert re.search(r"(?m)^train +6$", done.stderr)
