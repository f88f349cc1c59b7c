"""What a generated face is drawn from: its attributes, its look, and the pen that draws it.

Face coordinates have their origin between the eyes and the nose; the head is about 1 wide to each
side; y points down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from icmbench.data.synthetic.common import Array

Points = Sequence[tuple[float, float]]
Window = tuple[slice, slice]

_SUPERSAMPLING = 4  # outlines are drawn this much larger and averaged, for soft edges

PARSING = (
    "background", "skin", "nose", "glasses", "eyes", "brows", "ears", "mouth", "lips", "hair",
    "hat", "earring", "neck", "cloth",
)  # fmt: skip
LABELS = {name: index for index, name in enumerate(PARSING)}

_SKIN = np.array(
    [[0.90, 0.72, 0.61], [0.85, 0.65, 0.51], [0.70, 0.50, 0.37], [0.52, 0.35, 0.25],
     [0.36, 0.24, 0.18]], np.float32,
)  # fmt: skip
_PALE = np.array([0.95, 0.86, 0.81], np.float32)
_HAIR = {
    "Black_Hair": (0.09, 0.075, 0.07),
    "Brown_Hair": (0.33, 0.21, 0.13),
    "Blond_Hair": (0.80, 0.65, 0.40),
    "Gray_Hair": (0.62, 0.61, 0.60),
}
_RED = (0.56, 0.26, 0.12)
_IRIS = np.array([[0.22, 0.13, 0.08], [0.30, 0.42, 0.55], [0.30, 0.42, 0.25]], np.float32)


def sample_attributes(rng: np.random.Generator) -> tuple[dict[str, bool], bool]:
    """Return the attributes by name, and whether the hair is long (which is not an attribute).

    A small Bayesian network: frequencies and dependences are modelled on CelebA's (Liu et al.,
    ICCV 2015), whose attribute names are used; only ``Freckles`` is not one of CelebA's.
    """

    def coin(probability: float) -> bool:
        return bool(rng.random() < probability)

    # A hidden style that ties the attributes together, as fashion does in photographs.
    style = coin(0.5)
    young = coin(0.6)
    long_hair = coin(0.75 if style else 0.1)
    hat = coin(0.08)
    gray = coin(0.03 if young else 0.3)
    colour = str(rng.choice(["Black", "Brown", "Blond", "Red"], p=[0.34, 0.34, 0.2, 0.12]))
    smiling = coin(0.55 if style else 0.4)
    pale = coin(0.12)
    has = {
        "5_o_Clock_Shadow": coin(0.02 if style else 0.3),
        "Arched_Eyebrows": coin(0.45 if style else 0.1),
        "Bags_Under_Eyes": coin(0.12 if young else 0.4),
        "Bangs": not hat and coin(0.28 if style else 0.1),
        "Black_Hair": not gray and colour == "Black",
        "Blond_Hair": not gray and colour == "Blond",
        "Brown_Hair": not gray and colour == "Brown",
        "Bushy_Eyebrows": coin(0.06 if style else 0.3),
        "Eyeglasses": coin(0.05 if young else 0.16),
        "Freckles": coin(0.4 if pale else 0.12),
        "Gray_Hair": gray,
        "Mouth_Slightly_Open": coin(0.7 if smiling else 0.25),
        "Narrow_Eyes": coin(0.2 if smiling else 0.08),
        "Pale_Skin": pale,
        "Smiling": smiling,
        "Wavy_Hair": coin(0.5 if long_hair else 0.2),
        "Wearing_Earrings": coin(0.4 if style else 0.05),
        "Wearing_Hat": hat,
        "Wearing_Lipstick": coin(0.7 if style else 0.02),
        "Young": young,
    }
    return has, long_hair


ATTRIBUTES = tuple(sample_attributes(np.random.default_rng(0))[0])


@dataclass(frozen=True)
class Look:
    """One face: attributes, and geometry in face units (see :class:`Painter`)."""

    has: dict[str, bool]
    long_hair: bool
    skin: Array
    hair: Array
    iris: Array
    lips: Array
    light: Array  # unit vector towards the light: right, down, to the viewer
    jaw: float  # half width at the corners of the jaw
    chin: float  # height of the chin, positive because y points down
    cheek: float  # half width at the cheekbones
    eye: tuple[
        float, float, float, float
    ]  # distance from the middle, height, half width and height
    gaze: float
    brow: tuple[float, float]  # height and half thickness
    nose: tuple[float, float]  # half width and height of the tip
    mouth: tuple[float, float, float]  # height, half width, thickness of a lip
    smile: float  # rise of the corners of the mouth
    open: float  # half of the gap between the lips
    parting: float  # position of the parting
    hairline: float  # height, negative


def sample_look(rng: np.random.Generator) -> Look:
    """Draw attributes, then a face that has them."""
    has, long_hair = sample_attributes(rng)
    tone = rng.beta(1.0, 1.7) * (len(_SKIN) - 1.001)
    below = int(tone)
    skin = _SKIN[below] + (tone - below) * (_SKIN[below + 1] - _SKIN[below])
    skin = _PALE if has["Pale_Skin"] else skin
    skin = skin * rng.normal(1, 0.02, 3)
    hair = np.array(next((rgb for name, rgb in _HAIR.items() if has[name]), _RED))
    hair = hair * rng.normal(1, 0.05, 3) * rng.uniform(0.85, 1.15)
    red = np.array([rng.uniform(0.55, 0.8), rng.uniform(0.1, 0.25), rng.uniform(0.15, 0.3)])
    lips = skin * [0.88, 0.66, 0.66]
    lips = 0.25 * lips + 0.75 * red if has["Wearing_Lipstick"] else lips
    light = np.array([rng.normal(0, 0.5), rng.uniform(-0.8, 0.0), rng.uniform(0.7, 1.2)])
    height = rng.uniform(0.05, 0.065) if has["Narrow_Eyes"] else rng.uniform(0.09, 0.125)
    dark = skin.mean() < 0.5  # brown eyes are by far the most common with dark skin
    smile = rng.uniform(0.11, 0.19) if has["Smiling"] else rng.uniform(-0.05, 0.01)
    wide = rng.uniform(0.36, 0.45) if has["Smiling"] else rng.uniform(0.26, 0.33)
    thick = rng.uniform(0.065, 0.09) if has["Bushy_Eyebrows"] else rng.uniform(0.018, 0.03)
    return Look(
        has=has,
        long_hair=long_hair,
        skin=skin.astype(np.float32),
        hair=np.clip(hair, 0.03, 0.95).astype(np.float32),
        iris=_IRIS[0 if dark else int(rng.choice(3, p=[0.5, 0.3, 0.2]))],
        lips=lips.astype(np.float32),
        light=(light / np.linalg.norm(light)).astype(np.float32),
        jaw=rng.uniform(0.6, 0.8),
        chin=rng.uniform(1.15, 1.32),
        cheek=rng.uniform(0.88, 0.98),
        eye=(rng.uniform(0.36, 0.42), rng.uniform(-0.16, -0.08), rng.uniform(0.17, 0.21), height),
        gaze=rng.normal(0, 0.03),
        brow=(rng.uniform(-0.42, -0.35), thick),
        nose=(rng.uniform(0.15, 0.23), rng.uniform(0.34, 0.44)),
        mouth=(rng.uniform(0.70, 0.78), wide, rng.uniform(0.05, 0.085)),
        smile=smile,
        open=rng.uniform(0.05, 0.11) if has["Mouth_Slightly_Open"] else 0.0,
        parting=rng.uniform(-0.45, 0.45),
        hairline=rng.uniform(-0.9, -0.72),
    )


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
