"""Images that are chosen from an annotation file by a recorded rule, and fetched one by one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from icmbench.data.readers.nips2017 import labels_of
from icmbench.errors import damaged_file
from icmbench.utils.files import read_object, sha256_bytes, write_json, write_text


def keep_chosen(annotations: Path, count: int) -> dict[str, tuple[int, int]]:
    """Leave in an annotation file the images of the lowest SHA-256 of their file names.

    A file that has no more than ``count`` images stays as it is, byte for byte.

    Args:
        annotations: in COCO's format, or the CSV of the NIPS 2017 set; replaced.
        count: number of images.

    Returns:
        Width and height of the chosen images by file name, in the order of the names.

    Raises:
        UserError: naming the file, where it is not one of annotations.
    """
    if annotations.suffix == ".csv":
        return _of_table(annotations, count)
    content = read_object(annotations, "images", "annotations", "categories")
    try:
        images = {_plain(entry["file_name"]): entry for entry in content["images"]}
        chosen = {name: images[name] for name in _lowest(images, count)}
        sizes = {name: (entry["width"], entry["height"]) for name, entry in chosen.items()}
        if len(sizes) < len(content["images"]):
            ids = {entry["id"] for entry in chosen.values()}
            content["images"] = [own for own in content["images"] if own["id"] in ids]
            content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
            write_json(annotations, content)
    except (KeyError, TypeError, ValueError) as error:
        raise damaged_file(annotations, f"not COCO's format ({error!r})", "replace it") from None
    return sizes


def _of_table(table: Path, count: int) -> dict[str, tuple[int, int]]:
    labels = labels_of(table)
    chosen = _lowest(map(_plain, labels), count)
    if len(chosen) < len(labels):
        with table.open(encoding="utf-8", newline="") as stream:
            head, *lines = stream.read().splitlines(keepends=True)
        kept = [line for line in lines if f"{line.split(',')[0]}.png" in chosen]
        write_text(table, head + "".join(kept))
    return dict.fromkeys(chosen, (299, 299))


def _lowest(names: Iterable[str], count: int) -> list[str]:
    """Return the names with the lowest SHA-256, sorted by name."""
    return sorted(sorted(names, key=lambda name: sha256_bytes(name.encode()))[:count])


def _plain(name: Any) -> str:
    if PurePosixPath(name).name != name:
        raise ValueError(f"file name {name!r}")
    return str(name)


def check_image(path: Path, size: tuple[int, int], origin: str) -> None:
    """Check that an image decodes to the end and has the size that the annotations give.

    Args:
        path: of the file.
        size: width and height in pixels.
        origin: file or address to name in an error.

    Raises:
        DamagedFile: naming the origin.
    """
    try:
        with Image.open(path) as image:
            image.load()
            problem = None if image.size == size else f"{image.size}, annotated as {size}"
    except (OSError, SyntaxError) as error:
        problem = str(error)
    if problem is not None:
        raise damaged_file(Path(origin), problem, f"delete {path.name} and fetch again")
