"""DVC pointer files ``<data>/<name>.dvc``: read, compare, write, and fetch from a DVC remote.

DVC stores and versions raw inputs; it runs nothing here. An existing pointer is never changed.
"""

from __future__ import annotations

from pathlib import Path

from icmbench.errors import UserError, not_installed
from icmbench.utils.files import line_of, reading, write_text
from icmbench.utils.yaml import parse_yaml


def read_md5(pointer: Path) -> str | None:
    """Return the MD5 in a pointer (``....dir``), or None if there is no pointer.

    Raises:
        DamagedFile: if it is not a pointer with a checksum.
    """
    try:
        with reading(pointer, "outs[0].md5 is needed; restore the file from Git"):
            return str(parse_yaml(pointer.read_text(encoding="utf-8"))["outs"][0]["md5"])
    except FileNotFoundError:
        return None


def check(pointer: Path, md5: str) -> None:
    """Raise ``UserError`` if a pointer exists and names other data."""
    wanted = read_md5(pointer)
    if wanted is not None and wanted != md5:
        raise UserError(
            f"{pointer}: checksum mismatch: the data have md5 {md5}, the pointer names {wanted}; "
            "use the source the pointer was made from, or delete it to accept the new data"
        )


def repository(data_dir: Path) -> Path | None:
    """Return the DVC repository that contains the data folder, if any."""
    folders = (data_dir.resolve(), *data_dir.resolve().parents)
    return next((folder for folder in folders if (folder / ".dvc" / "config").is_file()), None)


def write(pointer: Path, md5: str, size: int, files: int) -> None:
    """Write the pointer of a folder beside it, as ``dvc add --no-commit`` does.

    The data are not copied into DVC's cache, which would double a data set of 25 GB.
    """
    write_text(
        pointer,
        f"outs:\n- md5: {md5}\n  size: {size}\n  nfiles: {files}\n  hash: md5\n"
        f"  path: {pointer.stem}\n",
    )


def download(root: Path, folder: Path, target: Path) -> str | None:
    """Copy a folder that has a pointer from DVC's cache or remote to ``target``.

    Returns:
        The reason in one line if DVC does not have all of it, or None.
    """
    try:
        # An import of half a second that most runs do not need.
        from dvc.api import DVCFileSystem
    except ModuleNotFoundError:
        return str(not_installed("dvc"))
    try:
        path = (folder.parent.resolve() / folder.name).relative_to(root)
        DVCFileSystem(str(root)).get(path.as_posix(), str(target), recursive=True)
    except Exception as error:  # of many kinds: no remote, no network, files that are gone
        return line_of(error)
    return None
