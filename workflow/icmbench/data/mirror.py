"""A mirror directory: the layout of the data folder, unpacked, or the archives side by side.

Files are copied. A link would break when the mirror is unmounted, and a hard link would let an
edit here change the mirror. Who wants no copy links ``<data>/<name>`` to the mirror's folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from icmbench.data.checksums import Hashes
from icmbench.data.manifest import Listing
from icmbench.errors import UserError

CHECKSUMS = "MANIFEST.sha256"


class Mirror:
    """A mirror directory; if it has a ``MANIFEST.sha256``, every file taken is checked with it."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"{root}: no such mirror directory: correct the path or unset it")
        self.root = root
        self._sha256 = _read_checksums(root / CHECKSUMS)

    def folder(self, name: str) -> Path:
        """Return where an unpacked data set would be."""
        return self.root / name

    def archive(self, file_name: str) -> Path | None:
        """Return an archive of that name, if the mirror has it."""
        path = self.root / file_name
        return path if path.is_file() else None

    def copy(self, name: str, paths: Iterable[str], target: Path) -> None:
        """Copy files of an unpacked data set below ``target``."""
        for path in paths:
            destination = target / path
            destination.parent.mkdir(parents=True, exist_ok=True)
            # Content only: modes of a read-only mirror would make the copy undeletable.
            shutil.copyfile(self.root / name / path, destination)

    def check(self, path: str, hashes: Hashes) -> None:
        """Raise ``UserError`` unless a file (path relative to the mirror) is the one listed."""
        if self._sha256 is None:
            return
        listed = self._sha256.get(path)
        if listed is None:
            raise UserError(
                f"{self.root / path}: not listed in {CHECKSUMS} of the mirror: add or remove it"
            )
        if listed != hashes.sha256:
            raise UserError(
                f"{self.root / path}: has sha256 {hashes.sha256}, {CHECKSUMS} of the mirror says "
                f"{listed}: replace the file in the mirror"
            )

    def check_all(self, name: str, listing: Listing) -> None:
        """Check the copies of an unpacked data set's files."""
        for path, hashes in listing.files.items():
            self.check(f"{name}/{path}", hashes)


def _read_checksums(path: Path) -> dict[str, str] | None:
    """Return SHA-256 by normalised relative path, or ``None`` without such a file."""
    if not path.is_file():
        return None
    sums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        sha256, _, name = line.partition(" ")
        if len(sha256) != 64 or not name.strip():
            raise UserError(
                f"{path}: line {number}: {line[:80]!r}: expected 'sha256  relative/path'"
            )
        # sha256sum marks binary mode with '*'.
        sums[str(PurePosixPath(name.strip().removeprefix("*")))] = sha256.lower()
    return sums
