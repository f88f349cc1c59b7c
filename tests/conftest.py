"""What every test may use: a tiny data set, a tiny training, the mirror of real data."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

# Before torch starts its pool: tests share the machine, and oversubscription costs a lot.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from icmbench.config.plan import Plan, load_plan
from icmbench.data.specs import DatasetSpec, EmbeddedScenes
from icmbench.data.synthetic.scenes import generate

REPOSITORY = Path(__file__).parents[1]

# A shell starts background commands with SIGINT ignored; the processes of tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Minutes each, or another installation: they run where they are asked for, with -m.
ON_DEMAND = ("conda", "faults", "slurm")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker in ON_DEMAND:
        if marker in config.option.markexpr:
            continue
        skip = pytest.mark.skip(reason=f"takes minutes; run it with pytest -m {marker}")
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The directory of real images and annotations, where there is one."""
    name = os.environ.get("ICMBENCH_MIRROR")
    if not name:
        pytest.skip("ICMBENCH_MIRROR names no directory of real data")
    return Path(name)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> DatasetSpec:
    """A tiny generated data set."""
    folder = tmp_path_factory.mktemp("scenes")
    config = EmbeddedScenes(source="embedded-scenes", size=128, train=8, val=2, test=4)
    manifest = generate(config, folder)
    return DatasetSpec(
        role="detection", folder=str(folder), manifest=str(manifest), settings=config
    )


@pytest.fixture
def smoke_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The plan of the smoke scale, with results under a temporary folder."""
    monkeypatch.delenv("ICMBENCH_MIRROR", raising=False)
    overrides = {"scale": "smoke", "results": str(tmp_path / "results")}
    return load_plan(REPOSITORY / "config.yaml", overrides)


@pytest.fixture
def train_job(smoke_plan: Plan, scenes: dict[str, Any]) -> Any:
    """Return a function that gives the training job of a variant on the tiny data set."""

    def make(variant: str, rate: int = 0, **schedule: Any) -> dict[str, Any]:
        from icmbench.config.plan import Point

        job = smoke_plan.train_job(Point("chamain2021", variant, rate, 0))
        job["dataset"] = scenes
        job["schedule"].update(schedule)
        for part in ("codec", "task"):
            if job[part]["weights"] not in (None, "random"):
                job[part]["weights"] = "random"
        return json.loads(json.dumps(job))

    return make


@pytest.fixture(scope="module")
def scale(repository: Path) -> ModuleType:
    """``benchmarks/scale.py``, which generates studies and results of any size."""
    spec = importlib.util.spec_from_file_location("scale", repository / "benchmarks/scale.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
