"""The cost of a run against hours computed by hand, and the limits of scale paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from icmbench.commands.cost import cost_summary, cost_table, planned
from icmbench.config.cost import Cost, plan_costs, read_costs
from icmbench.config.plan import Plan
from icmbench.errors import UserError
from icmbench.registry import CODECS

STUDY = "chamain2021"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned(["scale=paper"])


def test_hours_are_those_computed_by_hand(plan: Plan) -> None:
    """J-FT: 3 forward passes of codec and detector, 2 operations each; T-FT: 1 of the codec."""
    (costs, missing), speeds = plan_costs(plan), read_costs().speeds
    assert not missing
    megapixels = 800 * 800 * 1.41 / 1e6
    codec, detector = megapixels * 87.1e9, 171e9
    images = 4 * 53000 * 8 * speeds.padding
    hours = {"j-ft": 3 * codec + 3 * detector, "c-ft": 3 * codec + 2 * detector,
             "t-ft": codec + 3 * detector}  # fmt: skip
    for mode, macs in hours.items():
        expected = 2 * macs * images / (speeds.train_tflops * 1e12) / 3600
        found = costs[STUDY, f"hyperprior/faster-rcnn/{mode}"]
        assert found.train_gpu_h == pytest.approx(expected)
    # T-FT reads the baseline's bitstreams; HEVC's decodes four train sets.
    assert costs[STUDY, "hyperprior/faster-rcnn/t-ft"].cpu_h == 0
    train = 4 * 118287 * megapixels
    hevc = costs[STUDY, "hevc/faster-rcnn/t-ft"]
    assert hevc.cpu_h == pytest.approx(train * 1.3 / 3600)
    assert hevc.disk_gb == pytest.approx(train * 0.06 / 1000 + 4 * 0.6)  # bitstreams alone


def test_faces_are_read_in_the_size_that_they_are_resized_to_once(plan: Plan) -> None:
    """Where the network waits for the loader: a second for a million pixels, 14 processes."""
    costs = read_costs()
    slow = costs.speeds.model_copy(update={"load_s_per_megapixel": 1.0})
    found = plan_costs(plan, costs.model_copy(update={"speeds": slow}))[0]
    hours = found["zhang2022", "uncoded/face-attributes/original"].train_gpu_h
    assert hours == pytest.approx(0.512**2 * 100_000 * 16 / 14 / 3600)


def test_decoding_in_the_loader_may_be_what_training_waits_for(plan: Plan) -> None:
    pixels = 800 * 800 * 1.41 / 1e6 * 4 * 53000 * 8
    vvc = plan_costs(plan)[0][STUDY, "vvenc/faster-rcnn/t-ft"]
    assert vvc.train_gpu_h == pytest.approx(0.17 * pixels / 14 / 3600)


def test_hours_of_training_on_several_sizes_are_those_of_the_mean_size(plan: Plan) -> None:
    speeds, pixels = read_costs().speeds, 800 * 800 * 1.37
    share = sum((side / 800) ** 2 for side in range(480, 801, 32)) / 11
    macs = (15e3 + 3 * 66e3 + 3 * 110e3) * pixels * share  # the head is frozen
    expected = 2 * macs * speeds.padding * 24000 * 16 / (speeds.train_tflops * 1e12) / 3600
    found = plan_costs(plan)[0]["tang2025", "uncoded/resnet-faster-rcnn/original"]
    assert found.train_gpu_h == pytest.approx(expected)


@pytest.mark.parametrize(("study", "limit"), [(STUDY, 60), ("zhu2024", 120)])
def test_scale_paper_stays_within_its_budget(plan: Plan, study: str, limit: float) -> None:
    own = [cost for (of, _), cost in plan_costs(plan)[0].items() if of == study]
    assert sum(own, Cost()).gpu_h < limit


def test_no_job_codes_whole_sets_for_longer_than_six_hours(plan: Plan) -> None:
    """Of study photos; a job of a learned codec codes its share at all rates."""
    costs, study = plan_costs(plan)[0], plan.studies["photos"]
    for name, variant in study.variants.items():
        rates = study.rates(variant)
        one_by_one = rates if CODECS[variant.codec].kind == "classical" else 1
        assert costs["photos", name].cpu_h / plan.chunks(variant) / one_by_one < 6, name
    assert costs["photos", "vtm-444/resnet50-crop224/baseline"].cpu_h > 100


def test_counted_work_of_a_codec_is_what_the_table_says() -> None:
    import torch

    from icmbench.evaluate.complexity import macs_of
    from icmbench.registry import CODECS, implementation

    entry = CODECS["bmshj2018-hyperprior"]
    network = implementation(entry)(entry.parameters()).network.eval()
    image, stated = torch.zeros(1, 3, 64, 64), read_costs().networks[entry.name].kmacs
    with torch.no_grad():
        latent = network.g_a(image)
        counted = {
            "analysis": macs_of(lambda: network.g_a(image)),
            "synthesis": macs_of(lambda: network.g_s(latent)),
        }
    for part, macs in counted.items():
        assert macs / 64**2 / 1000 == pytest.approx(stated[part], rel=0.01)


def test_what_has_no_numbers_is_named(plan: Plan) -> None:
    costs = read_costs()
    some = costs.model_copy(update={"classical": {}, "networks": dict(costs.networks)})
    del some.networks["faster-rcnn"]
    found, missing = plan_costs(plan, some)
    assert {"faster-rcnn", "vtm-444"} <= set(missing) and "mask-rcnn" not in missing
    pixels = 4 * 5000 * 800 * 800 * 1.41 / 1e6
    quality = costs.speeds.quality_s_per_megapixel * pixels / 3600  # of the decoded images alone
    assert found[STUDY, "vvc/faster-rcnn/baseline"].cpu_h == pytest.approx(quality)


def test_summary_and_table_agree(plan: Plan, repository: Path) -> None:
    (words,) = [line for line in cost_summary(plan) if STUDY in line]
    total = next(line for line in cost_table(plan).splitlines() if line.startswith(STUDY))
    training, evaluation, *_ = (float(cell) for cell in total.split()[1:])
    assert f" {training + evaluation:.0f} GPU hours" in words


@pytest.mark.parametrize(
    ("settings", "words"),
    [(["scale"], "scale"), (["scale=mini"], "'mini'")],
)
def test_cost_refuses(settings: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words.replace("[", r"\[")):
        plan_costs(planned(settings))
