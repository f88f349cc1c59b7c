"""A comparison of two result sets as plain text."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from icmbench.analyse.bootstrap import LEVEL
from icmbench.analyse.compare import VERDICTS, Difference, ResultComparison

_COLUMNS = [
    *("study", "variant", "rate_index", "metric"),
    *("a", "b", "difference", "low", "high", "verdict"),
]
_LONGEST = 90  # characters shown of a value


def comparison_text(found: ResultComparison, rows: int = 20) -> str:
    """Return the text that ``icmbench compare`` prints; its last line is the summary.

    Args:
        found: the comparison.
        rows: most lines of the table and of each list; 0 prints all.
    """
    lines = [f"A: {found.a}", f"B: {found.b}", ""]

    def section(title: str, entries: Sequence[str]) -> None:
        shown = entries if rows == 0 else entries[:rows]
        if len(shown) < len(entries):
            shown = [*shown, f"and {len(entries) - len(shown)} more; --rows 0 shows all"]
        if shown:
            lines.extend([f"{title}:", *(f"  {entry}" for entry in shown), ""])

    def texts(differences: Sequence[Difference]) -> list[str]:
        return [f"{name}: {a[:_LONGEST]} -> {b[:_LONGEST]}" for name, a, b in differences]

    section("Settings that differ", texts(found.settings))
    section("Environments that differ", texts(found.environment))
    section("Only in A", _grouped(found.only_a))
    section("Only in B", _grouped(found.only_b))
    section("Images", found.notes)
    table = found.table[found.table["verdict"] != "identical"]
    if not table.empty:
        shown = table if rows == 0 else table.head(rows)
        text = shown[_COLUMNS].to_string(index=False, float_format="{:.4g}".format)
        lines.append(text)
        if len(shown) < len(table):
            lines.append(f"and {len(table) - len(shown)} more; --rows 0 or --output shows all")
        lines.append("")
    return "\n".join([*lines, _summary(found)])


def _grouped(points: pd.DataFrame) -> list[str]:
    """Return one line per variant with its rates and seeds."""
    lines = []
    for (study, variant, pending), own in points.groupby(["study", "variant", "pending"]):
        rates, seeds = (", ".join(map(str, sorted(set(own[n])))) for n in ("rate_index", "seed"))
        suffix = ", not evaluated yet in the other" if pending else ""
        lines.append(f"{study}/{variant} (rate {rates}; seed {seeds}){suffix}")
    return lines


def _summary(found: ResultComparison) -> str:
    """Return the comparison in one line."""
    table = found.table
    if table.empty:
        return "no operating point in common"
    number = table["verdict"].value_counts().reindex(VERDICTS, fill_value=0)
    chance = (1 - LEVEL) * table["p"].notna().sum()
    images = "images paired" if table["paired_images"].all() else "images not all paired"
    if (table["seeds_a"] + table["seeds_b"]).str.contains(";").any():
        seeds = "seeds paired" if table["paired_seeds"].all() else "seeds pooled"
    else:
        which = "same" if table["paired_seeds"].all() else "other"
        seeds = f"{which} single seed: noise is that of images alone"
    return (
        f"{number['beyond noise']} of {len(table)} comparisons beyond noise (false discovery rate "
        f"{1 - LEVEL:.0%}); {number['unclear']} unclear (about {chance:.1f} intervals exclude 0 by "
        f"chance); {number['within noise']} within noise; {number['identical']} identical; "
        f"{number['undefined']} undefined; {len(found.only_a)} points only in A, "
        f"{len(found.only_b)} only in B; {images}, {seeds}"
    )
