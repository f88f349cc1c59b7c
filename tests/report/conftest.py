"""A synthetic results folder of two small studies, made by the code that makes real ones."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from icmbench.analyse.points import LABELS
from icmbench.analyse.run import analyse_run
from icmbench.config.plan import Plan
from icmbench.config.run import AnalysisSettings, RunConfig
from icmbench.config.scale import Scale
from icmbench.config.study import Study
from icmbench.data.specs import EmbeddedScenes
from icmbench.data.synthetic.scenes import generate
from icmbench.evaluate.records import write_records
from icmbench.evaluate.statistics import MeanStatistics, save_statistics
from icmbench.plugins import load_modules
from icmbench.report.build import build_report
from icmbench.utils.files import read_json, write_bytes, write_json

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
images:
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
    "python": "3.11.9",
    "platform": "Linux-test",
    "device": "cpu",
    "versions": {"torch": "9.9.9"},
}
# JPEG quality that stands for each rate index, and the accuracy that the variants keep there.
QUALITIES = (8, 20, 45, 80)
GAINS = {"jpeg/faster-rcnn/baseline": 0.0, "jpeg/faster-rcnn/t-ft": 0.04}


def make_plan(results: Path, scale_name: str = "tiny", seeds: list[int] | None = None) -> Plan:
    """Return the plan of both studies."""
    load_modules([])
    scale = Scale(
        name=scale_name,
        description="For tests.",
        datasets={
            "detection": EmbeddedScenes(
                source="embedded-scenes", size=128, train=1, val=1, test=IMAGES
            )
        },
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
    return Plan(run, scale, {study.name: study for study in studies})


def make_results(results: Path, scale_name: str = "tiny", seeds: list[int] | None = None) -> Path:
    """Write a results folder as the jobs would and return ``results/<scale>``."""
    plan = make_plan(results, scale_name, seeds)
    plan.write()
    generate(plan.scale.datasets["detection"], plan.root / "data/detection")
    originals = _read_originals(plan.root / "data/detection/test.zip")
    truth = read_json(plan.root / "data/detection/instances_test.json")["annotations"]
    for point in plan.summary()["points"]:
        folder = plan.root / "runs" / point["key"]
        if point["trained"]:
            write_json(folder / "run.json", _run(point["key"]))
        sizes, psnrs = _encode(plan.root, point, originals)
        _evaluate(folder, point, sizes, psnrs, truth)
    analyse_run(plan.root)
    return plan.root


def _read_originals(archive: Path) -> dict[str, Image.Image]:
    with zipfile.ZipFile(archive) as opened:
        return {
            Path(name).stem: Image.open(io.BytesIO(opened.read(name))).convert("RGB")
            for name in opened.namelist()
        }


def _run(key: str) -> dict[str, Any]:
    return {
        "key": key,
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


def _encode(
    root: Path, point: dict[str, Any], originals: dict[str, Image.Image]
) -> tuple[list[int], list[float]]:
    """Write the decoded images of a point; return bits and PSNR of each image."""
    if point["encoding"] is None:
        pixels = [image.width * image.height for image in originals.values()]
        return [24 * count for count in pixels], [float("nan")] * len(pixels)
    sizes, psnrs = [], []
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for name, image in originals.items():
            coded = io.BytesIO()
            image.save(coded, "JPEG", quality=QUALITIES[point["rate_index"]])
            decoded = Image.open(coded).convert("RGB")
            error = np.mean((np.asarray(decoded, float) - np.asarray(image, float)) ** 2)
            sizes.append(8 * len(coded.getvalue()))
            psnrs.append(float(10 * np.log10(255**2 / error)))
            png = io.BytesIO()
            decoded.save(png, "PNG")
            opened.writestr(f"{name}.png", png.getvalue())
    write_bytes(root / "encoded" / point["encoding"] / "decoded.zip", archive.getvalue())
    return sizes, psnrs


def _evaluate(
    folder: Path,
    point: dict[str, Any],
    sizes: list[int],
    psnrs: list[float],
    truth: list[dict[str, Any]],
) -> None:
    ids = sorted({entry["image_id"] for entry in truth} | set(range(3_000_000, 3_000_000 + IMAGES)))
    learned = point["codec"] not in ("jpeg", "uncoded")
    bits = np.array(sizes) // (2 if learned else 1)
    table = pd.DataFrame(
        {name: point[name] for name in LABELS}
        | {
            "dataset": "detection",
            "split": "test",
            "image_id": [str(i) for i in ids],
            "pixels": 128 * 128,
            "pixels_coded": 128 * 128,
            "bits": bits,
            "bits_estimated": bits * 0.98 if learned else np.nan,
            "psnr": psnrs,
            "psnr_ycbcr": np.array(psnrs) + 1,
            "ms_ssim": 0.9 if point["encoding"] else np.nan,
            "encode_s": 0.1 if point["encoding"] else np.nan,
            "decode_s": 0.02 + 0.01 * point["rate_index"] if point["encoding"] else np.nan,
            "reconstruct_s": float("nan"),
            "roundtrip_ok": [point["rate_index"] != 0 or not learned] + [True] * (IMAGES - 1),
            "implementation": _implementation(point),
        }
    )
    write_records(folder / "records.parquet", table)
    write_json(
        folder / "evaluate.json",
        {
            "key": point["key"],
            "cpu_seconds": 2.5,
            "environment": ENVIRONMENT,
            "dataset": {"role": "detection", "digest": "feedc0ffee" * 6},
            "complexity": {
                "parameters": {
                    "codec": 5_000_000 + 10_000 * point["rate_index"] if learned else None,
                    "task": 41_000_000 if point["task"] == "faster-rcnn" else None,
                },
                "macs_per_pixel": {
                    "encode": 40_500.0 if learned else None,
                    "decode": 50_000.0 if learned else None,
                    "reconstruct": None,
                    "task": 260_000.0 if point["task"] == "faster-rcnn" else None,
                },
            },
        },
    )
    if point["task"] != "faster-rcnn":
        return
    accuracy = 0.45
    if point["encoding"]:
        accuracy = 0.15 + 0.08 * point["rate_index"] + GAINS.get(point["variant"], 0.06)
    noise = np.random.default_rng(1).normal(0, 0.03, IMAGES)
    values = {"box_map": accuracy + noise, "box_map50": accuracy + 0.1 + noise}
    values["box_map75"] = accuracy - 0.05 + noise
    statistics = MeanStatistics(np.array(ids), values)
    save_statistics(folder / "statistics-box.npz", statistics)
    detections = [
        {name: entry[name] for name in ("image_id", "category_id", "bbox")}
        | {"score": 0.9 if entry["id"] % 3 else 0.3}
        for entry in truth
    ]
    (folder / "predictions.json").write_text(json.dumps(detections))


def _implementation(point: dict[str, Any]) -> str:
    if point["codec"] != "jpeg":
        return "test"
    quality = point["rate_value"]
    return f"Pillow 13.0.0, libjpeg 3.1, quality {quality:g}, intra QP {quality - 3:g}"


MakeResults = Callable[..., Path]


@pytest.fixture(scope="session")
def made_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder that is never changed; most tests copy it."""
    return make_results(tmp_path_factory.mktemp("made"))


