"""Registered versions: one for each training run that finished, and MLflow loads its networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from results_folder import CFT, ENVIRONMENT, START, ResultsFolder
from stored import Stored

from icmbench.config.job_settings import train_job
from icmbench.config.plan import Plan, Point, load_plan
from icmbench.jobs import TrainJob, WeightsSpec
from icmbench.networks.build import build_codec, build_task
from icmbench.registry import CODECS
from icmbench.summaries import DataSummary, TrainingSummary
from icmbench.track import sync
from icmbench.track.model import TrainedNetworks
from icmbench.train.checkpoint import save_weights
from icmbench.utils.files import sha256_file, write_json
from icmbench.utils.images import to_image, to_tensor

NAME = "icmbench.toy2020.smoke.hyperprior.faster-rcnn.c-ft"
POINT, OTHER = f"{CFT}/rate0-seed0", f"{CFT}/rate1-seed0"
Get = Callable[[], Stored]


@pytest.fixture(scope="module")
def plan(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    results = str(tmp_path_factory.mktemp("plan") / "results")
    return load_plan(repository / "config.yaml", {"scale": "smoke", "results": results})


def _untrained(plan: Plan, study: str, variant: str) -> tuple[TrainJob, Any, Any]:
    """Return a training job with the networks of its codec and task at random weights."""
    job = train_job(plan, Point(study, variant, 0, 0))
    torch.manual_seed(1)
    codec = task = None
    if CODECS[job.codec.name].kind == "learned":
        random = WeightsSpec(source="random", of=None, part="codec")
        codec = build_codec(job.codec.model_copy(update={"weights": random}))
        codec.prepare_coding()
    if any(part.startswith("task") for part in job.parts):
        random = WeightsSpec(source="random", of=None, part="task")
        task = build_task(job.task.model_copy(update={"weights": random})).eval()
    return job, codec, task


def _leave(folder: Path, job: TrainJob, codec: Any, task: Any) -> str:
    """Write what a training run leaves; return the checksum of its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / "weights.pt", codec, task, {})
    digest = sha256_file(folder / "weights.pt")
    summary = TrainingSummary(
        key=job.key, status="finished", started=START, finished=START + 1, fingerprint="f" * 64,
        steps=1, steps_done=1, parameters={}, job=job, wall_seconds=1, cpu_seconds=1,
        dataset=DataSummary(role="detection", name="embedded-scenes", digest="d" * 64),
        environment=ENVIRONMENT, weights_sha256=digest,
    )  # fmt: skip
    write_json(folder / "run.json", summary.model_dump(mode="json"))
    return digest


def _images(side: int = 64) -> np.ndarray:
    values = np.random.default_rng(3).random((2, 3, side, side), dtype=np.float32)
    return np.round(values * 255) / np.float32(255)


def test_pyfunc_loads_a_registered_version(
    results: ResultsFolder, stored: Get, plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import mlflow

    job, codec, _ = _untrained(plan, "chamain2021", "hyperprior/faster-rcnn/c-ft")
    digest = _leave(results.folder(POINT), job, codec, None)
    results.record(POINT, "finished", job=job.model_dump(mode="json"), weights_sha256=digest)
    save_weights(results.folder(POINT) / "weights.pt", codec, None, {})
    sync(results.root)
    (version,) = stored().versions()
    assert (version.name, version.tags["weights_sha256"]) == (NAME, digest)
    monkeypatch.chdir(tmp_path)  # the version does not depend on the folder that it is loaded from
    mlflow.set_tracking_uri(f"sqlite:///{results.root.parent / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model(f"models:/{NAME}/{version.version}")
    images = _images()
    for image, result in zip(images, model.predict(images), strict=True):
        encoded = codec.encode(to_image(torch.from_numpy(image)))
        assert result["bits"] == 8 * len(encoded.data)
        expected = to_tensor(codec.decode(encoded.data))[0].numpy()
        np.testing.assert_array_equal(result["image"], expected)


@pytest.mark.parametrize(
    ("study", "variant", "expected"),
    [
        ("chamain2021", "hyperprior/faster-rcnn/j-ft", {"bits", "image", "boxes"}),
        ("chamain2021", "uncoded/faster-rcnn/pretrained", {"boxes", "labels", "scores"}),
        ("tang2025", "dicm/reconstruction/codec", {"bits", "features"}),
        ("tang2025", "uncoded/linear-probe/original", {"logits"}),
        ("zhang2022", "layered/face-analysis/end-to-end", {"bits", "image", "attributes"}),
    ],
)
def test_predict_codes_images_and_runs_the_task(
    plan: Plan, tmp_path: Path, study: str, variant: str, expected: set[str]
) -> None:
    job, codec, task = _untrained(plan, study, variant)
    _leave(tmp_path, job, codec, task)
    first, second = TrainedNetworks(tmp_path).predict(_images())
    assert expected <= set(first) == set(second)
    assert all(isinstance(value, np.ndarray | int) for value in first.values())


def test_predict_reads_the_codec_of_a_task_on_features(plan: Plan, tmp_path: Path) -> None:
    job, codec, task = _untrained(plan, "tang2025", "dicm/feature-probe/proposed")
    source = job.codec.weights
    assert source.path is not None
    _leave(tmp_path / "codec", job, codec, None)
    weights = source.model_copy(update={"source": str(tmp_path / "codec" / "weights.pt")})
    job = job.model_copy(update={"codec": job.codec.model_copy(update={"weights": weights})})
    _leave(tmp_path / "probe", job, None, task)
    (result, _) = TrainedNetworks(tmp_path / "probe").predict(_images())
    assert {"features", "logits"} <= set(result)


def test_damaged_weights_are_not_loaded(plan: Plan, tmp_path: Path) -> None:
    job, codec, task = _untrained(plan, "chamain2021", "uncoded/faster-rcnn/pretrained")
    _leave(tmp_path, job, codec, task)
    content = bytearray((tmp_path / "weights.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(Exception, match=r"weights\.pt"):
        TrainedNetworks(tmp_path)


def test_sync_registers_only_finished_training_runs(results: ResultsFolder, stored: Get) -> None:
    results.train(POINT, "failed")
    results.train(OTHER)
    sync(results.root)
    assert [version.tags["run_key"] for version in stored().versions()] == [OTHER]


def test_sync_replaces_the_version_of_a_repeated_training_run(
    results: ResultsFolder, stored: Get
) -> None:
    results.train(POINT)
    sync(results.root)
    results.record(POINT, "finished", weights_sha256="b" * 64)
    sync(results.root)
    (version,) = stored().versions()
    assert version.tags["weights_sha256"] == "b" * 64
    assert version.run_id == stored().runs()[POINT].info.run_id
    results.record(POINT, "running")
    sync(results.root)
    assert not stored().versions()
