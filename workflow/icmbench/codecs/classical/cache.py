"""A content-addressed cache of coded images: by image, implementation and settings.

    <folder>/<first two digits>/<key>.zip    bitstream.bin, decoded.png, facts.json

Studies, scales and concurrent jobs share it. An entry is one file that appears complete by a
rename, also on network file systems, and the archive's checksums detect damage. Results copy what
they use, so removing an entry never affects a result.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icmbench.errors import DamagedFile
from icmbench.utils.files import atomic_path, digest_json, reading

_BITSTREAM, _DECODED, _FACTS = "bitstream.bin", "decoded.png", "facts.json"
_GB = 1e9
_ABANDONED_S = 24 * 3600  # an older temporary file does not belong to a running job


@dataclass(frozen=True)
class CachedImage:
    """One coded image.

    Attributes:
        bitstream: as the codec wrote it.
        png: the decoded image as PNG.
        facts: JSON values: implementation, bits, times, checksums.
    """

    bitstream: bytes
    png: bytes
    facts: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A file of the cache.

    Attributes:
        path: of the file.
        size: in bytes.
        used: time of last use, in seconds since 1970.
    """

    path: Path
    size: int
    used: float

    @property
    def implementation(self) -> str:
        """The implementation that coded the image; empty if the file cannot be read."""
        try:
            return str(_read(self.path).facts.get("implementation", ""))
        except (FileNotFoundError, DamagedFile):
            return ""

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def entry_key(image_digest: str, identity: dict[str, Any]) -> str:
    """Return the key of an image coded by an implementation with its settings."""
    return digest_json({"image": image_digest, "implementation": identity})


class Cache:
    """Coded images below a folder.

    Args:
        folder: made when the first image is stored.
        limit_gb: size in 10^9 bytes that :meth:`enforce_limit` keeps.
    """

    def __init__(self, folder: Path, limit_gb: float) -> None:
        self.folder, self.limit_gb = folder, limit_gb

    def find(self, key: str) -> CachedImage | None:
        """Return a coded image as it was stored, or None; a damaged file is removed."""
        path = self._path(key)
        try:
            image = _read(path)
            os.utime(path)
        except FileNotFoundError:  # not stored, or just removed by another job
            return None
        except DamagedFile:
            path.unlink(missing_ok=True)
            return None
        return image

    def store(self, key: str, image: CachedImage) -> None:
        """Keep a coded image; a reader sees all of it or nothing."""
        path = self._path(key)
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(_BITSTREAM, image.bitstream)
            archive.writestr(_DECODED, image.png)
            archive.writestr(_FACTS, json.dumps(image.facts))

    def entries(self) -> Iterator[Entry]:
        """Yield every entry, in any order; abandoned temporary files are removed."""
        for path in self.folder.glob("??/*.zip"):
            with contextlib.suppress(FileNotFoundError):  # just removed by another job
                status = path.stat()
                if not path.name.startswith("."):
                    yield Entry(path, status.st_size, status.st_mtime)
                elif time.time() - status.st_mtime > _ABANDONED_S:
                    path.unlink()

    def enforce_limit(self) -> None:
        """Remove the least recently used entries until the limit holds."""
        entries = sorted(self.entries(), key=lambda entry: entry.used)
        excess = sum(entry.size for entry in entries) - self.limit_gb * _GB
        for entry in entries:
            if excess <= 0:
                break
            entry.remove()
            excess -= entry.size

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.zip"


def _read(path: Path) -> CachedImage:
    with reading(path), zipfile.ZipFile(path) as archive:
        bitstream, png, facts = map(archive.read, (_BITSTREAM, _DECODED, _FACTS))
        return CachedImage(bitstream, png, dict(json.loads(facts)))
