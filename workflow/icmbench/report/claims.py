"""The claims of the papers and their verdicts here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from icmbench.config.claims import claim_variants
from icmbench.metrics.catalogue import find_metric
from icmbench.report.outputs import study_page
from icmbench.report.results import Results, is_number, rows_of
from icmbench.report.style import DASH, Styles, interval, number, plain, signed
from icmbench.report.tables import FLAGS, Cell, Table, figure, text

#: Verdicts of the tables in the order of the page, with symbol and words.
VERDICTS = {
    "supported": ("\N{CHECK MARK}", "supported"),
    "contradicted": ("\N{BALLOT X}", "contradicted"),
    "inconclusive": ("?", "inconclusive"),
    "not decided": ("\N{WHITE CIRCLE}", "not decided"),
    "not run": ("\N{EM DASH}", "not run"),
}

Label = Callable[[str], str]


@dataclass(frozen=True)
class ClaimPart:
    """The claims of one study.

    Attributes:
        table: verdict, effect and interval, threshold and the paper's number of each claim.
        parts: the evidence for claims of several comparisons, one table each.
        summary: how many claims have which verdict, in words.
        scopes: the conditions under which the verdicts hold.
        notes: of the study on its claims.
    """

    table: Table
    parts: list[Table]
    summary: str
    scopes: list[str]
    notes: list[str]


def study_claims(results: Results, study: str, styles: Styles) -> ClaimPart | None:
    """Return the claims of a study, or None if none is decided."""
    claims = results.claims[results.claims["study"] == study]
    if claims.empty:
        return None
    stated = results.studies[study].claims

    def label(variant: str) -> str:
        return styles[variant].label if variant in styles else variant

    parts, notes = [], []
    for claim in rows_of(claims):
        rows = results.claims_parts
        rows = rows[(rows["study"] == study) & (rows["claim"] == claim.claim)]
        if len(rows) > 1:
            parts.append(_part_table(claim.sentence, rows, label))
        note = stated[claim.claim].note if claim.claim in stated else ""
        notes += [f"{claim.sentence} {note}"] if note else []
    return ClaimPart(
        table=_claim_table(claims, label, results.confidence),
        parts=parts,
        summary=summary(claims),
        scopes=list(dict.fromkeys(claims.loc[claims["verdict"] != "not run", "scope"])),
        notes=notes,
    )


def glance_table(results: Results) -> Table | None:
    """Return the table of all claims for the entry page, or None without claims.

    Its caption is what kind of statement the verdicts are, and how many of each there are.
    """
    rows, drawn = [], set()
    for name, study in results.studies.items():
        link = f"{study_page(name)}#{name}-claims"
        for row in rows_of(results.claims[results.claims["study"] == name]):
            rows.append([Cell(name, "head", link=link), text(row.sentence), verdict_cell(row)])
            rows[-1].append(_effect(row))
        used = {variant for claim in study.claims.values() for variant in claim_variants(claim)}
        roles = {study.variants[variant].dataset for variant in used & set(study.variants)}
        drawn |= {results.plan.datasets[role].fetched is None for role in roles}
    if not rows:
        return None
    kinds = {True: "drawn scenes", False: "photographs"}
    data = " and ".join(words for kind, words in kinds.items() if kind in drawn)
    scale, seeds = results.plan.scale.name, len(results.plan.run.seeds)
    caption = (
        f"At scale {scale}, on {data}, with {seeds} {'seed' if seeds == 1 else 'seeds'}: "
        f"{summary(results.claims)}. The verdicts hold for these networks and data; the page of "
        "each study shows what was compared."
    )
    columns = ["Study", "Claim of the paper", "Verdict here", "Measured effect"]
    return Table(caption, columns, rows, results.claims)


def summary(claims: pd.DataFrame) -> str:
    """Return how many claims have which verdict, e.g. ``2 supported, 1 inconclusive``."""
    counts = claims["verdict"].value_counts()
    return ", ".join(f"{counts.get(name, 0)} {words}" for name, (_, words) in VERDICTS.items())


def verdict_cell(row: Any) -> Cell:
    """Return a verdict as symbol and words, with its reason if there is one."""
    if row.verdict not in VERDICTS:  # one side of a difference
        return text(DASH)
    pairs = getattr(row, "tau_pairs", 0)  # only of an order
    tau = (
        f"Kendall's \N{GREEK SMALL LETTER TAU} {number(row.tau, 2)} of {pairs} pairs"
        if pairs
        else ""
    )
    return text(" ".join(VERDICTS[row.verdict]), "; ".join(filter(None, (tau, row.reason))))


def _claim_table(claims: pd.DataFrame, label: Label, confidence: str) -> Table:
    rows = [
        [
            Cell(claim.sentence, "head"),
            verdict_cell(claim),
            _effect(claim),
            text(_compared(claim, label), _remarks(claim)),
            text(_expected(claim), claim.preconditions),
            figure(_amount(claim.published, claim)),
            text(claim.source),
        ]
        for claim in rows_of(claims)
    ]
    columns = ["Claim of the paper", "Verdict here", "Measured here", "Comparison"]
    columns += ["Supported if", "Published", "Source in the paper"]
    level = float(confidence.split()[0])
    bounds = "interval" if (100 * claims["level"] != level).any() else f"{confidence} interval"
    caption = (
        f"Claims of the paper, tested on the curves measured here; the {bounds} that decides is in "
        "brackets. A claim of several comparisons shows the worst of them."
    )
    return Table(caption, columns, rows, claims)


def _part_table(sentence: str, parts: pd.DataFrame, label: Label) -> Table:
    rows = [
        [
            Cell(_compared(part, label), "head"),
            verdict_cell(part),
            _effect(part),
            text(_remarks(part) or "none"),
        ]
        for part in rows_of(parts)
    ]
    columns = ["Comparison", "Verdict", "Measured here", "Remarks"]
    return Table(f"Evidence for “{sentence}”", columns, rows, parts)


def _remarks(row: Any) -> str:
    """Return the meaning of the flags of a BD metric."""
    flags = [flag.split(":")[0] for flag in str(row.notes).split(";") if flag]
    return "; ".join(dict.fromkeys(FLAGS.get(flag, flag) for flag in flags))


def _compared(row: Any, label: Label) -> str:
    """Return an effect in words, e.g. ``Box mAP of J-FT minus T-FT at 0.1 bpp``."""
    metric = row.metric if row.form == "count" else find_metric(row.metric).title
    variant, anchor = label(row.variant), label(row.anchor) if row.anchor else ""
    side = getattr(row, "side", "")
    if row.form == "difference" and not side:
        return f"First difference minus second, {metric}"
    words = {
        "bd_rate_pct": f"BD-rate at equal {metric} of {variant} against {anchor}",
        "bd_accuracy_points": f"BD of {metric} at equal rate of {variant} against {anchor}",
        "difference": f"{metric} of {variant} minus {anchor}",
        "difference_pct": f"{metric} of {variant} relative to {anchor}",
        "value": f"{metric} of {variant}",
    }[row.quantity]
    if row.form == "trend":
        words = f"Change of {metric} of {variant}"
    words = {"first": "First: ", "second": "Second: "}.get(side, "") + words
    words += f", {row.at}" if row.at else ""
    return words[:1].upper() + words[1:]


def _expected(row: Any) -> str:
    """Return the condition that supports a claim, e.g. ``above 0 points``."""
    unit = f" {row.unit}" if row.unit else ""
    if row.expect == "equal":
        return f"within {plain(row.margin)}{unit} of {plain(row.threshold)}"
    words, sign = {
        "above": ("above", 1),
        "not-above": ("at most", 1),
        "below": ("below", -1),
        "not-below": ("at least", -1),
    }[row.expect]
    bound = number(row.threshold + sign * row.margin, 6).rstrip("0").rstrip(".")
    return f"{words} {bound}{unit}"


def _effect(row: Any) -> Cell:
    bounds = "" if row.form == "count" else interval(row.low, row.high, _digits(row))
    return figure(_amount(row.effect, row), bounds, row.notes)


def _amount(value: float, row: Any) -> str:
    """Return a number in the claim's unit; a difference has a sign."""
    if not is_number(value):
        return DASH
    unit = f" {row.unit}" if row.unit else ""
    if row.quantity == "value":
        return number(value, _digits(row)) + unit
    return signed(value, _digits(row), unit)


def _digits(row: Any) -> int:
    return {"%": 1, "points": 2, "dB": 2, "bpp": 4}.get(row.unit, 0)
