"""What coding left of one operating point: rows, images and a fingerprint of both.

A learned codec leaves two tables and archives, a classical codec one file of rows per chunk and
folders; a job's ``coded`` section says which (see ``Plan.coded``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icmbench.errors import UserError
from icmbench.evaluate.stamp import check_files
from icmbench.jobs import CodedImages
from icmbench.utils.checksums import read_sealed
from icmbench.utils.files import digest_json, reading


def coded_fingerprint(coded: CodedImages | None) -> str | None:
    """Return a digest that changes when bitstreams or decoded images do; None for originals.

    Raises:
        UserError: where they are not there yet.
    """
    if coded is None:
        return None
    prints = []
    for name in coded.state:
        if not Path(name).is_file():
            raise UserError(f"{name}: no such file; run the job that codes these images first")
        prints.append(read_sealed(name, "fingerprint")["fingerprint"])
    return str(prints[0]) if len(prints) == 1 else digest_json(prints)


def coded_rows(coded: CodedImages) -> Any:
    """Return a table with one row per image: image_id, pixels, bits, times, checks."""
    import pandas as pd

    if coded.kind == "classical":
        rows = _chunk_rows(coded)
        frame = pd.DataFrame(rows).drop(columns=["bitstream", "decoded"])
        return frame.assign(bits_estimated=float("nan"), reconstruct_s=float("nan"))
    folder = Path(coded.folder)
    encoded, decoded = (read_table(folder, what) for what in ("encoded", "decoded"))
    with reading(folder / "decoded.parquet"):
        encoded = encoded.drop(columns="reconstruction")
        return encoded.merge(decoded, on="image_id", validate="one_to_one")


def read_table(folder: Path, what: str) -> Any:
    """Return ``encoded.parquet`` or ``decoded.parquet`` of an encoding.

    Raises:
        UserError: where it is missing, or not what was written.
    """
    import pandas as pd

    path = folder / f"{what}.parquet"
    check_files(folder, what, [path.name])
    with reading(path):
        return pd.read_parquet(path)


def check_coded(coded: CodedImages | None) -> None:
    """Check the archives of a learned codec's decoded images and latents.

    Raises:
        UserError: naming one that is not what was written.
    """
    if coded is not None and coded.kind != "classical":
        check_files(Path(coded.folder), "decoded")


def image_digests(coded: CodedImages | None) -> dict[str, str]:
    """Return the digest of each decoded image of a classical codec by image id.

    Empty for a learned codec, whose images lie in an archive that :func:`check_coded` checks.
    """
    if coded is None or coded.kind != "classical":
        return {}
    return {str(row["image_id"]): str(row["decoded"]) for row in _chunk_rows(coded)}


def _chunk_rows(coded: CodedImages) -> list[dict[str, Any]]:
    return [row for name in coded.state for row in read_sealed(name, "rows")["rows"]]
