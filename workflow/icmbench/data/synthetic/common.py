"""What the generators share: noise textures, and the files of a generated data set."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from icmbench.data.specs import EmbeddedFaces, EmbeddedScenes
from icmbench.utils.files import atomic_path, digest_json, sha256_file, write_json
from icmbench.utils.workers import worker_pool

Array = np.ndarray[Any, np.dtype[Any]]
Spec = TypeVar("Spec", EmbeddedScenes, EmbeddedFaces)
Label = TypeVar("Label")

_SPLITS = ("train", "val", "test")
_DATE = (2021, 1, 1, 0, 0, 0)  # a fixed date makes equal data sets equal files


def noise(rng: np.random.Generator, size: int, slope: float) -> Array:
    """Return a float32 [size, size] field of unit variance whose amplitude is frequency^-slope.

    Natural images have a slope near 1 (Field, 1987); smooth surfaces have a steeper one.
    """
    frequency = _frequencies(size)
    shape = (2, *frequency.shape)
    real, imaginary = rng.standard_normal(shape, np.float32)
    field = np.fft.irfft2((real + 1j * imaginary) * frequency**-slope, s=(size, size))
    return ((field - field.mean()) / (field.std() + 1e-12)).astype(np.float32)


@lru_cache(maxsize=4)
def _frequencies(size: int) -> Array:
    """Return the radial frequency of each bin of a real FFT; infinite for the mean."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    frequency[0, 0] = np.inf
    return frequency.astype(np.float32)


class Truth(NamedTuple):
    """Ground truth of a split: a JSON file, and numbers for the data set's manifest."""

    file: str
    content: Mapping[str, object]
    numbers: dict[str, int]


def write_dataset(
    folder: Path,
    spec: Spec,
    draw: Callable[[Spec, np.random.Generator], tuple[Sequence[Array], Label]],
    archives: Sequence[str],
    truth: Callable[[Spec, str, dict[int, Label]], Truth],
    facts: Mapping[str, object],
    processes: int = 1,
) -> Path:
    """Write the splits of a generated data set, then its manifest; return the manifest's path.

    The files do not depend on the number of processes. Each image has its own random generator, so
    a split keeps its images when its size changes.

    Args:
        folder: of the data set; created.
        spec: sizes and seed.
        draw: returns the uint8 arrays of one image, one for each archive, and its label.
        archives: names of the zip archives of PNG files ``<id>.png``, with ``{}`` for the split.
        truth: returns the ground truth of a split from the labels by image id.
        facts: further entries of the manifest.
        processes: number of processes that draw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    splits: dict[str, object] = {}
    for number, split in enumerate(_SPLITS):
        names: list[str] = [template.format(split) for template in archives]
        images = _images(partial(_draw, draw, spec, number), getattr(spec, split), processes)
        labels = _write_archives([folder / name for name in names], images, number)
        file, content, numbers = truth(spec, split, labels)
        write_json(folder / file, content)
        sums = {name: sha256_file(folder / name) for name in (*names, file)}
        splits[split] = {"images": len(labels), **numbers, "sha256": sums}
    manifest = {"name": spec.source, "config": spec.model_dump(), "splits": splits, **facts}
    path = folder / "manifest.json"
    write_json(path, {**manifest, "digest": digest_json(manifest)})
    return path


def _images(
    draw: Callable[[int], tuple[list[bytes], Label]], count: int, processes: int
) -> Iterator[tuple[list[bytes], Label]]:
    """Yield the images of a split in order."""
    if processes == 1:
        yield from map(draw, range(count))
        return
    with worker_pool(processes) as pool:
        yield from pool.map(draw, range(count), chunksize=16)


def _draw(
    draw: Callable[[Spec, np.random.Generator], tuple[Sequence[Array], Label]],
    spec: Spec,
    number: int,
    index: int,
) -> tuple[list[bytes], Label]:
    arrays, label = draw(spec, np.random.default_rng([spec.seed, number, index]))
    return [_png(array) for array in arrays], label


def _png(array: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _write_archives(
    paths: Sequence[Path], images: Iterable[tuple[list[bytes], Label]], number: int
) -> dict[int, Label]:
    """Write the PNG files of a split and return the labels by image id."""
    labels: dict[int, Label] = {}
    with ExitStack() as stack:
        archives = [
            stack.enter_context(
                zipfile.ZipFile(stack.enter_context(atomic_path(path)), "w", zipfile.ZIP_STORED)
            )
            for path in paths
        ]
        for index, (files, label) in enumerate(images):
            identity = (number + 1) * 1_000_000 + index
            labels[identity] = label
            for archive, data in zip(archives, files, strict=True):
                archive.writestr(zipfile.ZipInfo(f"{identity}.png", _DATE), data)
    return labels
