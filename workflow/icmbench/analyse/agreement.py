"""Where results of record are, and whether a run agrees with them; nothing heavy is imported."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from icmbench.utils.places import shipped_folder

RECORD = "results/record"
TABLE = "tables/record.csv"  # what the analysis writes, with the columns of a comparison


def records(names: Iterable[str]) -> list[Path]:
    """Return the folders of record of a scale and of studies, as far as they exist."""
    folders = [shipped_folder() / RECORD / name for name in dict.fromkeys(names)]
    return [folder for folder in folders if is_record(folder)]


def is_record(folder: Path) -> bool:
    """Return whether a folder holds curves of record: ``curves.csv`` itself, without a plan."""
    return (folder / "curves.csv").is_file()


def agreement(root: Path) -> str:
    """Return whether a run agrees with the record, in one line; empty if nothing is compared.

    Args:
        root: ``<results>/<scale>``.
    """
    path = root / TABLE
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", newline="") as file:
        verdicts = [row["verdict"] for row in csv.DictReader(file)]
    if not verdicts:
        return ""
    beyond, total = verdicts.count("beyond noise"), f"{len(verdicts)} comparisons ({TABLE})"
    if not beyond:
        return f"This run agrees with the results of record within noise: {total}."
    return f"This run differs from the results of record beyond noise in {beyond} of {total}."
