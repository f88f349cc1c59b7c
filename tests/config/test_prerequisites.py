"""A study alone adds the variants whose weights it starts from, and nothing more."""

from __future__ import annotations

from pathlib import Path

import pytest

from icmbench.config.job_settings import summary, train_job
from icmbench.config.plan import load_plan
from icmbench.report.outputs import expected_outputs


def test_with_supporting_adds_only_what_is_needed(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ICMBENCH_MIRROR", raising=False)
    overrides = {"scale": "smoke", "results": str(tmp_path), "studies": ["zhu2024"]}
    plan = load_plan(repository / "config.yaml", overrides)
    supporting = plan.studies["chamain2021"]
    assert set(supporting.variants) == {
        "hyperprior/reconstruction/mse",
        "uncoded/faster-rcnn/pretrained",
    }
    assert not any(variant.evaluate for variant in supporting.variants.values())
    assert not supporting.comparisons and not supporting.published
    # They are trained, but no page, figure or curve shows them.
    assert {p.study for p in plan.trained} == {"chamain2021", "zhu2024"}
    assert {p.study for p in plan.evaluated} == {"zhu2024"}
    assert not any("chamain" in name for name in expected_outputs(summary(plan)))
    both = load_plan(
        repository / "config.yaml", {**overrides, "studies": ["zhu2024", "chamain2021"]}
    )
    keys = {p.key for p in plan.trained}
    assert keys < {p.key for p in both.trained}
    for key in keys:  # the same job files, so nothing is trained twice
        assert train_job(plan, plan.by_key[key]) == train_job(both, both.by_key[key])
