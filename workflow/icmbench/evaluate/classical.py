"""Code a share of a split with a classical codec, keeping each image as it is finished."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from icmbench.codecs.base import Encoded, RgbImage, decoded_digest
from icmbench.codecs.classical.base import ClassicalCodec, InProcessCodec
from icmbench.codecs.classical.cache import BITSTREAM, DECODED, Cache, entry_key
from icmbench.codecs.estimated import as_png
from icmbench.data.dataset import Split
from icmbench.errors import CannotWrite, UserError
from icmbench.jobs import ClassicalJob, ClassicalSpec
from icmbench.registry import CODECS, implementation
from icmbench.utils.checksums import write_sealed
from icmbench.utils.files import digest_json, link, sha256_bytes, write_bytes, writing
from icmbench.utils.workers import worker_pool
from icmbench.versions import chunk_name

_SHOWN_FAILURES = 5
_SAY_EVERY_S = 10.0


def open_codec(settings: ClassicalSpec) -> ClassicalCodec:
    """Return the classical codec of a job's ``codec`` section."""
    entry = CODECS[settings.name]
    codec: ClassicalCodec = implementation(entry)(
        entry.parameters.model_validate(settings.parameters),
        settings.rate,
        settings.programs,
    )
    return codec


class _Decode(Protocol):
    def __call__(self, data: bytes) -> tuple[RgbImage, float]: ...


@contextmanager
def decoder(settings: ClassicalSpec, codec: ClassicalCodec) -> Iterator[_Decode]:
    """Yield a function from a bitstream to the image and the seconds that decoding took.

    Decoding sees nothing of the encoder but the bitstream: it is another program's, or happens in
    another process.
    """
    if codec.external:
        yield lambda data: _timed(codec, data)
        return
    with worker_pool(1, "spawn", _open_in_worker, (settings,)) as pool:

        def decode(data: bytes) -> tuple[RgbImage, float]:
            try:
                return pool.submit(_decode_in_worker, data).result()
            except BrokenProcessPool:
                raise UserError(
                    f"{settings.name}: the decoder's process died; it may be out of memory"
                ) from None

        yield decode


def timed_encode(codec: ClassicalCodec, image: RgbImage) -> tuple[Encoded, float]:
    """Return a coded image and the seconds that coding alone took."""
    start = time.perf_counter()
    encoded = codec.compress(image) if isinstance(codec, InProcessCodec) else codec.encode(image)
    return encoded, time.perf_counter() - start


_in_worker: ClassicalCodec | None = None


def _open_in_worker(settings: ClassicalSpec) -> None:
    from icmbench.plugins import load_modules

    global _in_worker
    load_modules(settings.modules)
    _in_worker = open_codec(settings)


def _decode_in_worker(data: bytes) -> tuple[RgbImage, float]:
    assert _in_worker is not None
    return _timed(_in_worker, data)


def _timed(codec: ClassicalCodec, data: bytes) -> tuple[RgbImage, float]:
    start = time.perf_counter()
    image = codec.decode(data)
    return image, time.perf_counter() - start


def code_chunk(job: ClassicalJob, chunk: int) -> Path:
    """Code every ``chunks``-th image of a split, from number ``chunk`` on.

    Leaves ``bitstreams/<id>.bin`` and ``decoded/<id>.png`` and, when all are there, a file with one
    row per image. An image that fails does not stop the others.

    Args:
        job: resolved settings, see ``Plan.encodings``.
        chunk: 0 to ``job.chunks`` - 1.

    Returns:
        the file of rows.

    Raises:
        UserError: naming each image that failed, and why.
    """
    folder, chunks = Path(job.output), job.chunks
    if not 0 <= chunk < chunks:
        raise UserError(f"{job.key}: chunk {chunk}; allowed: 0 to {chunks - 1}")
    settings = job.codec
    split = Split(job.dataset, job.split, keep=False)  # each image is read once
    codec = open_codec(settings)
    indices = range(chunk, len(split), chunks)
    cache = Cache(Path(job.cache.directory), job.cache.limit_gb)
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    progress = _Progress(job.key, [split.native_size(i) for i in indices])
    with decoder(settings, codec) as decode:
        worker = _Coding(codec, decode, cache if cache.limit_gb else None, folder)
        for index in indices:
            identity = str(split.ids[index])
            try:
                with writing(folder):
                    row = worker.code(identity, split.image(index))
            except CannotWrite:
                raise  # the next image would fare no better
            except (UserError, OSError) as error:
                failures.append(f"{job.key}: image {identity}: {error}")
                print(f"icmbench: {failures[-1]}", file=sys.stderr)
            else:
                rows.append({**row, "pixels": split.rate_pixels(index)})
            progress.step()
    if cache.limit_gb:
        cache.enforce_limit()
    if failures:
        more = len(failures) - _SHOWN_FAILURES
        lines = failures[:_SHOWN_FAILURES] + ([f"and {more} more images"] if more > 0 else [])
        lines.append(
            f"{job.key}: {len(failures)} of {len(indices)} images failed; the others are kept"
        )
        raise UserError("\n".join(lines))
    path = folder / chunk_name(chunk, chunks)
    content = [(row["image_id"], row["pixels"], row["bitstream"], row["decoded"]) for row in rows]
    write_sealed(path, {"fingerprint": digest_json(content), "rows": rows})
    return path


