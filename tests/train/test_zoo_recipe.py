"""The zoo's entries can be trained again: their first steps give the losses of the catalogue."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

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
    check_first_steps(zoo_plan, Point("chamain2021", variant, 0, 0), entry.start)


def test_first_steps_of_a_codec_give_the_losses_that_they_gave(zoo_plan: Plan) -> None:
    check_first_steps(
        zoo_plan, Point("chamain2021", "hyperprior/reconstruction/start", 3, 0), CROPS
    )


def check_first_steps(plan: Plan, point: Point, losses: dict[str, float]) -> None:
    """Train until the last step in ``losses``, and compare."""
    training = prepare_training(train_job(plan, point), "test")
    found = {}
    for step, batch in islice(training.batches(), max(map(int, losses))):
        found[str(step + 1)] = float(optimise(training, step, batch)["loss"])
    # Another processor, or bf16, changes the last bits, which grow with every step.
    assert {step: found[step] for step in losses} == pytest.approx(losses, rel=0.05)
