"""Jobs of a tiny data set that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

from icmbench.data.specs import DatasetSpec
from icmbench.jobs import CodecSpec, CodedImages, EncodeJob, EvaluateJob, TaskSpec, WeightsSpec
from icmbench.metrics.catalogue import PIXEL_METRICS


def encode_job(folder: Path, scenes: DatasetSpec, rate: int) -> EncodeJob:
    weights = folder / f"weights{rate}.pt"
    job = EncodeJob(
        key=f"toy/rate{rate}",
        output=str(folder / "learned" / f"rate{rate}"),
        codec=CodecSpec(
            name="bmshj2018-hyperprior",
            kind="learned",
            parameters={"n": 8, "m": 8},
            weights=WeightsSpec(source=str(weights), of="bmshj2018-hyperprior", part="codec"),
            starts_pretrained=False,
        ),
        dataset=scenes,
        split="test",
        chunk=0,
        chunks=1,
        decodes=["images"],
        quality=list(PIXEL_METRICS),
        threads=1,
        gpu=0,
        modules=[],
    )
    save_random_weights(job, seed=rate)
    return job


def save_random_weights(job: EncodeJob, seed: int) -> None:
    import torch

    from icmbench.networks.build import build_codec

    torch.manual_seed(seed)
    spec = job.codec
    weights = spec.weights.model_copy(update={"source": "random"})
    codec = build_codec(spec.model_copy(update={"weights": weights}))
    codec.prepare_coding()
    assert spec.weights.path is not None
    torch.save({"codec": codec.state_dict(), "task": None}, spec.weights.path)


def evaluate_job(folder: Path, scenes: DatasetSpec, coded: list[str] | None) -> EvaluateJob:
    return EvaluateJob(
        key="toy/point/rate0-seed0",
        study="toy",
        variant="point",
        mode="baseline",
        rate_index=0,
        seed=0,
        rate_parameter=None,
        rate_value=None,
        scale="smoke",
        output=str(folder / "point" / "rate0-seed0"),
        codec="any",
        decoder=None,
        task=TaskSpec(
            name="reconstruction",
            network="reconstruction",
            parameters={},
            weights=WeightsSpec(source=None, part="task"),
            starts_pretrained=False,
            metrics=[],
        ),
        dataset=scenes,
        split="test",
        coded=None if coded is None else CodedImages(folders=coded),
        threads=1,
        gpu=0,
        precision="fp32",
        modules=[],
    )
