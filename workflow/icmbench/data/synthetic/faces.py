"""The embedded faces: drawn portraits with attributes and parsing maps.

Everything follows from the seed, so images are neither committed nor downloaded, and no person is
shown. Some attributes are large (hat, hair colour), others cover a few pixels (freckles, lines,
waves of the hair): low rates lose those first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from icmbench.data.specs import EmbeddedFaces
from icmbench.data.synthetic import face_drawing as parts
from icmbench.data.synthetic.common import Array, Truth, noise, write_dataset
from icmbench.data.synthetic.face_look import ATTRIBUTES, PARSING, Look, Painter, sample_look

GENERATOR_VERSION = 1

_CROWN = -1.35  # where strands start, in face units


@dataclass(frozen=True)
class Face:
    """One image and its labels.

    Attributes:
        image: uint8 array [H, W, 3], RGB.
        attributes: uint8 array [A] of 0 and 1, in the order of ``ATTRIBUTES``.
        parsing: uint8 array [H, W], indices of ``PARSING``.
    """

    image: Array
    attributes: Array
    parsing: Array


def make_face(rng: np.random.Generator, size: int) -> Face:
    """Draw one face of ``size`` x ``size`` pixels."""
    look = sample_look(rng)
    painter = Painter(
        _ground(rng, size),
        centre=(size * rng.normal(0.5, 0.025), size * rng.normal(0.47, 0.025)),
        scale=size * rng.uniform(0.255, 0.3),
        tilt=rng.normal(0, 0.1),
        yaw=rng.normal(0, 0.22),
    )
    skin, hair = _skin(rng, painter, look), _hair(rng, painter, look)
    parts.draw_back_hair(rng, painter, look, hair)
    parts.draw_body(rng, painter, look, skin)
    parts.draw_head(rng, painter, look, skin)
    parts.draw_mouth(painter, look)
    parts.draw_nose(painter, look)
    parts.draw_eyes(rng, painter, look)
    parts.draw_front_hair(rng, painter, look, hair)
    if look.has["Eyeglasses"]:
        parts.draw_glasses(rng, painter, look)
    if look.has["Wearing_Earrings"]:
        parts.draw_earrings(rng, painter, look)
    if look.has["Wearing_Hat"]:
        parts.draw_hat(rng, painter, look)
    image = np.clip(painter.canvas * _camera(rng, painter), 0, 1)
    image = image + 0.008 * rng.standard_normal(image.shape, np.float32)  # sensor noise
    return Face(
        np.clip(np.rint(image * 255), 0, 255).astype(np.uint8),
        np.array([look.has[name] for name in ATTRIBUTES], np.uint8),
        painter.labels,
    )


def generate_faces(config: EmbeddedFaces, folder: Path, processes: int = 1) -> Path:
    """Write the data set into ``folder`` and return the path of its manifest.

    Writes, per split, ``<split>.zip`` (PNG images named ``<id>.png``), ``parsing_<split>.zip``
    (8-bit grey PNG of class indices, same names) and ``attributes_<split>.json`` (``names``, and
    ``values`` by id), then ``manifest.json``, which also holds the names of the classes.
    """
    facts = {
        "generator": GENERATOR_VERSION,
        "attributes": list(ATTRIBUTES),
        "parsing": list(PARSING),
    }
    archives = ["{}.zip", "parsing_{}.zip"]
    return write_dataset(folder, config, _draw, archives, _truth, facts, processes)


def _draw(config: EmbeddedFaces, rng: np.random.Generator) -> tuple[list[Array], list[int]]:
    face = make_face(rng, config.size)
    return [face.image, face.parsing], [int(value) for value in face.attributes]


def _truth(config: EmbeddedFaces, split: str, attributes: dict[int, list[int]]) -> Truth:
    values = {str(identity): row for identity, row in attributes.items()}
    content = {"names": list(ATTRIBUTES), "values": values}
    return Truth(f"attributes_{split}.json", content, {})


def _ground(rng: np.random.Generator, size: int) -> Array:
    """Return a blurred room or landscape behind the head, float32 [size, size, 3]."""
    y, x = (axis.astype(np.float32) / size for axis in np.mgrid[0:size, 0:size])
    colours = [np.clip(rng.uniform(0.15, 0.85) + rng.normal(0, 0.06, 3), 0.03, 0.97) for _ in "abc"]
    mix = 1 / (1 + np.exp(-noise(rng, size, rng.uniform(1.5, 2.4))))[..., None]
    image = colours[0] + (colours[1] - colours[0]) * mix
    for _ in range(int(rng.integers(0, 4))):  # out-of-focus edges: door frames, walls, horizons
        angle = rng.choice([0, math.pi / 2]) + rng.normal(0, 0.15)
        edge = (x - rng.random()) * math.cos(angle) + (y - rng.random()) * math.sin(angle)
        weight = 1 / (1 + np.exp(-np.clip(edge * rng.uniform(20, 120), -30, 30)))
        image += rng.uniform(0.2, 0.7) * weight[..., None] * (colours[2] - image)
    image += rng.uniform(0.004, 0.03) * noise(rng, size, rng.uniform(0.7, 1.1))[..., None]
    return np.clip(image, 0, 1).astype(np.float32)


def _skin(rng: np.random.Generator, painter: Painter, look: Look) -> Array:
    """Return the lit skin of a head at every pixel, float32 [size, size, 3]."""
    x, y = painter.x / 1.05, painter.y / 1.45
    front = np.sqrt(np.clip(1 - x**2 - y**2, 0.02, 1))
    lit = np.clip(look.light[0] * x + look.light[1] * y + look.light[2] * front, 0, 1)
    shade = 0.58 + 0.5 * lit + 0.025 * noise(rng, painter.size, 1.3)
    shade += 0.018 * noise(rng, painter.size, 0.4)  # pores
    colour = look.skin * shade[..., None]
    for side in (-1, 1):  # cheeks
        spot = np.exp(-(((painter.x - 0.5 * side) / 0.28) ** 2 + ((painter.y - 0.3) / 0.22) ** 2))
        colour *= 1 - spot[..., None] * np.array([0.0, 0.09, 0.08], np.float32)
    if look.has["5_o_Clock_Shadow"]:
        jaw = 1 / (1 + np.exp(-9 * (painter.y - 0.42 - 0.25 * (1 - np.abs(painter.x)))))
        lips = np.exp(-((painter.x / 0.33) ** 4) - ((painter.y - look.mouth[0]) / 0.12) ** 4)
        grain = np.clip(noise(rng, painter.size, 0.1) * 0.6 + 0.55, 0, 1.6)
        dark = 0.34 * (jaw * (1 - lips) * grain)[..., None]
        colour = colour + (look.hair * 0.4 + 0.03 - colour) * np.clip(dark, 0, 0.8)
    return np.clip(colour, 0, 1).astype(np.float32)


def _hair(rng: np.random.Generator, painter: Painter, look: Look) -> Array:
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


def _camera(rng: np.random.Generator, painter: Painter) -> Array:
    """Return exposure, white balance, vignette and uneven light, float32 [size, size, 3]."""
    exposure = rng.uniform(0.82, 1.1) * (1 + 0.04 * noise(rng, painter.size, 2.0))
    vignette = 1 - rng.uniform(0, 0.12) * (painter.x**2 + painter.y**2) / 6
    warmth = np.array([1, 1, 1]) + rng.normal(0, 0.035) * np.array([1, 0, -1])
    return ((exposure * vignette)[..., None] * warmth).astype(np.float32)
