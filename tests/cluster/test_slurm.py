"""Five training runs on SLURM, each disturbed once, against the same runs without SLURM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pytest
import yaml
from machine import NODES, Cluster, Job, wait_for

from checkout import HERE, ON_SLURM, Checkout, assert_same_results
from icmbench.utils.files import read_json

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(3600)]

STEPS = 600  # some seconds: all five are hit before the first one ends
# What happens to a training run, and how SLURM reports the end of the job that was hit.
ENDS = {
    "cancelled": "CANCELLED",
    "limited": "TIMEOUT",
    "requeued": "PENDING",
    "lost": "NODE_FAIL",
    "frozen": "NODE_FAIL",
}
STUDY = f"""
name: faults
title: One training run for each seed
reference: {{authors: nobody, venue: nowhere, year: 2026}}
summary: A detector on original images and behind JPEG.
ladders:
  jpeg-quality: {{parameter: quality, values: [10, 40], origin: ours}}
schedules:
  detector:
    steps: {STEPS}
    batch_size: 2
    optimisers: {{task: {{name: adamw, lr: 1.0e-3}}}}
    origin: ours
variants:
  uncoded/faster-rcnn/pretrained:
    label: Original
    codec: uncoded
    task: faster-rcnn
    mode: pretrained
    dataset: detection
    task_from: random
    train: {{parts: [task], loss: {{task: 1.0}}, schedule: detector, origin: ours}}
  jpeg/faster-rcnn/baseline:
    label: JPEG
    codec: jpeg
    task: faster-rcnn
    mode: baseline
    dataset: detection
    ladder: jpeg-quality
    task_from: {{variant: uncoded/faster-rcnn/pretrained, rate: 0}}
