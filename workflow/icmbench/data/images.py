"""Images as they are published: any format and colour mode to uint8 RGB."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from icmbench.errors import UserError
from icmbench.utils.images import RgbImage

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff", ".webp"}


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
        OSError: where the file is damaged or no image.
    """
    with Image.open(source) as image:
        return np.asarray(_rgb(image))


def image_size(source: Path | IO[bytes]) -> tuple[int, int]:
    """Return height and width of an image from its header.

    Raises:
        OSError: where the file is damaged or no image.
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


def require_images(path: Path) -> None:
    """Raise a UserError where there is no folder or archive of images at ``path``."""
    if not path.exists():
        raise UserError(f"{path}: no such folder or archive of images; run the job it is from")
