"""Code or evaluate every point of a curve in one process; points already done are skipped.

Each point keeps a small file with the digest of all it was made from. The curve's manifest, on
which Snakemake's rules depend, joins them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from icmbench.data.dataset import data_digest
from icmbench.environment import version
from icmbench.errors import UserError
from icmbench.evaluate.archive import DECODED, LATENTS
from icmbench.evaluate.coded import coded_fingerprint
from icmbench.files import digest_json, read_json, source_digest, write_json, writing

# Raised when a change makes the same bitstreams, pictures or records come out differently.
CODING_VERSION = 3
EVALUATION_VERSION = 3

Job = dict[str, Any]


def encode_curve(jobs: list[Job]) -> Path:
    """Encode a split at every rate; return the curve's manifest."""

    def work(job: Job) -> None:
        from icmbench.evaluate.coding import encode

        encode(job)

    return _each(jobs, "encoded", work, _coding_inputs, ("bitstreams.zip", "encoded.parquet"))


def decode_curve(jobs: list[Job]) -> Path:
    """Decode what :func:`encode_curve` left, in this other process; return the manifest."""

    def work(job: Job) -> None:
        from icmbench.evaluate.coding import decode

        decode(job)

    def inputs(job: Job) -> Job:
        return {**_coding_inputs(job), "encoded": _stamp(Path(job["output"]), "encoded")}

    archives = {"pictures": DECODED, "features": LATENTS}
    outputs = ("decoded.parquet", *(archives[what] for what in jobs[0]["decodes"]))
    return _each(jobs, "decoded", work, inputs, outputs)


def evaluate_curve(jobs: list[Job]) -> Path:
    """Evaluate every point of a variant; return the variant's manifest."""

    def work(job: Job) -> None:
        from icmbench.evaluate.point import evaluate

        evaluate(job)

    def inputs(job: Job) -> Job:
        return {
            **_common(job),
            "version": EVALUATION_VERSION,
            "weights": [
                source_digest(part["weights"]) for part in (job["task"], job["decoder"]) if part
            ],
            "coded": coded_fingerprint(job["coded"]),
            "packages": [version(name) for name in ("torch", "torchvision", "pycocotools")],
        }

    return _each(jobs, "evaluated", work, inputs, ("records.parquet", "evaluate.json"))


def _coding_inputs(job: Job) -> Job:
    return {
        **_common(job),
        "version": CODING_VERSION,
        "weights": source_digest(job["codec"]["weights"]),
        "packages": [version(name) for name in ("torch", "compressai", "pillow")],
    }


def _common(job: Job) -> Job:
    dataset = {k: v for k, v in job["dataset"].items() if k not in ("folder", "manifest")}
    settings = {k: v for k, v in job.items() if k not in ("output", "dataset", "coded")}
    return {"settings": settings, "dataset": dataset, "data": data_digest(job["dataset"])}


def _each(
    jobs: list[Job],
    what: str,
    work: Callable[[Job], None],
    inputs: Callable[[Job], Job],
    outputs: tuple[str, ...],
) -> Path:
    points = {}
    for job in jobs:
        folder = Path(job["output"])
        stamp = folder / f"{what}.stamp.json"
        fingerprint = digest_json(inputs(job))
        done = (
            stamp.is_file()
            and read_json(stamp)["fingerprint"] == fingerprint
            and all((folder / name).is_file() for name in outputs)
        )
        if not done:
            stamp.unlink(missing_ok=True)
            with writing(folder):
                work(job)
            write_json(stamp, {"fingerprint": fingerprint})
        points[job["key"]] = fingerprint
    manifest = Path(jobs[0]["output"]).parent / f"{what}.json"
    write_json(manifest, {"points": points})
    return manifest


def _stamp(folder: Path, what: str) -> str:
    path = folder / f"{what}.stamp.json"
    if not path.is_file():
        raise UserError(f"{folder}: not {what} yet; run the job that does so first")
    return str(read_json(path)["fingerprint"])
