"""Checksums of the result tables, for those who read them: the report and MLflow."""

from __future__ import annotations

from pathlib import Path

from icmbench.sums import SumsFile, sums_of

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