"""


def prepare(folder: Path, repository: Path) -> Checkout:
    """Return a checkout with five training runs that ask for a GPU and save often."""
    config = ("studies=[faults]", "study_folders=[studies]", f"seeds={list(range(len(ENDS)))}")
    checkout = Checkout(folder, repository, config)
    (folder / "studies").mkdir()
    (folder / "studies/faults.yaml").write_text(STUDY)
    scale = folder / "workflow/scales/smoke.yaml"
    content = yaml.safe_load(scale.read_text())
    content["runtime"].update(gpu=1, checkpoint_s=0.2)
    scale.write_text(yaml.safe_dump(content))
    site = {"partition": "cpu", "gpu_partition": "gpu", "gpu_type": "toy", "max_minutes": 15}
    (folder / "workflow/profiles/slurm/cluster.yaml").write_text(yaml.safe_dump({"cluster": site}))
    return checkout


@dataclass
class TrainingRun:
    """The training run of one seed; the fields below are filled when it is hit."""

    checkout: Checkout
    cluster: Cluster
    seed: int
    job: Job | None = None
    facts: dict[str, str] | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    first_log: TextIO | None = None  # Snakemake unlinks the file when the job starts again

    @property
    def key(self) -> str:
        return f"faults/uncoded/faster-rcnn/pretrained/rate0-seed{self.seed}"

    @property
    def log(self) -> Path:
        return self.checkout.root / f"logs/train/{self.key}.log"

    def state(self) -> dict[str, Any]:
        path = self.checkout.root / "runs" / self.key / "run.json"
        return read_json(path) if path.exists() else {}

    def freeze(self, stack: ExitStack) -> None:
        """Wait until it has a checkpoint, then stop its process until its turn comes."""

        def found() -> Job | None:
            assert not self.checkout.ended, self.checkout.said[-6000:]
            if not self.state().get("steps_done"):
                return None
            assert self.state()["status"] == "running"
            jobs = [
                job
                for job in self.cluster.jobs()
                if job.comment.startswith("rule_train") and job.comment.endswith(self.key)
            ]
            running = jobs and jobs[0].state == "RUNNING" and self.cluster.pause(jobs[0])
            return jobs[0] if running else None

        self.job = wait_for(f"training run {self.seed} with a checkpoint", found)
        self.facts = self.cluster.facts(self.job)
        self.before = self.state()
        self.first_log = stack.enter_context(self.log.open())

    def wait_restart(self) -> None:
        """Wait until another process trains this."""

        def found() -> dict[str, Any] | None:
            assert not self.checkout.ended, self.checkout.said[-6000:]
            state = self.state()
            return state if state and state["started"] != self.before["started"] else None

        self.after = wait_for(f"training run {self.seed} started again", found)

    def first_messages(self) -> str:
        """Return the log of the job that was hit."""
        self.first_log.seek(0)
        return self.first_log.read()


@pytest.fixture(scope="module")
def undisturbed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = prepare(tmp_path_factory.mktemp("undisturbed"), repository)
    checkout.run(*HERE)
    return checkout


@pytest.fixture(scope="module")
def disturbed(
    cluster: Cluster, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, TrainingRun]]:
    """Run all on SLURM, disturb each training run once, wait for the end."""
    checkout = prepare(tmp_path_factory.mktemp("disturbed"), repository)
    snakemake = checkout.start(*ON_SLURM, "--jobs", "6")
    with ExitStack() as stack:
        stack.callback(snakemake.kill)
        runs = [TrainingRun(checkout, cluster, seed) for seed in range(len(ENDS))]
        for run in runs:
            run.freeze(stack)
        # One node is lost, the other one hangs.
        lost = runs.pop(0)
        frozen = runs.pop(next(i for i, run in enumerate(runs) if run.job.node != lost.job.node))
        hit = dict(zip(ENDS, [*runs, lost, frozen], strict=True))
        # These need the node daemons, so they come first.
        cluster.cancel(hit["cancelled"].job)
        cluster.limit(hit["limited"].job)
        cluster.requeue(hit["requeued"].job)
        for fault in ("cancelled", "limited", "requeued"):
            hit[fault].wait_restart()
        cluster.lose_node(lost.job.node)
        cluster.start_daemon(lost.job.node)
        cluster.kill_daemon(frozen.job.node)
        lost.wait_restart()
        frozen.wait_restart()
        # The process that hung continues and finds that another one took over.
        cluster.resume(frozen.job)
        wait_for("the end of the frozen process", lambda: "took" in frozen.first_messages())
        cluster.start_daemon(frozen.job.node)
        assert snakemake.wait(timeout=1500) == 0, checkout.said[-6000:]
        yield hit


def test_slurm_run_equals_undisturbed_run(
    disturbed: dict[str, TrainingRun], undisturbed: Checkout
) -> None:
    checkout = disturbed["lost"].checkout
    assert len(set(undisturbed.weights().values())) == len(ENDS)  # seeds differ
    assert_same_results(checkout, undisturbed)
    assert checkout.tracked() == undisturbed.tracked()
    checkout.run(*HERE)  # without the cluster: where a job ran is no reason to repeat it
    assert "Nothing to be done" in checkout.said


@pytest.mark.parametrize("fault", ENDS)
def test_slurm_training_run_resumes(
    disturbed: dict[str, TrainingRun], cluster: Cluster, fault: str
) -> None:
    run = disturbed[fault]
    assert cluster.states(run.job.number)[0] == ENDS[fault]
    assert run.before["steps_done"] <= run.after["steps_done"] < STEPS
    assert run.state()["status"] == "finished"
    rows = (run.checkout.root / "runs" / run.key / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, STEPS + 1))


def test_slurm_successor_waits_for_a_process_that_may_be_alive(
    disturbed: dict[str, TrainingRun],
) -> None:
    assert "another process" in disturbed["frozen"].log.read_text()
    assert "another process" in disturbed["frozen"].first_messages()


def test_slurm_jobs_request_what_they_need(
    disturbed: dict[str, TrainingRun], cluster: Cluster
) -> None:
    for run in disturbed.values():
        assert run.facts["TresPerJob"] == "gres:gpu:toy:1" and run.facts["Partition"] == "gpu"
        assert run.facts["TimeLimit"] == "00:10:00"
    folder = str(disturbed["lost"].checkout.folder)
    own = [job for job in cluster.ended() if job["WorkDir"] == folder]
    assert {job["Partition"] for job in own} == {"cpu", "gpu"}
    assert {job["NodeList"] for job in own} >= set(NODES)
    # A retry asks for half more memory, and for twice the time up to max_minutes.
    again = [job for job in own if job["Partition"] == "gpu" and job["TimeLimit"] == "15"]
    assert len({job["JobId"] for job in again}) == 2  # cancelled and limited
    assert all("mem=2250M" in job["Tres"] for job in again)
