"""The table of records as the report needs it: sums of each operating point, rows on demand.

A table may hold more records than fit in memory. It is read once, one row group at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from icmbench.errors import UserError
from icmbench.evaluate.records import require_columns, with_types
from icmbench.utils.files import reading

#: What names an operating point in every table.
NAME = ("study", "variant", "rate_index", "seed")

#: Columns of times, of which the report shows means.
TIMED = ("encode_s", "decode_s", "reconstruct_s")

_SUMMED = (*NAME, "bits", "bits_estimated", *TIMED, "roundtrip_ok", "implementation")
_SHOWN = ("image_id", "pixels", "bits", "psnr")

Name = tuple[Any, ...]


@dataclass(frozen=True)
class PointRecords:
    """What the report says of the records of one operating point.

    Attributes:
        rows: where they stand in the table.
        seconds: column of ``TIMED`` to the mean, NaN where nothing was timed.
        bits: sum over the images.
        bits_estimated: likewise; None unless known for every image.
        wrong: images that differ from the encoder's reconstruction.
        checked: images that were compared with it.
        implementations: what coded the images.
    """

    rows: slice
    seconds: dict[str, float]
    bits: float
    bits_estimated: float | None
    wrong: int
    checked: int
    implementations: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Records:
    """``tables/records.parquet``.

    Attributes:
        path: of the table.
        points: by study, variant, rate index and seed.
    """

    path: Path
    points: dict[Name, PointRecords]

    def images(self, name: Name) -> pd.DataFrame | None:
        """Return image ids, pixels, bits and PSNR of one operating point, or None."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if name not in self.points:
            return None
        wanted = self.points[name].rows
        found = []
        with pq.ParquetFile(self.path) as file:
            start = 0
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                if start < wanted.stop and wanted.start < end:
                    rows = file.read_row_group(group, list(_SHOWN))
                    first = max(wanted.start - start, 0)
                    found.append(rows.slice(first, min(wanted.stop, end) - start - first))
                start = end
        return with_types(pa.concat_tables(found).to_pandas(), str(self.path), _SHOWN)


def load_records(path: Path) -> Records:
    """Read a table of records.

    Raises:
        UserError: for a file that is no table, a missing column, a value of the wrong type, or
            rows of one operating point that do not stand together.
    """
    points: dict[Name, PointRecords] = {}
    with reading(path, "repeat the analysis"):
        for start, rows in _each_point(path):
            first = rows.iloc[0]
            name = tuple(first[column] for column in NAME)
            if name in points:
                raise UserError(
                    f"{path}: the records of {name[0]}/{name[1]}, rate {name[2]}, seed {name[3]}, "
                    "do not stand together; repeat the analysis"
                )
            points[name] = _summed(rows, start)
    return Records(path, points)


def _each_point(path: Path) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield the rows of each operating point and where they begin."""
    import pyarrow.parquet as pq

    start = 0
    left: list[pd.DataFrame] = []  # rows of the last point, which may go on in the next row group
    with pq.ParquetFile(path) as file:
        require_columns(file.schema_arrow.names, str(path))
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, list(_SUMMED), use_threads=False).to_pandas()
            typed = with_types(rows, str(path), _SUMMED)
            joined = pd.concat([*left, typed], ignore_index=True)
            places = _beginnings(joined)
            for begin, end in pairwise(places):
                yield start + begin, joined.iloc[begin:end]
            left = [joined.iloc[places[-1] :]] if places else []
            start += places[-1] if places else 0
    for rows in left:
        yield start, rows


def _beginnings(rows: pd.DataFrame) -> list[int]:
    """Return where the rows of each operating point begin."""
    if rows.empty:
        return []
    begins = np.zeros(len(rows), dtype=np.bool_)
    begins[0] = True
    for name in NAME:
        column = rows[name].to_numpy()
        begins[1:] |= column[1:] != column[:-1]
    return [int(place) for place in np.flatnonzero(begins)]


def _summed(rows: pd.DataFrame, start: int) -> PointRecords:
    known = rows["roundtrip_ok"].dropna()
    estimated = rows["bits_estimated"]
    return PointRecords(
        rows=slice(start, start + len(rows)),
        seconds={name: float(rows[name].mean()) for name in TIMED},
        bits=float(rows["bits"].sum()),
        bits_estimated=float(estimated.sum()) if estimated.notna().all() else None,
        wrong=int((~known).sum()),
        checked=len(known),
        implementations=tuple(rows["implementation"].drop_duplicates()),
    )