class _Coding:
    """Codes one image after the other, through the cache."""

    def __init__(
        self, codec: ClassicalCodec, decode: _Decode, cache: Cache | None, folder: Path
    ) -> None:
        self.codec, self.decode, self.cache, self.folder = codec, decode, cache, folder
        described = codec.describe()
        self.identity, self.text = described.identity(), described.text()

    def code(self, identity: str, image: RgbImage) -> dict[str, Any]:
        """Return the row of an image, its files being in place."""
        places = {
            BITSTREAM: self.folder / "bitstreams" / f"{identity}.bin",
            DECODED: self.folder / "decoded" / f"{identity}.png",
        }
        if self.cache is None:
            data, png, facts = self._run(image)
            write_bytes(places[BITSTREAM], data)
            write_bytes(places[DECODED], png)
        else:
            facts = self._through(self.cache, image, places)
        names = ("pixels_coded", "bits", "encode_s", "decode_s", "roundtrip_ok", "implementation")
        kept = {name: facts[name] for name in (*names, "bitstream", "decoded")}
        return {"image_id": identity, **kept}

    def _through(self, cache: Cache, image: RgbImage, places: dict[str, Path]) -> dict[str, Any]:
        """Return what the cache knows of an image, coding it where needed."""
        key = entry_key(decoded_digest(image), self.identity)
        for last in (False, True):
            entry = cache.find(key) or cache.store(key, *self._run(image))
            try:
                for name, place in places.items():
                    link(entry.folder / name, place)
            except FileNotFoundError:  # another job pruned it meanwhile
                if last:
                    raise
                continue
            break
        return entry.facts

    def _run(self, image: RgbImage) -> tuple[bytes, bytes, dict[str, Any]]:
        encoded, seconds = timed_encode(self.codec, image)
        decoded, decode_seconds = self.decode(encoded.data)
        if decoded.shape != image.shape:
            raise UserError(f"decoded to {decoded.shape}, but the image is {image.shape}")
        expected = encoded.reconstruction
        if isinstance(self.codec, InProcessCodec):
            expected = self.codec.decode(encoded.data)  # here, to compare with the other process
        digest = decoded_digest(decoded)
        facts = {
            "codec": type(self.codec).__name__,
            "implementation": self.text,
            "pixels_coded": encoded.pixels_coded,
            "bits": encoded.bits,
            "encode_s": seconds,
            "decode_s": decode_seconds,
            "roundtrip_ok": None if expected is None else decoded_digest(expected) == digest,
            "bitstream": sha256_bytes(encoded.data),
            "decoded": digest,
        }
        return encoded.data, as_png(decoded), facts


class _Progress:
    """Says every few seconds how far a chunk is; the time left goes with the pixels left."""

    def __init__(self, key: str, sizes: list[tuple[int, int]]) -> None:
        self.key = key
        self.pixels = [width * height for width, height in sizes]
        self.done = 0
        self.start = self.said = time.monotonic()

    def step(self) -> None:
        self.done += 1
        now = time.monotonic()
        finished = self.done == len(self.pixels)
        if not finished and now - self.said < _SAY_EVERY_S:
            return
        self.said = now
        spent = now - self.start
        left = spent * sum(self.pixels[self.done :]) / sum(self.pixels[: self.done])
        print(
            f"{self.key}: {self.done} of {len(self.pixels)} images, "
            f"{spent / self.done:.2f} s each, about {left:.0f} s left",
            file=sys.stderr,
        )
