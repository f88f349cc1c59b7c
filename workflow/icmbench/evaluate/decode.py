"""Decode the bitstreams of a learned codec, in another process than the encoder's."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icmbench.codecs.base import decoded_digest
from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.evaluate.coded import (
    BITSTREAMS,
    COLUMNS,
    DECODED,
    DECODED_ROWS,
    ENCODED_ROWS,
    LATENTS,
    Archives,
    latents_to_bytes,
    new_archive,
    read_rows,
    write_rows,
)
from icmbench.evaluate.complexity import complexity_of
from icmbench.evaluate.encode import bitstream_name, log_times, open_codec
from icmbench.jobs import EncodeJob
from icmbench.registry import CODECS
from icmbench.utils.files import read_object
from icmbench.utils.images import as_png
from icmbench.utils.logs import progress

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


def decode(job: EncodeJob) -> dict[str, Any]:
    """Decode the bitstreams that :func:`icmbench.evaluate.encode.encode` left.

    Leaves ``decoded.parquet`` and, as the job's ``decodes`` lists, ``decoded.zip`` (images) and
    ``latents.zip`` (from which features are computed). An image that differs from the encoder's
    reconstruction is counted (``roundtrip_ok``), not hidden. Features are timed without pixels
    (``decode_s``), pixels made from latents on top of that (``reconstruct_s``).

    Returns:
        the codec's parameters, and the operations of each step per coded pixel.

    Raises:
        UserError: naming the image that cannot be decoded.
    """
    folder = Path(job.output)
    split, codec = Split(job.dataset, job.split), open_codec(job)
    encoded = read_rows(folder / ENCODED_ROWS)
    expected = encoded.set_index("image_id")["reconstruction"]
    bitstreams = Archives(folder / BITSTREAMS)
    decode_one = _decoder(codec, _gives_features(job), "images" in job.decodes)
    estimated = job.codec.parameters.get("rate") == "estimate"  # no bitstream to compare with
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        add = {
            what: stack.enter_context(new_archive(folder / name))
            for what, name in (("images", DECODED), ("features", LATENTS))
            if what in job.decodes
        }
        for identity in progress(split.ids, f"{job.key}: decode"):
            data = bitstreams.read(bitstream_name(identity))
            try:
                one = decode_one(data)
            except Exception as error:  # of a damaged bitstream decoders may raise anything
                raise UserError(
                    f"{job.key}: image {identity}: decoding failed: "
                    f"{type(error).__name__}: {error}; fix the codec, or delete {folder} and "
                    "encode again"
                ) from error
            if "images" in add:
                add["images"](f"{identity}.png", as_png(one.image))
            if "features" in add:
                add["features"](f"{identity}.npz", latents_to_bytes(one.decoded))
            rows.append(
                {
                    "image_id": str(identity),
                    "decode_s": one.decode_s,
                    "reconstruct_s": one.reconstruct_s,
                    "roundtrip_ok": None
                    if estimated
                    else decoded_digest(one.decoded) == expected[str(identity)],
                }
            )
    write_rows(folder / DECODED_ROWS, _joined(encoded, rows))
    log_times(job.key, "decoded", [row["decode_s"] for row in rows])
    wrong = sum(row["roundtrip_ok"] is False for row in rows)
    if wrong:
        logger.warning(
            "%s: %d of %d images differ from the encoder's reconstruction; see roundtrip_ok in the "
            "records",
            job.key,
            wrong,
            len(rows),
        )
    first = encoded.iloc[0]
    data = bitstreams.read(bitstream_name(first["image_id"]))
    own = complexity_of(codec, int(first["pixels_coded"]), _steps(job, codec, data))
    of_encoder = read_object(folder / "encode.json", "macs_per_pixel")["macs_per_pixel"]
    return {**own, "macs_per_pixel": {**of_encoder, **own["macs_per_pixel"]}}


@dataclass(frozen=True)
class _Decoded:
    """One decoded bitstream: latents or an image, the image if it is wanted, and times."""

    decoded: Any
    image: Any
    decode_s: float
    reconstruct_s: float = float("nan")


def _decoder(codec: Any, features: bool, images: bool) -> Callable[[bytes], _Decoded]:
    """Return a function that decodes one bitstream with the codec."""

    def to_image(data: bytes) -> _Decoded:
        start = time.perf_counter()
        image = codec.decode(data)
        return _Decoded(image, image, time.perf_counter() - start)

    def to_features(data: bytes) -> _Decoded:
        start = time.perf_counter()
        latents = codec.decode(data)
        codec.features(latents)
        decoded = time.perf_counter()
        if not images:
            return _Decoded(latents, None, decoded - start)
        image = codec.image(latents)
        return _Decoded(latents, image, decoded - start, time.perf_counter() - decoded)

    return to_features if features else to_image


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


def _joined(encoded: pd.DataFrame, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of encoder and decoder as one row per image."""
    by_image = {row["image_id"]: row for row in rows}
    joined: list[dict[str, Any]] = []
    for own in encoded.to_dict("records"):
        both: dict[Any, Any] = {**own, **by_image[own["image_id"]]}
        joined.append({name: both[name] for name in COLUMNS})
    return joined
