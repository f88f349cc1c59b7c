"""Sizes and checksums of files, and their comparison with what the catalogue says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from icmbench.data.catalogue import Archive

_CHUNK = 1 << 20


class Hashes(NamedTuple):
    """Size in bytes and checksums (hexadecimal) of one file."""

    bytes: int
    md5: str
    sha256: str


def hash_file(path: Path) -> Hashes:
    """Return size, MD5 (what DVC and most data sets publish) and SHA-256 in one reading."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
            size += len(chunk)
    return Hashes(size, md5.hexdigest(), sha256.hexdigest())


def mismatch(found: Hashes, expected: Archive) -> str | None:
    """Return how a file differs from its catalogue entry, or ``None`` if it does not."""
    if expected.bytes is not None and found.bytes != expected.bytes:
        return f"has {found.bytes} bytes, the catalogue says {expected.bytes}"
    for kind in ("sha256", "md5"):
        wanted, given = getattr(expected, kind), getattr(found, kind)
        if wanted is not None and wanted != given:
            return f"has {kind} {given}, the catalogue says {wanted}"
    return None