@pytest.fixture
def root(made_results: Path, tmp_path: Path) -> Path:
    """A results folder of this test alone."""
    copy = Path(shutil.copytree(made_results, tmp_path / "moved"))
    unlisted(copy)
    return copy


def unlisted(root: Path) -> None:
    """Forget the checksums of a results folder whose files a test is about to change."""
    for name in ("plan.sha256", "tables/tables.sha256"):
        (root / name).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def built(made_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with its report, which is never changed."""
    root = Path(shutil.copytree(made_results, tmp_path_factory.mktemp("built") / "tiny"))
    build_report(root)
    return root


@pytest.fixture(scope="session")
def comparable(made_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same results as of a whole data set with published curves, and the report."""
    root = Path(shutil.copytree(made_results, tmp_path_factory.mktemp("comparable") / "tiny"))
    plan = read_json(root / "plan.json")
    scenes = root / "data/detection"
    with zipfile.ZipFile(scenes / "test.zip") as archive:
        archive.extractall(scenes / "images")
    plan["datasets"]["detection"] |= {
        "source": "catalogue",
        "name": "kodak",
        "folder": str(scenes),
        "allow_subset": False,
        "short_side": None,
        "splits": {
            "test": {
                "images": "images",
                "annotations": "instances_test.json",
                "layout": None,
                "limit": None,
            }
        },
    }
    unlisted(root)
    write_json(root / "plan.json", plan)
    analyse_run(root)
    build_report(root)
    return root


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeResults:
    """Make a results folder of another scale or with more seeds."""

    def make(scale_name: str, seeds: list[int]) -> Path:
        return make_results(tmp_path / "results", scale_name, seeds)

    return make
