"""The stamp of a coded or evaluated point: what it was made from, and checksums of what was made.

Whoever reads a point's files checks them against it: neither tables nor weights nor images tell
by themselves that some of their bits are others.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from icmbench.errors import DamagedFile, UserError
from icmbench.utils.checksums import read_sealed, require, sums_of, write_sealed

#: Patterns of the files that each step leaves.
_LEFT = {
    "encoded": ("bitstreams.zip", "encoded.parquet", "encoded.complexity.json"),
    "decoded": ("decoded.parquet", "decoded.complexity.json", "decoded.zip", "latents.zip"),
    "evaluated": ("records.parquet", "evaluate.json", "predictions.json", "statistics-*.npz"),
}


def stamp_path(folder: Path, what: str) -> Path:
    """Return the stamp of a point; ``what``: encoded, decoded or evaluated."""
    return folder / f"{what}.stamp.json"


def write_stamp(folder: Path, what: str, fingerprint: str) -> None:
    """Stamp what was made in a point's folder from inputs with this fingerprint."""
    names = [path.name for pattern in _LEFT[what] for path in folder.glob(pattern)]
    content = {"fingerprint": fingerprint, "files": sums_of(folder, names)}
    write_sealed(stamp_path(folder, what), content)


def read_stamp(folder: Path, what: str) -> str:
    """Return the fingerprint of what was made.

    Raises:
        UserError: where it was not made yet, or its stamp is damaged.
    """
    path = stamp_path(folder, what)
    try:
        return str(read_sealed(path, "fingerprint")["fingerprint"])
    except FileNotFoundError:
        raise UserError(f"{folder}: not {what} yet; run the job that does so first") from None


def finished(folder: Path, what: str, fingerprint: str, outputs: Iterable[str]) -> bool:
    """Return whether all was made from these inputs and is still what was written."""
    try:
        if read_stamp(folder, what) != fingerprint:
            return False
        check_files(folder, what)
    except (UserError, OSError):
        return False
    return all((folder / name).is_file() for name in outputs)


def check_files(folder: Path, what: str, names: Iterable[str] | None = None) -> None:
    """Check the files of a point against its stamp; without one nothing is checked.

    Args:
        folder: of the point.
        what: encoded, decoded or evaluated.
        names: those to check; None checks all that the stamp names.

    Raises:
        UserError: naming a file that is damaged or missing, and how it is made again.
    """
    path = stamp_path(folder, what)
    again = f"delete {folder.parent / what}.json and run again"
    try:
        files = read_sealed(path).get("files")
    except FileNotFoundError:
        return
    if files is None:  # made before stamps had checksums
        return
    if not isinstance(files, dict):
        raise DamagedFile(f"{path}: key 'files' is no mapping; {again}")
    for name in files if names is None else names:
        try:
            require(folder / name, files.get(name), again, path.name)
        except FileNotFoundError:
            raise UserError(
                f"{folder / name}: no such file, but {path.name} names it; {again}"
            ) from None
