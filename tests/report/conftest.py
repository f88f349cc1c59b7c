"""A synthetic results folder of two small studies, made by the code that makes real ones."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from icmbench.analyse.run import analyse_run
from icmbench.analyse.tables import LABELS
from icmbench.config.job_settings import summary, write_files
from icmbench.config.plan import Plan
from icmbench.config.published import Protocol, published_points
from icmbench.config.run import AnalysisSettings, RunConfig
from icmbench.config.scale import Scale
from icmbench.config.study import Study
from icmbench.config.summary import PointSummary
from icmbench.data.specs import EmbeddedScenes
from icmbench.data.synthetic.scenes import generate
from icmbench.evaluate.records import write_records
from icmbench.evaluate.statistics import MeanStatistics, save_statistics
from icmbench.plugins import load_modules
from icmbench.report.pages import build_report
from icmbench.report.results import Results, load_results
from icmbench.utils.files import read_json, write_bytes, write_json, write_text

IMAGES = 6
STUDY = """
name: somewhere2021
title: A study <with markup> & more
reference: {authors: A. Author, venue: DCC, year: 2021, address: "https://example.org/paper"}
summary: What is compared.
ladders:
  beta: {parameter: beta, values: [3.0, 1.0, 0.3, 0.1], origin: ours, note: No list is published.}
  quality: {parameter: quality, values: [5, 10, 20, 40], origin: figure}
schedules:
  short:
    steps: 40
    batch_size: 4
    optimisers: {task: {name: sgd, lr: 0.001}, codec: {name: adam, lr: 1.0e-4},
                 auxiliary: {name: adam, lr: 0.001}}
    origin: published
variants:
  uncoded/faster-rcnn/pretrained:
    {label: Original images, codec: uncoded, task: faster-rcnn, mode: pretrained,
     dataset: detection, task_from: random,
     train: {parts: [task], loss: {task: 1.0}, schedule: short, origin: ours}}
  jpeg/faster-rcnn/baseline:
    {label: JPEG, codec: jpeg, task: faster-rcnn, mode: baseline, dataset: detection,
     ladder: quality, task_from: {variant: uncoded/faster-rcnn/pretrained, rate: 0}}
  jpeg/faster-rcnn/t-ft:
    {label: "JPEG, T-FT", codec: jpeg, task: faster-rcnn, mode: t-ft, dataset: detection,
     ladder: quality, task_from: {variant: uncoded/faster-rcnn/pretrained, rate: 0},
     train: {parts: [task], loss: {task: 1.0}, schedule: short, origin: published}}
  hyperprior/faster-rcnn/j-ft:
    {label: J-FT, codec: bmshj2018-hyperprior, task: faster-rcnn, mode: j-ft, dataset: detection,
     ladder: beta, codec_from: random,
     task_from: {variant: uncoded/faster-rcnn/pretrained, rate: 0},
     train: {parts: [codec, task], loss: {task: 1.0, bpp: $beta}, schedule: short,
             origin: published}}
comparisons:
  - {anchor: jpeg/faster-rcnn/baseline, metrics: [box_map],
     variants: [jpeg/faster-rcnn/t-ft, hyperprior/faster-rcnn/j-ft]}
visual_comparisons:
  - {title: Side by side, bpp: 0.5, images: 2,
     variants: [jpeg/faster-rcnn/baseline, hyperprior/faster-rcnn/j-ft]}
published:
  - {variant: hyperprior/faster-rcnn/j-ft, label: J-FT, metric: box_map, value: 0.341,
     group: Table 1, source: the talk, confidence: high, note: "+4.6 % over T-FT"}
  - {variant: hyperprior/faster-rcnn/j-ft, label: J-FT, metric: bpp, value: 0.5, group: Table 1,
     source: the talk, confidence: high}
  - {label: Theirs alone, metric: box_map, value: 0.2, group: Table 1, source: the talk,
     confidence: low}
notes: [Something a reader must know.]
"""
PLAIN_STUDY = """
name: photographs2020
title: Images for people
reference: {authors: B. Author, venue: PCS, year: 2020}
summary: JPEG alone.
ladders:
  quality: {parameter: quality, values: [10, 40], origin: ours}
variants:
  jpeg/reconstruction/baseline:
    {label: JPEG, codec: jpeg, task: reconstruction, mode: baseline, dataset: detection,
     ladder: quality}
published_curves:
  - {label: JPEG then, file: published/jpeg.json, variant: jpeg/reconstruction/baseline,
     dataset: kodak, images: 6, source: somebody, note: Another program.}
  - {label: ELIC, file: published/paper-elic2022_mse.json, dataset: kodak, images: 6,
     source: somebody}
