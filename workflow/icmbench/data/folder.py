"""Images of one's own: which files a role consists of, and the digest of their content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from icmbench.data.index import open_index
from icmbench.data.manifest import Listing, hash_file
from icmbench.data.specs import DatasetSpec, FolderImages
from icmbench.errors import missing_file
from icmbench.utils.files import digest_json, write_json


def write_folder_manifest(dataset: DatasetSpec) -> Path:
    """Write the manifest of a role's own images, and return its path.

    The digest is that of the lines ``sha256  <split>/images/<name>``; folders may be renamed.

    Raises:
        UserError: for missing or damaged files, naming the first.
    """
    files = {}
    settings = dataset.settings
    assert isinstance(settings, FolderImages)
    for split in settings.splits:
        for name, path in _files(dataset, split):
            if not path.is_file():
                raise missing_file(path, "restore it, or correct the annotations that name it")
            files[f"{split}/{name}"] = hash_file(path)
    listing = Listing(files)
    content = {
        "name": dataset.name,
        "source": "folder",
        "files": len(files),
        "bytes": listing.bytes,
        "digest": listing.digest,
    }
    path = Path(dataset.manifest)
    write_json(path, content)
    return path


def folder_state(dataset: DatasetSpec) -> str:
    """Return a digest of names, sizes and times of a role's own files, without reading images."""
    settings = dataset.settings
    assert isinstance(settings, FolderImages)
    found = []
    for place in settings.splits.values():
        # Only annotations name files at any depth.
        depth = "**/*" if place.annotations else "*/*" if place.layout == "classes" else "*"
        for name in filter(None, (place.images, place.annotations, place.maps)):
            path = Path(dataset.folder) / name
            paths = [path] if path.is_file() else sorted(p for p in path.glob(depth) if p.is_file())
            states = [(str(own), own.stat()) for own in paths]
            found.append([(name, state.st_size, state.st_mtime_ns) for name, state in states])
    return digest_json(found)


def _files(dataset: DatasetSpec, split: str) -> Iterator[tuple[str, Path]]:
    """Yield name and path of every file of a split that results depend on."""
    place, index = dataset.split(split), open_index(dataset, split)
    if index.images.is_file():
        yield "images", index.images
    else:
        yield from ((f"images/{name}", index.images / name) for name in index.files)
    yield from ((f"maps/{path.name}", path) for path in index.maps or ())
    if place.annotations is not None:
        yield "annotations", Path(dataset.folder) / place.annotations
