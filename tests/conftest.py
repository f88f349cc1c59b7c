"""Fixtures of all tests: a tiny data set, a tiny training job, the mirror of real data."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

# Before torch starts its thread pool: tests share the machine, and oversubscription is slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from icmbench.config import load
from icmbench.config.plan import Plan, Point, load_plan
from icmbench.data.specs import DatasetSpec, EmbeddedScenes
from icmbench.data.synthetic.scenes import generate
from icmbench.jobs import CodecSpec, TaskSpec, TrainJob

REPOSITORY = Path(__file__).parents[1]
Network = TypeVar("Network", CodecSpec, TaskSpec)

# A shell starts background commands with SIGINT ignored; the processes of tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# These take minutes, or need another installation: they run only if named with -m.
ON_DEMAND = ("conda", "faults", "install", "slurm", "zoo")
# `make quick`: what can be tested within a minute, without training and without whole runs.
QUICK = (
    "analyse/test_bootstrap.py", "analyse/test_curves.py", "analyse/test_published.py",
    "codecs/learned", "codecs/test_bitstream.py", "config", "data/synthetic",
    "evaluate/test_curve.py", "evaluate/test_records.py", "evaluate/test_statistics.py", "metrics",
    "networks/test_batchnorm.py", "networks/test_weights.py", "test_cli.py",
    "train/test_batches.py", "train/test_schedule.py", "workflow/test_docs.py",
    "workflow/test_layers.py",
)  # fmt: skip


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m quick`` no other module is imported, whose imports take seconds."""
    others = config.option.markexpr == "quick" and collection_path.name.startswith("test_")
    return True if others and not _quick(collection_path) else None


def _quick(path: Path) -> bool:
    return any(path.is_relative_to(REPOSITORY / "tests" / name) for name in QUICK)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") is None and _quick(item.path):
            item.add_marker(pytest.mark.quick)
    for marker in ON_DEMAND:
        if marker in config.option.markexpr:
            continue
        skip = pytest.mark.skip(reason=f"takes minutes; run it with pytest -m {marker}")
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _parse_yaml_once() -> Iterator[None]:
    """Equal YAML is parsed once: that takes nine tenths of the time of making a plan."""
    parsed = lru_cache(maxsize=None)(load.parse_yaml)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "parse_yaml", lambda text: deepcopy(parsed(text)))
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The directory of real images and annotations."""
    name = os.environ.get("ICMBENCH_MIRROR")
    if not name:
        pytest.skip("ICMBENCH_MIRROR does not name a directory of real data")
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
    overrides = {"scale": "smoke", "variants": "all", "results": str(tmp_path / "results")}
    return load_plan(REPOSITORY / "config.yaml", overrides)


@pytest.fixture(scope="session")
def training_plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The plan of the smoke scale, for jobs whose output is elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ICMBENCH_MIRROR", raising=False)
        results = str(tmp_path_factory.mktemp("plan"))
        overrides = {"scale": "smoke", "variants": "all", "results": results}
        return load_plan(REPOSITORY / "config.yaml", overrides)


@pytest.fixture
def train_job(training_plan: Plan, scenes: DatasetSpec, tmp_path: Path) -> Callable[..., TrainJob]:
    """Return a function that gives the training job of a variant on the tiny data set."""

    def make(variant: str, rate: int = 0, **schedule: Any) -> TrainJob:
        from icmbench.config.job_settings import train_job

        job = train_job(training_plan, Point("chamain2021", variant, rate, 0))
        return job.model_copy(
            update={
                "output": str(tmp_path / "run"),
                "dataset": scenes,
                "schedule": job.schedule.model_copy(update=schedule),
                "codec": _from_random(job.codec),
                "task": _from_random(job.task),
            }
        )

    return make


def _from_random(network: Network) -> Network:
    """Return a network that starts from random weights, if it has any."""
    if network.weights.source is None:
        return network
    weights = network.weights.model_copy(update={"source": "random"})
    return network.model_copy(update={"weights": weights})
