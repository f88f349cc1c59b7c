"""The two ends of a learned codec's channel: encode, and decode from nothing but bitstreams."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from icmbench.codecs.base import FeatureCodec, ImageCodec, decoded_digest
from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.evaluate.archive import ArchiveReader, latents_to_bytes, new_archive
from icmbench.evaluate.complexity import write_codec_complexity
from icmbench.evaluate.rows import read_table
from icmbench.evaluate.stamp import check_files
from icmbench.jobs import EncodeJob
from icmbench.registry import CODECS
from icmbench.utils.files import atomic_path
from icmbench.versions import DECODED, LATENTS

SUFFIX = ".bin"


def open_codec(job: EncodeJob) -> ImageCodec | FeatureCodec:
    """Return the learned codec of an encode job, ready to code."""
    import torch

    from icmbench.networks.build import build_codec

    # Real bitstreams are made and read on the CPU with one image at a time, so that both ends
    # compute the same entropy parameters to the last bit.
    torch.set_num_threads(job.threads)
    learned = build_codec(job.codec)
    learned.prepare_coding()
    # Nothing trains here, and the counter of operations cannot follow parameters that might.
    learned.requires_grad_(False)
    return learned


def encode(job: EncodeJob) -> None:
    """Encode every image of a split.

    Leaves ``bitstreams.zip`` (one member per image: its length is the rate) and
    ``encoded.parquet`` with what the encoder knows, the digest of its own reconstruction included.
    """
    folder = Path(job.output)
    split, codec = Split(job.dataset, job.split), open_codec(job)
    rows: list[dict[str, Any]] = []
    with new_archive(folder / "bitstreams.zip") as archive:
        for index, identity in enumerate(split.ids):
            image = split.image(index)
            start = time.perf_counter()
            try:
                encoded = codec.encode(image)
            except UserError as error:
                raise UserError(f"{job.key}: image {identity}: {error}") from error
            except Exception as error:  # a defect of the codec, whose author needs the traceback
                error.add_note(f"{job.key}: encoding image {identity}")
                raise
            seconds = time.perf_counter() - start
            assert encoded.reconstruction is not None  # a learned codec decodes what it wrote
            archive.add(f"{identity}{SUFFIX}", encoded.data)
            rows.append(
                {
                    "image_id": str(identity),
                    "pixels": split.rate_pixels(index),
                    "pixels_coded": encoded.pixels_coded,
                    "bits": encoded.bits,
                    "bits_estimated": encoded.bits_estimated,
                    "encode_s": seconds,
                    "reconstruction": decoded_digest(encoded.reconstruction),
                    "implementation": codec.implementation(),
                }
            )
    _write(folder / "encoded.parquet", rows)
    first = split.image(0)
    steps = {"encode": lambda: codec.encode(first)}
    write_codec_complexity(folder, "encoded", codec, rows[0]["pixels_coded"], steps)
    _say(job.key, "encoded", len(rows), sum(row["encode_s"] for row in rows))


def decode(job: EncodeJob) -> None:
    """Decode the bitstreams of :func:`encode` and compare with what the encoder expected.

    Leaves ``decoded.parquet`` and, as the job's ``decodes`` says, ``decoded.zip`` (PNG) and
    ``latents.zip`` (what features are made of); an image that differs from what the encoder
    expected is counted (``roundtrip_ok``), not hidden. Features are timed without pixels
    (``decode_s``), pixels made of latents on top of that (``reconstruct_s``).
    """
    folder = Path(job.output)
    split, codec = Split(job.dataset, job.split), open_codec(job)
    check_files(folder, "encoded")
    expected = read_table(folder, "encoded").set_index("image_id")["reconstruction"]
    estimated = job.codec.parameters.get("rate") == "estimate"  # nothing was decoded
    decode_one = _decoder(codec, "features" in yields_of(job), "images" in job.decodes)
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        bitstreams = stack.enter_context(ArchiveReader(folder / "bitstreams.zip"))
        outputs = {
            name: stack.enter_context(new_archive(folder / name))
            for name, what in ((DECODED, "images"), (LATENTS, "features"))
            if what in job.decodes
        }
        for identity in split.ids:
            data = bitstreams.read(f"{identity}{SUFFIX}")
            try:
                one = decode_one(data)
            except Exception as error:  # of a damaged bitstream decoders may raise anything
                raise UserError(
                    f"{job.key}: image {identity}: decoding failed: "
                    f"{type(error).__name__}: {error}; delete encoded.json of its curve and call "
                    "Snakemake again, or mend the codec"
                ) from error
            if DECODED in outputs:
                outputs[DECODED].add_image(f"{identity}.png", one.image)
            if LATENTS in outputs:
                outputs[LATENTS].add(f"{identity}.npz", latents_to_bytes(one.decoded))
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
    _write(folder / "decoded.parquet", rows)
    _count(job, codec, folder)
    wrong = [row["image_id"] for row in rows if row["roundtrip_ok"] is False]
    _say(job.key, "decoded", len(rows), sum(row["decode_s"] for row in rows))
    if wrong:
        print(
            f"{job.key}: {len(wrong)} of {len(rows)} images differ from the encoder's "
            "reconstruction; see roundtrip_ok in the records",
            file=sys.stderr,
        )


def _count(job: EncodeJob, codec: Any, folder: Path) -> None:
    """Count what decoding one image takes, features and pixels apart."""
    encoded = read_table(folder, "encoded").iloc[0]
    with ArchiveReader(folder / "bitstreams.zip") as bitstreams:
        data = bitstreams.read(f"{encoded['image_id']}{SUFFIX}")
    steps: dict[str, Callable[[], Any]] = {"decode": lambda: codec.decode(data)}
    if "features" in yields_of(job):
        latents = codec.decode(data)
        steps["decode"] = lambda: codec.features(codec.decode(data))
        if "images" in job.decodes:
            steps["reconstruct"] = lambda: codec.image(latents)
    write_codec_complexity(folder, "decoded", codec, int(encoded["pixels_coded"]), steps)


def yields_of(job: EncodeJob) -> tuple[str, ...]:
    """Return what the codec of an encode job decodes to."""
    return CODECS[job.codec.name].outputs


@dataclass(frozen=True)
class _Decoded:
    """One decoded bitstream: latents or an image, the image where it is wanted, and times."""

    decoded: Any
    image: Any
    decode_s: float
    reconstruct_s: float = float("nan")


def _decoder(codec: Any, features: bool, images: bool) -> Callable[[bytes], _Decoded]:
    """Return what decodes one bitstream with the codec."""

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


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_path(path) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)


def _say(key: str, what: str, count: int, seconds: float) -> None:
    print(f"{key}: {what} {count} images, {1000 * seconds / count:.1f} ms each", file=sys.stderr)
