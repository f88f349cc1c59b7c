"""Operating points, their weights and files, and the plan that jobs on other nodes follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from icmbench.config.job_settings import (
    coded_images,
    coded_states,
    encode_curves,
    evaluate_curve,
    evaluate_job,
    summary,
    train_job,
    write_files,
)
from icmbench.config.plan import Plan, Point, load_plan
from icmbench.config.study import Study
from icmbench.errors import UserError
from icmbench.jobs import EvaluateJob, RateTarget, TrainJob, read_job

STUDY, J_FT = "chamain2021", "hyperprior/faster-rcnn/j-ft"


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The scale whose photographs are Kodak's where a mirror has them."""
    monkeypatch.delenv("ICMBENCH_MIRROR", raising=False)
    (tmp_path / "mirror/kodak").mkdir(parents=True)
    return {
        "scale": "mini",
        "studies": ["chamain2021"],
        "results": str(tmp_path / "results"),
        "data": {"directory": str(tmp_path / "data"), "mirror": str(tmp_path / "mirror")},
    }


def photographs(plan: Plan) -> str:
    return plan.dataset("photographs").name


def test_plan_as_written_is_followed_without_the_mirror(
    configuration: dict[str, Any], tmp_path: Path, repository: Path
) -> None:
    plan = load_plan(repository / "config.yaml", configuration)
    write_files(plan)
    assert photographs(plan) == "kodak"
    (tmp_path / "mirror/kodak").rmdir()
    assert photographs(load_plan(repository / "config.yaml", configuration)) == "photographs"
    followed = load_plan(repository / "config.yaml", configuration, as_written=True)
    assert summary(followed) == summary(plan)


def test_plan_as_written_needs_a_plan(configuration: dict[str, Any], repository: Path) -> None:
    with pytest.raises(UserError, match=r"plan\.json"):
        load_plan(repository / "config.yaml", configuration, as_written=True)


def test_summary_leaves_out_the_cluster(configuration: dict[str, Any], repository: Path) -> None:
    here = load_plan(repository / "config.yaml", configuration)
    site = {"cluster": {"account": "us", "max_minutes": 5}}
    there = load_plan(repository / "config.yaml", {**configuration, **site})
    assert summary(there).model_dump_json() == summary(here).model_dump_json()


def test_initial_weights_follow_the_chain(configuration: dict[str, Any], repository: Path) -> None:
    plan = load_plan(
        repository / "config.yaml", {**configuration, "scale": "smoke", "studies": ["zhu2024"]}
    )
    anchor = "cheng2020-anchor/reconstruction/mse"
    point, first = Point("zhu2024", anchor, 0, 0), Point("zhu2024", anchor, 1, 0)
    assert plan.initial_weights(point, "codec").place == first
    assert plan.initial_weights(first, "codec").place == "random"


def test_initial_weights_are_those_of_the_named_variants(smoke_plan: Plan) -> None:
    point = Point(STUDY, J_FT, 1, 0)
    mse = Point(STUDY, "hyperprior/reconstruction/mse", 1, 0)
    assert smoke_plan.initial_weights(point, "codec").place == mse
    detector = Point(STUDY, "uncoded/faster-rcnn/pretrained", 0, 0)
    assert smoke_plan.initial_weights(point, "task").place == detector


def test_encode_key_is_shared_by_baseline_and_task_fine_tuning(smoke_plan: Plan) -> None:
    keys = {
        smoke_plan.encode_key(Point(STUDY, f"hyperprior/faster-rcnn/{mode}", 1, 0), "test")
        for mode in ("baseline", "t-ft")
    }
    assert keys == {f"detection-test/{STUDY}/hyperprior/reconstruction/mse/rate1-seed0"}


def test_results_that_no_seed_changes_are_evaluated_once(
    configuration: dict[str, Any], repository: Path
) -> None:
    """The reference: settings of two evaluations that agree but for the seed and its folder."""
    settings = {**configuration, "studies": ["chamain2021", "tang2025", "classical"]}
    plan = load_plan(repository / "config.yaml", {**settings, "seeds": [0, 1, 2]})

    def work(job: EvaluateJob) -> str:
        own = job.model_dump_json(exclude={"key", "seed", "output"})
        assert '"source":"random"' not in own
        return own

    made = {
        job.output: work(job)
        for curve in plan.evaluation_curves
        for job in evaluate_curve(plan, curve).jobs
    }
    wanted = {point.key: work(evaluate_job(plan, point)) for point in plan.evaluated}
    assert len(made) == len({(p.study, p.variant, wanted[p.key]) for p in plan.evaluated})
    assert len(plan.evaluated) / 3 < len(made) < len(plan.evaluated)
    points = [point for point in summary(plan).points if point.evaluated]
    assert {point.key: made[point.folder] for point in points} == wanted
    assert {str(point.inside(plan.root)) for point in points} == set(made)
    alone = load_plan(repository / "config.yaml", {**settings, "seeds": [1]})
    assert {Path(p.folder) for p in summary(alone).points} == {
        alone.root / "runs" / point.key for point in alone.points
    }


