"""Images with boxes: enlarged, annotated and encoded for a page."""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TARGET_WIDTH = 384  # of the file; the page shows it smaller, so that letters stay sharp
PAGE_PNG_BYTES = 120_000
_FONT_SIZE = 17

# One colour per class; light enough for black letters.
CLASS_COLOURS = (
    "#56B4E9",
    "#F0A030",
    "#3CC79A",
    "#F0E442",
    "#F59BD0",
    "#FF8A65",
    "#B8A6FF",
    "#B5D96C",
)


@dataclass(frozen=True)
class Box:
    """One box: ``xywh`` in pixels of the native image, COCO category, score in [0, 1] or None."""

    xywh: tuple[float, float, float, float]
    category: int
    name: str
    score: float | None = None

    @property
    def text(self) -> str:
        """Name and score in percent, as drawn beside the box."""
        return self.name if self.score is None else f"{self.name} {100 * self.score:.0f}"


def annotated(image: Image.Image, boxes: Sequence[Box], native: tuple[int, int]) -> Image.Image:
    """Return an image of about ``TARGET_WIDTH`` with its boxes drawn.

    Small images are enlarged by a whole number without interpolation, so that coding artefacts
    stay what they are; large ones are reduced.

    Args:
        image: the image.
        boxes: in pixels of the native image.
        native: width and height that the boxes refer to.
    """
    image = _scaled(image.convert("RGB"), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(_FONT_SIZE)
    scale = (image.width / native[0], image.height / native[1])
    # Sure boxes are drawn last, above the doubtful ones.
    for box in sorted(boxes, key=lambda b: 1.0 if b.score is None else b.score):
        colour = CLASS_COLOURS[box.category % len(CLASS_COLOURS)]
        x, y, width, height = box.xywh
        left, top = x * scale[0], y * scale[1]
        right, bottom = (x + width) * scale[0] - 1, (y + height) * scale[1] - 1
        right, bottom = max(right, left + 1), max(bottom, top + 1)
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black")
        draw.rectangle((left, top, right, bottom), outline=colour, width=3)
        _label(draw, box.text, left, top, colour, font, image.size)
    return image


def coloured_map(classes: np.ndarray) -> Image.Image:
    """Return an image of about ``TARGET_WIDTH`` of a parsing map, one colour per class.

    Args:
        classes: uint8 [H, W]; class 0, the background, is dark.
    """
    image = _scaled(Image.fromarray(classes), Image.Resampling.NEAREST)
    image.putpalette([channel for index in range(256) for channel in map_colour(index)])
    return image.convert("RGB")


def map_colour(index: int) -> tuple[int, int, int]:
    """Return the colour of a class in parsing maps, 8-bit RGB."""
    if index == 0:
        return (40, 44, 48)
    # Steps of the golden ratio keep neighbouring classes apart, however many there are.
    hue, lightness = index * 0.618034 % 1, (0.62, 0.45, 0.75)[index % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.7)
    return round(255 * red), round(255 * green), round(255 * blue)


def _scaled(image: Image.Image, reducing: Image.Resampling) -> Image.Image:
    """Return an image of about ``TARGET_WIDTH``; a small one grows by a whole number."""
    if image.width <= TARGET_WIDTH:
        factor = max(1, min(3, TARGET_WIDTH // image.width))
        size = (image.width * factor, image.height * factor)
        return image.resize(size, Image.Resampling.NEAREST)
    size = (TARGET_WIDTH, round(image.height * TARGET_WIDTH / image.width))
    return image.resize(size, reducing)


def _label(
    draw: ImageDraw.ImageDraw,
    words: str,
    left: float,
    top: float,
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    width = draw.textlength(words, font=font) + 6
    height = _FONT_SIZE + 4
    left = min(max(0, left), max(0, size[0] - width))
    top = top - height if top >= height else top
    draw.rectangle((left, top, left + width, top + height), fill=colour)
    draw.text((left + 3, top + 1), words, fill="black", font=font)


def png_bytes(image: Image.Image) -> bytes:
    """Return an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def page_uri(image: Image.Image, png: bytes) -> str:
    """Return a data URI for the page: the PNG, or WebP where a photograph makes that large."""
    if len(png) <= PAGE_PNG_BYTES:
        return data_uri("image/png", png)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88, method=4)
    return data_uri("image/webp", buffer.getvalue())


def data_uri(media_type: str, content: bytes) -> str:
    """Return ``content`` as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
