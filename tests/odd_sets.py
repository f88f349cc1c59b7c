"""Small COCO-format sets with one or several oddities, each of a kind that users have met.

A kind changes the third image, or the images it is given, and says what must come of it.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT, COUNT = 96, 64, 8
PLACE = {"images": "images", "annotations": "annotations.json"}


@dataclass
class OddSet:
    """A set of eight images of 96 x 64 with one object each, before it is written."""

    folder: Path
    content: dict[str, Any] = field(default_factory=dict)
    encoding: str = "utf-8"
    newline: str = "\n"

    def __post_init__(self) -> None:
        (self.folder / "images").mkdir(parents=True)
        rng = np.random.default_rng(7)
        images, annotations = [], []
        for number in range(1, COUNT + 1):
            blocks = rng.integers(0, 256, (8, 12, 3), np.uint8)
            pixels = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
            x, y, w, h = 8 + number, 6 + number, 40, 30
            pixels[y : y + h, x : x + w] = rng.integers(0, 256, 3)
            Image.fromarray(pixels).save(self.folder / "images" / f"{number:04d}.png")
            images.append(
                {"id": number, "file_name": f"{number:04d}.png", "width": WIDTH, "height": HEIGHT}
            )
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1 + number % 5,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        categories = [{"id": n, "name": f"class{n}"} for n in range(1, 6)]
        self.content = {"images": images, "annotations": annotations, "categories": categories}

    def image(self, n: int) -> Any:
        return self.content["images"][n]

    def mark(self, n: int) -> Any:
        return self.content["annotations"][n]

    def path(self, n: int) -> Path:
        return self.folder / "images" / f"{n + 1:04d}.png"

    def pixels(self, n: int) -> Image.Image:
        return Image.open(self.path(n)).convert("RGB")

    def replace(self, n: int, name: str, image: Image.Image, **options: Any) -> None:
        self.path(n).unlink()
        image.save(self.folder / "images" / name, **options)
        self.image(n)["file_name"] = name

    def rename(self, n: int, new: Callable[[int], Any]) -> None:
        """Give every image another id; ``n`` is not used: the kind is one of the whole set."""
        for number in range(COUNT):
            self.image(number)["id"] = self.mark(number)["image_id"] = new(number + 1)

    def write(self) -> None:
        text = json.dumps(self.content, indent=1).replace("\n", self.newline)
        path = self.folder / "annotations.json"
        path.write_bytes(text.encode(self.encoding))


@dataclass(frozen=True)
class Kind:
    """An oddity.

    Attributes:
        apply: changes a set at image ``n``.
        refused: what the one line that refuses the set says; None where the set is accepted.
        masks_only: whether only tasks that need masks refuse it.
        same: whether every number of the image itself must be that of the clean set.
        whole: whether it changes the whole set.
    """

    apply: Callable[[OddSet, int], Any]
    refused: str | None = None
    masks_only: bool = False
    same: bool = True
    whole: bool = False


def _set_mark(key: str, value: Callable[[Sequence[int]], Any]) -> Callable[[OddSet, int], None]:
    def apply(odd: OddSet, n: int) -> None:
        odd.mark(n)[key] = value(odd.mark(n)["bbox"])

    return apply


def _set_image(key: str, value: Any) -> Callable[[OddSet, int], None]:
    return lambda odd, n: odd.image(n).update({key: value})


def _seg(value: Any) -> Callable[[OddSet, int], None]:
    return _set_mark("segmentation", value if callable(value) else lambda box: value)


def _exif(odd: OddSet, n: int) -> None:
    """Stored 96 x 64 and tagged "rotate by 90 degrees"; annotated upright, as tools do."""
    exif = Image.Exif()
    exif[0x0112] = 6
    odd.replace(n, f"{n + 1:04d}.jpg", odd.pixels(n), quality=95, exif=exif.tobytes())
    odd.image(n).update(width=HEIGHT, height=WIDTH)
    odd.mark(n).update(bbox=[10, 20, 30, 40], segmentation=[[10, 20, 40, 20, 40, 60, 10, 60]])


def _tag(orientation: int) -> Callable[[OddSet, int], None]:
    """Tag an image that is annotated as stored; nothing tells that where it is not sideways."""

    def apply(odd: OddSet, n: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        odd.replace(n, f"{n + 1:04d}.png", odd.pixels(n), exif=exif.tobytes())

    return apply


def _size(odd: OddSet, n: int) -> None:
    odd.image(n).update(width=2 * WIDTH, height=2 * HEIGHT)


def _same_id(odd: OddSet, n: int) -> None:
    odd.image(n)["id"] = odd.mark(n)["image_id"] = odd.image(n - 1)["id"]


def _set_id(new: Any) -> Callable[[OddSet, int], None]:
    def apply(odd: OddSet, n: int) -> None:
        own = f"{new}{n}" if isinstance(new, str) and new else new
        odd.image(n)["id"] = odd.mark(n)["image_id"] = own

    return apply


def _twin_id(odd: OddSet, n: int) -> None:
    odd.image(n)["id"] = odd.mark(n)["image_id"] = str(odd.image(n - 1)["id"])


def _from_zero(odd: OddSet, n: int) -> None:
    for mark in odd.content["annotations"]:
        mark["category_id"] -= 1
    for category in odd.content["categories"]:
        category["id"] -= 1


def _large(odd: OddSet, n: int) -> None:
    odd.mark(n)["category_id"] = 90
    odd.content["categories"].append({"id": 90, "name": "class90"})


def _absolute(odd: OddSet, n: int) -> None:
    outside = odd.folder.parent / f"outside{n}.png"
    odd.path(n).rename(outside)
    odd.image(n)["file_name"] = str(outside)


def _parent(odd: OddSet, n: int) -> None:
    odd.path(n).rename(odd.folder / f"out{n}.png")
    odd.image(n)["file_name"] = f"../out{n}.png"


def _backslash(odd: OddSet, n: int) -> None:
    odd.image(n)["file_name"] = "images\\" + odd.image(n)["file_name"]


def _no_area(odd: OddSet, n: int) -> None:
    odd.mark(n).pop("area")


def _encoding(odd: OddSet, n: int) -> None:
    odd.encoding = "utf-8-sig"


def _crlf(odd: OddSet, n: int) -> None:
    odd.newline = "\r\n"


def _crowd(odd: OddSet, n: int) -> None:
    lengths = {"size": [HEIGHT, WIDTH], "counts": [1000, 500, HEIGHT * WIDTH - 1500]}
    odd.mark(n).update(iscrowd=1, segmentation=lengths)


def _empty(odd: OddSet, n: int) -> None:
    odd.content["annotations"][n] = dict(odd.mark(n), category_id=1, iscrowd=1)


def _deep(odd: OddSet, n: int) -> None:
    grey = np.asarray(odd.pixels(n).convert("L")).astype(np.uint16)
    odd.replace(n, f"{n + 1:04d}.png", Image.fromarray(grey * 16))  # 12 of 16 bits


def _float(odd: OddSet, n: int) -> None:
    grey = np.asarray(odd.pixels(n).convert("L")).astype(np.float32)
    odd.replace(n, f"{n + 1:04d}.tif", Image.fromarray(grey / 255))


def _wide_integers(odd: OddSet, n: int) -> None:
    grey = np.asarray(odd.pixels(n).convert("L")).astype(np.int32)
    odd.replace(n, f"{n + 1:04d}.tif", Image.fromarray(grey << 16))


def _palette(odd: OddSet, n: int) -> None:
    odd.replace(n, f"{n + 1:04d}.png", odd.pixels(n).convert("P", palette=Image.Palette.ADAPTIVE))


def _alpha(odd: OddSet, n: int) -> None:
    odd.replace(n, f"{n + 1:04d}.png", odd.pixels(n).convert("RGBA"))


def _cmyk(odd: OddSet, n: int) -> None:
    odd.replace(n, f"{n + 1:04d}.jpg", odd.pixels(n).convert("CMYK"))


def _truncated(odd: OddSet, n: int) -> None:
    data = odd.path(n).read_bytes()
    odd.path(n).write_bytes(data[: len(data) // 2])


def _huge(odd: OddSet, n: int) -> None:
    """A header of 40000 x 40000 pixels, above Pillow's limit."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body
    odd.path(n).write_bytes(data + struct.pack(">I", zlib.crc32(body)))


