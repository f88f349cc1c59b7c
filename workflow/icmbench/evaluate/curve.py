"""Code or evaluate every point of a curve in one process; finished points are skipped.

A point is finished if ``<verb>.json`` in its folder, which is written last, has the fingerprint of
the job: a digest of its settings and inputs. The manifest of the curve, on which Snakemake's rules
depend, joins the fingerprints of its points.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from icmbench.data.dataset import data_digest
from icmbench.errors import UserError, missing_file
from icmbench.evaluate.classical import code_share
from icmbench.evaluate.coded import (
    BITSTREAMS,
    DECODED,
    DECODED_ROWS,
    ENCODED_ROWS,
    LATENTS,
    coded_fingerprint,
)
from icmbench.evaluate.decode import decode
from icmbench.evaluate.encode import encode
from icmbench.evaluate.point import evaluate
from icmbench.jobs import ClassicalCurve, EncodeJob, EvaluateJob
from icmbench.metrics.catalogue import PERCEPTUAL_METRICS
from icmbench.utils.environment import version
from icmbench.utils.files import digest_json, read_object, sha256_file, write_json, writing

# Bump if a change makes the same bitstreams, images or records come out differently.
CODING_VERSION = 5
EVALUATION_VERSION = 6

Job = TypeVar("Job", EncodeJob, EvaluateJob)
Inputs = dict[str, object]  # what a fingerprint is a digest of


def code_curve(curve: ClassicalCurve) -> Path:
    """Code a split with a classical codec at every rate; return the curve's manifest.

    Points are not skipped: what was coded is in the cache. A point's fingerprint is here the digest
    of its ``decode.json``, which is the same if bitstreams and images are.
    """
    points = {job.key: sha256_file(code_share(job)) for job in curve.jobs}
    return _write_manifest(Path(curve.output), "decode", points)


def encode_curve(jobs: list[EncodeJob]) -> Path:
    """Encode a split at every rate; return the curve's manifest."""
    return _each(jobs, "encode", encode, _coding_inputs, (BITSTREAMS, ENCODED_ROWS))


def decode_curve(jobs: list[EncodeJob]) -> Path:
    """Decode the bitstreams of :func:`encode_curve`, in this other process; return the manifest."""

    def inputs(job: EncodeJob) -> Inputs:
        path = Path(job.output) / "encode.json"
        try:
            encoded = read_object(path, "fingerprint")["fingerprint"]
        except FileNotFoundError:
            raise missing_file(path, "run the job that encodes these images first") from None
        made_by = {n: version("torchmetrics") for n in PERCEPTUAL_METRICS if n in job.quality}
        return {**_coding_inputs(job), "encoded": encoded, "quality": [job.quality, made_by]}

    archives = {"images": DECODED, "features": LATENTS}
    outputs = (DECODED_ROWS, *(archives[what] for what in jobs[0].decodes))
    return _each(jobs, "decode", decode, inputs, outputs)


def evaluate_curve(jobs: list[EvaluateJob]) -> Path:
    """Evaluate every point of a variant; return the variant's manifest."""

    def inputs(job: EvaluateJob) -> Inputs:
        packages = ["torch", "torchvision", "pycocotools"]
        packages += ["torchmetrics"] if job.perceptual else []
        return {
            **_common(job),
            "version": EVALUATION_VERSION,
            "weights": [part.weights.digest() for part in (job.task, job.decoder) if part],
            "files": [sha256_file(Path(path)) for path in job.task.files],
            "coded": coded_fingerprint(job.coded),
            "packages": [version(name) for name in packages],
        }

    return _each(jobs, "evaluate", evaluate, inputs, ("records.parquet", "per_class.json"))


def _coding_inputs(job: EncodeJob) -> Inputs:
    return {
        **_common(job),
        "version": CODING_VERSION,
        "weights": job.codec.weights.digest(),
        "packages": [version(name) for name in ("torch", "compressai", "pillow")],
    }


def _common(job: EncodeJob | EvaluateJob) -> Inputs:
    dataset = job.dataset.model_dump(exclude={"folder", "manifest"})
    settings = job.model_dump(exclude={"output", "dataset", "coded", "quality"})
    if not settings.get("perceptual"):  # results without it are those of before there was one
        settings.pop("perceptual", None)
    return {"settings": settings, "dataset": dataset, "data": data_digest(job.dataset)}


def _each(
    jobs: list[Job],
    verb: str,
    work: Callable[[Job], BaseModel],
    inputs: Callable[[Job], Inputs],
    outputs: tuple[str, ...],
) -> Path:
    """Do the work of every job that is not finished, and write the curve's manifest."""
    points = {}
    for job in jobs:
        folder = Path(job.output)
        state = folder / f"{verb}.json"
        points[job.key] = fingerprint = digest_json(inputs(job))
        if not (
            _fingerprint(state) == fingerprint and all((folder / n).is_file() for n in outputs)
        ):
            state.unlink(missing_ok=True)
            with writing(folder):
                facts = work(job)
            write_json(state, {**facts.model_dump(mode="json"), "fingerprint": fingerprint})
    first = Path(jobs[0].output)
    shared = isinstance(jobs[0], EncodeJob) and jobs[0].chunks > 1
    curve = first.parent.parent / first.name if shared else first.parent  # as Plan.coding_curve
    return _write_manifest(curve, verb, points)


def _write_manifest(folder: Path, verb: str, points: dict[str, str]) -> Path:
    manifest = folder / f"{verb}d.json"
    write_json(manifest, {"points": points})
    return manifest


def _fingerprint(state: Path) -> str | None:
    """Return the fingerprint of a finished point, or None."""
    try:
        return str(read_object(state, "fingerprint")["fingerprint"])
    except (UserError, OSError):
        return None
