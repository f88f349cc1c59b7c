"""Planning stays linear in the size of a study, counted in calls: times depend on the machine."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from icmbench.config.plan import Plan, load_plan
from icmbench.workflow import Workflow

SMALL, LARGE = 100, 400


@pytest.fixture
def load(
    scale: ModuleType, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], Plan]:
    monkeypatch.delenv("ICMBENCH_MIRROR", raising=False)

    def plan(points: int) -> Plan:
        folder = tmp_path / str(points)
        folder.mkdir()
        (folder / f"{scale.STUDY}.yaml").write_text(yaml.safe_dump(scale.study(points)))
        overrides = {"scale": "smoke", "studies": [scale.STUDY], "seeds": scale.SEEDS}
        overrides |= {"study_folders": [str(folder)], "results": str(folder / "results")}
        return load_plan(repository / "config.yaml", overrides)

    return plan


def calls(work: Callable[[Plan], object], plan: Plan) -> int:
    profile = cProfile.Profile()
    profile.runcall(work, plan)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def ask(plan: Plan) -> None:
    """Call what Snakemake calls for each job, and once."""
    workflow = Workflow(plan)
    workflow.evaluated()
    for point in plan.trained:
        wildcards = SimpleNamespace(key=point.key)
        workflow.train_inputs(wildcards)
        workflow.train_threads(wildcards)
        workflow.train_memory(wildcards, 1)
    for curve in plan.evaluation_curves:
        workflow.evaluate_inputs(SimpleNamespace(curve=curve))
    for key in plan.coding_curves:
        split, _, curve = key.partition("/")
        workflow.coding_inputs(SimpleNamespace(split=split, curve=curve))
    for key in plan.classical_encodings:
        split, _, point = key.partition("/classical/")
        workflow.classical_inputs(SimpleNamespace(split=split, point=point))


def test_planning_is_linear_in_points(load: Callable[[int], Plan]) -> None:
    plans = {points: load(points) for points in (SMALL, LARGE)}
    for points, plan in plans.items():
        assert points < len(plan.evaluated) <= points + 10
        assert len(plan.trained) > points / 2
        assert len(plan.classical_encodings) >= points / 10
    for work in (Plan.write, ask):
        small, large = (calls(work, plan) for plan in plans.values())
        assert large < 1.15 * LARGE / SMALL * small, work


def test_a_plan_is_written_once(
    load: Callable[[int], Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    from icmbench.config import plan as module

    written: list[bool] = []
    write = module.write_if_changed
    monkeypatch.setattr(
        module, "write_if_changed", lambda path, text: written.append(write(path, text))
    )
    plan = load(SMALL)
    plan.write()
    files = len(list(plan.root.rglob("*.json")))
    assert written == [True] * files
    plan.write()
    assert written[files:] == [False] * files
