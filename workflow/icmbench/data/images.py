"""Images as they are published: any format and colour mode to uint8 RGB, by name."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import Image

from icmbench.errors import missing_file
from icmbench.utils.files import reading
from icmbench.utils.images import RgbImage

T = TypeVar("T")

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff", ".webp"}

_CACHE_BYTES = 400 * 1024 * 1024


def list_images(folder: Path) -> list[Path]:
    """Return the images directly inside a folder, whatever the case of their suffix, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def read_image(source: Path | IO[bytes]) -> RgbImage:
    """Return an image as uint8 RGB [H, W, 3].

    Grey is repeated, palettes are looked up, CMYK is converted by Pillow, alpha is laid over black
    (as detectors' loaders drop it), 16-bit grey is scaled to 8 bits.

    Raises:
        OSError: if the file is damaged or not an image.
    """
    with Image.open(source) as image:
        return np.asarray(_rgb(image))


def image_size(source: Path | IO[bytes]) -> tuple[int, int]:
    """Return height and width of an image from its header.

    Raises:
        OSError: if the file is damaged or not an image.
    """
    with Image.open(source) as image:
        return image.height, image.width


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith("I"):
        samples = np.asarray(image)
        return Image.fromarray((samples >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        ground = Image.new("RGBA", opaque.size, (0, 0, 0, 255))
        return Image.alpha_composite(ground, opaque).convert("RGB")
    return image.convert("RGB")


class ImageFiles:
    """Images by file name, from a folder or from uncompressed zip archives.

    A small set stays in memory once read, so that epochs after the first cost no decoding.

    Args:
        path: of the folder or archive.
        more: further archives.
        keep: whether to keep images in memory.
    """

    def __init__(self, path: Path, *more: Path, keep: bool = True) -> None:
        self.path, self._paths = path, (path, *more)
        for own in self._paths:
            if not own.exists():
                raise missing_file(own, "run the job that makes this folder or archive of images")
        self._members: dict[str, zipfile.ZipFile] | None = None
        self._cache: dict[str, RgbImage] = {}
        self._room = _CACHE_BYTES if keep else 0

    def __getstate__(self) -> dict[str, object]:
        # A loader's worker process cannot share an open archive.
        return {**self.__dict__, "_members": None, "_cache": {}}

    def names(self) -> list[str]:
        """Return the file names, sorted."""
        if self.path.is_dir():
            return [path.name for path in list_images(self.path)]
        return sorted(self._archives())

    def read(self, name: str) -> RgbImage:
        """Return an image as uint8 RGB [H, W, 3], see :func:`read_image`."""
        if name not in self._cache:
            image = self.load(name, read_image)
            if image.nbytes > self._room:
                return image
            self._room -= image.nbytes
            self._cache[name] = image
        return self._cache[name]

    def size(self, name: str) -> tuple[int, int]:
        """Return height and width of an image without decoding it."""
        if name in self._cache:
            return self._cache[name].shape[0], self._cache[name].shape[1]
        return self.load(name, image_size)

    def load(self, name: str, read: Callable[[Path | IO[bytes]], T]) -> T:
        """Return what ``read`` makes of a file.

        Raises:
            UserError: naming the file that is missing or damaged.
        """
        archive = None if self.path.is_dir() else self._archives().get(name)
        path = Path(self.path if archive is None else str(archive.filename)) / name
        try:
            with reading(path):
                return read(path if archive is None else io.BytesIO(archive.read(name)))
        except FileNotFoundError:
            raise missing_file(path, "restore it, or run the job that makes it") from None

    def _archives(self) -> dict[str, zipfile.ZipFile]:
        """Return the archive of each file."""
        if self._members is None:
            members: dict[str, zipfile.ZipFile] = {}
            for path in self._paths:
                with reading(path):
                    archive = zipfile.ZipFile(path)
                    members.update(dict.fromkeys(archive.namelist(), archive))
            self._members = members
        return self._members
