"""Drawing of a generated face, back to front: body, head, mouth, nose, eyes, hair and accessories.

Every function paints on the canvas and the label map of a :class:`Painter`.
"""

from __future__ import annotations

import math

import numpy as np

from icmbench.data.synthetic.common import Array, noise
from icmbench.data.synthetic.face_look import LABELS, Look, Painter, Points, ellipse, smooth

_SIDES = (-1, 1)


def _rgb(*values: float) -> Array:
    return np.array(values, np.float32)


def draw_body(rng: np.random.Generator, painter: Painter, look: Look, skin: Array) -> None:
    """Draw neck and clothes."""
    wide = rng.uniform(0.42, 0.52)
    neck = [(-wide, 0.6), (wide, 0.6), (wide + 0.08, 1.6), (0.75, 1.95), (0, 2.4), (-0.75, 1.95),
            (-wide - 0.08, 1.6)]  # fmt: skip
    shape = painter.fill(neck)
    # Lit from the front like a post, where the head's own shading would be at its darkest.
    post = 0.66 + 0.3 * np.sqrt(np.clip(1 - (painter.x / 0.8) ** 2, 0, 1))
    post += 0.02 * noise(rng, painter.size, 0.8)
    post += 0.1 * look.light[0] * painter.x
    lit = np.clip(0.15 * skin + 0.8 * look.skin * post[..., None], 0, 1).astype(np.float32)
    painter.paint(shape, lit, LABELS["neck"])
    shadow = [(-0.7, 0.7), (0.7, 0.7), (0.5, look.chin + 0.16), (0, look.chin + 0.3),
              (-0.5, look.chin + 0.16)]  # fmt: skip
    on_neck = np.where(painter.labels == LABELS["neck"], 0.45, 0).astype(np.float32)
    painter.paint(painter.fill(smooth(shadow)), look.skin * 0.4, None, on_neck)
    colour = np.clip(rng.uniform(0.1, 0.9) + rng.normal(0, 0.15, 3), 0.03, 0.95)
    wave = np.sin(painter.x * rng.uniform(-60, 60) + painter.y * rng.uniform(-60, 60))
    weave = 0.05 * noise(rng, painter.size, 1.0) + rng.uniform(0, 0.08) * wave
    cloth = np.clip(colour * (1 + weave[..., None]), 0, 1).astype(np.float32)
    deep, top = rng.uniform(1.65, 2.2), rng.uniform(1.5, 1.62)
    edge = [(-4, 2.3), (-2.2, 1.95), (-1.2, 1.72), (-wide - 0.1, top), (-0.35, 0.5 * (deep + top)),
            (0, deep), (0.35, 0.5 * (deep + top)), (wide + 0.1, top), (1.2, 1.72), (2.2, 1.95),
            (4, 2.3)]  # fmt: skip
    outline = [*smooth(edge, closed=False), (4, 5), (-4, 5)]
    painter.paint(painter.fill(outline), cloth, LABELS["cloth"])


def draw_head(rng: np.random.Generator, painter: Painter, look: Look, skin: Array) -> None:
    """Draw ears and the head without features."""
    for side in _SIDES:
        # The ear on the far side hides behind the cheek.
        out = look.cheek + 0.06 + 0.12 * math.sin(-painter.yaw) * side
        painter.paint(painter.fill(ellipse(side * out, 0.08, 0.13, 0.26)), skin * 0.92,
                      LABELS["ears"])  # fmt: skip
        painter.paint(painter.fill(ellipse(side * (out + 0.02), 0.06, 0.06, 0.16)), look.skin * 0.6,
                      None, 0.4)  # fmt: skip
    half = [(0.3, look.chin - 0.03), (look.jaw, 0.88), (look.cheek - 0.04, 0.4), (look.cheek, -0.1),
            (look.cheek - 0.03, -0.55), (0.62, -1.02)]  # fmt: skip
    outline = [(0, look.chin), *half, (0, -1.2), *((-x, y) for x, y in reversed(half))]
    painter.paint(painter.fill(smooth(outline)), skin, LABELS["skin"])
    _draw_age(rng, painter, look)
    if look.has["Freckles"]:
        for _ in range(int(rng.integers(40, 70))):
            spot = (float(rng.normal(0, 0.36)), float(rng.normal(0.22, 0.13)))
            (x, y), (wide, tall) = painter.turned([spot])[0], rng.uniform(0.015, 0.028, 2)
            dot = ellipse(x, y, float(wide), float(tall), steps=8)
            painter.paint(painter.fill(dot), look.skin * _rgb(0.62, 0.48, 0.42), None, 0.75)


