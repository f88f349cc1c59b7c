"""Drawing of what is on a generated head: hair, hat, glasses, earrings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from icmbench.data.synthetic.face_look import LABELS, Look
from icmbench.data.synthetic.face_painter import Painter, Points, ellipse, smooth
from icmbench.data.synthetic.textures import noise

Array = np.ndarray[Any, np.dtype[Any]]

_SIDES = (-1, 1)
_CROWN = -1.35  # where strands start


def hair_texture(rng: np.random.Generator, painter: Painter, look: Look) -> Array:
    """Return strands that fan out from the crown, float32 [size, size, 3].

    Wavy hair has the same colour, contrast and outline class; its strands swing.
    """
    x, y = painter.x - 0.6 * look.parting, painter.y - _CROWN
    radius = np.sqrt(x**2 + y**2 + 0.02)
    along = np.arctan2(x, np.abs(y) + 0.15)
    slow = noise(rng, painter.size, 2.0)
    if look.has["Wavy_Hair"]:
        period = rng.uniform(0.26, 0.4)
        turn = 2 * math.pi * radius / period + 1.2 * slow
        along = along + rng.uniform(0.06, 0.085) * np.sin(turn)
    strands = np.zeros_like(x)
    for frequency, weight in ((14, 0.5), (34, 0.35), (60, 0.25)):
        table = rng.standard_normal(512).astype(np.float32)
        position = (along * frequency / 1.6 + 0.1 * slow) % 512
        strands += weight * np.interp(position, np.arange(513), [*table, table[0]])
    sheen = np.exp(-(((radius - rng.uniform(0.45, 0.75)) / 0.16) ** 2)) * (0.6 + 0.4 * strands)
    side = 0.12 * np.sign(look.light[0]) * np.clip(painter.x, -1, 1)
    shade = 1 + 0.24 * strands + 0.06 * slow + side + 0.1 * np.clip(-painter.y, -1, 1)
    strength = 0.03 + 0.14 * float(look.hair.mean())
    colour = look.hair * np.clip(shade, 0.25, 1.8)[..., None] + strength * sheen[..., None]
    colour += 0.012 * strands[..., None]  # black hair is not a flat hole
    return np.clip(colour, 0, 1).astype(np.float32)


def _rough(rng: np.random.Generator, outline: Points, amount: float) -> list[tuple[float, float]]:
    """Return the outline with locks sticking out."""
    knots = np.asarray(outline) + amount * rng.standard_normal((len(outline), 2))
    return [(float(x), float(y)) for x, y in knots]


def draw_back_hair(rng: np.random.Generator, painter: Painter, look: Look, hair: Array) -> None:
    """Draw what of long hair lies behind head and neck."""
    if not look.long_hair:
        return
    length, wide = rng.uniform(1.3, 2.4), rng.uniform(1.12, 1.4)
    half = [(0.75, -1.25), (1.05, -0.8), (wide - 0.1, 0.0), (wide, 0.7), (wide, length)]
    outline = [(0, -1.42), *half, (0.3, length + 0.1), (-0.3, length + 0.1),
               *((-x, y) for x, y in reversed(half))]  # fmt: skip
    rough = 0.07 if look.has["Wavy_Hair"] else 0.015
    painter.paint(painter.fill(smooth(_rough(rng, outline, rough))), hair * 0.72, LABELS["hair"])


def draw_front_hair(rng: np.random.Generator, painter: Painter, look: Look, hair: Array) -> None:
    """Draw the hair on the skull, over the temples, and bangs."""
    rough = 0.04 if look.has["Wavy_Hair"] else 0.012
    volume = rng.uniform(0.0, 0.16)
    low = rng.uniform(1.0, 1.7) if look.long_hair else rng.uniform(-0.3, 0.05)
    outer = 1.02 + 0.1 * look.long_hair + 0.5 * volume
    inner = look.cheek - (0.1 if look.long_hair else 0.06)
    line, part = look.hairline, look.parting
    left = [(-outer - 0.04, low), (-outer - 0.02, -0.35), (-0.9, -0.98 - 0.5 * volume)]
    right = [(-x, y) for x, y in reversed(left)]
    top = [(-0.45, -1.3 - volume), (0.05, -1.38 - volume), (0.5, -1.28 - volume)]
    under = [(inner + 0.02, low), (inner, -0.2), (inner - 0.07, line + 0.32), (0.5, line + 0.06),
             (part, line - 0.07), (-0.5, line + 0.06), (-inner + 0.07, line + 0.32),
             (-inner, -0.2), (-inner - 0.02, low)]  # fmt: skip
    outline = [*_rough(rng, left, rough), *_rough(rng, top, rough), *_rough(rng, right, rough)]
    whole = painter.fill(smooth([*outline, *under]))
    # The hair throws a soft shadow on the forehead.
    shadow = [(x, y + 0.06) for x, y in smooth(under[1:-1], closed=False)]
    painter.paint(painter.stroke(shadow, 0.09), look.skin * 0.4, None, 0.3)
    painter.paint(whole, hair, LABELS["hair"])
    if look.has["Bangs"]:
        end = rng.uniform(-0.5, -0.4)
        tips = []
        for x in np.linspace(0.74, -0.74, int(rng.integers(7, 12))):
            tips += [(x + 0.05, end - rng.uniform(0.06, 0.16)), (x, end + rng.uniform(-0.02, 0.07))]
        fringe = [(-0.86, -0.45), (-0.8, line - 0.2), (0, line - 0.3), (0.8, line - 0.2),
                  (0.86, -0.45), *tips]  # fmt: skip
        painter.paint(painter.stroke([(x, y + 0.04) for x, y in tips], 0.06), look.skin * 0.4,
                      None, 0.3)  # fmt: skip
        painter.paint(painter.fill(fringe), hair, LABELS["hair"])


def draw_hat(rng: np.random.Generator, painter: Painter, look: Look) -> None:
    """Draw a knitted cap or a hat with a brim."""
    colour = np.clip(rng.uniform(0.12, 0.8) + rng.normal(0, 0.16, 3), 0.03, 0.95)
    shade = 0.9 + 0.25 * np.clip(look.light[0] * painter.x - 0.3 * painter.y, -1, 1)
    shade += 0.05 * noise(rng, painter.size, 0.8)
    brim = rng.uniform(-0.74, -0.62)
    knitted = rng.random() < 0.5
    if knitted:
        shade = shade + 0.14 * np.sin(painter.x * 42)
        dome = [(-1.1, brim), (-1.1, -1.05), (-0.75, -1.5), (0, -1.68), (0.75, -1.5), (1.1, -1.05),
                (1.1, brim), (0.5, brim - 0.05), (0, brim - 0.07), (-0.5, brim - 0.05)]  # fmt: skip
        edge = [(-1.13, brim + 0.08), (-0.5, brim + 0.02), (0.5, brim + 0.02), (1.13, brim + 0.08),
                (1.13, brim - 0.22), (0.5, brim - 0.28), (-0.5, brim - 0.28),
                (-1.13, brim - 0.22)]  # fmt: skip
    else:
        dome = [(-0.98, brim), (-0.92, -1.25), (-0.7, -1.68), (0, -1.6), (0.7, -1.68),
                (0.92, -1.25), (0.98, brim), (0, brim)]  # fmt: skip
        reach = rng.uniform(1.35, 1.7)
        edge = [(-reach, brim - 0.08), (-0.8, brim - 0.14), (0, brim - 0.18), (0.8, brim - 0.14),
                (reach, brim - 0.08), (0.8, brim + 0.1), (0, brim + 0.13),
                (-0.8, brim + 0.1)]  # fmt: skip
    texture = np.clip(colour * shade[..., None], 0, 1).astype(np.float32)
    shadow = [(x, y + 0.14) for x, y in smooth(edge)]
    painter.paint(painter.fill(shadow), look.skin * 0.3, None, 0.35)
    painter.paint(painter.fill(smooth(dome)), texture, LABELS["hat"])
    painter.paint(painter.fill(smooth(edge)), texture * 0.8, LABELS["hat"])


def draw_glasses(rng: np.random.Generator, painter: Painter, look: Look) -> None:
    """Draw rims, bridge, temples and a glint; the lenses belong to the label as well."""
    across, height, half, _ = look.eye
    wide, tall = half + rng.uniform(0.07, 0.12), rng.uniform(0.17, 0.25)
    power = rng.choice([2.0, 4.0])  # round or squarish
    thick = rng.uniform(0.03, 0.07)
    colour = rng.uniform(0.03, 0.3) * np.array([1, rng.uniform(0.6, 1), rng.uniform(0.4, 1)])
    colour = colour.astype(np.float32)
    tint = rng.uniform(0.02, 0.16)
    for side in _SIDES:
        middle = side * (across + 0.01)
        angles = np.linspace(0, 2 * math.pi, 33)
        cos, sin = np.cos(angles), np.sin(angles)
        xs = middle + wide * np.sign(cos) * np.abs(cos) ** (2 / power)
        ys = height + 0.03 + tall * np.sign(sin) * np.abs(sin) ** (2 / power)
        rim = painter.turned([(float(x), float(y)) for x, y in zip(xs, ys, strict=True)])
        painter.paint(painter.fill(rim), colour, LABELS["glasses"], tint)
        gleam = [(middle - 0.1, height + 0.1), (middle + 0.04, height - 0.1)]
        painter.paint(painter.stroke(painter.turned(gleam), 0.05), np.ones(3, np.float32), None,
                      0.25)  # fmt: skip
        temple = [
            (middle + side * wide, height - 0.02),
            (side * (look.cheek + 0.04), height - 0.04),
        ]
        for line in (rim, painter.turned(temple)):
            painter.paint(painter.stroke(line, thick), colour, LABELS["glasses"])
    bridge = [(-across + wide, height), (0, height - 0.05), (across - wide, height)]
    painter.paint(painter.stroke(painter.turned(smooth(bridge, closed=False)), thick), colour,
                  LABELS["glasses"])  # fmt: skip


def draw_earrings(rng: np.random.Generator, painter: Painter, look: Look) -> None:
    """Draw a stud or a drop at each lobe."""
    metals = ((0.95, 0.8, 0.35), (0.88, 0.9, 0.93), (0.75, 0.2, 0.3), (0.2, 0.45, 0.75))
    colour = np.array(metals[int(rng.integers(4))], np.float32)
    radius, drop = rng.uniform(0.06, 0.085), rng.uniform(0.0, 0.22)
    for side in _SIDES:
        x = side * (look.cheek + 0.09 + 0.1 * math.sin(-painter.yaw) * side)
        hung = ellipse(x, 0.4 + 0.5 * drop, radius * 0.85, radius + 0.5 * drop, 16)
        painter.paint(painter.fill(ellipse(x, 0.42 + 0.5 * drop, radius * 1.15,
                                           radius * 1.2 + 0.5 * drop, 16)),
                      colour * 0.25, None, 0.6)  # fmt: skip
        painter.paint(painter.fill(hung), colour, LABELS["earring"])
        light = ellipse(x - 0.02, 0.37 + 0.3 * drop, 0.025, 0.025, 8)
        painter.paint(painter.fill(light), np.ones(3, np.float32), None, 0.8)
