"""What a reader takes away from a page: tables as CSV, curves as JSON, as data URIs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from icmbench.report.drawing import data_uri
from icmbench.report.outputs import TABLES
from icmbench.report.results import Results
from icmbench.report.selection import Selection
from icmbench.report.style import VariantStyle
from icmbench.report.tables import Cell, Table
from icmbench.utils.files import write_text


@dataclass(frozen=True)
class Download:
    """A file inside a page: what it is called here, its file name and its address."""

    text: str
    name: str
    uri: str


def table_csv(table: Table) -> str:
    """Return a table as CSV (RFC 4180): its source rows where it has some, else its cells.

    Of cells, one that spans rows is repeated, a dash is left empty, a typographic minus becomes
    a hyphen, and smaller text stands in a column of its own.
    """
    out = io.StringIO()
    if table.source:
        writer = csv.DictWriter(out, list(table.source[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table.source)
        return out.getvalue()
    rows = _filled(table)
    noted = [any(row[place].note for row in rows) for place in range(len(table.columns))]
    head: list[str] = []
    for name, has_notes in zip(table.columns, noted, strict=True):
        head += [name, f"{name}: note"] if has_notes else [name]
    plain = csv.writer(out)
    plain.writerow(head)
    for row in rows:
        line: list[str] = []
        for cell, has_notes in zip(row, noted, strict=True):
            line += [_value(cell.text), _value(cell.note)] if has_notes else [_value(cell.text)]
        plain.writerow(line)
    return out.getvalue()


def csv_uri(table: Table) -> str:
    """Return a table as a data URI of CSV."""
    return data_uri("text/csv;charset=utf-8", table_csv(table).encode())


@dataclass(eq=False)
class TableFiles:
    """Writes tables as CSV that a page shows in part.

    Attributes:
        root: the results folder.
        files: written so far.
    """

    root: Path
    files: list[Path] = field(default_factory=list)

    def part(
        self,
        name: str,
        table: Table,
        whole: Table,
        selection: Selection,
    ) -> Table:
        """Write the whole of a table and return the part that a page shows, naming the file.

        Args:
            name: of the file in ``report/tables``, without suffix.
            table: of the variants that are shown.
            whole: of all variants.
            selection: of the page.
        """
        place = f"{TABLES}/{name}.csv"
        write_text(self.root / place, table_csv(whole))
        self.files.append(self.root / place)
        return replace(table, rest=selection.rest(place))


def curve_downloads(results: Results, styles: Iterable[VariantStyle]) -> list[Download]:
    """Return the curves of variants in the shape of CompressAI's JSON, where they are measured."""
    found = []
    for style in styles:
        path = results.root / "curves" / style.study / f"{style.name}.json"
        if path.is_file():
            name = f"{style.study}-{style.name}.json".replace("/", "-")
            found.append(
                Download(style.label, name, data_uri("application/json", path.read_bytes()))
            )
    return found


def _filled(table: Table) -> list[list[Cell]]:
    """Return the rows of a table with every cell that spans several repeated in each."""
    rows: list[list[Cell]] = []
    left = [0] * len(table.columns)
    for row in table.rows:
        own = iter(row)
        filled = []
        for place in range(len(table.columns)):
            if left[place]:
                left[place] -= 1
                filled.append(rows[-1][place])
            else:
                cell = next(own)
                left[place] = cell.rows - 1
                filled.append(cell)
        rows.append(filled)
    return rows


def _value(text: str) -> str:
    return "" if text == "\N{EN DASH}" else text.replace("\N{MINUS SIGN}", "-")