def _draw_age(rng: np.random.Generator, painter: Painter, look: Look) -> None:
    """Draw lines of the forehead, beside eyes and beside the mouth, and bags under the eyes."""
    dark = look.skin * _rgb(0.55, 0.46, 0.44)
    across, height, half, _ = look.eye
    lines: list[list[tuple[float, float]]] = []
    if not look.has["Young"]:
        for level in range(int(rng.integers(2, 4))):
            y, bend = -0.56 - 0.1 * level, rng.normal(0, 0.02)
            knots = [(-0.4, y), (-0.15, y - 0.02), (0.1, y + bend), (0.4, y)]
            lines.append(smooth(knots, closed=False))
        for side in _SIDES:
            corner = side * (across + half + 0.03)
            lines += [[(corner, height + k), (corner + 0.12 * side, height + 2.2 * k)]
                      for k in (-0.04, 0.01, 0.06)]  # fmt: skip
            low = look.mouth[0] - 0.02
            knots = [(side * 0.24, 0.36), (side * 0.36, 0.5), (side * 0.45, low)]
            lines.append(smooth(knots, closed=False))
    elif look.has["Smiling"]:  # a smile folds young cheeks as well, but only just
        for side in _SIDES:
            lines.append([(side * 0.36, 0.48), (side * 0.46, 0.62)])
    for line in lines:
        painter.paint(painter.stroke(painter.turned(line), 0.032), dark, None,
                      rng.uniform(0.5, 0.7))  # fmt: skip
    if look.has["Bags_Under_Eyes"]:
        for side in _SIDES:
            middle, low = side * across, height + 0.17
            bag = [(middle - half, low - 0.04), (middle, low + 0.05), (middle + half, low - 0.04),
                   (middle, low + 0.01)]  # fmt: skip
            painter.paint(painter.fill(painter.turned(smooth(bag))), dark, None, 0.75)
            arc = [(middle - half, low), (middle, low + 0.07), (middle + half, low)]
            painter.paint(painter.stroke(painter.turned(smooth(arc, closed=False)), 0.025),
                          dark, None, 0.6)  # fmt: skip


def draw_nose(painter: Painter, look: Look) -> None:
    """Draw the nose: a shaded side, a lit ridge, nostrils."""
    wide, tip = look.nose
    shift = 0.15 * math.sin(painter.yaw)  # the nose stands out, and moves further
    half = [(0.06, look.eye[1]), (0.075, 0.1), (wide, tip - 0.07), (wide * 0.8, tip + 0.03)]
    outline = [(0, tip + 0.07), *half[::-1], *((-x, y) for x, y in half)]
    whole = painter.fill(painter.turned([(x + shift * (y + 0.2), y) for x, y in smooth(outline)]))
    window, coverage = whole
    painter.labels[window][coverage >= 0.5] = LABELS["nose"]
    dark = -1.0 if look.light[0] > 0 else 1.0
    side = [(0.02 * dark, look.eye[1] + 0.02), (0.1 * dark, look.eye[1] + 0.08),
            (0.1 * dark, 0.1), (wide * dark, tip - 0.06), (wide * 0.7 * dark, tip + 0.04),
            (0.06 * dark, tip - 0.06)]  # fmt: skip
    moved = [(x + shift * (y + 0.2), y) for x, y in smooth(side)]
    painter.shade(painter.fill(painter.turned(moved)), 0.84)
    ridge = [(0.0, look.eye[1]), (-0.02 * dark, tip - 0.1)]
    moved = [(x + shift * (y + 0.2), y) for x, y in ridge]
    painter.paint(painter.stroke(painter.turned(moved), 0.055), _rgb(1, 0.97, 0.93), None, 0.16)
    under = [(-wide * 0.9, tip - 0.02), (-wide * 0.5, tip + 0.05), (0, tip + 0.075),
             (wide * 0.5, tip + 0.05), (wide * 0.9, tip - 0.02)]  # fmt: skip
    moved = [(x + shift * (y + 0.2), y) for x, y in smooth(under, closed=False)]
    painter.paint(painter.stroke(painter.turned(moved), 0.035), look.skin * 0.45, None, 0.5)
    for edge in _SIDES:
        hole = ellipse(0.5 * edge * wide + shift * (tip + 0.2), tip + 0.025, 0.05, 0.026)
        painter.paint(painter.fill(painter.turned(hole)), look.skin * 0.22, None, 0.85)


