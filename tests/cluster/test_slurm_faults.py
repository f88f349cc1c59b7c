"""Five trainings, each disturbed in its middle, beside the same trainings undisturbed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import HERE, ON_SLURM, Checkout, assert_same_results
from machine import Cluster, Job, wait_for

from icmbench.files import read_json

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(3600)]

STEPS = 400
FAULTS = ("cancelled", "limited", "requeued", "lost", "frozen")
STUDY: dict[str, Any] = {
    "name": "faults",
    "title": "One training a seed",
    "reference": {"authors": "nobody", "venue": "nowhere", "year": 2026},
    "summary": "A detector on original pictures and behind JPEG.",
    "ladders": {"jpeg-quality": {"parameter": "quality", "values": [10, 40], "origin": "ours"}},
    "schedules": {
        "detector": {
            "steps": STEPS,
            "batch_size": 2,
            "optimisers": {"task": {"name": "adamw", "lr": 1.0e-3}},
            "origin": "ours",
        }
    },
    "variants": {
        "uncoded/faster-rcnn/pretrained": {
            "label": "Original",
            "codec": "uncoded",
            "task": "faster-rcnn",
            "mode": "pretrained",
            "dataset": "detection",
            "task_from": "random",
            "train": {
                "parts": ["task"],
                "loss": {"task": 1.0},
                "schedule": "detector",
                "origin": "ours",
            },
        },
        "jpeg/faster-rcnn/baseline": {
            "label": "JPEG",
            "codec": "jpeg",
            "task": "faster-rcnn",
            "mode": "baseline",
            "dataset": "detection",
            "ladder": "jpeg-quality",
            "task_from": {"variant": "uncoded/faster-rcnn/pretrained", "rate": 0},
        },
    },
}


def prepare(folder: Path, repository: Path) -> Checkout:
    """Return a checkout with five trainings that ask for a GPU and save often."""
    seeds = list(range(len(FAULTS)))
    config = ("studies=[faults]", "study_folders=[studies]", f"seeds={seeds}")
    checkout = Checkout(folder, repository, config)
    (folder / "studies").mkdir()
    (folder / "studies/faults.yaml").write_text(yaml.safe_dump(STUDY))
    scale = folder / "workflow/scales/smoke.yaml"
    content = yaml.safe_load(scale.read_text())
    content["runtime"].update(gpu=1, checkpoint_s=0.2)
    scale.write_text(yaml.safe_dump(content))
    site = {"partition": "cpu", "gpu_partition": "gpu", "gpu_type": "toy", "max_minutes": 15}
    (folder / "workflow/profiles/slurm/cluster.yaml").write_text(yaml.safe_dump({"cluster": site}))
    return checkout


class Training:
    """The training of one seed, as its files and SLURM show it."""

    def __init__(self, checkout: Checkout, cluster: Cluster, seed: int) -> None:
        self.cluster, self.seed = cluster, seed
        name = f"runs/faults/uncoded/faster-rcnn/pretrained/rate0-seed{seed}"
        self.file = checkout.root / name / "run.json"
        self.log = checkout.root / f"logs/train/{name.removeprefix('runs/')}.log"

    def run(self) -> dict[str, Any]:
        return read_json(self.file) if self.file.exists() else {}

    def job(self) -> Job | None:
        """Return its job while it runs."""
        for job in self.cluster.jobs():
            if job.comment.startswith("rule_train") and job.comment.endswith(f"seed{self.seed}"):
                return job if job.state == "RUNNING" else None
        return None

    def middle(self) -> Job:
        """Wait until it is in its middle, with a checkpoint; freeze it there."""

        def found() -> Job | None:
            run = self.run()
            if not run or run["steps_done"] == 0:
                return None
            assert run["status"] == "running", run["status"]
            job = self.job()
            return job if job is not None and self.cluster.pause(job) else None

        return wait_for(f"training {self.seed} in its middle", found)

    def again(self, started: float) -> dict[str, Any]:
        """Wait for the training's next start and return its first words."""

        def found() -> dict[str, Any] | None:
            run = self.run()
            return run if run and run["started"] != started else None

        return wait_for(f"training {self.seed} started again", found, 300)


@dataclass
class Disturbed:
    """What was seen of a disturbed training."""

    job: Job
    before: dict[str, Any]
    after: dict[str, Any]
    states: list[str]


@pytest.fixture(scope="module")
def undisturbed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = prepare(tmp_path_factory.mktemp("undisturbed"), repository)
    checkout.run(*HERE)
    return checkout


@pytest.fixture(scope="module")
def disturbed_run(
    cluster: Cluster, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkout, dict[str, Disturbed]]:
    """Run all, disturb each training once, wait for the end."""
    checkout = prepare(tmp_path_factory.mktemp("disturbed"), repository)
    snakemake = checkout.start(*ON_SLURM, "--jobs", "6")
    seen: dict[str, Disturbed] = {}
    try:
        trainings = {fault: Training(checkout, cluster, seed) for seed, fault in enumerate(FAULTS)}
        # Each stands still in its middle until its turn comes.
        jobs = {fault: training.middle() for fault, training in trainings.items()}
        before = {fault: training.run() for fault, training in trainings.items()}

        def disturb(fault: str) -> None:
            job, training = jobs[fault], trainings[fault]
            if fault == "cancelled":
                cluster.cancel(job)
            elif fault == "limited":
                cluster.limit(job)
            elif fault == "requeued":
                cluster.requeue(job)
            elif fault == "lost":
                cluster.lose_node(job.node)
            else:
                cluster.kill_daemon(job.node)
            after = training.again(before[fault]["started"])
            seen[fault] = Disturbed(job, before[fault], after, cluster.states(job.number))
            if fault in ("lost", "frozen"):
                cluster.start_daemon(job.node)

        for fault in FAULTS:
            disturb(fault)
        code = snakemake.wait(timeout=1200)
    finally:
        snakemake.kill()
    assert code == 0, checkout.said[-6000:]
    return checkout, seen


def test_weights_and_tables_are_those_of_the_undisturbed_run(
    disturbed_run: tuple[Checkout, dict[str, Disturbed]], undisturbed: Checkout
) -> None:
    checkout, _ = disturbed_run
    assert len(undisturbed.weights()) == len(FAULTS)
    assert len(set(undisturbed.weights().values())) == len(FAULTS)  # seeds differ
    assert_same_results(checkout, undisturbed)
