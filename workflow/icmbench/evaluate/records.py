"""The records of an operating point: one row per image, in ``records.parquet``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from icmbench.errors import UserError, missing_file
from icmbench.metrics.catalogue import PERCEPTUAL_METRICS
from icmbench.utils.files import atomic_path, reading

#: Column name to pandas dtype. pixels: native count; pixels_coded: those that the codec coded;
#: bits: the real bitstream, header included (24 per native pixel of uncoded images);
#: bits_estimated: by the entropy model, NaN without one; psnr, psnr_ycbcr (6:1:1): dB, inf if
#: lossless, NaN if no image is decoded; ms_ssim: [0, 1] or NaN; encode_s, decode_s: seconds;
#: reconstruct_s: seconds from features to pixels after decode_s, NaN for other codecs;
#: roundtrip_ok: whether the decoder's latent (of classical codecs its image) equals the encoder's;
#: NA if the encoder gives none.
COLUMNS: dict[str, str] = {
    "study": "string",
    "variant": "string",
    "codec": "string",
    "task": "string",
    "mode": "string",
    "rate_index": "int64",
    "seed": "int64",
    "dataset": "string",
    "split": "string",
    "image_id": "string",
    "pixels": "int64",
    "pixels_coded": "int64",
    "bits": "int64",
    "bits_estimated": "float64",
    "psnr": "float64",
    "psnr_ycbcr": "float64",
    "ms_ssim": "float64",
    "encode_s": "float64",
    "decode_s": "float64",
    "reconstruct_s": "float64",
    "roundtrip_ok": "boolean",
    "implementation": "string",
}

#: Columns of runs that ask for them, last: distances from 0, NaN as ``psnr``. What computes them is
#: in ``find_metric(name).description``.
OPTIONAL: dict[str, str] = dict.fromkeys(PERCEPTUAL_METRICS, "float64")

SORTED_BY = ["study", "variant", "rate_index", "seed", "image_id"]

#: Rows of a row group: the most that writer and readers of a larger table hold in memory.
ROW_GROUP = 1 << 17


def require_columns(names: Iterable[str], what: str) -> None:
    """Check that a table has all of ``COLUMNS``.

    Raises:
        UserError: naming ``what`` and the first missing column.
    """
    missing = [name for name in COLUMNS if name not in set(names)]
    if missing:
        raise UserError(f"{what}: column {missing[0]!r} is missing; columns are {list(COLUMNS)}")


def with_types(frame: pd.DataFrame, what: str, names: Iterable[str]) -> pd.DataFrame:
    """Return the columns ``names`` of ``frame`` with their types.

    Raises:
        UserError: naming ``what`` and the column, for a missing column, a value of the wrong type,
            or counts that no coded image can have.
    """
    require_columns([*frame.columns, *(set(COLUMNS) - set(names))], what)
    columns = {}
    for name in names:
        kind = (COLUMNS | OPTIONAL)[name]
        wanted = pd.api.types.pandas_dtype(kind)
        try:
            own = frame[name]
            columns[name] = own if own.dtype == wanted else own.astype(wanted)
        except (TypeError, ValueError) as error:
            message = f"{what}: column {name!r} must be {kind} ({error})"
            raise UserError(message) from error
    typed = pd.DataFrame(columns, copy=False)
    for name in ("pixels", "pixels_coded", "bits"):
        if name in columns and (typed[name] <= 0).any():
            raise UserError(f"{what}: column {name!r} has {typed[name].min()}; allowed: > 0")
    return typed


def conform(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return ``COLUMNS`` of ``frame``, and those of ``OPTIONAL`` that it has, typed and sorted.

    Raises:
        UserError: naming ``what`` and the column, for a missing column, a value of the wrong type,
            a duplicate image, or counts that no coded image can have.
    """
    typed = with_types(frame, what, [*COLUMNS, *(name for name in OPTIONAL if name in frame)])
    # Of one operating point only the image differs, and its rows are mostly sorted already.
    varying = [name for name in SORTED_BY if typed[name].nunique(dropna=False) > 1]
    if len(varying) == 1:
        keys = pd.Index(typed[varying[0]])
        if keys.is_monotonic_increasing and keys.is_unique and not keys.hasnans:
            return typed.reset_index(drop=True)
    twice = typed.duplicated(SORTED_BY)
    if twice.any():
        raise UserError(
            f"{what}: duplicate image {typed['image_id'][twice].iloc[0]!r} in one operating point; "
            "write one row per image"
        )
    return typed.sort_values(SORTED_BY, kind="stable", ignore_index=True)


