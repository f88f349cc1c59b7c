"""Code or evaluate every point of a curve in one process; points already done are skipped.

Each point keeps a stamp, a small file with the digest of all it was made from. The manifest of the
curve, on which Snakemake's rules depend, joins them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from icmbench.data.dataset import data_digest
from icmbench.evaluate.rows import coded_fingerprint
from icmbench.evaluate.stamp import finished, read_stamp, stamp_path, write_stamp
from icmbench.jobs import EncodeJob, EvaluateJob
from icmbench.utils.environment import version
from icmbench.utils.files import digest_json, source_digest, write_json, writing
from icmbench.versions import DECODED, LATENTS

# Raised when a change makes the same bitstreams, images or records come out differently.
CODING_VERSION = 3
EVALUATION_VERSION = 4

Job = TypeVar("Job", EncodeJob, EvaluateJob)


def encode_curve(jobs: list[EncodeJob]) -> Path:
    """Encode a split at every rate; return the curve's manifest."""

    def work(job: EncodeJob) -> None:
        from icmbench.evaluate.coding import encode

        encode(job)

    return _each(jobs, "encoded", work, _coding_inputs, ("bitstreams.zip", "encoded.parquet"))


def decode_curve(jobs: list[EncodeJob]) -> Path:
    """Decode what :func:`encode_curve` left, in this other process; return the manifest."""

    def work(job: EncodeJob) -> None:
        from icmbench.evaluate.coding import decode

        decode(job)

    def inputs(job: EncodeJob) -> dict[str, Any]:
        return {**_coding_inputs(job), "encoded": read_stamp(Path(job.output), "encoded")}

    archives = {"images": DECODED, "features": LATENTS}
    outputs = ("decoded.parquet", *(archives[what] for what in jobs[0].decodes))
    return _each(jobs, "decoded", work, inputs, outputs)


def evaluate_curve(jobs: list[EvaluateJob]) -> Path:
    """Evaluate every point of a variant; return the variant's manifest."""

    def work(job: EvaluateJob) -> None:
        from icmbench.evaluate.point import evaluate

        evaluate(job)

    def inputs(job: EvaluateJob) -> dict[str, Any]:
        return {
            **_common(job),
            "version": EVALUATION_VERSION,
            "weights": [
                source_digest(part.weights.source) for part in (job.task, job.decoder) if part
            ],
            "coded": coded_fingerprint(job.coded),
            "packages": [version(name) for name in ("torch", "torchvision", "pycocotools")],
        }

    return _each(jobs, "evaluated", work, inputs, ("records.parquet", "evaluate.json"))


def _coding_inputs(job: EncodeJob) -> dict[str, Any]:
    return {
        **_common(job),
        "version": CODING_VERSION,
        "weights": source_digest(job.codec.weights.source),
        "packages": [version(name) for name in ("torch", "compressai", "pillow")],
    }


def _common(job: EncodeJob | EvaluateJob) -> dict[str, Any]:
    dataset = job.dataset.model_dump(exclude={"folder", "manifest"})
    settings = job.model_dump(exclude={"output", "dataset", "coded"})
    return {"settings": settings, "dataset": dataset, "data": data_digest(job.dataset)}


def _each(
    jobs: list[Job],
    what: str,
    work: Callable[[Job], None],
    inputs: Callable[[Job], dict[str, Any]],
    outputs: tuple[str, ...],
) -> Path:
    points = {}
    for job in jobs:
        folder = Path(job.output)
        fingerprint = digest_json(inputs(job))
        if not finished(folder, what, fingerprint, outputs):
            stamp_path(folder, what).unlink(missing_ok=True)
            with writing(folder):
                work(job)
            write_stamp(folder, what, fingerprint)
        points[job.key] = fingerprint
    manifest = Path(jobs[0].output).parent / f"{what}.json"
    write_json(manifest, {"points": points})
    return manifest
