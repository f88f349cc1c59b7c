"""What a fetched data set consists of: scan, measure, write down, check.

``<name>.manifest.json`` sums a data set up and is what rules depend on; ``<name>.files.sha256``
lists its files as ``sha256sum --check`` reads them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from icmbench.data.catalogue import DataSet
from icmbench.data.checksums import Hashes, hash_file, mismatch
from icmbench.errors import UserError
from icmbench.utils.files import reading, write_json, write_text

Source = Literal["dvc", "mirror", "address", "placed", "found"]


class ArchiveRecord(BaseModel):
    """An archive that was used: checksums as found, and where it came from."""

    model_config = ConfigDict(extra="forbid")

    name: str
    bytes: int
    md5: str
    sha256: str
    source: Source


class Manifest(BaseModel):
    """Content of ``<name>.manifest.json``; the same data from the same source give the same text.

    ``digest`` is the SHA-256 of the lines ``sha256  relative/path`` sorted by path. ``dvc_md5`` is
    the hash of the folder that DVC uses. ``counts`` are files found for each layout pattern.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str
    source: Source
    subset: bool
    counts: dict[str, int]
    files: int
    bytes: int
    digest: str
    dvc_md5: str
    archives: list[ArchiveRecord]
    icmbench: str


class Listing(NamedTuple):
    """Hashes of the files of a data set by relative path."""

    files: dict[str, Hashes]

    @property
    def text(self) -> str:
        """The lines ``sha256  relative/path``, sorted by path."""
        return "".join(f"{self.files[path].sha256}  {path}\n" for path in sorted(self.files))

    @property
    def digest(self) -> str:
        """SHA-256 of ``text``."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(hashes.bytes for hashes in self.files.values())

    @property
    def dvc_md5(self) -> str:
        """The hash DVC gives to the folder: MD5 of the JSON list of its files, and ``.dir``."""
        entries = [{"md5": self.files[path].md5, "relpath": path} for path in sorted(self.files)]
        text = json.dumps(entries, sort_keys=True)
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def scan(folder: Path, entry: DataSet) -> dict[str, int]:
    """Return the size in bytes of each file below ``folder`` that belongs to the data set.

    Links are followed: people keep data sets on another disk.
    """
    sizes: dict[str, int] = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        base = os.path.relpath(parent, folder).replace(os.sep, "/")
        for name in names:
            path = name if base == "." else f"{base}/{name}"
            if entry.wants(path):
                sizes[path] = (Path(parent) / name).stat().st_size
    return sizes


def count(entry: DataSet, paths: Iterable[str]) -> dict[str, int]:
    """Return how many files there are for each pattern of the layout."""
    counts = {item.path: 0 for item in entry.layout}
    for path in paths:
        for item in entry.layout:
            counts[item.path] += item.matches(path)
    return counts


def layout_problem(entry: DataSet, counts: Mapping[str, int], *, subset: bool) -> str | None:
    """Return how ``counts`` differ from the layout, or ``None``.

    A subset may have fewer files of each pattern, but not none, and never more.
    """
    for item in entry.layout:
        found, wanted = counts[item.path], item.count
        few = found == 0 or (wanted is not None and found < wanted and not subset)
        if few or (wanted is not None and found > wanted):
            expected = "at least 1" if wanted is None else wanted
            return f"{found} files {item.path}, expected {expected}"
    return None


def is_subset(entry: DataSet, counts: Mapping[str, int]) -> bool:
    """Return whether some pattern has fewer files than the whole data set."""
    return any(item.count is not None and counts[item.path] < item.count for item in entry.layout)


def measure(folder: Path, paths: Iterable[str], entry: DataSet, origin: Path) -> Listing:
    """Return the hashes of files; ``UserError`` if one differs from its catalogue entry.

    ``origin`` is the folder that the error names: ``folder`` itself, or what it was copied from.
    """
    single = entry.single_files()
    files = {}
    for path in sorted(paths):
        files[path] = hash_file(folder / path)
        problem = mismatch(files[path], single[path]) if path in single else None
        if problem:
            raise UserError(f"{origin / path}: {problem}: replace the file or delete it")
    return Listing(files)


def write_listing(path: Path, listing: Listing) -> None:
    """Write a listing so that ``sha256sum --check`` in the data set's folder reads it."""
    write_text(path, listing.text)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest as JSON."""
    write_json(path, manifest.model_dump())


def read_manifest(path: Path) -> Manifest | None:
    """Return a manifest, or ``None`` if there is none; ``UserError`` if it is not one."""
    again = "delete the file and fetch again"
    try:
        with reading(path, again):
            text = path.read_text(encoding="utf-8")
        return Manifest.model_validate_json(text)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "(whole file)"
        raise UserError(f"{path}: {key}: {first['msg']}: {again}") from None


def problem_with(
    manifest: Manifest, entry: DataSet, folder: Path, listing: Path, *, full: bool
) -> str | None:
    """Return why a data set on disk is not what its manifest and the catalogue say, or ``None``.

    Always: version and known checksums of the archives, the listing's digest, the names and number
    of the files and their total size. ``full`` reads every file and compares its SHA-256.
    """
    if manifest.version != entry.version:
        return f"is version {manifest.version!r}, the catalogue says {entry.version!r}"
    expected = {archive.name: archive for archive in entry.archives}
    for record in manifest.archives:
        if record.name not in expected:
            return f"was made from {record.name}, which the catalogue does not name"
        hashes = Hashes(record.bytes, record.md5, record.sha256)
        if problem := mismatch(hashes, expected[record.name]):
            return f"was made from another {record.name}: it {problem}"
    try:
        data = listing.read_bytes()
    except FileNotFoundError:
        return f"has no list of files {listing.name}"
    if hashlib.sha256(data).hexdigest() != manifest.digest:
        return f"has a list of files {listing.name} that does not fit its manifest"
    listed = {
        path: sha256
        for sha256, path in (line.split("  ", 1) for line in data.decode().splitlines())
    }
    sizes = scan(folder, entry)
    if missing := sorted(listed.keys() - sizes.keys()):
        return f"lacks {len(missing)} of {len(listed)} files, first {missing[0]}"
    if added := sorted(sizes.keys() - listed.keys()):
        return f"has {len(added)} files too many, first {added[0]}"
    if (total := sum(sizes.values())) != manifest.bytes:
        return f"has {total} bytes instead of {manifest.bytes}"
    if full:
        for path, sha256 in listed.items():
            if (found := hash_file(folder / path).sha256) != sha256:
                return f"has another {path}: sha256 {found} instead of {sha256}"
    return None
