"""Encode a split with a learned codec, to real bitstreams."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.evaluate.coded import (
    BITSTREAMS,
    ENCODED_ROWS,
    RATE_MAPS,
    EncodedRow,
    latents_to_bytes,
    new_archive,
    write_rows,
)
from icmbench.evaluate.complexity import complexity_of
from icmbench.evaluate.failures import Failures
from icmbench.jobs import EncodeJob
from icmbench.summaries import NetworkComplexity
from icmbench.utils.logs import progress

if TYPE_CHECKING:
    from icmbench.codecs.learned.base import LearnedCodec

logger = logging.getLogger(__name__)


def encode(job: EncodeJob) -> NetworkComplexity:
    """Encode every ``chunks``-th image of a split, from number ``chunk`` on.

    Leaves ``bitstreams.zip`` and ``encoded.parquet``: what the encoder knows of each image, the
    digest of the latent that the decoder must find included. ``rate_maps.zip`` is for the report.

    Returns:
        the codec's parameters, and the operations of encoding per coded pixel.

    Raises:
        UserError: naming the images that cannot be encoded, after the others.
    """
    folder = Path(job.output)
    split, codec = Split(job.dataset, job.split), open_codec(job)
    if job.chunk >= len(split):
        raise UserError(
            f"{job.key}: {job.chunks} chunks of {len(split)} images; lower the scale's `chunks` of "
            f"{job.codec.name!r}"
        )
    rows: list[EncodedRow] = []
    indices = range(job.chunk, len(split), job.chunks)
    failures = Failures(job.key, len(indices))
    with new_archive(folder / BITSTREAMS) as add, new_archive(folder / RATE_MAPS) as add_map:
        for index in progress(indices, f"{job.key}: encode"):
            identity, encoded = split.ids[index], None
            with failures.of(identity):
                image = split.image(index)
                start = time.perf_counter()
                try:
                    encoded = codec.encode(image, reconstruct=False)
                except Exception as error:  # a defect's author needs the traceback
                    error.add_note(f"{job.key}: encoding image {identity}")
                    raise
                seconds = time.perf_counter() - start
            if encoded is None:
                continue
            add(bitstream_name(identity), encoded.data)
            if encoded.rate_map is not None:
                bits, stride = encoded.rate_map.astype(np.float16), np.array(codec.latent_stride)
                add_map(f"{identity}.npz", latents_to_bytes({"bits": bits, "stride": stride}))
            rows.append(
                {
                    "image_id": str(identity),
                    "pixels": split.rate_pixels(index),
                    "pixels_coded": encoded.pixels_coded,
                    "bits": encoded.bits,
                    "bits_estimated": encoded.bits_estimated,
                    "encode_s": seconds,
                    "latent": "" if encoded.latent is None else codec.latent_digest(encoded.latent),
                    "implementation": codec.implementation(),
                }
            )
        failures.stop()
    write_rows(folder / ENCODED_ROWS, rows)
    log_times(job.key, "encoded", [row["encode_s"] for row in rows])
    first = split.image(job.chunk)
    steps = {"encode": lambda: codec.encode(first, reconstruct=False)}
    return complexity_of(codec, rows[0]["pixels_coded"], steps)


def open_codec(job: EncodeJob) -> LearnedCodec:
    """Return the learned codec of a job, ready to code."""
    import torch

    from icmbench.networks.build import build_codec

    # Real bitstreams are made and read on the CPU with one image at a time, so that both ends
    # compute the same entropy parameters to the last bit.
    torch.set_num_threads(job.threads)
    codec = build_codec(job.codec)
    codec.prepare_coding()
    # Nothing trains here, and the counter of operations cannot follow parameters that might.
    codec.requires_grad_(False)
    return codec


def bitstream_name(image_id: int | str) -> str:
    """Return the name of an image's bitstream in its archive."""
    return f"{image_id}.bin"


def log_times(key: str, done: str, seconds: list[float]) -> None:
    """Log how many images were coded, and the mean time of one."""
    mean = 1000 * sum(seconds) / len(seconds)
    logger.info("%s: %s %d images, %.1f ms each", key, done, len(seconds), mean)
