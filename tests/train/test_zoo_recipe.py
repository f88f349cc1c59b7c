"""The zoo's entries can be trained again: their first steps give the losses of the catalogue."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from statistics import fmean

import pytest

from icmbench.config.job_settings import train_job
from icmbench.config.plan import Plan, Point, load_plan
from icmbench.config.zoo import read_zoo
from icmbench.data.prepare import prepare
from icmbench.train.setup import prepare as prepare_training
from icmbench.train.step import optimise

pytestmark = [pytest.mark.zoo, pytest.mark.timeout(3600)]

# Losses by step. The codec ends with another training, whose losses the catalogue keeps; these are
# of the catalogue of commit d97675f, which held the codec before that.
CROPS = {"10": 1.22762, "20": 1.55267, "30": 1.56718}

# Training runs of a detector part after few steps: they sample proposals, and which ones depends on
# the last bits. Commit 3ef4814, which trained the entry, gives 1.754 at step 30 here, as it is now;
# another processor gave the catalogue's 1.613. Eleven runs (bf16 and fp32, one and two threads,
# weights that differ by 1e-7) gave 1.54 to 1.80. They are within 0.4 % of their means, which are
# here, in each of the first four steps, and within 1.9 % in the mean of 20. Learning rates 0.8 and
# 1.25 times as high, seeds 1 and 2, other images, others' boxes, no mirroring and swapped colours
# differ by 1.8 to 11 % in one of the four.
FIRST, MEAN = [2.610, 2.725, 2.471, 2.396], 2.057


@pytest.fixture(scope="module")
def zoo_plan(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    results = str(tmp_path_factory.mktemp("results"))
    overrides = {"scale": "zoo", "studies": ["chamain2021"], "results": results}
    plan = load_plan(repository / "config.yaml", overrides)
    prepare(plan.dataset("detection"), processes=2)
    return plan


def test_first_steps_of_a_detector_give_the_losses_of_the_catalogue(
    zoo_plan: Plan, repository: Path
) -> None:
    variant = "uncoded/faster-rcnn/pretrained"
    entry = read_zoo(repository / "workflow/zoo").find("chamain2021", variant, 0, "task")
    assert entry is not None
    found = first_losses(zoo_plan, Point("chamain2021", variant, 0, 0))
    assert found[:4] == pytest.approx(FIRST, rel=0.01)
    assert fmean(found[:20]) == pytest.approx(MEAN, rel=0.04)
    # The mean of three single steps: -1.4 to +5.4 % in the eleven runs, -14 to -22 % with twice the
    # learning rate or another seed.
    kept = [found[int(step) - 1] for step in entry.start]
    assert fmean(kept) == pytest.approx(fmean(entry.start.values()), rel=0.1)


def test_first_steps_of_a_codec_give_the_losses_that_they_gave(zoo_plan: Plan) -> None:
    found = first_losses(zoo_plan, Point("chamain2021", "hyperprior/reconstruction/start", 3, 0))
    # Another processor, or bf16, changes the last bits, which grow with every step.
    assert {step: found[int(step) - 1] for step in CROPS} == pytest.approx(CROPS, rel=0.05)


def first_losses(plan: Plan, point: Point) -> list[float]:
    """Return the losses of the first 30 steps of a training run."""
    training = prepare_training(train_job(plan, point), "test")
    steps = islice(training.batches(), 30)
    return [float(optimise(training, step, batch)["loss"]) for step, batch in steps]
