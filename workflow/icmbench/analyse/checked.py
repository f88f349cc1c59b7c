"""The result tables as the analysis wrote them, for those who read them: report and MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from icmbench.errors import UserError
from icmbench.utils.checksums import SumsFile, sums_of
from icmbench.utils.files import reading

SUMS = "tables.sha256"


def seal_tables(folder: Path) -> None:
    """List the checksums of the tables in a folder beside them."""
    names = [path.name for suffix in ("csv", "parquet") for path in folder.glob(f"*.{suffix}")]
    SumsFile(folder / SUMS).write(sums_of(folder, names))


def unseal_tables(folder: Path) -> None:
    """Forget the checksums: the tables are about to change."""
    (folder / SUMS).unlink(missing_ok=True)


def check_table(path: Path) -> None:
    """Check a table against what the analysis wrote.

    Raises:
        UserError: where it is another.
    """
    SumsFile(path.with_name(SUMS)).check(path, "run the analysis again")


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return a CSV table, checked; ``nan`` is not a number, and empty texts are empty.

    Raises:
        FileNotFoundError: where there is none.
        UserError: where it is another than was written, cannot be read, or lacks a column.
    """
    check_table(path)
    with reading(path, "run the analysis again"):
        table = pd.read_csv(path, keep_default_na=False, na_values=["nan"])
    absent = [name for name in columns if name not in table.columns]
    if absent:
        raise UserError(
            f"{path}: column {absent[0]!r} is missing; needed: {', '.join(columns)}; "
            "repeat the analysis"
        )
    return table
