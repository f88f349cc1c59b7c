"""A content-addressed cache of coded images: by image, implementation and settings.

    <folder>/<first two digits>/<key>.zip    bitstream.bin, decoded.png, facts.json

One file per image: it appears as a whole, and its own checksums find damage. Results copy what they
use, so removing an entry never takes anything from a result.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icmbench.utils.files import atomic_path, digest_json

_BITSTREAM, _DECODED, _FACTS = "bitstream.bin", "decoded.png", "facts.json"
_GB = 1e9
# A temporary file older than this does not belong to a running job.
_ABANDONED_S = 24 * 3600


@dataclass(frozen=True)
class CachedImage:
    """One coded image.

    Attributes:
        bitstream: its bytes.
        png: the decoded image.
        facts: what is known of it: implementation, bits, times, digests.
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
        used: when it was last used, in seconds since 1970.
    """

    path: Path
    size: int
    used: float

    @property
    def implementation(self) -> str:
        """The implementation that coded the image; empty if the file cannot be read."""
        try:
            with zipfile.ZipFile(self.path) as file:
                return str(json.loads(file.read(_FACTS))["implementation"])
        except Exception:  # readers of damaged files raise nearly anything
            return ""


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
        path = self._place(key)
        image = _read(path)
        if image is None:
            _remove(path)
        else:
            with contextlib.suppress(FileNotFoundError):  # another job removed it meanwhile
                os.utime(path)
        return image

    def store(self, key: str, image: CachedImage) -> None:
        """Keep a coded image; a reader sees all of it or nothing."""
        members = {
            _BITSTREAM: image.bitstream,
            _DECODED: image.png,
            _FACTS: json.dumps(image.facts).encode(),
        }
        with atomic_path(self._place(key)) as temporary, zipfile.ZipFile(temporary, "w") as file:
            for name, data in members.items():
                file.writestr(name, data)

    def entries(self) -> Iterator[Entry]:
        """Yield every file, in any order."""
        for path in self.folder.glob("??/[!.]*.zip"):
            with contextlib.suppress(FileNotFoundError):  # another job removed it meanwhile
                facts = path.stat()
                yield Entry(path, facts.st_size, facts.st_mtime)

    def enforce_limit(self) -> int:
        """Remove the least recently used entries until the limit holds; return their bytes."""
        entries = sorted(self.entries(), key=lambda entry: entry.used)
        excess = sum(entry.size for entry in entries) - self.limit_gb * _GB
        freed = 0
        for entry in entries:
            if freed >= excess:
                break
            self.remove(entry)
            freed += entry.size
        for temporary in self.folder.glob("??/.*.zip"):
            with contextlib.suppress(OSError):
                if time.time() - temporary.stat().st_mtime > _ABANDONED_S:
                    temporary.unlink()
        return freed

    def remove(self, entry: Entry) -> None:
        """Remove an entry."""
        _remove(entry.path)

    def _place(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.zip"


def _read(path: Path) -> CachedImage | None:
    """Return the content of a file of the cache, or None if it is missing or damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            facts = json.loads(file.read(_FACTS))
            return CachedImage(file.read(_BITSTREAM), file.read(_DECODED), facts)
    except Exception:  # as above
        return None


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir():  # not ours, but in the way
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
