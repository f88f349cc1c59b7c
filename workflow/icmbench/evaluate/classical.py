"""Code a share of a split with a classical codec; the cache keeps every finished image."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from icmbench.codecs.base import Encoded, RgbImage, decoded_digest
from icmbench.codecs.classical.base import ClassicalCodec, InProcessCodec
from icmbench.codecs.classical.cache import Cache, CachedImage, entry_key
from icmbench.codecs.classical.command import CommandCodec
from icmbench.codecs.classical.command_entry import CommandParameters
from icmbench.data.dataset import Split
from icmbench.data.images import ImageFiles
from icmbench.errors import UserError
from icmbench.evaluate.coded import (
    BITSTREAMS,
    COLUMNS,
    DECODED,
    DECODED_ROWS,
    STATE,
    new_archive,
    quality_meter,
    write_rows,
)
from icmbench.evaluate.encode import bitstream_name
from icmbench.evaluate.failures import Failures
from icmbench.jobs import ClassicalJob, ClassicalSpec, CodedImages
from icmbench.registry import CODECS, implementation
from icmbench.summaries import CodingSummary
from icmbench.utils.files import digest_json, sha256_bytes, write_json
from icmbench.utils.images import as_png, from_png
from icmbench.utils.logs import progress
from icmbench.utils.workers import worker_pool

Decode = Callable[[bytes], tuple[RgbImage, float]]


def code_share(job: ClassicalJob) -> Path:
    """Code every ``chunks``-th image of a split, from number ``chunk`` on.

    Leaves the files of :mod:`icmbench.evaluate.coded` when all images are coded. An image that
    fails does not stop the others, which the cache keeps for the next attempt.

    Returns:
        the folder's ``decode.json``, which is the same if bitstreams and images are.

    Raises:
        UserError: naming each image that failed, and why.
    """
    folder = Path(job.output)
    split = Split(job.dataset, job.split, keep=False)  # each image is read once
    codec = open_codec(job.codec)
    measure = quality_meter(job.quality)
    cache = Cache(Path(job.cache.directory), job.cache.limit_gb)
    indices = range(job.chunk, len(split), job.chunks)
    (folder / STATE).unlink(missing_ok=True)
    rows: list[dict[str, object]] = []
    content: list[Any] = []
    failures = Failures(job.key, len(indices))
    with ExitStack() as stack:
        decode = stack.enter_context(decoder(job.codec, codec))
        add_bitstream = stack.enter_context(new_archive(folder / BITSTREAMS))
        add_image = None
        if job.keep_images:
            add_image = stack.enter_context(new_archive(folder / DECODED))
        coding = _Coding(codec, decode, cache if cache.limit_gb else None)
        for index in progress(indices, job.key):
            identity = str(split.ids[index])
            with failures.of(identity):
                pixels, original = split.rate_pixels(index), split.image(index)
                image = coding.code(original)
                measured = measure(original, from_png(image.png)) if job.quality else {}
                add_bitstream(bitstream_name(identity), image.bitstream)
                if add_image is not None:
                    add_image(f"{identity}.png", image.png)
                row = {**image.facts, "image_id": identity, "pixels": pixels}
                rows.append({name: row.get(name, math.nan) for name in COLUMNS} | measured)
                content.append([identity, pixels, image.facts["bitstream"], image.facts["decoded"]])
        if cache.limit_gb:
            cache.enforce_limit()
        failures.stop()  # the cache keeps the others
    write_rows(folder / DECODED_ROWS, rows)
    state = CodingSummary(fingerprint=digest_json(content), parameters=None, macs_per_pixel={})
    write_json(folder / STATE, state.model_dump(mode="json"))
    return folder / STATE


def open_codec(settings: ClassicalSpec) -> ClassicalCodec:
    """Return the classical codec of a job."""
    if settings.command:
        command = CommandParameters.model_validate(settings.parameters)
        return CommandCodec(command, settings.rate, settings.programs)
    entry = CODECS[settings.name]
    codec: ClassicalCodec = implementation(entry)(
        entry.parameters.model_validate(settings.parameters),
        settings.rate,
        settings.programs,
    )
    return codec


@contextmanager
def decoder(settings: ClassicalSpec, codec: ClassicalCodec) -> Iterator[Decode]:
    """Yield a function from a bitstream to the image and the seconds that decoding took.

    Decoding knows the bitstream only: it is the work of another program, or of another process.
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


class DecodingFiles(ImageFiles):
    """The coded images of a split, decoded from their bitstreams whenever they are read.

    Args:
        coded: where the bitstreams are.
        codec: that made them.
    """

    def __init__(self, coded: CodedImages, codec: ClassicalSpec) -> None:
        super().__init__(*(Path(folder) / BITSTREAMS for folder in coded.folders), keep=False)
        self._codec = open_codec(codec)

    def read(self, name: str) -> RgbImage:
        """Return an image as uint8 RGB [H, W, 3] by the name of its PNG file."""
        data = self.load(bitstream_name(Path(name).stem), _content)
        return self._codec.decode(data)

    def size(self, name: str) -> tuple[int, int]:
        """Return height and width of an image, which is decoded for it."""
        height, width = self.read(name).shape[:2]
        return height, width


def _content(source: Path | IO[bytes]) -> bytes:
    return source.read_bytes() if isinstance(source, Path) else source.read()


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


class _Coding:
    """Codes and decodes one image after the other, through the cache if there is one."""

    def __init__(self, codec: ClassicalCodec, decode: Decode, cache: Cache | None) -> None:
        self._codec, self._decode, self._cache = codec, decode, cache
        described = codec.describe()
        self._identity, self._text = described.identity(), described.text()

    def code(self, image: RgbImage) -> CachedImage:
        """Return an image coded and decoded."""
        if self._cache is None:
            return self._code(image)
        key = entry_key(decoded_digest(image), self._identity)
        found = self._cache.find(key)
        if found is None:
            found = self._code(image)
            self._cache.store(key, found)
        return found

    def _code(self, image: RgbImage) -> CachedImage:
        encoded, seconds = timed_encode(self._codec, image)
        decoded, decode_seconds = self._decode(encoded.data)
        if decoded.shape != image.shape:
            raise UserError(f"decoded to {decoded.shape}, but the image is {image.shape}")
        expected = encoded.reconstruction
        if isinstance(self._codec, InProcessCodec):
            expected = self._codec.decode(encoded.data)  # here, to compare with the other process
        digest = decoded_digest(decoded)
        facts = {
            "implementation": self._text,
            "pixels_coded": encoded.pixels_coded,
            "bits": encoded.bits,
            "encode_s": seconds,
            "decode_s": decode_seconds,
            "roundtrip_ok": None if expected is None else decoded_digest(expected) == digest,
            "bitstream": sha256_bytes(encoded.data),
            "decoded": digest,
        }
        return CachedImage(encoded.data, as_png(decoded), facts)
