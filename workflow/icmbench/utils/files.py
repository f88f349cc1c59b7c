"""File helpers that every part shares: atomic writes, JSON, digests, errors in one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from icmbench.errors import REMAKE, CannotWrite, UserError, damaged_file

# Errors that only writing meets.
_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn a full disk, a quota or a read-only file system into one line that names ``path``.

    Raises:
        CannotWrite: for such an error, also if a library wrapped it.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = _of_writing(error)
        if cause is None:
            raise
        raise _cannot_write(path, cause) from error


def check_writable(folder: Path) -> None:
    """Raise ``CannotWrite`` if a folder, which may not exist yet, is not writable."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        read_only = os.statvfs(place).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise _cannot_write(folder, OSError(number, os.strerror(number)))


def _cannot_write(path: Path | str, cause: OSError) -> CannotWrite:
    return CannotWrite(
        f"{path}: cannot be written ({os.strerror(cause.errno or 0)}); free some space or fix its "
        "permissions, or set another folder, then run again"
    )


def _of_writing(error: BaseException | None) -> OSError | None:
    """Return the error that made writing impossible, from an error or its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in _WRITING:
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it into place when the block succeeds.

    A reader never sees half a file, and a block that raises leaves nothing behind.

    Raises:
        CannotWrite: see :func:`writing`.
    """
    path = Path(path)
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The suffix is kept because some writers (NumPy, Pillow) choose the format by it.
            handle, name = tempfile.mkstemp(
                prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
            )
        except PermissionError as error:
            raise _cannot_write(path, error) from error
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` to ``path`` atomically, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``; a copy if the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            temporary.hardlink_to(source)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)  # rename(2) leaves it if both are one file already


def line_of(error: BaseException) -> str:
    """Return the message of an error as one line of at most 200 characters."""
    text = " ".join(str(error).split()) or "no reason given"
    text = text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"
    return text if len(text) <= 200 else f"{text[:197]}..."


@contextmanager
def reading(path: Path | str, advice: str = f"restore it, or {REMAKE}") -> Iterator[None]:
    """Turn an error that a reader raises for a damaged file into one line that names the file.

    Readers of damaged files were seen to raise nearly anything, from IndexError to MemoryError.

    Raises:
        DamagedFile: for every error but a missing file and an error of our own.
    """
    try:
        yield
    except (UserError, FileNotFoundError):
        raise
    except Exception as error:
        raise damaged_file(path, f"cannot be read ({line_of(error)})", advice) from error


def read_json(path: Path | str) -> Any:
    """Return the parsed content of a JSON file.

    Raises:
        FileNotFoundError: if it is missing.
        DamagedFile: if it is not JSON.
    """
    with reading(path):
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))  # with or without a BOM


def read_object(path: Path | str, *needed: str) -> dict[str, Any]:
    """Return the JSON object in a file that a job wrote.

    Raises:
        FileNotFoundError: if it is missing.
        DamagedFile: if it is not a JSON object, or lacks a key.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise damaged_file(path, f"holds {type(content).__name__}, not a JSON object")
    missing = [name for name in needed if name not in content]
    if missing:
        raise damaged_file(path, f"key {missing[0]!r} is missing")
    return content


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data``, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """Return a SHA-256 over the canonical JSON of ``value``: equal content, equal digest."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
