"""A job on another node follows the plan that was written, whatever is at hand there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icmbench.config.plan import Plan, load_plan
from icmbench.errors import UserError


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
    return str(plan.summary()["datasets"]["photographs"]["source"])


def test_a_node_without_the_mirror_follows_the_plan(
    configuration: dict[str, Any], tmp_path: Path, repository: Path
) -> None:
    plan = load_plan(repository / "config.yaml", configuration)
    plan.write()
    assert photographs(plan) == "catalogue"
    (tmp_path / "mirror/kodak").rmdir()
    assert photographs(load_plan(repository / "config.yaml", configuration)) == "embedded-scenes"
    followed = load_plan(repository / "config.yaml", configuration, as_written=True)
    assert followed.summary() == plan.summary()


def test_without_a_plan_there_is_nothing_to_follow(
    configuration: dict[str, Any], repository: Path
) -> None:
    with pytest.raises(UserError, match=r"plan\.json: no such file"):
        load_plan(repository / "config.yaml", configuration, as_written=True)


def test_where_a_job_runs_is_no_part_of_the_plan(
    configuration: dict[str, Any], repository: Path
) -> None:
    here = load_plan(repository / "config.yaml", configuration)
    site = {"cluster": {"account": "us", "max_minutes": 5}}
    assert load_plan(repository / "config.yaml", {**configuration, **site}).summary() == (
        here.summary()
    )
