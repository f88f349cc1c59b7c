"""The claims of the papers and what became of them here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from icmbench.report.outputs import study_page
from icmbench.report.results import Results, Row, is_number, read_rows
from icmbench.report.style import VariantStyle, interval, metric_style, number, plain, signed
from icmbench.report.tables import FLAGS, Cell, Table, figure, text

CLAIMS = "tables/claims.csv"
PARTS = "tables/claims_parts.csv"

#: Verdicts of the tables in the order of the page, with symbol and words.
VERDICTS = {
    "supported": ("\N{CHECK MARK}", "supported"),
    "contradicted": ("\N{BALLOT X}", "contradicted"),
    "inconclusive": ("?", "inconclusive"),
    "not run": ("\N{EM DASH}", "not run at this scale"),
}

_BOTH = (
    *("study", "claim", "form", "verdict", "effect", "low", "high", "unit", "reason"),
    *("variant", "anchor", "metric", "quantity", "at", "notes"),
)
_COLUMNS = {
    CLAIMS: (
        *_BOTH,
        *("level", "expect", "threshold", "margin", "published", "scope", "sentence", "source"),
    ),
    PARTS: (*_BOTH, "side"),
}

Name = Callable[[str], str]


@dataclass(frozen=True)
class ClaimPart:
    """The claims of one study.

    Attributes:
        table: verdict, effect and interval, threshold and the paper's number of each claim.
        parts: what claims of several comparisons rest on, one table each.
        summary: how many claims have which verdict, in words.
        scopes: what the verdicts hold for.
        notes: what the study says of its claims.
    """

    table: Table
    parts: list[Table]
    summary: str
    scopes: list[str]
    notes: list[str]


@dataclass(frozen=True)
class ClaimRows:
    """Rows of ``claims.csv`` and ``claims_parts.csv``, and what is missing, in sentences."""

    claims: list[Row]
    parts: list[Row]
    missing: list[str]


def load_claims(results: Results) -> ClaimRows:
    """Read the tables of claims, where a study on the page states any.

    Raises:
        UserError: for a table without a column that the page needs.
    """
    plan = results.plan
    if not any(plan["studies"][name].get("claims") for name in plan["run"]["studies"]):
        return ClaimRows([], [], [])
    missing: list[str] = []
    claims, parts = (
        read_rows(results.root / name, _COLUMNS[name], missing) for name in (CLAIMS, PARTS)
    )
    return ClaimRows(claims, parts, missing)


def study_claims(
    rows: ClaimRows, results: Results, study: str, styles: dict[str, VariantStyle]
) -> ClaimPart | None:
    """Return the claims of a study, or None where it states none or none is decided yet."""
    stated = results.plan["studies"][study].get("claims", {})
    mine = [row for row in rows.claims if row["study"] == study]
    if not mine:
        return None
    name = _names(results, study, styles)
    parts = []
    for row in mine:
        own = [r for r in rows.parts if r["study"] == study and r["claim"] == row["claim"]]
        if len(own) > 1:
            parts.append(_part_table(row, own, name))
    notes = [f"{row['sentence']} {note}" for row in mine if (note := _note(stated, row))]
    return ClaimPart(
        table=_claim_table(mine, name, results.confidence),
        parts=parts,
        summary=summary(mine),
        scopes=list(dict.fromkeys(row["scope"] for row in mine if row["verdict"] != "not run")),
        notes=notes,
    )


def glance_table(rows: ClaimRows, results: Results) -> Table | None:
    """Return the table of all claims for the front of the page, or None without claims."""
    cells = []
    for study in results.plan["run"]["studies"]:
        mine = [row for row in rows.claims if row["study"] == study]
        for place, row in enumerate(mine):
            page = f"{study_page(study)}#{study}-claims"
            head = [Cell(study, "head", len(mine), link=page)] if place == 0 else []
            cells.append([*head, text(row["sentence"]), verdict_cell(row), _effect(row)])
    if not cells:
        return None
    columns = ["Study", "Claim of the paper", "Verdict here", "Measured effect"]
    return Table(
        "All claims at a glance; the page of each study says what was compared and what the "
        "verdict holds for.",
        columns,
        cells,
        rows.claims,
    )


def summary(rows: list[Row]) -> str:
    """Return how many claims have which verdict, e.g. ``2 supported, 1 inconclusive``."""
    counts = {name: sum(row["verdict"] == name for row in rows) for name in VERDICTS}
    return ", ".join(f"{counts[name]} {VERDICTS[name][1]}" for name in VERDICTS)


def verdict_cell(row: Row) -> Cell:
    """Return a verdict as symbol and words, with the reason where there is one."""
    if row["verdict"] not in VERDICTS:  # a side of a difference
        return text("\N{EN DASH}")
    symbol, words = VERDICTS[row["verdict"]]
    return text(f"{symbol} {words}", row["reason"])


def _claim_table(rows: list[Row], name: Name, confidence: str) -> Table:
    cells = [
        [
            Cell(row["sentence"], "head"),
            verdict_cell(row),
            _effect(row),
            text(_compared(row, name), _remarks(row)),
            text(_expected(row)),
            figure(_amount(row["published"], row, is_difference=_is_difference(row))),
            text(row["source"]),
        ]
        for row in rows
    ]
    columns = [
        "Claim of the paper",
        "Verdict here",
        "Measured here",
        "What was compared",
        "Supported if",
        "Published",
        "Where the paper says so",
    ]
    caption = (
        f"Claims of the paper, tested on the curves measured here. In brackets: the {confidence} "
        "interval that decides. A claim of several comparisons shows the worst of them."
    )
    if any(100 * row["level"] != float(confidence.split()[0]) for row in rows):
        caption = caption.replace(f"the {confidence} interval", "the interval")
    return Table(caption, columns, cells, rows)


def _part_table(claim: Row, parts: list[Row], name: Name) -> Table:
    rows = []
    for row in parts:
        rows.append(
            [
                Cell(_compared(row, name), "head"),
                verdict_cell(row),
                _effect(row),
                text(_remarks(row) or "none"),
            ]
        )
    columns = ["What was compared", "Verdict", "Measured here", "Remarks"]
    return Table(f"What “{claim['sentence']}” rests on.", columns, rows, parts)


def _remarks(row: Row) -> str:
    """Return what the flags of a BD metric mean, in sentences."""
    flags = [flag for flag in str(row["notes"]).split(";") if flag]
    return "; ".join(dict.fromkeys(FLAGS.get(flag.split(":")[0], flag) for flag in flags))


def _names(results: Results, study: str, styles: dict[str, VariantStyle]) -> Name:
    """Return a function from a variant to its label; one that was left out keeps its name."""
    labels = {name: style.label for name, style in styles.items()}
    stated = results.plan["studies"][study]["variants"]
    return lambda variant: labels.get(variant) or stated.get(variant, {}).get("label", variant)


def _note(stated: Row, row: Row) -> str:
    return str(stated.get(row["claim"], {}).get("note", ""))


def _compared(row: Row, name: Name) -> str:
    """Return in words what an effect is, e.g. ``Box mAP of J-FT minus T-FT at 0.1 bpp``."""
    metric = row["metric"] if row["form"] == "count" else metric_style(row["metric"]).title
    variant, anchor = name(row["variant"]), name(row["anchor"]) if row["anchor"] else ""
    if row["form"] == "difference" and not row.get("side"):
        return f"First difference minus second, {metric}"
    what = {
        "bd_rate_pct": f"BD-rate at equal {metric} of {variant} against {anchor}",
        "bd_accuracy_points": f"BD of {metric} at equal rate of {variant} against {anchor}",
        "difference": f"{metric} of {variant} minus {anchor}",
        "difference_pct": f"{metric} of {variant} relative to {anchor}",
        "value": f"{metric} of {variant}",
    }[row["quantity"]]
    if row["form"] == "trend":
        what = f"Change of {metric} of {variant}"
    side = {"first": "First: ", "second": "Second: "}.get(row.get("side", ""), "")
    words = f"{side}{what}" + (f", {row['at']}" if row["at"] else "")
    return words if len(words) < 2 else words[0].upper() + words[1:]


def _expected(row: Row) -> str:
    """Return what supports a claim, e.g. ``above 0 points``."""
    margin, unit = row["margin"], f" {row['unit']}" if row["unit"] else ""
    threshold = row["threshold"]
    if row["expect"] == "equal":
        return f"within {plain(margin)}{unit} of {plain(threshold)}"
    sign = {"above": 1, "not-above": 1, "below": -1, "not-below": -1}[row["expect"]]
    bound = number(threshold + sign * margin, 6).rstrip("0").rstrip(".")
    words = {"above": "above", "below": "below", "not-below": "at least", "not-above": "at most"}
    return f"{words[row['expect']]} {bound}{unit}"


def _is_difference(row: Row) -> bool:
    return bool(row["quantity"] != "value")


def _effect(row: Row) -> Cell:
    bounds = interval(row["low"], row["high"], _digits(row))
    shown = _amount(row["effect"], row, is_difference=_is_difference(row))
    return figure(shown, bounds if row["form"] != "count" else "")


def _amount(value: float, row: Row, *, is_difference: bool) -> str:
    if not is_number(value):
        return number(None, 0)
    unit = f" {row['unit']}" if row["unit"] else ""
    if is_difference:
        return signed(value, _digits(row), unit)
    return number(value, _digits(row)) + unit


def _digits(row: Row) -> int:
    return {"%": 1, "points": 2, "dB": 2, "bpp": 4}.get(row["unit"], 0)
