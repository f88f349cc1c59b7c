"""A list of checksums, as ``sha256sum --check`` reads it, beside the files that one job writes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from icmbench.errors import DamagedFile
from icmbench.utils.files import reading, sha256_bytes, sha256_file, write_text

_LONGEST = 1000  # characters of a file's name; systems allow fewer


def sums_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of files by their names in a folder."""
    return {name: sha256_file(folder / name) for name in sorted(names)}


def require(
    path: Path, wanted: str | None, advice: str, list_name: str = "", made: str = "written"
) -> None:
    """Check a file against its SHA-256; None is not checked.

    ``list_name`` is the file that says so, which may be the one that is wrong; ``made`` tells how
    the file came to be.

    Raises:
        FileNotFoundError: where there is none.
        DamagedFile: where it has another, or cannot be read.
    """
    if wanted is None:
        return
    with reading(path, advice):
        found = sha256_file(path)
    if found != wanted:
        raise DamagedFile(
            f"{path}: is not what was {made} (sha256 {found[:12]} instead of {wanted[:12]}"
            f"{list_name and f', says {list_name}'}); {advice}"
        )


class SumsFile:
    """A list of checksums that ``sha256sum --check`` reads, in the folder that it is about.

    Args:
        path: of the list; where there is none, nothing is checked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sums: dict[str, str] | None = None

    def write(self, sums: dict[str, str]) -> None:
        """Write the list, unless it is the same."""
        write_text(self.path, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))

    def read(self) -> dict[str, str]:
        """Return the SHA-256 of files by name; empty where there is no list.

        Raises:
            DamagedFile: for a line of another form.
        """
        if self._sums is None:
            self._sums = {}
            try:
                with reading(self.path):
                    lines = self.path.read_text(encoding="utf-8").splitlines()
            except FileNotFoundError:
                lines = []
            for number, line in enumerate(lines, start=1):
                digest, _, name = line.partition("  ")
                if len(digest) != 64 or not 0 < len(name) < _LONGEST:
                    raise DamagedFile(
                        f"{self.path}: line {number} is not a SHA-256 and a name; delete the file "
                        "and run the job that makes it again"
                    )
                self._sums[name] = digest
        return self._sums

    def wanted(self, path: Path) -> str | None:
        """Return the SHA-256 of a file of the folder, or None where the list does not name it."""
        try:
            name = path.absolute().relative_to(self.path.parent.absolute()).as_posix()
        except ValueError:
            return None
        return self.read().get(name)

    def check(self, path: Path, advice: str) -> None:
        """Check a file of the folder where the list names it.

        Raises:
            DamagedFile: where it is not what was written.
        """
        require(path, self.wanted(path), advice, self.path.name)

    def check_bytes(self, path: Path, data: bytes, advice: str) -> None:
        """Check what was read of a file of the folder where the list names it."""
        wanted = self.wanted(path)
        if wanted is not None and sha256_bytes(data) != wanted:
            raise DamagedFile(f"{path}: is not what the list {self.path.name} says; {advice}")
