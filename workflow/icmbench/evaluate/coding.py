"""The two ends of a learned codec's channel: encode, and decode from nothing but bitstreams."""

from __future__ import annotations

import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd

from icmbench.codecs.base import ImageCodec, picture_digest
from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.evaluate.archive import new_archive
from icmbench.files import atomic_path

SUFFIX = ".bin"


def open_codec(job: dict[str, Any]) -> ImageCodec:
    """Return the learned codec of an encode job, ready to code."""
    import torch

    from icmbench.train.build import build_codec

    # Real bitstreams are made and read on the CPU with one picture at a time, so that both ends
    # compute the same entropy parameters to the last bit.
    torch.set_num_threads(job["threads"])
    learned = build_codec(job["codec"])
    learned.prepare_coding()
    return learned


def encode(job: dict[str, Any]) -> None:
    """Encode every picture of a split.

    Leaves ``bitstreams.zip`` (one member per picture: its length is the rate) and
    ``encoded.parquet`` with what the encoder knows, the digest of its own reconstruction included.
    """
    folder = Path(job["output"])
    split, codec = Split(job["dataset"], job["split"]), open_codec(job)
    rows: list[dict[str, Any]] = []
    with new_archive(folder / "bitstreams.zip") as archive:
        for index, identity in enumerate(split.ids):
            picture = split.picture(index)
            start = time.perf_counter()
            try:
                encoded = codec.encode(picture)
            except Exception as error:
                raise UserError(
                    f"{job['key']}: image {identity}: encoding failed: {error}"
                ) from error
            seconds = time.perf_counter() - start
            assert encoded.reconstruction is not None  # a learned codec decodes what it wrote
            archive.add(f"{identity}{SUFFIX}", encoded.data)
            width, height = split.native_size(index)
            rows.append(
                {
                    "image_id": str(identity),
                    "pixels": width * height,
                    "pixels_coded": encoded.pixels_coded,
                    "bits": encoded.bits,
                    "bits_estimated": encoded.bits_estimated,
                    "encode_s": seconds,
                    "reconstruction": picture_digest(encoded.reconstruction),
                    "implementation": codec.implementation(),
                }
            )
    _write(folder / "encoded.parquet", rows)
    _say(job["key"], "encoded", len(rows), sum(row["encode_s"] for row in rows))


def decode(job: dict[str, Any]) -> None:
    """Decode the bitstreams of :func:`encode` and compare with what the encoder expected.

    Leaves ``decoded.zip`` (PNG) and ``decoded.parquet``; a picture that differs from the encoder's
    reconstruction is counted there (``roundtrip_ok``), not hidden.
    """
    folder = Path(job["output"])
    split, codec = Split(job["dataset"], job["split"]), open_codec(job)
    expected = pd.read_parquet(folder / "encoded.parquet").set_index("image_id")["reconstruction"]
    estimated = job["codec"]["parameters"].get("rate") == "estimate"  # nothing was decoded
    rows: list[dict[str, Any]] = []
    with (
        zipfile.ZipFile(folder / "bitstreams.zip") as bitstreams,
        new_archive(folder / "decoded.zip") as archive,
    ):
        for identity in split.ids:
            data = bitstreams.read(f"{identity}{SUFFIX}")
            start = time.perf_counter()
            try:
                picture = codec.decode(data)
            except Exception as error:
                raise UserError(
                    f"{job['key']}: image {identity}: decoding failed: {error}"
                ) from error
            seconds = time.perf_counter() - start
            archive.add_picture(f"{identity}.png", picture)
            rows.append(
                {
                    "image_id": str(identity),
                    "decode_s": seconds,
                    "roundtrip_ok": None
                    if estimated
                    else picture_digest(picture) == expected[str(identity)],
                }
            )
    _write(folder / "decoded.parquet", rows)
    wrong = [row["image_id"] for row in rows if row["roundtrip_ok"] is False]
    _say(job["key"], "decoded", len(rows), sum(row["decode_s"] for row in rows))
    if wrong:
        print(
            f"{job['key']}: {len(wrong)} of {len(rows)} pictures differ from the encoder's "
            "reconstruction; see roundtrip_ok in the records",
            file=sys.stderr,
        )


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_path(path) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)


def _say(key: str, what: str, count: int, seconds: float) -> None:
    print(f"{key}: {what} {count} pictures, {1000 * seconds / count:.1f} ms each", file=sys.stderr)