def write_records(path: Path | str, frame: pd.DataFrame) -> None:
    """Check ``frame`` with :func:`conform` and write it as Parquet, atomically."""
    checked = conform(frame, str(path))
    with atomic_path(path) as temporary:
        checked.to_parquet(
            temporary, index=False, row_group_size=ROW_GROUP, write_page_checksum=True
        )


class RecordsTable:
    """A table of the records of many operating points, written piece by piece.

    Only the rows of one row group are held in memory. The file equals that of
    :func:`write_records` with all rows at once.
    """

    ROWS = ROW_GROUP

    def __init__(self, path: Path) -> None:
        """Write to ``path``; use :func:`records_table`, which closes the file."""
        self._path = path
        self._waiting: list[pd.DataFrame] = []
        self._rows = 0
        self._writer: Any = None

    def add(self, frame: pd.DataFrame) -> None:
        """Add the records of one operating point; points come sorted as the rows are."""
        self._waiting.append(frame)
        self._rows += len(frame)
        if self._rows >= self.ROWS:
            self._write(self.ROWS)

    def close(self) -> None:
        """Write the remaining rows."""
        if self._waiting or self._writer is None:
            self._write(0)
        self._writer.close()

    def _write(self, rows: int) -> None:
        """Write whole row groups of this many rows, keeping the rest; 0 writes all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        waiting = pd.concat(self._waiting, ignore_index=True)
        whole = len(waiting) // rows * rows if rows else len(waiting)
        left = waiting.iloc[whole:]
        self._waiting, self._rows = [left.copy()] if len(left) else [], len(left)
        checked = conform(waiting.iloc[:whole], str(self._path))
        table = pa.Table.from_pandas(checked, preserve_index=False)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, write_page_checksum=True)
        self._writer.write_table(table, row_group_size=self.ROWS)


@contextmanager
def records_table(path: Path | str) -> Iterator[RecordsTable]:
    """Yield a table to add records to; its file appears when the block succeeds."""
    with atomic_path(path) as temporary:
        table = RecordsTable(temporary)
        yield table
        table.close()


def read_records(path: Path | str) -> pd.DataFrame:
    """Read a Parquet file of records and check it with :func:`conform`.

    Raises:
        UserError: if it is missing, damaged or malformed.
    """
    if not Path(path).exists():
        raise missing_file(path, "evaluate the operating point first")
    import pyarrow.parquet as pq

    # A third of the time of pandas' own reader, which counts for thousands of small files.
    with (
        reading(path, "delete it and evaluate the operating point again"),
        pq.ParquetFile(path, page_checksum_verification=True) as file,
    ):
        frame = file.read(use_threads=False).to_pandas()
    return conform(frame, str(path))


def bits_per_pixel(frame: pd.DataFrame) -> dict[str, float]:
    """Return the rates of one operating point, in bits per pixel.

    ``bpp``: all bits over all native pixels; ``bpp_coded``: over all coded pixels;
    ``bpp_estimated``: estimated bits over native pixels, NaN unless known for every image;
    ``bpp_mean``: mean over images of each image's bits per native pixel.
    """
    bits = frame["bits"].to_numpy(np.float64)
    pixels = frame["pixels"].to_numpy(np.float64)
    return {
        "bpp": float(bits.sum() / pixels.sum()),
        "bpp_coded": float(bits.sum() / frame["pixels_coded"].to_numpy(np.float64).sum()),
        "bpp_estimated": float(frame["bits_estimated"].to_numpy(np.float64).sum() / pixels.sum()),
        "bpp_mean": float((bits / pixels).mean()),
    }
