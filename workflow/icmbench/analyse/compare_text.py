"""A comparison of two result sets as plain text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from icmbench.analyse.bootstrap import LEVEL
from icmbench.analyse.compare import VERDICTS, Comparison
from icmbench.analyse.compare_settings import Difference

_LONGEST = 90  # characters of one setting's value


def comparison_text(found: Comparison, rows: int = 20) -> str:
    """Return the text that ``icmbench compare`` prints; its last line is the summary.

    Args:
        found: the comparison.
        rows: at most so many lines of the table and of each list; 0 prints all.
    """
    lines = [f"A: {found.a.root}", f"B: {found.b.root}", ""]

    def section(title: str, entries: Sequence[str]) -> None:
        if entries:
            shown = entries if rows == 0 else entries[:rows]
            lines.extend([f"{title}:", *(f"  {entry}" for entry in shown)])
            if len(shown) < len(entries):
                lines.append(f"  and {len(entries) - len(shown)} more; --rows 0 shows all")
            lines.append("")

    section("Settings that differ", _differences(found.settings))
    section("Environments that differ", _differences(found.environment))
    for side, other, points in (("A", found.b, found.only_a), ("B", found.a, found.only_b)):
        pending = {(*where, seed) for where, seeds in other.pending.items() for seed in seeds}
        section(f"Only in {side}", _points(points, pending.__contains__))
    images = [f"{variant}: {why}" for variant, why in sorted(found.other_images.items())]
    section("Evaluated on different images, so not paired", images)
    if any(found.failed_round_trips):
        a, b = found.failed_round_trips
        section("Images that decode to something else", [f"A {a}, B {b}"])
    lines += [*_table(found, rows), summary(found)]
    return "\n".join(lines)


def summary(found: Comparison) -> str:
    """Return the comparison in one line."""
    counts = found.table["verdict"].value_counts()
    number = {verdict: int(counts.get(verdict, 0)) for verdict in VERDICTS}
    tested = int(found.table["p"].notna().sum())
    chance = (1 - LEVEL) * tested
    excluding = number["beyond noise"] + number["unclear"]
    parts = [
        f"{number['beyond noise']} of {len(found.table)} comparisons beyond noise "
        f"(false discovery rate {1 - LEVEL:.0%})",
        f"{number['unclear']} unclear ({excluding} intervals exclude 0, about {chance:.1f} would "
        "by chance)",
        f"{number['within noise']} within noise",
        f"{number['identical']} identical",
    ]
    if number["undefined"]:
        parts.append(f"{number['undefined']} undefined")
    if found.only_a or found.only_b:
        parts.append(f"{len(found.only_a)} points only in A, {len(found.only_b)} only in B")
    parts.append(_coverage(found))
    return "; ".join(parts)


def _coverage(found: Comparison) -> str:
    """Say what the noise is of."""
    table = found.table
    if table.empty:
        return "no operating point in common"
    images = "images paired" if table["paired_images"].all() else "images not all paired"
    several = table["seeds_a"].str.contains(";") | table["seeds_b"].str.contains(";")
    if not several.any():
        same = table["paired_seeds"].all()
        return f"{images}, {'same' if same else 'other'} single seed: noise is that of images alone"
    seeds = "seeds paired" if table["paired_seeds"].all() else "seeds pooled"
    return f"{images}, {seeds}"


def _differences(differences: Iterable[Difference]) -> list[str]:
    def cut(text: str) -> str:
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."

    return [f"{what}: {cut(a)} -> {cut(b)}" for what, a, b in differences]


def _points(
    points: Iterable[tuple[str, str, int, int]],
    pending: Callable[[tuple[str, str, int, int]], bool],
) -> list[str]:
    """Return one line per variant with its rates and seeds."""
    grouped: dict[tuple[str, bool], tuple[set[int], set[int]]] = {}
    for point in points:
        study, variant, rate, seed = point
        rates, seeds = grouped.setdefault((f"{study}/{variant}", pending(point)), (set(), set()))
        rates.add(rate)
        seeds.add(seed)

    def listing(name: str, values: set[int]) -> str:
        return f"{name}{'s' if len(values) > 1 else ''} {', '.join(map(str, sorted(values)))}"

    return [
        f"{variant} ({listing('rate', rates)}; {listing('seed', seeds)})"
        f"{', not evaluated yet in the other' if planned else ''}"
        for (variant, planned), (rates, seeds) in sorted(grouped.items())
    ]


def _table(found: Comparison, rows: int) -> list[str]:
    differing = found.table[found.table["verdict"] != "identical"]
    if differing.empty:
        return []
    shown = differing if rows == 0 else differing.head(rows)
    header = ("study/variant", "rate", "metric", "A", "B", "B - A", "95 % interval", "verdict")
    cells = [
        (
            f"{row.study}/{row.variant}",
            str(row.rate_index),
            str(row.metric),
            f"{row.a:.4g}",
            f"{row.b:.4g}",
            f"{row.difference:+.3g}",
            f"{row.low:+.3g} to {row.high:+.3g}",
            str(row.verdict),
        )
        for row in shown.itertuples()
    ]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, *cells)
    ]
    if len(shown) < len(differing):
        lines.append(f"and {len(differing) - len(shown)} more; --rows 0 or --output shows all")
    return [*lines, ""]