def draw_eyes(rng: np.random.Generator, painter: Painter, look: Look) -> None:
    """Draw eyes with lids, and brows."""
    across, height, half, tall = look.eye
    slant = rng.normal(0, 0.015)
    for side in _SIDES:
        middle = side * across
        socket = ellipse(middle, height - 0.04, half * 1.35, 0.2)
        painter.shade(painter.fill(painter.turned(socket)), 0.93)
        upper = [
            (middle - half, height - side * slant),
            (middle - 0.5 * half, height - 0.85 * tall),
            (middle + 0.4 * half, height - 0.9 * tall),
            (middle + half, height + side * slant),
        ]
        lower = [(middle + 0.4 * half, height + 0.7 * tall),
                 (middle - 0.5 * half, height + 0.65 * tall)]  # fmt: skip
        opening = painter.fill(painter.turned(smooth([*upper, *lower])))
        painter.paint(opening, _rgb(0.9, 0.88, 0.86) * (0.75 + 0.25 * look.skin.mean()),
                      LABELS["eyes"])  # fmt: skip
        inside = np.zeros((painter.size, painter.size), np.float32)
        inside[opening[0]] = opening[1]
        centre = middle + look.gaze
        for radius, colour in (
            (0.105, look.iris * 0.55),
            (0.09, look.iris),
            (0.045, look.iris * 0.1),
        ):
            disc = painter.fill(painter.turned(ellipse(centre, height - 0.01, radius, radius, 20)))
            painter.paint(disc, colour, None, inside)
        glint = ellipse(centre + 0.04 * look.light[0], height - 0.045, 0.024, 0.024, 10)
        painter.paint(painter.fill(painter.turned(glint)), _rgb(1, 1, 1), None, 0.9)
        lid = painter.turned(smooth(upper, closed=False))
        made_up = look.has["Wearing_Lipstick"]  # as in photographs, make-up comes together
        painter.paint(painter.stroke(lid, 0.05 if made_up else 0.034), look.hair * 0.25, None, 0.85)
        crease = [(x, y - 0.06) for x, y in lid]
        painter.paint(painter.stroke(crease, 0.025), look.skin * 0.5, None, 0.45)
        _draw_brow(rng, painter, look, side)


def _draw_brow(rng: np.random.Generator, painter: Painter, look: Look, side: int) -> None:
    height, thick = look.brow
    arched = look.has["Arched_Eyebrows"]
    rise = rng.uniform(0.1, 0.14) if arched else rng.uniform(0.0, 0.025)
    inner, outer = side * (look.eye[0] - 0.22), side * (look.eye[0] + 0.25)
    peak = side * (look.eye[0] + 0.1)
    line = [
        (inner, height - 0.15 * rise),
        (0.5 * (inner + peak), height - 0.65 * rise),
        (peak, height - rise),
        (outer, height + (0.03 if arched else 0.01)),
    ]
    tops = [(x, y - thick * k) for (x, y), k in zip(line, (1, 1.05, 0.9, 0.2), strict=True)]
    ends = [(x, y + thick * k) for (x, y), k in zip(line, (1, 1.05, 0.9, 0.2), strict=True)]
    shape = painter.fill(painter.turned(smooth([*tops, *ends[::-1]])))
    # Hairs of the brow: fine slanted strokes of light and dark.
    hairs = 0.5 + 0.5 * np.sin(70 * painter.x * side + 38 * painter.y)
    colour = np.minimum(look.hair * 0.6, 0.36)
    uneven = np.clip(0.62 + 0.38 * hairs + 0.1 * noise(rng, painter.size, 0.3), 0, 1)
    painter.paint(shape, colour, LABELS["brows"], uneven.astype(np.float32))


