"""The embedded faces: drawn portraits with attributes and parsing maps.

Everything follows from the seed, so no image is ever committed or downloaded, and no person is
shown. Some attributes are large (hat, hair colour), others live in a few pixels (freckles, lines,
waves of the hair): those are lost first when bits are.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icmbench.data.specs import EmbeddedFaces
from icmbench.data.synthetic.face_attributes import ATTRIBUTES
from icmbench.data.synthetic.face_drawing import (
    draw_body,
    draw_eyes,
    draw_head,
    draw_mouth,
    draw_nose,
    ground,
    skin_texture,
)
from icmbench.data.synthetic.face_hair import (
    draw_back_hair,
    draw_earrings,
    draw_front_hair,
    draw_glasses,
    draw_hat,
    hair_texture,
)
from icmbench.data.synthetic.face_look import PARSING, sample_look
from icmbench.data.synthetic.face_painter import Painter
from icmbench.data.synthetic.textures import noise
from icmbench.utils.files import atomic_path, digest_json, sha256_file, write_json
from icmbench.utils.workers import worker_pool

GENERATOR_VERSION = 1
SPLITS = ("train", "val", "test")

Array = np.ndarray[Any, np.dtype[Any]]

_DATE = (2021, 1, 1, 0, 0, 0)  # a fixed date makes equal data sets equal files


@dataclass(frozen=True)
class Face:
    """One image and what is known of it.

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
        ground(rng, size),
        centre=(size * rng.normal(0.5, 0.025), size * rng.normal(0.47, 0.025)),
        scale=size * rng.uniform(0.255, 0.3),
        tilt=rng.normal(0, 0.1),
        yaw=rng.normal(0, 0.22),
    )
    skin, hair = skin_texture(rng, painter, look), hair_texture(rng, painter, look)
    draw_back_hair(rng, painter, look, hair)
    draw_body(rng, painter, look, skin)
    draw_head(rng, painter, look, skin)
    draw_mouth(painter, look)
    draw_nose(painter, look)
    draw_eyes(rng, painter, look)
    draw_front_hair(rng, painter, look, hair)
    if look.has["Eyeglasses"]:
        draw_glasses(rng, painter, look)
    if look.has["Wearing_Earrings"]:
        draw_earrings(rng, painter, look)
    if look.has["Wearing_Hat"]:
        draw_hat(rng, painter, look)
    image = np.clip(painter.canvas * _camera(rng, painter), 0, 1)
    image = image + 0.008 * rng.standard_normal(image.shape, np.float32)  # sensor noise
    return Face(
        np.clip(np.rint(image * 255), 0, 255).astype(np.uint8),
        np.array([look.has[name] for name in ATTRIBUTES], np.uint8),
        painter.labels,
    )


def _camera(rng: np.random.Generator, painter: Painter) -> Array:
    """Return exposure, white balance, vignette and uneven light, float32 [size, size, 3]."""
    exposure = rng.uniform(0.82, 1.1) * (1 + 0.04 * noise(rng, painter.size, 2.0))
    vignette = 1 - rng.uniform(0, 0.12) * (painter.x**2 + painter.y**2) / 6
    warmth = np.array([1, 1, 1]) + rng.normal(0, 0.035) * np.array([1, 0, -1])
    return ((exposure * vignette)[..., None] * warmth).astype(np.float32)


def generate_faces(config: EmbeddedFaces, folder: Path, processes: int = 1) -> Path:
    """Write the data set into ``folder`` and return the path of its manifest.

    The result does not depend on the number of processes.

    Leaves, per split, ``<split>.zip`` (PNG images named ``<id>.png``), ``parsing_<split>.zip``
    (8-bit grey PNG of class indices, same names) and ``attributes_<split>.json`` (``names``, and
    ``values`` by id), then ``manifest.json``, which also holds the names of the classes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, Any] = {
        "name": "embedded-faces",
        "generator": GENERATOR_VERSION,
        "config": config.model_dump(),
        "attributes": list(ATTRIBUTES),
        "parsing": list(PARSING),
        "splits": {},
    }
    for number, split in enumerate(SPLITS):
        count = getattr(config, split)
        names = _write_split(folder, split, number, _faces(config, number, count, processes))
        manifest["splits"][split] = {
            "images": count,
            "sha256": {name: sha256_file(folder / name) for name in names},
        }
    manifest["digest"] = digest_json(manifest)
    path = folder / "manifest.json"
    write_json(path, manifest)
    return path


def _faces(
    config: EmbeddedFaces, number: int, count: int, processes: int
) -> Iterator[tuple[bytes, bytes, list[int]]]:
    """Yield image PNG, parsing PNG and attributes of every image of a split, in order."""
    draw = partial(_draw, config.seed, number, config.size)
    if processes == 1:
        yield from map(draw, range(count))
        return
    with worker_pool(processes) as pool:
        yield from pool.map(draw, range(count), chunksize=16)


def _draw(seed: int, number: int, size: int, index: int) -> tuple[bytes, bytes, list[int]]:
    # A generator per image: splits keep their images when their sizes change.
    face = make_face(np.random.default_rng([seed, number, index]), size)
    return _png(face.image), _png(face.parsing), [int(value) for value in face.attributes]


def _png(array: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _write_split(
    folder: Path, split: str, number: int, faces: Iterator[tuple[bytes, bytes, list[int]]]
) -> tuple[str, str, str]:
    names = (f"{split}.zip", f"parsing_{split}.zip", f"attributes_{split}.json")
    values: dict[str, list[int]] = {}
    with (
        atomic_path(folder / names[0]) as images_path,
        atomic_path(folder / names[1]) as parsing_path,
        zipfile.ZipFile(images_path, "w", zipfile.ZIP_STORED) as images,
        zipfile.ZipFile(parsing_path, "w", zipfile.ZIP_STORED) as parsings,
    ):
        for index, (image, parsing, attributes) in enumerate(faces):
            identity = (number + 1) * 1_000_000 + index
            for archive, data in ((images, image), (parsings, parsing)):
                archive.writestr(zipfile.ZipInfo(f"{identity}.png", _DATE), data)
            values[str(identity)] = attributes
    write_json(folder / names[2], {"names": list(ATTRIBUTES), "values": values})
    return names
