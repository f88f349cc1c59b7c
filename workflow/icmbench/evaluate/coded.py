"""What coding left of one operating point: rows, pictures and a fingerprint of both.

A learned codec leaves two tables and archives, an anchor one file of rows per chunk and folders;
a job's ``coded`` section says which (see ``Plan.coded``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icmbench.errors import UserError
from icmbench.files import digest_json, read_json


def coded_fingerprint(coded: dict[str, Any] | None) -> str | None:
    """Return a digest that changes when bitstreams or decoded pictures do; None for originals.

    Raises:
        UserError: where they are not there yet.
    """
    if coded is None:
        return None
    prints = []
    for name in coded["state"]:
        if not Path(name).is_file():
            raise UserError(f"{name}: no such file; run the job that codes these pictures first")
        prints.append(read_json(name)["fingerprint"])
    return str(prints[0]) if len(prints) == 1 else digest_json(prints)


def coded_rows(coded: dict[str, Any]) -> Any:
    """Return a table with one row per picture: image_id, pixels, bits, times, checks."""
    import pandas as pd

    if coded["rows"] == "chunks":
        rows = [row for name in coded["state"] for row in read_json(name)["rows"]]
        frame = pd.DataFrame(rows).drop(columns=["bitstream", "decoded"])
        return frame.assign(bits_estimated=float("nan"), reconstruct_s=float("nan"))
    folder = Path(coded["folder"])
    encoded = pd.read_parquet(folder / "encoded.parquet").drop(columns="reconstruction")
    decoded = pd.read_parquet(folder / "decoded.parquet")
    return encoded.merge(decoded, on="image_id", validate="one_to_one")
