"""A content-addressed cache of coded images: by image, implementation and settings.

    <folder>/<first two digits>/<key>/{bitstream.bin, decoded.png, entry.json}

Results hold hard links to what they use, so removing an entry never takes anything from a result.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icmbench.errors import DamagedFile
from icmbench.utils.checksums import read_sealed, write_sealed
from icmbench.utils.files import digest_json, sha256_file, writing

BITSTREAM = "bitstream.bin"
DECODED = "decoded.png"
_FACTS = "entry.json"
_GB = 1e9
# A temporary folder older than this belongs to no running job.
_ABANDONED_S = 24 * 3600


@dataclass(frozen=True)
class Entry:
    """One coded image.

    Attributes:
        folder: where its files lie.
        facts: what is known of it: codec, implementation, times, digests.
    """

    folder: Path
    facts: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return int(self.facts["bytes"])

    @property
    def used(self) -> float:
        """When it was last used, in seconds since 1970."""
        return (self.folder / _FACTS).stat().st_mtime


def entry_key(image_digest: str, identity: dict[str, Any]) -> str:
    """Return the key of an image coded by an implementation with its settings."""
    return digest_json({"image": image_digest, "implementation": identity})


class Cache:
    """Coded images below a folder.

    Args:
        folder: made when the first entry is stored.
        limit_gb: size in 10^9 bytes that :meth:`enforce_limit` keeps.
    """

    def __init__(self, folder: Path, limit_gb: float) -> None:
        self.folder, self.limit_gb = folder, limit_gb

    def find(self, key: str) -> Entry | None:
        """Return an entry with its files as they were stored, or None; a damaged one is removed."""
        folder = self._place(key)
        try:
            facts = _read_facts(folder)
            intact = all(
                sha256_file(folder / name) == facts["files"][name] for name in (BITSTREAM, DECODED)
            )
            if intact:
                os.utime(folder / _FACTS)
                return Entry(folder, facts)
        except FileNotFoundError:
            if not folder.exists():
                return None
        except (OSError, ValueError, KeyError, TypeError):
            pass
        _remove(folder)
        return None

    def store(self, key: str, bitstream: bytes, decoded_png: bytes, facts: dict[str, Any]) -> Entry:
        """Keep a coded image; a reader sees all of it or nothing."""
        with writing(self.folder):
            return self._store(key, bitstream, decoded_png, facts)

    def _store(
        self, key: str, bitstream: bytes, decoded_png: bytes, facts: dict[str, Any]
    ) -> Entry:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        try:
            (temporary / BITSTREAM).write_bytes(bitstream)
            (temporary / DECODED).write_bytes(decoded_png)
            facts = {
                **facts,
                "bytes": len(bitstream) + len(decoded_png),
                "files": {name: sha256_file(temporary / name) for name in (BITSTREAM, DECODED)},
            }
            write_sealed(temporary / _FACTS, facts)
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o777 & ~umask)
            place = self._place(key)
            place.parent.mkdir(exist_ok=True)
            try:
                temporary.rename(place)
            except OSError:
                # Another job stored the same image meanwhile; what it says of its files holds.
                other = self.find(key)
                if other is None:
                    raise
                return other
            return Entry(place, facts)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def entries(self) -> Iterator[Entry]:
        """Yield every entry that can be read; a damaged one is removed."""
        for path in self.folder.glob(f"??/*/{_FACTS}"):
            try:
                yield Entry(path.parent, _read_facts(path.parent))
            except FileNotFoundError:
                continue  # another job pruned it meanwhile
            except ValueError:
                _remove(path.parent)

    def enforce_limit(self) -> int:
        """Remove the entries not used for longest until the limit holds; return their bytes."""
        entries = sorted(self.entries(), key=lambda entry: entry.used)
        excess = sum(entry.size for entry in entries) - self.limit_gb * _GB
        freed = 0
        for entry in entries:
            if freed >= excess:
                break
            self.remove(entry)
            freed += entry.size
        for temporary in self.folder.glob(".new-*"):
            with contextlib.suppress(OSError):
                if time.time() - temporary.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(temporary)
        return freed

    def remove(self, entry: Entry) -> None:
        """Remove an entry; results that link to its files keep them."""
        shutil.rmtree(entry.folder, ignore_errors=True)

    def _place(self, key: str) -> Path:
        return self.folder / key[:2] / key


def _read_facts(folder: Path) -> dict[str, Any]:
    facts = read_sealed(folder / _FACTS, "files", "bytes", "implementation")
    if not isinstance(facts["files"], dict) or not isinstance(facts["bytes"], int):
        raise DamagedFile(f"{folder / _FACTS}: is no entry of the cache")
    return facts


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.is_file():  # something else in its place
        folder.unlink(missing_ok=True)
