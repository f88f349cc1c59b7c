"""The files of a fetched data set: measured, written down beside it, and checked.

``<name>.manifest.json`` summarises a data set; rules depend on it. ``<name>.files.sha256`` lists
its files in the format of ``sha256sum --check``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from icmbench.data.catalogue import Archive, DataSet
from icmbench.data.names import CONTROL
from icmbench.errors import UserError, damaged_file
from icmbench.utils.files import reading, sha256_bytes, sha256_file, write_json, write_text
from icmbench.utils.models import Strict

Source = Literal["dvc", "mirror", "archives", "found"]

_CHUNK = 1 << 20
_FETCH = "delete the file and fetch again"


class Hashes(NamedTuple):
    """Size in bytes and checksums (hexadecimal) of one file."""

    bytes: int
    md5: str
    sha256: str


def hash_file(path: Path) -> Hashes:
    """Return size, MD5 (as DVC and most data sets publish it) and SHA-256 in one pass."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
            size += len(chunk)
    return Hashes(size, md5.hexdigest(), sha256.hexdigest())


def mismatch(found: Hashes, expected: Archive) -> str | None:
    """Return how a file differs from its catalogue entry, or None."""
    for kind in ("bytes", "sha256", "md5"):
        wanted, given = getattr(expected, kind), getattr(found, kind)
        if wanted is not None and wanted != given:
            what = "size" if kind == "bytes" else "checksum"
            return f"{what} mismatch: {kind} {given}, expected {wanted}"
    return None


class Manifest(Strict):
    """Content of ``<name>.manifest.json``; equal data from the same source give equal text.

    ``archives`` has the SHA-256 of each archive that was unpacked, by name. ``digest`` is the
    SHA-256 of the lines ``sha256  relative/path`` sorted by path, ``dvc_md5`` DVC's hash of the
    folder.
    """

    name: str
    version: str
    source: Source
    subset: bool
    files: int
    bytes: int
    digest: str
    dvc_md5: str
    archives: dict[str, str]

    def write(self, path: Path) -> None:
        """Write the manifest as JSON."""
        write_json(path, self.model_dump())


def read_manifest(path: Path) -> Manifest | None:
    """Return a manifest, or None if there is no file.

    Raises:
        DamagedFile: if it is not a manifest.
    """
    try:
        with reading(path, _FETCH):
            return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


@dataclass(frozen=True)
class Listing:
    """Sizes and checksums of the files of a data set by relative path (with ``/``)."""

    files: dict[str, Hashes]

    @property
    def text(self) -> str:
        """The lines ``sha256  relative/path``, sorted by path."""
        return "".join(f"{self.files[path].sha256}  {path}\n" for path in sorted(self.files))

    @property
    def digest(self) -> str:
        """SHA-256 of :attr:`text`."""
        return sha256_bytes(self.text.encode())

    @property
    def bytes(self) -> int:
        """Total size."""
        return sum(hashes.bytes for hashes in self.files.values())

    @property
    def dvc_md5(self) -> str:
        """DVC's hash of the folder: MD5 of the JSON list of its files, and ``.dir``."""
        entries = [{"md5": self.files[path].md5, "relpath": path} for path in sorted(self.files)]
        text = json.dumps(entries, sort_keys=True)
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"

    def write(self, path: Path) -> None:
        """Write the lines that ``sha256sum --check`` reads in the data set's folder."""
        write_text(path, self.text)


def read_checksums(path: Path) -> dict[str, str]:
    """Return SHA-256 by normalised relative path from a file as ``sha256sum`` writes it.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFile: naming a line of another form.
    """
    checksums = {}
    with reading(path):
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
            sha256, _, name = line.partition(" ")
            if len(sha256) != 64 or not name.strip():
                raise damaged_file(path, f"line {number} is not 'sha256  relative/path'", _FETCH)
            # sha256sum marks binary mode with '*'.
            checksums[str(PurePosixPath(name.strip().removeprefix("*")))] = sha256.lower()
    return checksums


