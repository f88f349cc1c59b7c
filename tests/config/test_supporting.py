"""A study alone brings along what it starts from, and nothing more."""

from __future__ import annotations

from pathlib import Path

import pytest

from icmbench.config.plan import load_plan
from icmbench.report.outputs import expected_outputs


def test_only_what_is_needed_comes_along(
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
    assert not any("chamain" in name for name in expected_outputs(plan.summary()))
    both = load_plan(
        repository / "config.yaml", {**overrides, "studies": ["zhu2024", "chamain2021"]}
    )
    keys = {p.key for p in plan.trained}
    assert keys < {p.key for p in both.trained}
    for key in keys:  # the same job files, so nothing is trained twice
        assert plan.train_job(plan.by_key[key]) == both.train_job(both.by_key[key])
