"""Code a share of a split's pictures with an anchor, one by one, keeping each as it is finished."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from icmbench.anchors.base import Anchor, LibraryAnchor
from icmbench.anchors.cache import BITSTREAM, DECODED, Cache, entry_key
from icmbench.codecs.base import Encoded, Picture, decoded_digest
from icmbench.codecs.estimated import as_png
from icmbench.data.dataset import Split
from icmbench.errors import CannotWrite, UserError
from icmbench.files import digest_json, link, sha256_bytes, write_bytes, writing
from icmbench.names import chunk_name
from icmbench.programs import Program
from icmbench.registry import CODECS, implementation
from icmbench.sums import write_sealed
from icmbench.workers import worker_pool

_SHOWN_FAILURES = 5
_SAY_EVERY_S = 10.0


def open_anchor(settings: dict[str, Any]) -> Anchor:
    """Return the anchor of a job's ``codec`` section."""
    entry = CODECS[settings["name"]]
    anchor: Anchor = implementation(entry)(
        entry.parameters.model_validate(settings["parameters"]),
        settings["rate"],
        {name: Program.from_json(value) for name, value in settings["programs"].items()},
    )
    return anchor


class _Decode(Protocol):
    def __call__(self, data: bytes) -> tuple[Picture, float]: ...


@contextmanager
def decoder(settings: dict[str, Any], anchor: Anchor) -> Iterator[_Decode]:
    """Yield a function from a bitstream to the picture and the seconds that decoding took.

    Decoding sees nothing of the encoder but the bitstream: it is another program's, or happens in
    another process.
    """
    if anchor.external:
        yield lambda data: _timed(anchor, data)
        return
    with worker_pool(1, "spawn", _open_in_worker, (settings,)) as pool:

        def decode(data: bytes) -> tuple[Picture, float]:
            try:
                return pool.submit(_decode_in_worker, data).result()
            except BrokenProcessPool:
                raise UserError(
                    f"{settings['name']}: the decoder's process died; it may be out of memory"
                ) from None

        yield decode


def timed_encode(anchor: Anchor, picture: Picture) -> tuple[Encoded, float]:
    """Return a coded picture and the seconds that coding alone took."""
    start = time.perf_counter()
    if isinstance(anchor, LibraryAnchor):
        encoded = anchor.compress(picture)
    else:
        encoded = anchor.encode(picture)
    return encoded, time.perf_counter() - start


_in_worker: Anchor | None = None


def _open_in_worker(settings: dict[str, Any]) -> None:
    from icmbench.registry import load_modules

    global _in_worker
    load_modules(settings.get("modules", []))
    _in_worker = open_anchor(settings)


def _decode_in_worker(data: bytes) -> tuple[Picture, float]:
    assert _in_worker is not None
    return _timed(_in_worker, data)


def _timed(anchor: Anchor, data: bytes) -> tuple[Picture, float]:
    start = time.perf_counter()
    picture = anchor.decode(data)
    return picture, time.perf_counter() - start


def code_chunk(job: dict[str, Any], chunk: int) -> Path:
    """Code every ``chunks``-th picture of a split, from number ``chunk`` on.

    Leaves ``bitstreams/<id>.bin`` and ``decoded/<id>.png`` and, when all are there, a file with one
    row per picture. A picture that fails does not stop the others.

    Args:
        job: resolved settings, see ``Plan.encodings``.
        chunk: 0 to ``job["chunks"]`` - 1.

    Returns:
        the file of rows.

    Raises:
        UserError: naming each picture that failed, and why.
    """
    folder, chunks = Path(job["output"]), job["chunks"]
    if not 0 <= chunk < chunks:
        raise UserError(f"{job['key']}: chunk {chunk}; allowed: 0 to {chunks - 1}")
    settings = {**job["codec"], "modules": job["modules"]}
    split = Split(job["dataset"], job["split"], keep=False)  # each picture is read once
    anchor = open_anchor(settings)
    indices = range(chunk, len(split), chunks)
    cache = Cache(Path(job["cache"]["directory"]), job["cache"]["limit_gb"])
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    progress = _Progress(job["key"], [split.native_size(i) for i in indices])
    with decoder(settings, anchor) as decode:
        worker = _Coding(anchor, decode, cache if cache.limit_gb else None, folder)
        for index in indices:
            identity = str(split.ids[index])
            try:
                with writing(folder):
                    row = worker.code(identity, split.picture(index))
            except CannotWrite:
                raise  # the next picture would fare no better
            except (UserError, OSError) as error:
                failures.append(f"{job['key']}: image {identity}: {error}")
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
            f"{job['key']}: {len(failures)} of {len(indices)} pictures failed; the others are kept"
        )
        raise UserError("\n".join(lines))
    path = folder / chunk_name(chunk, chunks)
    content = [(row["image_id"], row["pixels"], row["bitstream"], row["decoded"]) for row in rows]
    write_sealed(path, {"fingerprint": digest_json(content), "rows": rows})
    return path


class _Coding:
    """Codes one picture after the other, through the cache."""

    def __init__(self, anchor: Anchor, decode: _Decode, cache: Cache | None, folder: Path) -> None:
        self.anchor, self.decode, self.cache, self.folder = anchor, decode, cache, folder
        described = anchor.describe()
        self.identity, self.text = described.identity(), described.text()

    def code(self, identity: str, picture: Picture) -> dict[str, Any]:
        """Return the row of a picture, its files being in place."""
        places = {
            BITSTREAM: self.folder / "bitstreams" / f"{identity}.bin",
            DECODED: self.folder / "decoded" / f"{identity}.png",
        }
        if self.cache is None:
            data, png, facts = self._run(picture)
            write_bytes(places[BITSTREAM], data)
            write_bytes(places[DECODED], png)
        else:
            facts = self._through(self.cache, picture, places)
        names = ("pixels_coded", "bits", "encode_s", "decode_s", "roundtrip_ok", "implementation")
        kept = {name: facts[name] for name in (*names, "bitstream", "decoded")}
        return {"image_id": identity, **kept}

    def _through(self, cache: Cache, picture: Picture, places: dict[str, Path]) -> dict[str, Any]:
        """Return what the cache knows of a picture, coding it where needed."""
        key = entry_key(decoded_digest(picture), self.identity)
        for last in (False, True):
            entry = cache.find(key) or cache.store(key, *self._run(picture))
            try:
                for name, place in places.items():
                    link(entry.folder / name, place)
            except FileNotFoundError:  # another job pruned it meanwhile
                if last:
                    raise
                continue
            break
        return entry.facts

    def _run(self, picture: Picture) -> tuple[bytes, bytes, dict[str, Any]]:
        encoded, seconds = timed_encode(self.anchor, picture)
        decoded, decode_seconds = self.decode(encoded.data)
        if decoded.shape != picture.shape:
            raise UserError(f"decoded to {decoded.shape}, but the picture is {picture.shape}")
        expected = encoded.reconstruction
        if isinstance(self.anchor, LibraryAnchor):
            expected = self.anchor.decode(encoded.data)  # here, to compare with the other process
        digest = decoded_digest(decoded)
        facts = {
            "codec": type(self.anchor).__name__,
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
            f"{self.key}: {self.done} of {len(self.pixels)} pictures, "
            f"{spent / self.done:.2f} s each, about {left:.0f} s left",
            file=sys.stderr,
        )
