"""Unpacking of zip and tar archives that never writes outside its folder.

Only regular files are written, each by its own checked path. A member with an absolute path, with
``..``, or that is a link or a device is an error: no data set in use needs one.
"""

from __future__ import annotations

import errno
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from icmbench.data.catalogue import Archive
from icmbench.errors import UserError
from icmbench.utils.files import line_of

_Opener = Callable[[], IO[bytes]]
# A full disk or a folder without permission says nothing of the archive.
_OUR_SIDE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


def unpack(source: Path, archive: Archive, target: Path, wanted: Callable[[str], bool]) -> None:
    """Write the wanted files of ``source`` below the folder ``target``.

    ``wanted`` gets each member's path relative to ``target``, after ``strip`` and ``into``.
    Every member's path is checked, wanted or not. Raises ``UserError`` naming archive and member.
    """
    if archive.unpack == "none":
        destination = target / archive.into / archive.name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
        return
    members = _zip_members if archive.unpack == "zip" else _tar_members
    try:
        for name, open_member in members(source, archive):
            path = _relative(source, name, archive)
            if path is None or not wanted(path):
                continue
            destination = target / path
            destination.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as stream, destination.open("wb") as output:
                shutil.copyfileobj(stream, output, 1 << 20)
    except UserError:
        raise
    except OSError as error:
        if error.errno in _OUR_SIDE:
            raise
        raise _unreadable(source, archive, error) from None
    except Exception as error:  # readers of damaged archives were seen to raise nearly anything
        raise _unreadable(source, archive, error) from None


def _unreadable(source: Path, archive: Archive, error: Exception) -> UserError:
    return UserError(
        f"{source}: not a readable {archive.unpack} archive ({line_of(error)}): get it again"
    )


def _relative(source: Path, name: str, archive: Archive) -> str | None:
    """Return where a member goes, or ``None`` if ``strip`` leaves nothing of its path."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or PureWindowsPath(name).drive:
        raise _refused(source, name, "its path leaves the folder")
    if not name.isprintable():
        raise _refused(source, name, "its path has control characters")
    parts = path.parts[archive.strip :]
    return str(PurePosixPath(archive.into, *parts)) if parts else None


def _refused(source: Path, member: str, reason: str) -> UserError:
    return UserError(
        f"{source}: member {member!r} refused: {reason}: do not trust the archive, delete it"
    )


def _zip_members(source: Path, archive: Archive) -> Iterator[tuple[str, _Opener]]:
    with zipfile.ZipFile(source) as bundle:
        for info in bundle.infolist():
            mode = info.external_attr >> 16
            # Archives made on Windows carry no mode at all.
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(source, info.filename, "it is a link or a device")
            _relative(source, info.filename, archive)
            if not info.is_dir():
                yield info.filename, lambda info=info: bundle.open(info)  # type: ignore[misc]


def _tar_members(source: Path, archive: Archive) -> Iterator[tuple[str, _Opener]]:
    with tarfile.open(source, "r:*") as bundle:
        if not archive.nested:
            yield from _regular(source, bundle, archive, "")
            return
        for name, open_member in _regular(source, bundle, archive, ""):
            with open_member() as stream, tarfile.open(fileobj=stream, mode="r:*") as inner:
                # The prefix replaces the outer name: 'n01440764.tar' holds 'n01440764_10026.JPEG'.
                yield from _regular(source, inner, archive, f"{PurePosixPath(name).stem}/")


def _regular(
    source: Path, bundle: tarfile.TarFile, archive: Archive, prefix: str
) -> Iterator[tuple[str, _Opener]]:
    for info in bundle:
        _relative(source, info.name, archive)
        if not (info.isfile() or info.isdir()):
            raise _refused(source, info.name, "it is a link or a device")
        if info.isfile():
            yield prefix + info.name, lambda info=info: _extract(bundle, info)  # type: ignore[misc]


def _extract(bundle: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = bundle.extractfile(info)
    assert stream is not None  # only regular files get here
    return stream
