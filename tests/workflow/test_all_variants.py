"""All variants of three studies at scale smoke, in one process, which imports torch once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

# Training runs in the order of their weights, then coding, decoding and evaluation of curves.
DRIVER = """
from icmbench.cli import main
from icmbench.config.job_settings import classical_curves, encode_curves, write_files
from icmbench.config.plan import Point, load_plan

def run(*arguments):
    assert main(list(map(str, arguments))) == 0, arguments

studies = ["chamain2021", "tang2025", "zhang2022"]
plan = load_plan("config.yaml", {"scale": "smoke", "studies": studies, "variants": "all"})
write_files(plan)
for role in plan.roles:
    run("data", plan.job_path("data", role))
done = set()
def train(point):
    if point in done:
        return
    done.add(point)
    for part in ("codec", "task"):
        place = plan.initial_weights(point, part).place
        if isinstance(place, Point):
            train(place)
    run("train", plan.job_path("train", point.key))
for curve in classical_curves(plan):
    run("code", plan.job_path("code", curve))
for point in plan.trained:
    train(point)
for curve in encode_curves(plan):
    run("encode", plan.job_path("code", curve))
    run("decode", plan.job_path("code", curve))
for curve in plan.evaluation_curves:
    run("evaluate", plan.job_path("evaluate", curve))
for verb in ("analyse", "report"):
    run(verb, plan.root)
"""


@pytest.fixture(scope="module")
def results(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    shutil.copy(repository / "config.yaml", folder)
    shutil.copytree(repository / "data", folder / "data", ignore=shutil.ignore_patterns("*.zip"))
    call = [sys.executable, "-c", DRIVER]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder / "results/smoke"


@pytest.fixture(scope="module")
def records(results: Path) -> pd.DataFrame:
    return pd.read_parquet(results / "tables/records.parquet")


@pytest.mark.slow
def test_all_variants_are_measured(results: Path) -> None:
    curves = pd.read_csv(results / "tables/curves.csv")
    plan = json.loads((results / "plan.json").read_text())
    wanted = {(p["study"], p["variant"]) for p in plan["points"] if p["evaluated"]}
    assert set(zip(curves["study"], curves["variant"], strict=True)) == wanted
    named = curves.set_index("variant")["metric"].groupby("variant").agg(set)
    assert {"top1", "top5"} <= named["dicm/feature-probe/proposed"]
    assert {"box_map", "mask_map"} <= named["dicm/feature-mask-rcnn/proposed"]
    both = {"attribute_accuracy", "majority_accuracy", "miou", "fwiou", "pixel_accuracy"}
    assert both <= named["layered/face-analysis/separate"]
    assert not named["layered/face-analysis/separate"] & {"psnr", "ms_ssim"}  # no pixels decoded
    assert "psnr" in named["layered/reconstruction/adversarial"]


@pytest.mark.slow
def test_feature_studies_decode_what_was_encoded(records: pd.DataFrame) -> None:
    coded = records[records["codec"].str.startswith(("dicm", "layered"))]
    assert len(coded) > 100 and coded["roundtrip_ok"].all()
    assert (coded["bits"] % 8 == 0).all() and coded["bits_estimated"].notna().all()


@pytest.mark.slow
def test_feature_studies_share_one_bitstream(records: pd.DataFrame) -> None:
    columns = ["rate_index", "image_id"]
    tables = [
        records[records["variant"] == name].set_index(columns)["bits"].sort_index()
        for name in (
            "dicm/feature-probe/proposed",
            "dicm/feature-faster-rcnn/proposed",
            "dicm/feature-mask-rcnn/proposed",
        )
    ]
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])


@pytest.mark.slow
def test_feature_studies_first_layer_costs_less(records: pd.DataFrame) -> None:
    means = records.groupby("variant")["bits"].mean()
    first = means["layered-first/face-analysis/separate"]
    assert first < means["layered/face-analysis/separate"]
    # Features are timed without pixels, pixels on top of them.
    layered = records[records["variant"] == "layered/reconstruction/adversarial"]
    assert (layered["reconstruct_s"] > 0).all() and (layered["decode_s"] > 0).all()


@pytest.mark.slow
def test_feature_studies_keep_latents(results: Path) -> None:
    folders = [path.parent for path in results.glob("encoded/**/latents.zip")]
    assert any("dicm" in str(folder) for folder in folders)
    for folder in folders:
        members = zipfile.ZipFile(folder / "latents.zip").namelist()
        assert members and all(name.endswith(".npz") for name in members)


@pytest.mark.slow
def test_feature_studies_record_complexity(results: Path) -> None:
    path = results / "runs/tang2025/dicm/feature-probe/proposed/rate0-seed0/evaluate.json"
    complexity = json.loads(path.read_text())["complexity"]
    assert complexity["parameters"]["codec"] > complexity["parameters"]["task"] > 0
    assert complexity["macs_per_pixel"]["decode"] > 0
    assert complexity["macs_per_pixel"]["reconstruct"] is None


@pytest.mark.slow
def test_noise_and_rounded_latents_train_different_codecs(results: Path) -> None:
    modes = ("j-ft", "j-ft-noise")
    runs = [results / f"runs/chamain2021/hyperprior/faster-rcnn/{mode}" for mode in modes]
    digests = {
        json.loads((run / "rate0-seed0/run.json").read_text())["weights_sha256"] for run in runs
    }
    assert len(digests) == 2
