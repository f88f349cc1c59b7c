"""What a variant costs beside what it achieves: parameters, operations and times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from icmbench.report.results import Results, Row, is_number
from icmbench.report.style import Metric, VariantStyle, number
from icmbench.report.tables import Cell, Table, figure

STEPS = ("encode", "decode", "reconstruct")


def complexity_rows(
    results: Results, study: str, metrics: Sequence[Metric], styles: dict[str, VariantStyle]
) -> list[Row]:
    """Return the complexity of every evaluated operating point of a study, None where unknown.

    Parameters are counts, ``kmacs_*`` thousands of multiply-accumulates per coded pixel, ``*_ms``
    the mean milliseconds per image of the records; ``bpp`` and the metrics are in the tables'
    units.
    """
    rows: list[Row] = []
    for point in results.points(study):
        if not point["evaluated"] or point["variant"] not in styles:
            continue
        stated = results.evaluations.get(point["key"], {}).get("complexity") or {}
        parameters, macs = stated.get("parameters") or {}, stated.get("macs_per_pixel") or {}
        own = {row["metric"]: row for row in results.rows_of(point)}
        records = results.records_of(point)
        row: Row = {name: point[name] for name in ("study", "variant", "rate_index", "seed")}
        row["bpp"] = next((measured["bpp"] for measured in own.values()), None)
        row |= {m.name: own[m.name]["value"] if m.name in own else None for m in metrics}
        row |= {f"parameters_{part}": parameters.get(part) for part in ("codec", "task")}
        for step in (*STEPS, "task"):
            count = macs.get(step)
            row[f"kmacs_{step}"] = None if count is None else count / 1000
        coded = records is not None and point["encoding"] is not None
        seconds = records.seconds if coded and records is not None else {}
        for step in STEPS:
            mean = seconds.get(f"{step}_s", math.nan)
            row[f"{step}_ms"] = 1000 * mean if is_number(mean) else None
        rows.append(row)
    return rows


def complexity_table(
    results: Results, study: str, metrics: Sequence[Metric], styles: dict[str, VariantStyle]
) -> Table | None:
    """Return accuracy beside complexity, one row per variant; None where nothing is evaluated.

    Operating points of a variant that differ are shown as a range.
    """
    source = complexity_rows(results, study, metrics, styles)
    columns: list[tuple[str, str, Callable[[float], str]]] = [("Rate (bpp)", "bpp", _shown(3))]
    columns += [(metric.heading, metric.name, metric.show) for metric in metrics]
    columns += [
        ("Codec, million parameters", "parameters_codec", _shown(2, 1e-6)),
        ("Task network, million parameters", "parameters_task", _shown(2, 1e-6)),
        *((f"{_WORDS[step]}, kMAC per pixel", f"kmacs_{step}", _shown(1)) for step in STEPS),
        ("Task network, kMAC per pixel", "kmacs_task", _shown(1)),
        *((f"{_WORDS[step]}, ms per image", f"{step}_ms", _shown(1)) for step in STEPS),
    ]
    # A column without any number says nothing.
    columns = [column for column in columns if any(is_number(row[column[1]]) for row in source)]
    by_variant: dict[str, list[Row]] = {}
    for row in source:
        by_variant.setdefault(row["variant"], []).append(row)
    rows = []
    for variant, style in styles.items():
        mine = by_variant.get(variant, [])
        if mine:
            cells = [figure(_range([row[name] for row in mine], show)) for _, name, show in columns]
            rows.append([Cell(style.label, "head", marker=style), *cells])
    if not rows:
        return None
    caption = (
        "Accuracy beside complexity; a range where the operating points of a variant differ. "
        "Times are means over the test images."
    )
    return Table(caption, ["Variant", *(column[0] for column in columns)], rows, source)


_WORDS = {"encode": "Encoding", "decode": "Decoding", "reconstruct": "Reconstruction"}


def _shown(digits: int, factor: float = 1.0) -> Callable[[float], str]:
    return lambda value: number(value * factor, digits)


def _range(values: Sequence[float | None], show: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None and is_number(value)]
    if not known:
        return number(None, 0)
    low, high = show(min(known)), show(max(known))
    return low if low == high else f"{low} to {high}"
