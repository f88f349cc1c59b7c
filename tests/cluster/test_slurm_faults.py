"""Five trainings, each disturbed in its middle, beside the same trainings undisturbed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pytest
import yaml
from machine import Cluster, Job, wait_for

from checkout import HERE, ON_SLURM, Checkout, assert_same_results
from icmbench.utils.files import read_json

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(3600)]

STEPS = 600  # some seconds: all five must be met before the first one ends
TAKEN = "another process took this training over"
WAITS = "another process trains this; waiting for it"
FAULTS = ("cancelled", "limited", "requeued", "lost", "frozen")
STUDY: dict[str, Any] = {
    "name": "faults",
    "title": "One training a seed",
    "reference": {"authors": "nobody", "venue": "nowhere", "year": 2026},
    "summary": "A detector on original images and behind JPEG.",
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
        self.checkout, self.cluster, self.seed = checkout, cluster, seed
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
            assert not self.checkout.ended, self.checkout.said[-6000:]
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
            assert not self.checkout.ended, self.checkout.said[-6000:]
            run = self.run()
            return run if run and run["started"] != started else None

        return wait_for(f"training {self.seed} started again", found)


@dataclass
class Disturbed:
    """What was seen of a disturbed training."""

    training: Training
    job: Job
    facts: dict[str, str]
    before: dict[str, Any]
    after: dict[str, Any]
    log: TextIO  # of the job as it was hit: Snakemake unlinks it when the job starts again

    def last_words(self) -> str:
        """Return all that the job said that was hit."""
        self.log.seek(0)
        return self.log.read()


@pytest.fixture(scope="module")
def undisturbed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = prepare(tmp_path_factory.mktemp("undisturbed"), repository)
    checkout.run(*HERE)
    return checkout


@pytest.fixture(scope="module")
def disturbed_run(
    cluster: Cluster, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Checkout, dict[str, Disturbed]]]:
    """Run all, disturb each training once, wait for the end."""
    checkout = prepare(tmp_path_factory.mktemp("disturbed"), repository)
    snakemake = checkout.start(*ON_SLURM, "--jobs", "6")
    seen: dict[str, Disturbed] = {}
    stack = ExitStack()
    try:
        # Each stands still in its middle until its turn comes.
        trainings = [Training(checkout, cluster, seed) for seed in range(len(FAULTS))]
        jobs = [training.middle() for training in trainings]
        facts = [cluster.facts(job) for job in jobs]
        before = [training.run() for training in trainings]
        logs = [stack.enter_context(training.log.open()) for training in trainings]
        chosen = assign([job.node for job in jobs])

        def note(fault: str) -> None:
            seed = chosen[fault]
            after = trainings[seed].again(before[seed]["started"])
            seen[fault] = Disturbed(
                trainings[seed], jobs[seed], facts[seed], before[seed], after, logs[seed]
            )

        # The daemons do these, so they come first.
        cluster.cancel(jobs[chosen["cancelled"]])
        cluster.limit(jobs[chosen["limited"]])
        cluster.requeue(jobs[chosen["requeued"]])
        for fault in ("cancelled", "limited", "requeued"):
            note(fault)
        lost, hung = jobs[chosen["lost"]].node, jobs[chosen["frozen"]].node
        cluster.lose_node(lost)
        cluster.start_daemon(lost)
        cluster.kill_daemon(hung)
        note("lost")
        note("frozen")
        # The node that hung works again, and finds its training taken over; SLURM, once it knows
        # the node again, ends what is left there.
        cluster.resume(jobs[chosen["frozen"]])
        frozen = seen["frozen"]
        wait_for("the end of the frozen training", lambda: TAKEN in frozen.last_words())
        cluster.start_daemon(hung)
        code = snakemake.wait(timeout=1500)
    finally:
        snakemake.kill()
    assert code == 0, checkout.said[-6000:]
    with stack:
        yield checkout, seen


def assign(nodes: list[str]) -> dict[str, int]:
    """Say which training meets which fault: a node is lost, the other one hangs."""
    first, second = 0, next(i for i, node in enumerate(nodes) if node != nodes[0])
    rest = [i for i in range(len(nodes)) if i not in (first, second)]
    return {**dict(zip(FAULTS[:3], rest, strict=True)), "lost": first, "frozen": second}


def test_weights_and_tables_are_those_of_the_undisturbed_run(
    disturbed_run: tuple[Checkout, dict[str, Disturbed]], undisturbed: Checkout
) -> None:
    checkout, _ = disturbed_run
    assert len(undisturbed.weights()) == len(FAULTS)
    assert len(set(undisturbed.weights().values())) == len(FAULTS)  # seeds differ
    assert_same_results(checkout, undisturbed)


ENDS = {
    "cancelled": "CANCELLED",
    "limited": "TIMEOUT",
    "requeued": "PENDING",
    "lost": "NODE_FAIL",
    "frozen": "NODE_FAIL",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_training_was_hit_in_its_middle_and_resumed(
    disturbed_run: tuple[Checkout, dict[str, Disturbed]], cluster: Cluster, fault: str
) -> None:
    one = disturbed_run[1][fault]
    assert cluster.states(one.job.number)[0] == ENDS[fault]
    assert one.before["status"] == "running" and 0 < one.before["steps_done"] < STEPS
    # The next one began where the checkpoint was, not at the first step.
    assert one.before["steps_done"] <= one.after["steps_done"] < STEPS
    assert one.training.run()["status"] == "finished"
    rows = (one.training.file.parent / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, STEPS + 1))


def test_a_node_that_hung_finds_its_training_taken_over(
    disturbed_run: tuple[Checkout, dict[str, Disturbed]],
) -> None:
    frozen = disturbed_run[1]["frozen"]
    # Its successor waited while it may have lived.
    assert WAITS in frozen.training.log.read_text()
    assert TAKEN in frozen.last_words()


def test_only_what_uses_a_gpu_asks_for_one(
    disturbed_run: tuple[Checkout, dict[str, Disturbed]], cluster: Cluster
) -> None:
    checkout, seen = disturbed_run
    for one in seen.values():
        assert one.facts["TresPerJob"] == "gres:gpu:toy:1" and one.facts["Partition"] == "gpu"
    own = [job for job in cluster.ended() if job["WorkDir"] == str(checkout.folder)]
    used = {job["Partition"] for job in own}
    assert used == {"cpu", "gpu"}


def test_a_retry_asks_for_more_within_the_limits(
    disturbed_run: tuple[Checkout, dict[str, Disturbed]], cluster: Cluster
) -> None:
    checkout, seen = disturbed_run
    assert {one.facts["TimeLimit"] for one in seen.values()} == {"00:10:00"}
    own = [job for job in cluster.ended() if job["WorkDir"] == str(checkout.folder)]
    # Twice 10 minutes is over max_minutes.
    again = [job for job in own if job["Partition"] == "gpu" and job["TimeLimit"] == "15"]
    # The lost node may have taken one of them along, which then went back into the queue.
    ends = {job["JobId"]: job["JobState"] for job in again}
    assert len(ends) == 2  # cancelled and limited; the others kept their number
    assert set(ends.values()) == {"COMPLETED"}
    assert all("mem=2250M" in job["Tres"] for job in again)