def scan(folder: Path, entry: DataSet) -> dict[str, int]:
    """Return the size in bytes of each file below ``folder`` that belongs to the data set.

    Links are followed: people keep data sets on another disk.

    Raises:
        UserError: for a file name that a list cannot hold.
    """
    sizes: dict[str, int] = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        base = Path(parent).relative_to(folder)
        for name in names:
            path = (base / name).as_posix()
            if entry.wants(path):
                if CONTROL.search(path):  # of another encoding, or with a line end
                    reason = f"file name {path!r} is not UTF-8, or has control characters"
                    raise UserError(f"{folder}: {reason}; rename the file")
                sizes[path] = (folder / path).stat().st_size
    return sizes


def measure(folder: Path, paths: Iterable[str], entry: DataSet, origin: Path) -> Listing:
    """Return the checksums of files below ``folder``.

    Args:
        folder: of the files.
        paths: of the files, relative to ``folder``.
        entry: the data set.
        origin: the folder to name in an error: ``folder`` itself, or the one it was copied from.

    Raises:
        UserError: if a file differs from its catalogue entry.
    """
    single = entry.single_files()
    files = {path: hash_file(folder / path) for path in sorted(paths)}
    for path, archive in single.items():
        if path in files and (problem := mismatch(files[path], archive)):
            raise UserError(f"{origin / path}: {problem}; replace or delete the file")
    for path, sha256 in entry.files.items():
        if path in files and files[path].sha256 != sha256:
            raise damaged_file(
                origin / path,
                f"checksum mismatch: sha256 {files[path].sha256}, expected {sha256}",
                "restore it from the repository",
            )
    return Listing(files)


def layout_problem(entry: DataSet, paths: Collection[str], *, subset: bool) -> str | None:
    """Return how files differ from the layout of the data set, or None.

    A subset may have fewer files of each pattern, but at least one, and never more.
    """
    for item in entry.layout:
        found, wanted = sum(map(item.matches, paths)), item.count
        few = found == 0 or (wanted is not None and found < wanted and not subset)
        if few or (wanted is not None and found > wanted):
            return f"{found} files {item.path}, expected {wanted or 'at least 1'}"
    return None


def check(manifest: Manifest, entry: DataSet, folder: Path, listing: Path, *, full: bool) -> None:
    """Check a data set on disk against its manifest and the catalogue.

    Compares the version, the digest of the list of files, their names and total size; with ``full``
    also the SHA-256 of every file.

    Raises:
        UserError: naming the first difference.
    """
    if problem := _problem(manifest, entry, folder, listing, full):
        # What a person put there is not to be had again.
        again = "" if manifest.source == "found" else ", and also the folder to fetch it again"
        raise UserError(
            f"{folder}: {problem}; delete {manifest.name}.manifest.json beside it to have the "
            f"folder checked as a new one{again}"
        )


def _problem(
    manifest: Manifest, entry: DataSet, folder: Path, listing: Path, full: bool
) -> str | None:
    if manifest.version != entry.version:
        return f"version {manifest.version!r}, expected {entry.version!r}"
    if not listing.is_file() or sha256_file(listing) != manifest.digest:
        return f"its list of files {listing.name} does not fit its manifest"
    listed, sizes = read_checksums(listing), scan(folder, entry)
    if missing := sorted(listed.keys() - sizes.keys()):
        return f"{len(missing)} of {len(listed)} files are missing, first {missing[0]}"
    if added := sorted(sizes.keys() - listed.keys()):
        return f"{len(added)} unexpected files, first {added[0]}"
    if (total := sum(sizes.values())) != manifest.bytes:
        return f"size mismatch: {total} bytes, expected {manifest.bytes}"
    for path in listed if full else ():
        if sha256_file(folder / path) != listed[path]:
            return f"checksum mismatch: {path}"
    return None
