"""A pen for faces: smooth outlines in face coordinates, anti-aliased, on pixels and labels at once.

Face coordinates have their origin between the eyes and the nose; the head is about 1 wide to each
side; y points down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Array = np.ndarray[Any, np.dtype[Any]]
Points = Sequence[tuple[float, float]]
Window = tuple[slice, slice]

_SUPERSAMPLING = 4  # outlines are drawn this much larger and averaged, for soft edges


class Painter:
    """A canvas and a label map that are painted together.

    Args:
        canvas: float32 [size, size, 3] in [0, 1]; painted in place.
        centre: pixel (x, y) of the face's origin.
        scale: pixels per face unit.
        tilt: rotation of the head in the image, in radians.
        yaw: turn of the head to the side, in radians; moves what :meth:`turned` is given.

    Attributes:
        labels: uint8 [size, size], of the last labelled paint that covers at least half a pixel.
        x, y: float32 [size, size], face coordinates of the pixel centres.
    """

    def __init__(
        self,
        canvas: Array,
        centre: tuple[float, float],
        scale: float,
        tilt: float = 0.0,
        yaw: float = 0.0,
    ) -> None:
        self.canvas, self.size = canvas, canvas.shape[0]
        self.labels = np.zeros((self.size, self.size), np.uint8)
        self.centre, self.scale, self.yaw = centre, scale, yaw
        self._cos, self._sin = math.cos(tilt), math.sin(tilt)
        rows, columns = np.mgrid[0 : self.size, 0 : self.size].astype(np.float32) + 0.5
        x, y = (columns - centre[0]) / scale, (rows - centre[1]) / scale
        self.x = (x * self._cos + y * self._sin).astype(np.float32)
        self.y = (-x * self._sin + y * self._cos).astype(np.float32)

    def turned(self, points: Points) -> list[tuple[float, float]]:
        """Return points of the front of the face after the head turned, seen from far away."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return [
            (x * cos + sin * 0.8 * math.sqrt(max(0.0, 1 - min(1.0, x * x))), y) for x, y in points
        ]

    def fill(self, outline: Points) -> tuple[Window, Array]:
        """Return the window around a polygon and its coverage [h, w] in [0, 1] there."""
        return self._draw(outline, None)

    def stroke(self, line: Points, width: float) -> tuple[Window, Array]:
        """Return window and coverage of a polyline ``width`` face units wide."""
        return self._draw(line, width)

    def paint(
        self,
        shape: tuple[Window, Array],
        colour: Array,
        label: int | None = None,
        opacity: float | Array = 1.0,
    ) -> None:
        """Lay a colour over a shape.

        Args:
            shape: of :meth:`fill` or :meth:`stroke`.
            colour: one RGB colour, or one for every pixel of the canvas.
            label: what the shape is; None leaves the label map.
            opacity: factor on the coverage, a number or one for every pixel of the canvas.
        """
        window, coverage = shape
        if coverage.size == 0:
            return
        ground = self.canvas[window]
        laid = coverage * (opacity[window] if isinstance(opacity, np.ndarray) else opacity)
        own = colour[window] if colour.ndim == 3 else colour
        ground += (own - ground) * laid[..., None]
        if label is not None:
            self.labels[window][coverage >= 0.5] = label

    def shade(self, shape: tuple[Window, Array], factor: float) -> None:
        """Multiply the canvas by ``factor`` where the shape is."""
        window, coverage = shape
        self.canvas[window] *= (1 + (factor - 1) * coverage)[..., None]

    def _draw(self, points: Points, width: float | None) -> tuple[Window, Array]:
        pixels = [
            (
                self.centre[0] + self.scale * (x * self._cos - y * self._sin),
                self.centre[1] + self.scale * (x * self._sin + y * self._cos),
            )
            for x, y in points
        ]
        margin = 1 + (0 if width is None else width * self.scale)
        left, top = (max(0, math.floor(min(p[i] for p in pixels) - margin)) for i in (0, 1))
        right, bottom = (
            min(self.size, math.ceil(max(p[i] for p in pixels) + margin)) for i in (0, 1)
        )
        window = (slice(top, bottom), slice(left, right))
        if right <= left or bottom <= top:
            return window, np.zeros((max(0, bottom - top), max(0, right - left)), np.float32)
        factor = _SUPERSAMPLING
        image = Image.new("L", ((right - left) * factor, (bottom - top) * factor))
        pen = ImageDraw.Draw(image)
        # Pillow counts from pixel centres.
        large = [((x - left) * factor - 0.5, (y - top) * factor - 0.5) for x, y in pixels]
        if width is None:
            pen.polygon(large, fill=255)
        else:
            thick = max(1, round(width * self.scale * factor))
            pen.line(large, fill=255, width=thick, joint="curve")
        return window, np.asarray(image.reduce(factor), np.float32) / 255


def smooth(points: Points, closed: bool = True, steps: int = 8) -> list[tuple[float, float]]:
    """Return a Catmull-Rom spline through the points, ``steps`` per piece."""
    knots = np.asarray(points, np.float64)
    if closed:
        padded = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        padded = np.concatenate([knots[:1], knots, knots[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    pieces = 0.5 * (
        2 * b[:, None]
        + (c - a)[:, None] * t
        + (2 * a - 5 * b + 4 * c - d)[:, None] * t**2
        + (3 * b - a - 3 * c + d)[:, None] * t**3
    )
    curve = pieces.reshape(-1, 2)
    if not closed:
        curve = np.concatenate([curve, knots[-1:]])
    return [(float(x), float(y)) for x, y in curve]


def ellipse(x: float, y: float, rx: float, ry: float, steps: int = 28) -> list[tuple[float, float]]:
    """Return the outline of an upright ellipse."""
    angles = (2 * math.pi * i / steps for i in range(steps))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]
