"""The embedded scenes: textured, shaded objects that hide each other on natural-looking grounds.

Everything follows from the seed, so images are neither committed nor downloaded. Classes differ in
outline and in texture, and the colour is independent of the class: a detector needs detail, and
detail costs bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from icmbench.data.specs import EmbeddedScenes
from icmbench.data.synthetic.common import Array, Truth, noise, write_dataset

GENERATOR_VERSION = 2
CATEGORIES = ("ball", "brick", "leaf", "star", "ring")

_SUPERSAMPLING = 2  # outlines are drawn twice as large and averaged, for soft edges
_MIN_VISIBLE = 0.35  # share of an object that must stay visible to be annotated
_MIN_PIXELS = 40  # visible pixels an annotation needs


@dataclass(frozen=True)
class Scene:
    """One image and its objects.

    Attributes:
        image: uint8 array [H, W, 3], RGB.
        labels: category ids, from 1, in the order of ``CATEGORIES``.
        masks: boolean array [objects, H, W] of the visible pixels.
    """

    image: Array
    labels: list[int]
    masks: Array


def make_scene(
    rng: np.random.Generator, size: int, objects: int = 4, radius: Sequence[float] = (0.13, 0.27)
) -> Scene:
    """Draw one scene of ``size`` x ``size`` pixels.

    Args:
        rng: decides everything.
        size: in pixels.
        objects: the largest number of objects to draw; some may end up hidden.
        radius: bounds of an object's radius, in sides of the image.
    """
    canvas = _background(rng, size)
    labels: list[int] = []
    masks: list[Array] = []
    areas: list[int] = []
    for _ in range(int(rng.integers(1, objects + 1))):
        kind = int(rng.integers(len(CATEGORIES)))
        window, alpha, texture = _object(rng, size, CATEGORIES[kind], radius)
        solid = np.zeros((size, size), bool)
        solid[window] = alpha > 0.5
        if solid.sum() < _MIN_PIXELS:
            continue
        ground = canvas[window]
        ground *= 1 - 0.35 * _shadow(rng, alpha)[..., None]
        ground += (texture - ground) * alpha[..., None]
        masks = [mask & ~solid for mask in masks]
        labels.append(kind + 1)
        masks.append(solid)
        areas.append(int(solid.sum()))
    canvas += 0.006 * rng.standard_normal(canvas.shape, np.float32)  # sensor noise
    image = np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8)
    keep = [
        i for i, mask in enumerate(masks) if mask.sum() >= max(_MIN_PIXELS, _MIN_VISIBLE * areas[i])
    ]
    kept = np.stack([masks[i] for i in keep]) if keep else np.zeros((0, size, size), bool)
    return Scene(image, [labels[i] for i in keep], kept)


def generate(config: EmbeddedScenes, folder: Path, processes: int = 1) -> Path:
    """Write the data set into ``folder`` and return the path of its manifest.

    Writes, per split, ``<split>.zip`` (PNG images named ``<id>.png``) and
    ``instances_<split>.json`` (COCO format, masks as uncompressed RLE), then ``manifest.json``.
    """
    facts = {"generator": GENERATOR_VERSION}
    return write_dataset(folder, config, _draw, ["{}.zip"], _truth, facts, processes)


def _draw(
    config: EmbeddedScenes, rng: np.random.Generator
) -> tuple[list[Array], list[dict[str, Any]]]:
    scene = make_scene(rng, config.size, config.objects, config.radius)
    objects = [
        {
            "category_id": label,
            "bbox": _box(mask),
            "area": int(mask.sum()),
            "iscrowd": 0,
            "segmentation": {"size": list(mask.shape), "counts": _run_lengths(mask)},
        }
        for label, mask in zip(scene.labels, scene.masks, strict=True)
    ]
    return [scene.image], objects


def _truth(config: EmbeddedScenes, split: str, objects: dict[int, list[dict[str, Any]]]) -> Truth:
    size = {"width": config.size, "height": config.size}
    annotations = [
        {"image_id": identity, **item} for identity, items in objects.items() for item in items
    ]
    content = {
        "info": {"description": f"icmbench embedded scenes, {split}"},
        "images": [{"id": i, "file_name": f"{i}.png", **size} for i in objects],
        "annotations": [{"id": i, **item} for i, item in enumerate(annotations, 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CATEGORIES, 1)],
    }
    return Truth(f"instances_{split}.json", content, {"annotations": len(annotations)})


def _box(mask: Array) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def _run_lengths(mask: Array) -> list[int]:
    """Return COCO's uncompressed RLE: column-major runs, starting with zeros."""
    flat = np.concatenate([[0], mask.flatten(order="F").astype(np.int8), [0]])
    changes = np.flatnonzero(np.diff(flat))
    bounds = np.concatenate([[0], changes, [mask.size]])
    runs = np.diff(bounds)
    return [int(run) for run in (runs[:-1] if runs[-1] == 0 else runs)]


