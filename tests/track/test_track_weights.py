"""Final weights in MLflow's registry: once each, with a signature that the networks keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from track_results import CFT, ResultsFolder
from track_store import Store

from icmbench.track import sync
from icmbench.track.signature import signature_of

NAME = "icmbench.toy2020.smoke.hyperprior.faster-rcnn.c-ft"
POINT, OTHER = f"{CFT}/rate0-seed0", f"{CFT}/rate1-seed0"


def test_weights_are_registered_once_with_their_signature(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    from mlflow.models import get_model_info

    sync(results.fill().root)
    versions = store().versions()
    assert sorted((v.name, v.tags["run_key"]) for v in versions) == [(NAME, POINT), (NAME, OTHER)]
    version = next(v for v in versions if v.tags["run_key"] == POINT)
    assert version.run_id == store().runs()[POINT].info.run_id
    assert version.tags["weights_sha256"] == "a" * 64
    assert version.tags["weights_path"] == f"smoke/runs/{POINT}/weights.pt"
    assert (version.tags["rate_value"], version.tags["seed"]) == ("0.01", "0")
    model = Path(store().client.download_artifacts(version.run_id, "model"))
    assert str(results.root.parent) not in (model / "MLmodel").read_text()
    info = get_model_info(str(model))
    assert info.flavors["icmbench"]["sha256"] == "a" * 64
    names = [tensor.name for tensor in info.signature.outputs]
    assert names == ["reconstructions", "boxes", "labels", "scores"]
    sync(results.root)
    assert [(v.name, v.version) for v in store().versions()] == [
        (v.name, v.version) for v in versions
    ]


def test_only_finished_trainings_are_registered(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    results.train(POINT, "failed")
    results.train(OTHER)
    sync(results.root)
    assert [v.tags["run_key"] for v in store().versions()] == [OTHER]


@pytest.mark.parametrize("rows", [True, False], ids=["anew", "same-log"])
def test_other_weights_take_the_place_of_the_first(
    results: ResultsFolder, store: Callable[[], Store], rows: bool
) -> None:
    results.train(POINT)
    sync(results.root)
    if rows:
        (results.folder(POINT) / "metrics.jsonl").unlink()
        results.log(POINT, 10, 3.0)
    results.record(POINT, "finished", weights_sha256="b" * 64)
    sync(results.root)
    (version,) = store().versions()
    assert version.tags["weights_sha256"] == "b" * 64
    assert version.run_id == store().runs()[POINT].info.run_id


def test_a_training_that_begins_anew_takes_its_version_away(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    results.train(POINT)
    sync(results.root)
    (results.folder(POINT) / "metrics.jsonl").unlink()
    results.log(POINT, 10, 3.0)
    results.record(POINT, "running")
    sync(results.root)
    assert not store().versions()


def test_a_module_that_is_not_here_costs_the_signature_only(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    job = {**results.plan.train_job(results.point(POINT)), "modules": ["no_such_module"]}
    results.train(POINT, job=job)
    assert not sync(results.root).problems
    (version,) = store().versions()
    text = store().client.download_artifacts(version.run_id, "model/MLmodel")
    assert "signature" not in Path(text).read_text()


def test_a_detectors_signature_is_what_it_predicts(train_job: Any) -> None:
    import torch

    from icmbench.tasks import FasterRcnnParameters
    from icmbench.tasks.faster_rcnn import FasterRcnn

    job = train_job("uncoded/faster-rcnn/pretrained")
    told = {tensor.name: tensor for tensor in signature_of(job).outputs}
    parameters = FasterRcnnParameters.model_validate(job["task"]["parameters"])
    (seen,) = FasterRcnn(parameters).predict([torch.rand(3, 64, 64)])
    assert set(seen) == set(told)
    _agree(told, seen)


def test_signatures_of_faces_and_features() -> None:
    import torch

    from icmbench.codecs.base import Features
    from icmbench.codecs.layered.parameters import LayeredParameters
    from icmbench.registry import CODECS
    from icmbench.tasks.faces.analysis import FaceOnFeatures
    from icmbench.tasks.faces.parameters import FaceOnFeaturesParameters

    codec = LayeredParameters().model_dump()
    channels = CODECS["layered"].feature_channels(LayeredParameters())  # type: ignore[misc]
    task = {"attributes": 5, "parsing": 4, "feature_channels": channels}
    job = {
        "modules": [],
        "codec": {"name": "layered", "parameters": codec},
        "task": {"name": "face-analysis-on-features", "parameters": task},
    }
    told = {tensor.name: tensor for tensor in signature_of(job).outputs}
    assert told["features"].shape == (-1, channels, -1, -1)
    network = FaceOnFeatures(FaceOnFeaturesParameters.model_validate(task))
    features = Features(torch.rand(1, channels, 4, 4), [(64, 64)], (64, 64))
    (seen,) = network.predict(features)
    _agree(told, seen)
    assert set(told) == {"reconstructions", "features", *seen}


def _agree(told: dict[str, Any], seen: dict[str, Any]) -> None:
    for name, tensor in seen.items():
        assert str(tensor.dtype).removeprefix("torch.") == told[name].type
        assert len(tensor.shape) == len(told[name].shape)
        fixed = [(a, b) for a, b in zip(told[name].shape, tensor.shape, strict=True) if a != -1]
        assert all(a == b for a, b in fixed)
