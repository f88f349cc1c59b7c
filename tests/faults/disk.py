"""A small disk for a test, to be filled or made read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of a size in MB; skip the test if that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    done = _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def set_read_only(folder: Path, read_only: bool) -> None:
    """Make a mounted disk read-only, or writable again."""
    done = _mount("-o", f"remount,{'ro' if read_only else 'rw'}", str(folder))
    assert done.returncode == 0, done.stderr


@contextmanager
def full(disk: Path, free: int = 0) -> Iterator[None]:
    """Fill a disk except for ``free`` bytes while the block runs."""
    ballast = disk / ".ballast"
    status = os.statvfs(disk)
    size = status.f_bavail * status.f_frsize - free
    assert size > 0, f"{disk} has less than {free} bytes"
    with ballast.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, size)
    try:
        yield
    finally:
        ballast.unlink()


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess([], 1, "", str(error))