# --- grounds -----------------------------------------------------------------------------------


def _colour(rng: np.random.Generator, low: float, high: float, saturation: float) -> Array:
    """Return a random RGB colour whose mean lies between ``low`` and ``high``."""
    colour = rng.random(3, np.float32)
    colour = saturation * (colour - colour.mean()) + rng.uniform(low, high)
    return np.clip(colour, 0.02, 0.98).astype(np.float32)


def _background(rng: np.random.Generator, size: int) -> Array:
    """Two grounds that meet at a rough horizon, of noise and clutter, under soft light."""
    y, x = (axis.astype(np.float32) / size for axis in np.mgrid[0:size, 0:size])
    edge = rng.uniform(0.2, 0.8) + 0.06 * noise(rng, size, 1.6)[0] + rng.normal(0, 0.1) * x
    weight = 1 / (1 + np.exp(-(y - edge) * rng.uniform(8, 60)))
    grounds = []
    for _ in range(2):
        mix = 1 / (1 + np.exp(-3 * noise(rng, size, rng.uniform(1.2, 2.0))))[..., None]
        base, other = (_colour(rng, 0.02, 0.98, 0.35) for _ in range(2))
        grounds.append(other + (base - other) * mix)
    image = grounds[0] + (grounds[1] - grounds[0]) * weight[..., None]
    cover = rng.uniform(0.1, 0.8) * weight if rng.random() < 0.5 else rng.uniform(0.1, 0.6)
    image += (_clutter(rng, size) - image) * np.broadcast_to(cover, (size, size))[..., None]
    fine = rng.uniform(0.005, 0.035) * noise(rng, size, rng.uniform(0.5, 1.0))
    angle = rng.uniform(0, 2 * math.pi)
    light = 1 + 1.0 * ((x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle))
    return np.clip((image + fine[..., None]) * light[..., None], 0, 1).astype(np.float32)


def _clutter(rng: np.random.Generator, size: int) -> Array:
    """Polygons of all sizes that hide each other, [size, size, 3] in [0, 1].

    The dead leaves model: images of things that occlude each other, with radii r of density
    r^-3, have the statistics of natural ones (Lee, Mumford and Huang, 2001).
    """
    drawn = Image.new("RGB", (size, size))
    pen = ImageDraw.Draw(drawn)
    least, most = 0.018 * size, 0.35 * size
    for _ in range(300):
        # The inverse of the distribution function of r^-3 between the bounds.
        radius = (least**-2 - rng.random() * (least**-2 - most**-2)) ** -0.5
        centre_x, centre_y = rng.uniform(-0.1 * size, 1.1 * size, 2)
        angles = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 8))))
        colour = np.rint(255 * _colour(rng, 0.02, 0.98, 0.35)).astype(int)
        points = [
            (centre_x + radius * math.cos(a), centre_y + radius * math.sin(a)) for a in angles
        ]
        pen.polygon(points, fill=(int(colour[0]), int(colour[1]), int(colour[2])))
    return np.asarray(drawn, np.float32) / 255


def _shadow(rng: np.random.Generator, alpha: Array) -> Array:
    """Return the darkness in [0, 1] of the soft shadow that an object throws beside itself."""
    down, right = int(rng.integers(1, 5)), int(rng.integers(-4, 5))
    height, width = alpha.shape
    # The mean over a 3 x 3 neighbourhood of the shifted outline; outside the window it is light.
    padded = np.pad(alpha, 6)
    soft = sum(
        padded[6 - down + i : 6 - down + i + height, 6 - right + j : 6 - right + j + width]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    )
    return np.asarray(soft / 9, np.float32)


# --- objects -----------------------------------------------------------------------------------

Outline = list[tuple[float, float]]


def _rotated(points: Outline, angle: float) -> Outline:
    cos, sin = math.cos(angle), math.sin(angle)
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


def _circle(radius_x: float, radius_y: float) -> Outline:
    angles = [2 * math.pi * i / 40 for i in range(40)]
    return [(radius_x * math.cos(a), radius_y * math.sin(a)) for a in angles]


def _ball(rng: np.random.Generator) -> list[Outline]:
    return [_circle(1, 1)]


def _brick(rng: np.random.Generator) -> list[Outline]:
    height = rng.uniform(0.55, 0.8)
    return [[(-1, -height), (1, -height), (1, height), (-1, height)]]


def _leaf(rng: np.random.Generator) -> list[Outline]:
    width = rng.uniform(0.4, 0.55)
    steps = [i / 20 for i in range(21)]
    upper = [(2 * t - 1, -width * math.sin(math.pi * t) ** 0.9) for t in steps]
    return [upper + [(x, -y) for x, y in reversed(upper)]]


