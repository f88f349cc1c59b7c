"""Images as they are published: any format and colour mode to uint8 RGB, by name."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image

from icmbench.errors import REMAKE, missing_file
from icmbench.utils.files import reading
from icmbench.utils.images import RgbImage

T = TypeVar("T")

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff", ".webp"}

# Pillow's names of samples that have a conversion to RGB, beside integers of 16 bits.
_MODES = {"1", "L", "P", "RGB", "RGBA", "RGBX", "RGBa", "LA", "La", "PA", "CMYK", "YCbCr", "HSV"}
_DEEPEST = (1 << 16) - 1
_CACHE_BYTES = 400 * 1024 * 1024


def list_images(folder: Path) -> list[Path]:
    """Return the images directly inside a folder, whatever the case of their suffix, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _shown(path.name))


def _shown(name: str) -> bool:
    """Return whether a name is an image's, and not hidden, as ``._1.png`` of macOS."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def read_image(source: Path | IO[bytes]) -> RgbImage:
    """Return an image as uint8 RGB [H, W, 3].

    Grey is repeated, palettes are looked up, CMYK is converted by Pillow, alpha is laid over black
    (as detectors' loaders drop it), 16 bits are cut to the upper 8. The orientation in EXIF is not
    applied: samples are taken as they are stored.

    Raises:
        Exception: of any kind if the file is damaged, not an image or of other samples.
    """
    with Image.open(source) as image:
        return np.asarray(_rgb(image))


class Header(NamedTuple):
    """What the header of an image states.

    Attributes:
        size: height and width in pixels, as stored.
        orientation: EXIF's, 1 to 8; 1 is upright.
        deep: whether samples have 16 bits.
    """

    size: tuple[int, int]
    orientation: int
    deep: bool


def read_header(source: Path | IO[bytes]) -> Header:
    """Return what the header of an image states, without decoding it.

    Raises:
        Exception: as :func:`read_image`.
    """
    with Image.open(source) as image:
        _check_mode(image)
        # Pillow would decode a PNG file to look for EXIF at its end.
        has_exif = image.format != "PNG" or "exif" in image.info
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if has_exif else 1
        samples = " ".join(str(tile[3]) for tile in getattr(image, "tile", ()))
        deep = image.mode.startswith("I") or (";16" in samples and "BGR" not in samples)
        return Header((image.height, image.width), orientation, deep)


def used_bits(image: RgbImage) -> int:
    """Return the bits, of 16, that the largest sample of a 16-bit image had before reading."""
    return 8 + int(image.max()).bit_length()


def _check_mode(image: Image.Image) -> None:
    if image.mode not in _MODES and not image.mode.startswith("I"):
        kind = "floating-point samples" if image.mode == "F" else f"samples of mode {image.mode}"
        raise ValueError(f"{kind}; convert it to 8 or 16 bits, grey or RGB")


def _rgb(image: Image.Image) -> Image.Image:
    _check_mode(image)
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith("I"):
        samples = np.asarray(image)
        if samples.min() < 0 or samples.max() > _DEEPEST:
            values = f"{samples.min()} to {samples.max()}"
            raise ValueError(f"samples from {values}; convert it to 16 bits, 0 to {_DEEPEST}")
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
        return sorted(name for name in self._archives() if _shown(name))

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
        return self.load(name, read_header).size

    def load(self, name: str, read: Callable[[Path | IO[bytes]], T]) -> T:
        """Return what ``read`` makes of a file.

        Raises:
            UserError: naming the file that is missing or damaged.
        """
        archive = None if self.path.is_dir() else self._archives().get(name)
        advice = "restore or replace it" if archive is None else f"restore it, or {REMAKE}"
        path = Path(self.path if archive is None else str(archive.filename)) / name
        try:
            with reading(path, advice):
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
