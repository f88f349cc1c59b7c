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

ENTRIES = [
    ("hyperprior/reconstruction/mse", 3, "codec"),
    ("uncoded/faster-rcnn/pretrained", 0, "task"),
]


@pytest.fixture(scope="module")
def zoo_plan(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    results = str(tmp_path_factory.mktemp("results"))
    overrides = {"scale": "zoo", "studies": ["chamain2021"], "results": results}
    plan = load_plan(repository / "config.yaml", overrides)
    prepare(plan.dataset("detection"), processes=2)
    return plan


@pytest.mark.parametrize(("variant", "rate", "part"), ENTRIES)
def test_first_steps_give_the_losses_of_the_catalogue(
    zoo_plan: Plan, repository: Path, variant: str, rate: int, part: str
) -> None:
    entry = read_zoo(repository / "workflow/zoo").find("chamain2021", variant, rate, part)
    assert entry is not None
    training = prepare_training(train_job(zoo_plan, Point("chamain2021", variant, rate, 0)), "test")
    last = max(map(int, entry.start))
    for step, batch in islice(training.batches(), last):
        values = optimise(training, step, batch)
        if str(step + 1) in entry.start:
            # Another processor, or bf16, changes the last bits, which grow with every step.
            assert float(values["loss"]) == pytest.approx(entry.start[str(step + 1)], rel=0.05)