def test_a_network_that_is_left_at_random_differs_between_seeds(repository: Path) -> None:
    study = """
name: own
title: t
reference: {authors: a, venue: v, year: 2020}
summary: s
variants:
  uncoded/faster-rcnn/none:
    {label: l, codec: uncoded, task: faster-rcnn, mode: none, dataset: detection,
     task_from: random}
"""
    own = Study.model_validate(yaml.safe_load(study))
    plan = load_plan(repository / "config.yaml", {"scale": "smoke", "seeds": [0, 1]})
    plan.studies["own"] = own
    point = Point("own", "uncoded/faster-rcnn/none", 0, 1)
    assert plan.result_point(point) == point


def test_a_pilot_steers_the_rate_of_training(
    configuration: dict[str, Any], repository: Path
) -> None:
    plan = load_plan(repository / "config.yaml", {**configuration, "scale": "paper"})
    job = train_job(plan, Point(STUDY, J_FT, 1, 0))
    assert job.loss == {
        "task": 1.0,
        "bpp": RateTarget(target=0.1, start=1.0, gain=0.02, steps=2000),
    }
    assert (job.rate_parameter, job.rate_value) == ("bpp", 0.1)
    fixed = train_job(plan, Point(STUDY, "hyperprior/faster-rcnn/t-ft", 1, 0))
    assert fixed.loss == {"task": 1.0}
    assert fixed.schedule.steps == job.schedule.steps


def test_learned_codecs_are_coded_in_chunks_of_all_rates(
    configuration: dict[str, Any], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = load_plan(repository / "config.yaml", {**configuration, "scale": "smoke"})
    chunks = {"detection": {"bmshj2018-hyperprior": 3}}
    monkeypatch.setattr(plan, "scale", plan.scale.model_copy(update={"chunks": chunks}))
    point = Point(STUDY, J_FT, 0, 0)
    coded = coded_images(plan, point, "test")
    assert coded is not None and len(coded.folders) == 3
    curves = encode_curves(plan)
    states = coded_states(plan, point, "test")
    for chunk, state in enumerate(states):
        name = str(Path(state).parent.relative_to(plan.root / "encoded"))
        jobs = curves[name].jobs
        assert {(job.chunk, job.chunks) for job in jobs} == {(chunk, 3)}
        assert len(jobs) == plan.studies[STUDY].rates(plan.variant(point))
        # All rates of the share, this point's among them.
        assert coded.folders[chunk] in [job.output for job in jobs]


def test_plan_without_a_classical_codec_drops_its_variants(
    configuration: dict[str, Any], repository: Path
) -> None:
    plan = load_plan(repository / "config.yaml", {**configuration, "classical_codecs": []})
    assert not any("hevc" in point.variant for point in plan.points)
    anchors = [c.anchor for c in plan.studies[STUDY].comparisons]
    assert anchors and not any("hevc" in anchor for anchor in anchors)


def test_write_files_leaves_unchanged_files_alone(smoke_plan: Plan) -> None:
    write_files(smoke_plan)
    before = {p: p.stat().st_mtime_ns for p in smoke_plan.root.rglob("*.json")}
    write_files(smoke_plan)
    assert before == {p: p.stat().st_mtime_ns for p in smoke_plan.root.rglob("*.json")}


def test_read_job_returns_what_the_plan_wrote(smoke_plan: Plan) -> None:
    write_files(smoke_plan)
    point = Point(STUDY, J_FT, 1, 0)
    path = smoke_plan.job_path("train", point.key)
    assert read_job(path, TrainJob) == train_job(smoke_plan, point)
    path.write_text(path.read_text().replace('"seed"', '"sead"'))
    with pytest.raises(UserError, match="seed"):
        read_job(path, TrainJob)
