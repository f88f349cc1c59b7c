"""A results folder as the workflow writes it, with made-up numbers and no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from icmbench.config.job_settings import train_job, write_files
from icmbench.config.plan import Point, load_plan
from icmbench.utils.files import write_json, write_text

START = 1_700_000_000.0
STEPS = range(10, 101, 10)
ENVIRONMENT = {
    "icmbench": "1.0",
    "git_commit": "c" * 40,
    "git_dirty": False,
    "sources": "provenance/c.txt",
    "python": "3.11",
    "platform": "Linux",
    "processor": "some",
    "versions": {"torch": "2.13.0"},
    "device": "cpu",
}

_SCALE = """
name: smoke
description: synthetic
datasets:
  detection: {source: embedded-scenes, size: 64, train: 4, val: 2, test: 2}
"""

_STUDY = """
name: toy2020
title: A toy study
summary: A learned codec, JPEG and the original images.
reference: {authors: A. Body, venue: Nowhere, year: 2020}
ladders:
  lambda: {parameter: lambda, values: [0.01, 0.02], origin: ours}
  quality: {parameter: quality, values: [10, 50], origin: ours}
schedules:
  short:
    steps: 100
    batch_size: 2
    optimisers: {codec: {name: adam, lr: 0.001}, auxiliary: {name: adam, lr: 0.001}}
    origin: ours
variants:
  uncoded/faster-rcnn/pretrained:
    {label: original, codec: uncoded, task: faster-rcnn, mode: pretrained, dataset: detection,
     task_from: pretrained}
  jpeg/faster-rcnn/baseline:
    {label: JPEG, codec: jpeg, task: faster-rcnn, mode: baseline, dataset: detection,
     ladder: quality, task_from: pretrained}
  hyperprior/faster-rcnn/c-ft:
    label: c-ft
    codec: bmshj2018-hyperprior
    task: faster-rcnn
    mode: c-ft
    dataset: detection
    ladder: lambda
    codec_from: random
    task_from: pretrained
    train: {parts: [codec], loss: {task: 1.0, bpp: $lambda}, schedule: short, origin: ours}
  # Names the weights of c-ft; neither trained nor evaluated here.
  hyperprior/reconstruction/frozen:
    {label: frozen, codec: bmshj2018-hyperprior, task: reconstruction, mode: frozen,
     dataset: detection, ladder: lambda, evaluate: false,
     codec_from: {variant: hyperprior/faster-rcnn/c-ft}}
comparisons:
  - {anchor: jpeg/faster-rcnn/baseline, variants: [hyperprior/faster-rcnn/c-ft],
     metrics: [box_map, psnr]}
