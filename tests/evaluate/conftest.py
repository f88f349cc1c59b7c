"""Jobs of a tiny data set: a classical codec at one quality, a learned codec at two rates."""

from __future__ import annotations

from pathlib import Path

import pytest
from coding_jobs import encode_job

from icmbench.data.specs import DatasetSpec
from icmbench.jobs import CacheSpec, ClassicalJob, ClassicalSpec, EncodeJob
from icmbench.metrics.catalogue import PIXEL_METRICS
from icmbench.plugins import load_modules


@pytest.fixture
def classical_job(tmp_path: Path, scenes: DatasetSpec) -> ClassicalJob:
    load_modules([])
    return ClassicalJob(
        key="detection-test/classical/jpeg/quality-40",
        output=str(tmp_path / "classical"),
        codec=ClassicalSpec(
            name="jpeg",
            parameters={"chroma": "4:2:0"},
            rate=40.0,
            version=1,
            programs={},
            modules=[],
        ),
        dataset=scenes,
        split="test",
        chunk=0,
        chunks=1,
        quality=list(PIXEL_METRICS),
        cache=CacheSpec(directory=str(tmp_path / "cache"), limit_gb=1.0),
        modules=[],
    )


@pytest.fixture
def encode_jobs(tmp_path: Path, scenes: DatasetSpec) -> list[EncodeJob]:
    """A hyperprior of small random weights, which are saved as a training run saves them."""
    load_modules([])
    return [encode_job(tmp_path, scenes, rate) for rate in range(2)]