def _star(rng: np.random.Generator) -> list[Outline]:
    inner = rng.uniform(0.42, 0.55)
    radii = [1 if i % 2 == 0 else inner for i in range(10)]
    return [
        [
            (r * math.cos(math.pi * i / 5), r * math.sin(math.pi * i / 5))
            for i, r in enumerate(radii)
        ]
    ]


def _ring(rng: np.random.Generator) -> list[Outline]:
    inner = rng.uniform(0.45, 0.6)
    return [_circle(1, 1), _circle(inner, inner)]


def _bands(u: Array, v: Array, phase: Array) -> Array:
    return 0.3 * np.sin(4 * v + 6 * phase[1])


def _rows(u: Array, v: Array, phase: Array) -> Array:
    row = np.floor(3.2 * v + phase[0])
    joint_v = np.abs((3.2 * v + phase[0]) % 1 - 0.5) > 0.38
    joint_u = np.abs((1.9 * u + 0.5 * (row % 2) + phase[1]) % 1 - 0.5) > 0.42
    return np.where(joint_v | joint_u, 1.0, -0.5)


def _veins(u: Array, v: Array, phase: Array) -> Array:
    middle = np.abs(v) < 0.07
    side = np.abs(((u - np.abs(v)) * 3.5 + phase[0]) % 1 - 0.5) < 0.14
    return np.where(middle | side, 1.0, -0.4)


def _dots(u: Array, v: Array, phase: Array) -> Array:
    cell_u = (2.8 * u + phase[0]) % 1 - 0.5
    cell_v = (2.8 * v + phase[1]) % 1 - 0.5
    return np.where(cell_u**2 + cell_v**2 < 0.075, 1.0, -0.4)


def _stripes(u: Array, v: Array, phase: Array) -> Array:
    return np.sin(2.4 * math.pi * (u + v) + 6 * phase[0])


_SHAPES: dict[
    str,
    tuple[Callable[[np.random.Generator], list[Outline]], Callable[[Array, Array, Array], Array]],
] = {
    "ball": (_ball, _bands),
    "brick": (_brick, _rows),
    "leaf": (_leaf, _veins),
    "star": (_star, _dots),
    "ring": (_ring, _stripes),
}


def _object(
    rng: np.random.Generator, size: int, name: str, bounds: Sequence[float]
) -> tuple[tuple[slice, slice], Array, Array]:
    """Return a window of the image, coverage [h, w] and texture [h, w, 3] in [0, 1] inside it."""
    outline_of, pattern_of = _SHAPES[name]
    radius = size * math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1])))
    centre_x, centre_y = rng.uniform(0.5 * radius, size - 0.5 * radius, 2)
    angle = rng.uniform(-0.35, 0.35)  # things stand roughly upright
    reach = 1.25 * radius + 6  # corners of a square stick out, and the shadow needs room
    left, top = (max(0, math.floor(c - reach)) for c in (centre_x, centre_y))
    right, bottom = (min(size, math.ceil(c + reach)) for c in (centre_x, centre_y))
    width, height = right - left, bottom - top

    scale = _SUPERSAMPLING
    drawn = Image.new("L", (width * scale, height * scale))
    pen = ImageDraw.Draw(drawn)
    for number, outline in enumerate(outline_of(rng)):
        points = [
            ((centre_x - left + radius * x) * scale, (centre_y - top + radius * y) * scale)
            for x, y in _rotated(outline, angle)
        ]
        pen.polygon(points, fill=255 if number == 0 else 0)
    covered = np.asarray(drawn, np.float32).reshape(height, scale, width, scale).mean((1, 3)) / 255

    y, x = (axis.astype(np.float32) for axis in np.mgrid[top:bottom, left:right])
    x, y = (x - centre_x) / radius, (y - centre_y) / radius
    u = x * math.cos(angle) + y * math.sin(angle)
    v = -x * math.sin(angle) + y * math.cos(angle)
    pattern = pattern_of(u, v, rng.random(2))
    base, mark = _colour(rng, 0.05, 0.45, 0.6), _colour(rng, 0.55, 0.95, 0.6)
    if rng.random() < 0.5:
        base, mark = mark, base
    mix = (0.5 + 0.5 * np.clip(pattern, -1, 1) * rng.uniform(0.6, 0.9))[..., None]
    light_angle = rng.uniform(0, 2 * math.pi)
    strength = 0.55 if name == "ball" else 0.2  # only balls are round enough to shade strongly
    shade = 1 + strength * (x * math.cos(light_angle) + y * math.sin(light_angle))
    texture = np.clip((base + (mark - base) * mix) * shade[..., None], 0, 1)
    window = (slice(top, bottom), slice(left, right))
    return window, covered, texture.astype(np.float32)
