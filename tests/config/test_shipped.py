"""Every study that is shipped makes a plan at every scale, alone and with the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icmbench.codecs.learned.entries import published_quality
from icmbench.config.job_settings import codec_spec, train_job, write_files
from icmbench.config.load import load_study
from icmbench.config.plan import Point, load_plan
from icmbench.config.validate import codec_parameters
from icmbench.registry import CODECS

WORKFLOW = Path(__file__).parents[2] / "workflow"
# Scales own and own-gpu have no data sets but the user's.
SCALES = sorted(
    path.stem for path in (WORKFLOW / "scales").glob("*.yaml") if not path.stem.startswith("own")
)
STUDIES = sorted(path.stem for path in (WORKFLOW / "studies").glob("*.yaml"))


@pytest.fixture
def make(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("ICMBENCH_MIRROR", raising=False)

    def plan(scale: str, studies: list[str]) -> Any:
        overrides = {"scale": scale, "studies": studies, "results": str(tmp_path)}
        if scale == "smoke":
            overrides["variants"] = "all"
        return load_plan(repository / "config.yaml", overrides)

    return plan


CASES = [("smoke", [study]) for study in STUDIES] + [(scale, STUDIES) for scale in SCALES]


@pytest.mark.parametrize(("scale", "studies"), CASES)
def test_every_study_makes_a_plan(make: Any, scale: str, studies: list[str]) -> None:
    plan = make(scale, studies)
    write_files(plan)
    assert plan.evaluated


def test_a_default_run_shows_every_comparison_of_images(make: Any) -> None:
    studies = ["chamain2021", "zhu2024", "tang2025", "zhang2022"]
    plan = make("mini", studies)
    for name in studies:
        stated = load_study(WORKFLOW / "studies", name, plan.scale).visual_comparisons
        shown = plan.studies[name].visual_comparisons
        assert [comparison.title for comparison in shown] == [one.title for one in stated] != []
        assert all(len(comparison.variants) > 1 for comparison in shown)


def test_published_weights_are_those_of_the_ladder(make: Any) -> None:
    """At scale paper the ladders are CompressAI's qualities 1 to 4."""
    plan = make("paper", STUDIES)
    checked = 0
    for point in plan.points:
        codec = plan.variant(point).codec
        if CODECS[codec].kind != "learned":
            continue
        origin = plan.initial_weights(point, "codec")
        weights = codec_spec(plan, point, origin).weights
        if weights.source == "pretrained":
            quality = published_quality(codec_parameters(plan.scale, codec), weights.rate)
            assert quality == origin.user.rate_index + 1, point.key
            checked += 1
    assert checked > 50


def test_the_method_of_zhu2024_has_the_papers_loss_and_parts(make: Any) -> None:
    plan = make("paper", ["zhu2024"])
    joint = Point("zhu2024", "ours/adapted-mask-rcnn/joint", 1, 0)
    job = train_job(plan, joint)
    assert job.loss == {"bpp": 1.0, "mse": 0.0035, "task": 0.5}
    assert job.parts == ["codec", "task.adaptation"]
    # One bitstream: the ablation and people decode what the method coded.
    without = Point("zhu2024", "ours/mask-rcnn/without-adaptation", 1, 0)
    assert plan.encode_key(without, "test") == plan.encode_key(joint, "test")
    people = Point("zhu2024", "ours/reconstruction/photographs", 1, 0)
    assert plan.codec_key(people) == plan.codec_key(joint)
    assert job.dataset.short_side is None  # rates are per native pixel


def test_left_out_names_study_codecs_and_key(make: Any) -> None:
    (line,) = make("paper", ["zhu2024"]).left_out
    for part in ("'zhu2024'", "hm-444, hm-444-truncated, vtm-444", "'classical_codecs'"):
        assert part in line
    assert not make("smoke", ["zhu2024", "chamain2021"]).left_out