"""
ENVIRONMENT = {
    "git_commit": "0123456789abcdef",
    "git_dirty": True,
    "sources": "provenance/0123456789ab.txt",
    "python": "3.11.9",
    "platform": "Linux-test",
    "device": "cpu",
    "versions": {"torch": "9.9.9"},
}
# JPEG quality of each rate index, and how much accuracy variants gain over JPEG alone.
QUALITIES = (8, 20, 45, 80)
GAINS = {"jpeg/faster-rcnn/baseline": 0.0, "jpeg/faster-rcnn/t-ft": 0.04}


def make_results(results: Path, scale_name: str = "tiny", seeds: list[int] | None = None) -> Path:
    """Write a results folder as the jobs would and return ``results/<scale>``."""
    load_modules([])
    scenes = EmbeddedScenes(source="embedded-scenes", size=128, train=1, val=1, test=IMAGES)
    scale = Scale(
        name=scale_name,
        description="For tests.",
        datasets={"detection": scenes},
        tasks={"faster-rcnn": {"backbone": "small", "classes": 6}},
    )
    studies = [Study.model_validate(yaml.safe_load(text)) for text in (STUDY, PLAIN_STUDY)]
    run = RunConfig(
        scale=scale_name,
        studies=[study.name for study in studies],
        seeds=seeds or [0],
        results=str(results),
        analysis=AnalysisSettings(resamples=40),
    )
    plan = Plan(run, scale, {study.name: study for study in studies})
    write_files(plan)
    generate(scenes, plan.root / "data/detection")
    with zipfile.ZipFile(plan.root / "data/detection/test.zip") as opened:
        originals = {
            Path(name).stem: Image.open(io.BytesIO(opened.read(name))).convert("RGB")
            for name in opened.namelist()
        }
    truth = read_json(plan.root / "data/detection/instances_test.json")["annotations"]
    for point in summary(plan).points:
        folder = point.inside(plan.root)
        if point.trained:
            write_json(folder / "run.json", RUN | {"key": point.key})
        bits, psnr = encode(plan.root, point, originals)
        evaluate(folder, point, list(originals), bits, psnr)
        if point.task == "faster-rcnn":
            detect(folder, point, list(originals), truth)
    analyse_run(plan.root)
    write_text(plan.root / "provenance/0123456789ab.txt", "# Commit")
    return plan.root


RUN: dict[str, Any] = {
    "status": "finished",
    "started": 1_600_000_000.0,
    "finished": 1_600_000_100.0,
    "steps": 40,
    "steps_done": 40,
    "cpu_seconds": 12.5,
    "wall_seconds": 100.0,
    "dataset": {"role": "detection", "name": "embedded-scenes", "digest": "feedc0ffee" * 6},
    "environment": ENVIRONMENT,
    "error": None,
}


def encode(
    root: Path, point: PointSummary, originals: dict[str, Image.Image]
) -> tuple[list[int], list[float]]:
    """Write the decoded images of a point; return bits and PSNR of each image."""
    if point.encoding is None:
        return [24 * image.width * image.height for image in originals.values()], [np.nan] * IMAGES
    sizes, psnr = [], []
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for name, image in originals.items():
            coded, png = io.BytesIO(), io.BytesIO()
            image.save(coded, "JPEG", quality=QUALITIES[point.rate_index])
            decoded = Image.open(coded).convert("RGB")
            error = np.mean((np.asarray(decoded, float) - np.asarray(image, float)) ** 2)
            sizes.append(8 * len(coded.getvalue()) // (1 if point.codec == "jpeg" else 2))
            psnr.append(float(10 * np.log10(255**2 / error)))
            decoded.save(png, "PNG")
            opened.writestr(f"{name}.png", png.getvalue())
    write_bytes(root / "encoded" / point.encoding / "decoded.zip", archive.getvalue())
    return sizes, psnr


def evaluate(
    folder: Path, point: PointSummary, ids: list[str], bits: list[int], psnr: list[float]
) -> None:
    """Write the records of a point; the first image of a learned codec fails its round trip."""
    learned, coded = point.codec not in ("jpeg", "uncoded"), point.encoding is not None
    implementation = "test"
    if point.codec == "jpeg" and point.rate_value is not None:
        quality = point.rate_value
        implementation = (
            f"Pillow 13.0.0, libjpeg 3.1, quality {quality:g}, intra QP {quality - 3:g}"
        )
    table = pd.DataFrame(
        {name: getattr(point, name) for name in LABELS}
        | {
            "dataset": "detection",
            "split": "test",
            "image_id": ids,
            "pixels": 128 * 128,
            "pixels_coded": 128 * 128,
            "bits": bits,
            "bits_estimated": np.array(bits) * 0.98 if learned else np.nan,
            "psnr": psnr,
            "psnr_ycbcr": np.array(psnr) + 1,
            "ms_ssim": 0.9 if coded else np.nan,
            "encode_s": 0.1 if coded else np.nan,
            "decode_s": 0.02 + 0.01 * point.rate_index if coded else np.nan,
            "reconstruct_s": np.nan,
            "roundtrip_ok": [point.rate_index != 0 or not learned] + [True] * (IMAGES - 1),
            "implementation": implementation,
        }
    )
    write_records(folder / "records.parquet", table)
    task = point.task == "faster-rcnn"
    complexity = {
        "parameters": {
            "codec": 5_000_000 + 10_000 * point.rate_index if learned else None,
            "task": 41_000_000 if task else None,
        },
        "macs_per_pixel": {
            "encode": 40_500.0 if learned else None,
            "decode": 50_000.0 if learned else None,
            "reconstruct": None,
            "task": 260_000.0 if task else None,
        },
    }
    written = {name: RUN[name] for name in ("environment", "dataset")}
    written |= {"key": point.key, "cpu_seconds": 2.5, "complexity": complexity}
    write_json(folder / "evaluate.json", written)


def detect(folder: Path, point: PointSummary, ids: list[str], truth: list[dict[str, Any]]) -> None:
    """Write statistics and detections of a point: the true boxes, some with a low score."""
    accuracy = 0.45
    if point.encoding:
        accuracy = 0.15 + 0.08 * point.rate_index + GAINS.get(point.variant, 0.06)
    box_map = accuracy + np.random.default_rng(1).normal(0, 0.03, IMAGES)
    values = {"box_map": box_map, "box_map50": box_map + 0.1, "box_map75": box_map - 0.05}
    statistics = MeanStatistics(np.array([int(name) for name in ids]), values)
    save_statistics(folder / "statistics-box.npz", statistics)
    detections = [
        {name: entry[name] for name in ("image_id", "category_id", "bbox")}
        | {"score": 0.9 if entry["id"] % 3 else 0.3}
        for entry in truth
    ]
    (folder / "predictions.json").write_text(json.dumps(detections))


MakeResults = Callable[..., Path]


@pytest.fixture(scope="session")
def made_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder that is never changed; most tests copy it."""
    return make_results(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def results(made_results: Path) -> Results:
    """Its content."""
    return load_results(made_results)


@pytest.fixture
def root(made_results: Path, tmp_path: Path) -> Path:
    """A results folder that the test may change."""
    return Path(shutil.copytree(made_results, tmp_path / "moved"))


# Builds the report of a folder and notes which modules were loaded before and after.
BUILD = """
import sys
from pathlib import Path
import icmbench.report.outputs
before = list(sys.modules)
from icmbench.report.pages import build_report
root = Path(sys.argv[1])
build_report(root)
(root / "modules").write_text(" ".join(before) + "\\n" + " ".join(sys.modules))
"""


@pytest.fixture(scope="session")
def built(made_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with its report, which is never changed."""
    root = Path(shutil.copytree(made_results, tmp_path_factory.mktemp("built") / "tiny"))
    subprocess.run([sys.executable, "-c", BUILD, str(root)], check=True)
    return root


@pytest.fixture(scope="session")
def comparable(made_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same results, labelled as a whole data set with published curves, and the report."""
    root = Path(shutil.copytree(made_results, tmp_path_factory.mktemp("comparable") / "tiny"))
    scenes = root / "data/detection"
    with zipfile.ZipFile(scenes / "test.zip") as archive:
        archive.extractall(scenes / "images")
    split = {"images": "images", "annotations": "instances_test.json"}
    plan = read_json(root / "plan.json")
    plan["datasets"]["detection"] |= {
        "folder": str(scenes),
        "settings": {"source": "catalogue", "name": "kodak", "splits": {"test": split}},
    }
    write_json(root / "plan.json", plan)
    analyse_run(root)
    build_report(root)
    return root


@pytest.fixture
def theirs(comparable: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a protocol ``theirs`` known: that of the comparable results, with some changes."""
    curves = load_results(comparable).curve("somewhere2021", "uncoded/faster-rcnn/pretrained")
    measured = curves.set_index("metric")["value"]["box_map"]
    network = {"name": "theirs", "task": ["faster-rcnn"], "weights": "any"}

    def make(above: float = 0.0, **changes: Any) -> None:
        given = {"dataset": "kodak", "images": IMAGES, "rate_pixels": "native", "network": network}
        given |= {"uncompressed": {"box_map": measured + above}} | changes
        if isinstance(changes.get("network"), dict):
            given["network"] = network | changes["network"]
        protocols = {"theirs": Protocol.model_validate(given)}
        points = published_points().model_copy(update={"protocols": protocols})
        monkeypatch.setattr("icmbench.config.published.published_points", lambda: points)

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeResults:
    """Make a results folder of another scale or with more seeds."""

    def make(scale_name: str, seeds: list[int]) -> Path:
        return make_results(tmp_path / "results", scale_name, seeds)

    return make
