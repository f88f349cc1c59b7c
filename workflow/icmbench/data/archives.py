"""Archives of a data set: downloaded with resume and verification, unpacked safely."""

from __future__ import annotations

import logging
import shutil
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

import requests

from icmbench.data.catalogue import Archive, human_bytes
from icmbench.data.manifest import Hashes, hash_file, mismatch
from icmbench.errors import UserError
from icmbench.utils.files import line_of, reading, writing

log = logging.getLogger(__name__)

_TRIES = 5  # in a row without a new byte
_BACKOFF_S = 2.0
_TIMEOUT_S = 30.0
_CHUNK = 1 << 16  # bytes that a broken connection can lose
_MIRROR = "put the file into a mirror directory"


def download(archive: Archive, folder: Path) -> Hashes:
    """Download ``archive.url`` to ``folder/archive.name`` and return its size and checksums.

    Bytes go to ``<name>.part``, which a later call resumes (HTTP Range); the file gets its name
    after verification. A part that proves wrong is deleted; one that was resumed may be of an older
    file, and is then downloaded once more from its first byte.

    Raises:
        UserError: naming the address: unreachable, truncated, size or checksum mismatch, disk full.
    """
    part = folder / f"{archive.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        resumed = part.exists()
        _complete(archive, part)
        hashes = hash_file(part)
        problem = mismatch(hashes, archive)
        if problem is None:
            part.replace(folder / archive.name)
            return hashes
        part.unlink()
        if not resumed:
            raise UserError(f"{archive.url}: {problem}; try again later, or {_MIRROR}")
        log.warning("%s: %s after resuming; downloading it from the start", archive.name, problem)


def _complete(archive: Archive, part: Path) -> None:
    """Transfer until the part is complete; give up after ``_TRIES`` in a row without a new byte."""
    failures = 0
    while True:
        before = _size(part)
        try:
            _transfer(archive, part)
            return
        except requests.RequestException as error:
            reason = line_of(error)
        failures = failures + 1 if _size(part) <= before else 1
        if failures >= _TRIES:
            raise UserError(
                f"{archive.url}: download failed ({reason}; {failures} tries; "
                f"{human_bytes(_size(part))} kept to resume); check the network, or {_MIRROR}"
            )
        wait = _BACKOFF_S * 2 ** (failures - 1)
        log.warning("%s: %s; retrying in %.0f s", archive.name, reason, wait)
        time.sleep(wait)


def _transfer(archive: Archive, part: Path) -> None:
    """Get the bytes after those in the part; retry after a ``RequestException``."""
    from tqdm import tqdm

    have = _size(part)
    if have == archive.bytes:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(str(archive.url), headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
        status = answer.status_code
        if status == 416:  # nothing after these bytes: the file is complete, or another one
            return
        if status == 429 or status >= 500:
            answer.raise_for_status()
        if status not in (200, 206):
            raise UserError(f"{archive.url}: HTTP status {status}; correct the url, or {_MIRROR}")
        have = have if status == 206 else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else archive.bytes
        if None not in (total, archive.bytes) and total != archive.bytes:
            raise UserError(
                f"{archive.url}: size mismatch: {total} bytes, expected {archive.bytes}; {_MIRROR}"
            )
        if (total or 0) - have > shutil.disk_usage(part.parent).free:
            raise UserError(f"{part}: no space left for {human_bytes(total or 0)}; free some space")
        bar = tqdm(desc=archive.name, total=total, initial=have, unit="B", unit_scale=True,
                   disable=None, leave=False)  # fmt: skip
        with bar, writing(part), part.open("ab" if have else "wb") as output:
            for chunk in answer.iter_content(_CHUNK):
                output.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) < total:
        raise requests.ConnectionError(f"truncated: {_size(part)} of {total} bytes")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def unpack(source: Path, archive: Archive, target: Path, wanted: Callable[[str], bool]) -> None:
    """Write the wanted files of an archive below the folder ``target``, and nothing outside it.

    Only regular files are written, without their modes. A member with an absolute path or ``..``, a
    link or a device is an error, wanted or not: no data set in use needs one. (``tarfile``'s own
    filter checks paths before ``strip``, and lets links inside the folder through.)

    Args:
        source: the archive's file.
        archive: its catalogue entry.
        target: folder of the data set.
        wanted: called with a member's path relative to ``target``, after ``strip`` and ``into``.

    Raises:
        UserError: naming the archive and the refused member, or that the archive is damaged.
    """
    members = {"zip": _zip_members, "tar": _tar_members, "none": _itself}[archive.unpack]
    with reading(source, "get it again"):
        for name, open_member in members(source, archive):
            path = _place(source, name, archive)
            if path is None or not wanted(path):
                continue
            destination = target / path
            with writing(destination):
                destination.parent.mkdir(parents=True, exist_ok=True)
                with open_member() as stream, destination.open("wb") as output:
                    shutil.copyfileobj(stream, output, 1 << 20)


_Members = Iterator[tuple[str, Callable[[], IO[bytes]]]]


def _place(source: Path, name: str, archive: Archive) -> str | None:
    """Return the path of a member in the data set, or None if ``strip`` leaves nothing of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or PureWindowsPath(name).drive:
        raise _refused(source, name, "its path leaves the folder")
    if not name.isprintable():
        raise _refused(source, name, "its path has control characters")
    parts = path.parts[archive.strip :]
    return str(PurePosixPath(archive.into, *parts)) if parts else None


def _refused(source: Path, member: str, reason: str) -> UserError:
    return UserError(
        f"{source}: member {member!r} refused: {reason}; do not trust the archive, delete it"
    )


def _itself(source: Path, archive: Archive) -> _Members:
    yield archive.name, lambda: source.open("rb")


def _zip_members(source: Path, archive: Archive) -> _Members:
    with zipfile.ZipFile(source) as bundle:
        for info in bundle.infolist():
            # Archives made on Windows have no mode.
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(source, info.filename, "it is a link or a device")
            if info.is_dir():
                _place(source, info.filename, archive)
            else:
                yield info.filename, lambda info=info: bundle.open(info)  # type: ignore[misc]


def _tar_members(source: Path, archive: Archive) -> _Members:
    with tarfile.open(source) as bundle:
        for name, open_member in _regular_files(source, bundle, archive):
            if not archive.nested:
                yield name, open_member
                continue
            with open_member() as stream, tarfile.open(fileobj=stream) as inner:
                # The prefix replaces the outer name: 'n01440764.tar' holds 'n01440764_10026.JPEG'.
                for inner_name, open_inner in _regular_files(source, inner, archive):
                    yield f"{PurePosixPath(name).stem}/{inner_name}", open_inner


def _regular_files(source: Path, bundle: tarfile.TarFile, archive: Archive) -> _Members:
    for info in bundle:
        _place(source, info.name, archive)
        if info.isfile():
            yield info.name, lambda info=info: bundle.extractfile(info)  # type: ignore[misc]
        elif not info.isdir():
            raise _refused(source, info.name, "it is a link or a device")