"""

CFT = "toy2020/hyperprior/faster-rcnn/c-ft"
#: Runs of the folder: 1 + 2 + 2 operating points and three curves.
RUNS = 8


class ResultsFolder:
    """A folder ``<base>/results/smoke`` that grows as its methods are called."""

    def __init__(self, base: Path) -> None:
        write_text(base / "scales" / "smoke.yaml", _SCALE)
        write_text(base / "studies" / "toy2020.yaml", _STUDY)
        config = base / "config.yaml"
        run = {"scale": "smoke", "studies": ["toy2020"], "results": str(base / "results")}
        write_json(config, run)  # JSON is YAML
        self.plan = load_plan(config, workflow=base)
        self.root = self.plan.root
        write_files(self.plan)

    def fill(self) -> ResultsFolder:
        """Write everything that a finished workflow leaves."""
        for point in self.plan.points:
            if self.plan.variant(point).train is not None:
                self.train(point.key)
            if self.plan.variant(point).evaluate:
                self.evaluate(point.key)
        write_text(self.root / ENVIRONMENT["sources"], "# Commit")
        self.analyse()
        return self

    def folder(self, key: str) -> Path:
        return self.root / "runs" / key

    def train(self, key: str, status: str = "finished", **changes: Any) -> None:
        """Write the log and the record of a training run."""
        for step in STEPS:
            self.log(key, step)
        self.record(key, status, **changes)

    def log(
        self, key: str, step: int, loss: float | None = None, time: float | None = None
    ) -> None:
        """Append a row of each split to the log of a training run."""
        path = self.folder(key) / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        loss = 1 / step if loss is None else loss
        values = {"loss": loss, "bpp": loss / 2, "lr.codec": 1e-3}
        with path.open("a") as stream:
            for split in ("train", "val"):
                row = {"step": step, "time": time or START + step, "split": split, "values": values}
                stream.write(json.dumps(row) + "\n")

    def record(self, key: str, status: str, **changes: Any) -> None:
        """Write run.json."""
        done = status == "finished"
        record = {
            "key": key,
            "status": status,
            "started": START,
            "finished": None if status == "running" else START + 200,
            "steps": 100,
            "steps_done": 100 if done else 50,
            "cpu_seconds": 180.0,
            "wall_seconds": 100.0,
            "fingerprint": "f" * 64,
            "final": {"loss": 0.01} if done else {},
            "parameters": {"codec": 1000, "task": 2000},
            "job": train_job(self.plan, self.point(key)).model_dump(mode="json"),
            "dataset": {"role": "detection", "name": "embedded-scenes", "digest": "d" * 64},
            "environment": ENVIRONMENT,
            "weights_sha256": "a" * 64 if done else None,
            "error": None,
        }
        write_json(self.folder(key) / "run.json", {**record, **changes})
        if done:
            write_text(self.folder(key) / "weights.pt", "weights")

    def evaluate(self, key: str, **changes: Any) -> None:
        """Write evaluate.json."""
        point = self.point(key)
        bpp, box_map, psnr = self.numbers(point)
        record = {
            "key": key,
            "metrics": {"bpp": bpp, "box_map": box_map, "psnr": psnr},
            "complexity": {"parameters": {}, "macs_per_pixel": {}},
            "implementation": "made up",
            "n_images": 2,
            "wall_seconds": 3.0,
            "cpu_seconds": 4.0,
            "environment": ENVIRONMENT,
            "dataset": {
                "role": "detection",
                "name": "embedded-scenes",
                "digest": "d" * 64,
                "split": "test",
            },
        }
        write_json(self.folder(key) / "evaluate.json", {**record, **changes})

    def analyse(self, low: float = 0.01) -> None:
        """Write the tables."""
        columns = "study,variant,codec,task,mode,rate_index,seed,bpp,metric,value,low,high,n_images"
        lines = [columns]
        for point in self.plan.evaluated:
            variant = self.plan.variant(point)
            bpp, box_map, psnr = self.numbers(point)
            head = (
                f"toy2020,{point.variant},{variant.codec},{variant.task},{variant.mode},"
                f"{point.rate_index},{point.seed},{bpp}"
            )
            lines.append(f"{head},box_map,{box_map},{box_map - low},{box_map + 0.01},2")
            undefined = variant.codec == "uncoded"
            lines.append(f"{head},psnr,{'nan,nan,nan' if undefined else f'{psnr},29,31'},2")
        write_text(self.root / "tables" / "curves.csv", "\n".join(lines) + "\n")
        bd = (
            "study,variant,anchor,metric,bd_rate_pct,bd_accuracy_points,low,high,accuracy_low,"
            "accuracy_high,method,overlap,flags\n"
            "toy2020,hyperprior/faster-rcnn/c-ft,jpeg/faster-rcnn/baseline,box_map,"
            "-20.5,1.5,-30,-10,1,2,pchip,0.9,\n"
        )
        write_text(self.root / "tables" / "bd.csv", bd)

    def point(self, key: str) -> Point:
        return self.plan.by_key[key]

    def numbers(self, point: Point) -> tuple[float, float, float]:
        """Return bpp, box_map and psnr of a point."""
        if self.plan.variant(point).codec == "uncoded":
            return 24.0, 0.6, float("nan")
        shift = 0.1 if "hyperprior" in point.variant else 0.0
        rate = 0.25 * (point.rate_index + 1)
        return rate, 0.3 + shift + 0.1 * point.rate_index, 30.0 + point.rate_index