PIXELS = HEIGHT * WIDTH

KINDS: dict[str, Kind] = {
    "plain": Kind(lambda odd, n: None),
    "exif": Kind(_exif, "EXIF orientation 6"),
    "exif-half": Kind(_tag(3), "EXIF orientation 3"),
    "exif-mirrored": Kind(_tag(2), "EXIF orientation 2"),
    "exif-stored": Kind(_tag(6)),
    "size": Kind(_size, "96 x 64 pixels, its entry 192 x 128"),
    "seg-empty": Kind(_seg([]), "an empty list", masks_only=True),
    "seg-missing": Kind(lambda o, n: o.mark(n).pop("segmentation"), "missing", masks_only=True),
    "seg-four": Kind(
        _seg(lambda b: [[b[0], b[1], b[0] + b[2], b[1] + b[3]]]), "4 numbers", masks_only=True
    ),
    "seg-odd": Kind(_seg([[1, 1, 9, 1, 9, 9, 1]]), "7 numbers", masks_only=True),
    "seg-nan": Kind(_seg([[1, 1, 9, 1, 9, math.nan]]), "outside any image", masks_only=True),
    "seg-far": Kind(_seg([[1, 1, 1e9, 1, 9, 9]]), "outside any image", masks_only=True),
    "seg-text": Kind(_seg([[1, 1, 9, "1", 9, 9]]), "not a number", masks_only=True),
    "seg-flat": Kind(_seg([1, 1, 9, 1, 9, 9]), "where a polygon", masks_only=True),
    "seg-rle-list": Kind(
        _seg({"size": [HEIGHT, WIDTH], "counts": [1000, 500, PIXELS - 1500]}), same=False
    ),
    "seg-rle-text": Kind(_seg({"size": [HEIGHT, WIDTH], "counts": "PPYo1"}), "", masks_only=True),
    "seg-rle-sum": Kind(
        _seg({"size": [HEIGHT, WIDTH], "counts": [10, 10]}), "do not add up", masks_only=True
    ),
    "seg-rle-size": Kind(
        _seg({"size": [WIDTH, HEIGHT], "counts": [PIXELS]}), "of size", masks_only=True
    ),
    "seg-rle-damaged": Kind(
        _seg({"size": [HEIGHT, WIDTH], "counts": "~~~"}), "damaged", masks_only=True
    ),
    "id-string": Kind(lambda o, n: o.rename(n, lambda i: f"1_02999_d_{i:07d}"), whole=True),
    "id-digits": Kind(lambda o, n: o.rename(n, lambda i: f"{i:07d}"), whole=True),
    "id-slash": Kind(lambda o, n: o.rename(n, lambda i: f"cam1/{i:07d}"), whole=True),
    "id-outside": Kind(_set_id("../" * 12 + "tmp/escaped")),
    "id-mixed": Kind(_set_id("third")),
    "id-twice": Kind(_same_id, "duplicate id"),
    "id-twin": Kind(_twin_id, "number and as text"),
    "id-long": Kind(_set_id("x" * 300), "301 bytes"),
    "id-empty": Kind(_set_id(""), "0 bytes"),
    "id-float": Kind(_set_id(3.5), "id"),
    "id-true": Kind(_set_id(True), "id"),
    "id-beyond": Kind(_set_id(1 << 70), "id"),
    "category-zero": Kind(_from_zero, whole=True),
    "category-large": Kind(_large, "set the task's classes to 7"),
    "category-text": Kind(_set_mark("category_id", lambda box: "1"), "category_id"),
    "category-unknown": Kind(_set_mark("category_id", lambda box: 77), "category_id 77"),
    "file-backslash": Kind(_backslash, "backslash"),
    "file-absolute": Kind(_absolute, "absolute"),
    "file-drive": Kind(_set_image("file_name", "C:/x.png"), "absolute"),
    "file-parent": Kind(_parent, "leaves the folder"),
    "file-hidden": Kind(_set_image("file_name", ".x.png"), "hidden"),
    "file-empty": Kind(_set_image("file_name", ""), "empty"),
    "file-control": Kind(_set_image("file_name", "a\nb.png"), "control"),
    "file-surrogate": Kind(_set_image("file_name", "\ud800.png"), "control"),
    "file-folder": Kind(_set_image("file_name", "."), ""),
    "file-twice": Kind(lambda o, n: o.image(n).update(o.image(n - 1), id=n + 1), "2 images"),
    "file-missing": Kind(lambda o, n: o.path(n).unlink(), "no such file"),
    "box-nan": Kind(_set_mark("bbox", lambda b: [*b[:3], math.nan]), "bbox"),
    "box-negative": Kind(_set_mark("bbox", lambda b: [*b[:3], -4]), "bbox"),
    "box-three": Kind(_set_mark("bbox", lambda b: b[:3]), "bbox"),
    "box-outside": Kind(_set_mark("bbox", lambda b: [200, 0, 9, 9]), "lies outside"),
    "box-exceeds": Kind(_set_mark("bbox", lambda b: [60, 30, 90, 30]), same=False),
    "area-missing": Kind(_no_area),
    "area-negative": Kind(_set_mark("area", lambda b: -1), "area"),
    "bom": Kind(_encoding, whole=True),
    "utf-16": Kind(lambda odd, n: setattr(odd, "encoding", "utf-16"), "annotations.json"),
    "crlf": Kind(_crlf, whole=True),
    "crowd": Kind(_crowd, same=False),
    "empty": Kind(_empty, same=False),
    "deep": Kind(_deep, same=False),
    "float": Kind(_float, "floating-point"),
    "wide-integers": Kind(_wide_integers, "samples from"),
    "palette": Kind(_palette),
    "alpha": Kind(_alpha),
    "cmyk": Kind(_cmyk, same=False),
    "truncated": Kind(_truncated, same=False),
    "no-image": Kind(lambda o, n: o.path(n).write_bytes(b"no image"), "cannot be read"),
    "no-bytes": Kind(lambda o, n: o.path(n).write_bytes(b""), "cannot be read"),
    "huge": Kind(_huge, "cannot be read"),
}
