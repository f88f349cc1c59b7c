"""Zip archives of bitstreams and images: one output file of a rule, readable by anyone."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from icmbench.codecs.base import Latents, RgbImage
from icmbench.codecs.estimated import as_png
from icmbench.utils.files import atomic_path, reading

_DATE = (2021, 1, 1, 0, 0, 0)  # equal content makes equal archives


def latents_to_bytes(latents: Latents) -> bytes:
    """Return latents as the bytes of an ``.npz`` file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **latents)
    return buffer.getvalue()


def latents_from_bytes(data: bytes) -> Latents:
    """Return what :func:`latents_to_bytes` wrote.

    Raises:
        Exception: of any kind where the data are damaged.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        return dict(stored)


class ArchiveReader:
    """Reads members by name; every fault is one line that names the archive.

    Args:
        path: of the archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            self._archive = zipfile.ZipFile(path)

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def names(self) -> list[str]:
        """Return the names of the members."""
        return self._archive.namelist()

    def read(self, name: str) -> bytes:
        """Return a member, checked against the archive's own checksum.

        Raises:
            DamagedFile: where it is missing or damaged.
        """
        with reading(f"{self.path}: {name}"):
            return self._archive.read(name)


class ArchiveWriter:
    """Adds members without compression: bitstreams have none left to gain."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def add(self, name: str, data: bytes) -> None:
        """Add one member."""
        self._archive.writestr(zipfile.ZipInfo(name, _DATE), data)

    def add_image(self, name: str, image: RgbImage) -> None:
        """Add a uint8 RGB image as PNG."""
        self.add(name, as_png(image))


@contextmanager
def new_archive(path: Path) -> Iterator[ArchiveWriter]:
    """Yield a writer; the archive appears under its name when the block succeeds."""
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        yield ArchiveWriter(archive)