def draw_mouth(painter: Painter, look: Look) -> None:
    """Draw lips, and teeth where the mouth is open."""
    y, wide, thick = look.mouth
    gap, rise = look.open, look.smile
    left, right = (-wide, y - rise), (wide, y - rise)
    upper_top = [
        (-0.5 * wide, y - gap - thick - 0.35 * rise),
        (-0.12 * wide, y - gap - 1.35 * thick),
        (0, y - gap - 1.1 * thick),
        (0.12 * wide, y - gap - 1.35 * thick),
        (0.5 * wide, y - gap - thick - 0.35 * rise),
    ]
    upper_low = [
        (0.5 * wide, y - gap - 0.3 * rise),
        (0, y - gap),
        (-0.5 * wide, y - gap - 0.3 * rise),
    ]
    lower_top = [(0.5 * wide, y + 0.8 * gap - 0.3 * rise), (0, y + gap),
                 (-0.5 * wide, y + 0.8 * gap - 0.3 * rise)]  # fmt: skip
    lower_low = [(-0.5 * wide, y + gap + 0.95 * thick - 0.2 * rise), (0, y + gap + 1.5 * thick),
                 (0.5 * wide, y + gap + 0.95 * thick - 0.2 * rise)]  # fmt: skip
    if gap > 0:
        hole = painter.fill(painter.turned(smooth([left, *upper_low[::-1], right, *lower_top])))
        painter.paint(hole, _rgb(0.2, 0.06, 0.06), LABELS["mouth"])
        inside = np.zeros((painter.size, painter.size), np.float32)
        inside[hole[0]] = hole[1]
        teeth = [(-0.75 * wide, y - gap - rise), (0.75 * wide, y - gap - rise),
                 (0.6 * wide, y + 0.15 * gap - 0.3 * rise), (0, y + 0.3 * gap),
                 (-0.6 * wide, y + 0.15 * gap - 0.3 * rise)]  # fmt: skip
        white = painter.fill(painter.turned(teeth))
        painter.paint(white, _rgb(0.93, 0.9, 0.85), None, inside)
    upper = [left, *upper_top, right, *upper_low]
    lower = [left, *lower_low, right, *lower_top]
    for outline, factor in ((upper, 0.86), (lower, 1.0)):
        shape = painter.fill(painter.turned(smooth(outline)))
        painter.paint(shape, look.lips * factor, LABELS["lips"])
    if gap == 0:
        middle = smooth([left, *upper_low[::-1], right], closed=False)
        painter.paint(painter.stroke(painter.turned(middle), 0.025), look.lips * 0.35, None, 0.8)
    glossy = 0.4 if look.has["Wearing_Lipstick"] else 0.12
    gloss = ellipse(0.1 * look.light[0], y + gap + 0.8 * thick, 0.3 * wide, 0.22 * thick, 12)
    painter.paint(painter.fill(painter.turned(gloss)), _rgb(1, 0.95, 0.93), None, glossy)
    below = ellipse(0, y + gap + 1.9 * thick, 0.45 * wide, 0.3 * thick, 14)
    painter.shade(painter.fill(painter.turned(below)), 0.86)


def _rough(rng: np.random.Generator, outline: Points, amount: float) -> list[tuple[float, float]]:
    """Return the outline with locks sticking out."""
    knots = np.asarray(outline) + amount * rng.standard_normal((len(outline), 2))
    return [(float(x), float(y)) for x, y in knots]


def draw_back_hair(rng: np.random.Generator, painter: Painter, look: Look, hair: Array) -> None:
    """Draw long hair behind head and neck."""
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
