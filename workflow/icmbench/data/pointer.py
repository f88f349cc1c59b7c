"""DVC pointer files ``<data>/<name>.dvc``: compare, create, pull.

DVC stores and versions raw inputs; it never runs anything here. A pointer that exists is never
changed by this module.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from icmbench.errors import DamagedFile, UserError
from icmbench.utils.files import reading
from icmbench.utils.yaml import parse_yaml


def pointer_path(data_dir: Path, name: str) -> Path:
    """Return the path of a data set's pointer file."""
    return data_dir / f"{name}.dvc"


def read_md5(pointer: Path) -> str | None:
    """Return the MD5 that a pointer names (``....dir``), or ``None`` if there is no pointer.

    An empty file is none: DVC leaves one where it is killed while it writes.
    """
    try:
        with reading(pointer, "restore it from Git"):
            text = pointer.read_text(encoding="utf-8")
        if not text:
            return None
        return str(parse_yaml(text)["outs"][0]["md5"])
    except FileNotFoundError:
        return None
    except DamagedFile:
        raise
    except (yaml.YAMLError, KeyError, IndexError, TypeError, ValueError, RecursionError):
        raise UserError(
            f"{pointer}: outs[0].md5: not a DVC pointer with a checksum: restore it from Git"
        ) from None


def check(pointer: Path, md5: str) -> None:
    """Raise ``UserError`` if a pointer exists and names other data."""
    wanted = read_md5(pointer)
    if wanted is not None and wanted != md5:
        raise UserError(
            f"{pointer}: points to md5 {wanted}, the data have {md5}: use the source the pointer "
            "was made from, or delete the pointer to accept the new data"
        )


def repository(data_dir: Path) -> Path | None:
    """Return the DVC repository that the data folder lies in, if any."""
    for folder in (data_dir.resolve(), *data_dir.resolve().parents):
        if (folder / ".dvc" / "config").is_file():
            return folder
    return None


def has_remote(root: Path) -> bool:
    """Return whether a DVC remote is configured."""
    done = _dvc(root, "remote", "list")
    return done.returncode == 0 and bool(done.stdout.strip())


def pull(root: Path, pointer: Path) -> str | None:
    """Get a data set from the DVC remote; return DVC's error in one line, or ``None``."""
    return _error(_dvc(root, "--wait-for-lock", "pull", str(pointer.resolve())))


def add(root: Path, folder: Path) -> str | None:
    """Create the pointer of a folder; return DVC's error in one line, or ``None``.

    ``--no-commit``: the data are not copied into the cache, which would double a set of 25 GB.
    """
    return _error(_dvc(root, "--wait-for-lock", "add", "--no-commit", str(folder.resolve())))


def _dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        stdin=subprocess.DEVNULL,  # never wait for an answer to a question
        capture_output=True,
        text=True,
        check=False,
    )


def _error(done: subprocess.CompletedProcess[str]) -> str | None:
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return (lines or done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[0]
