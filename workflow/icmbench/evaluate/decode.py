"""Decode the bitstreams of a learned codec, in another process than the encoder's."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.evaluate.coded import (
    BITSTREAMS,
    DECODED,
    DECODED_ROWS,
    ENCODED_ROWS,
    LATENTS,
    Archives,
    EncodedRow,
    latents_to_bytes,
    new_archive,
    quality_meter,
    read_rows,
    write_rows,
)
from icmbench.evaluate.complexity import complexity_of
from icmbench.evaluate.encode import bitstream_name, log_times, open_codec
from icmbench.evaluate.failures import Failures
from icmbench.jobs import EncodeJob
from icmbench.registry import CODECS
from icmbench.summaries import CodingSummary, NetworkComplexity
from icmbench.utils.files import line_of
from icmbench.utils.images import as_png
from icmbench.utils.logs import progress
from icmbench.utils.models import read_model

logger = logging.getLogger(__name__)


def decode(job: EncodeJob) -> NetworkComplexity:
    """Decode the bitstreams that :func:`icmbench.evaluate.encode.encode` left.

    Leaves ``decoded.parquet`` and, as the job's ``decodes`` lists, ``decoded.zip`` (images, whose
    quality is measured) and ``latents.zip`` (from which features are computed). An image whose
    latent is not the one that the encoder coded is counted (``roundtrip_ok``), not hidden. Features
    are timed without pixels (``decode_s``), pixels made from latents on top of that
    (``reconstruct_s``).

    Returns:
        the codec's parameters, and the operations of each step per coded pixel.

    Raises:
        UserError: naming the images that cannot be decoded, after the others.
    """
    folder = Path(job.output)
    split, codec = Split(job.dataset, job.split, keep=False), open_codec(job)
    features, images = _gives_features(job), "images" in job.decodes
    measure = quality_meter(job.quality if images else [])
    rows_of_encoder: list[EncodedRow] = read_rows(folder / ENCODED_ROWS)
    encoded = {row["image_id"]: row for row in rows_of_encoder}
    bitstreams = Archives(folder / BITSTREAMS)
    estimated = job.codec.parameters.get("rate") == "estimate"  # no bitstream to compare with
    rows: list[dict[str, object]] = []
    seconds = []
    indices = range(job.chunk, len(split), job.chunks)
    failures = Failures(job.key, len(indices))
    with ExitStack() as stack:
        add = {
            what: stack.enter_context(new_archive(folder / name))
            for what, name in (("images", DECODED), ("features", LATENTS))
            if what in job.decodes
        }
        for index in progress(indices, f"{job.key}: decode"):
            identity = split.ids[index]
            measured: dict[str, float] | None = None
            with failures.of(identity):
                data = bitstreams.read(bitstream_name(identity))
                try:
                    start = time.perf_counter()
                    if estimated:
                        latent, decoded = None, codec.decode(data)
                    else:
                        latent, *size = codec.decode_latent(data)
                        decoded = codec.finish(latent, *size)
                    image, times = _rest(codec, decoded, features, images, start)
                except Exception as error:  # of a damaged bitstream decoders may raise anything
                    raise UserError(
                        f"decoding failed: {line_of(error)}; fix the codec, or delete {folder} "
                        "and encode again"
                    ) from error
                measured = measure(split.original(index), image) if images else {}
            if measured is None:
                continue
            if "images" in add:
                add["images"](f"{identity}.png", as_png(image))
            if "features" in add:
                add["features"](f"{identity}.npz", latents_to_bytes(decoded))
            row: dict[str, object] = {**encoded[str(identity)], **times, **measured}
            expected = row.pop("latent")
            row["roundtrip_ok"] = None if estimated else codec.latent_digest(latent) == expected
            rows.append(row)
            seconds.append(times["decode_s"])
        failures.stop()
    write_rows(folder / DECODED_ROWS, rows)
    log_times(job.key, "decoded", seconds)
    wrong = sum(row["roundtrip_ok"] is False for row in rows)
    if wrong:
        logger.warning(
            "%s: %d of %d images have another latent than the encoder coded; see roundtrip_ok in "
            "the records",
            job.key,
            wrong,
            len(rows),
        )
    data = bitstreams.read(bitstream_name(split.ids[job.chunk]))
    decoding = complexity_of(codec, rows_of_encoder[0]["pixels_coded"], _steps(job, codec, data))
    encoding = read_model(folder / "encode.json", CodingSummary)
    return NetworkComplexity(
        parameters=decoding.parameters,
        macs_per_pixel={**encoding.macs_per_pixel, **decoding.macs_per_pixel},
        weights=decoding.weights,
    )


def _rest(
    codec: Any, decoded: Any, features: bool, images: bool, start: float
) -> tuple[Any, dict[str, float]]:
    """Make what else is wanted of what a bitstream decoded to.

    Args:
        codec: that decodes to images, or to latents.
        decoded: an image or latents.
        features: whether it decodes to latents, of which features are computed.
        images: whether the image is wanted, too.
        start: when decoding began.

    Returns:
        the image or None; seconds by column of ``decoded.parquet``.
    """
    if not features:
        seconds = time.perf_counter() - start
        return decoded, {"decode_s": seconds, "reconstruct_s": math.nan}
    codec.features(decoded)
    middle = time.perf_counter()
    if not images:
        return None, {"decode_s": middle - start, "reconstruct_s": math.nan}
    image = codec.image(decoded)
    times = {"decode_s": middle - start, "reconstruct_s": time.perf_counter() - middle}
    return image, times


def _steps(job: EncodeJob, codec: Any, data: bytes) -> dict[str, Callable[[], Any]]:
    """Return the steps of decoding one bitstream whose operations are counted."""
    if not _gives_features(job):
        return {"decode": lambda: codec.decode(data)}
    steps: dict[str, Callable[[], Any]] = {"decode": lambda: codec.features(codec.decode(data))}
    if "images" in job.decodes:
        latents = codec.decode(data)
        steps["reconstruct"] = lambda: codec.image(latents)
    return steps


def _gives_features(job: EncodeJob) -> bool:
    return "features" in CODECS[job.codec.name].outputs
