"""The claims of the papers and their verdicts here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from icmbench.analyse.claims.measure import MISSED
from icmbench.config.claims import claim_variants
from icmbench.metrics.catalogue import find_metric
from icmbench.report.outputs import study_page
from icmbench.report.results import Results, is_number, rows_of
from icmbench.report.style import DASH, Styles, interval, number, plain, signed
from icmbench.report.tables import FLAGS, Cell, Table, figure, text

#: Symbols of verdicts, in the order of the page.
VERDICTS = {
    "supported": "\N{CHECK MARK}",
    "contradicted": "\N{BALLOT X}",
    "inconclusive": "?",
    "not decided": "\N{WHITE CIRCLE}",
    "not run": "\N{EM DASH}",
}


def study_claims(results: Results, study: str, styles: Styles) -> Table | None:
    """Return the claims of a study, grouped by verdict, or None if none is decided."""
    claims = results.claims[results.claims["study"] == study]
    if claims.empty:
        return None
    labels = {variant: style.label for variant, style in styles.items()}
    rows = []
    for verdict, symbol in VERDICTS.items():
        for index, claim in enumerate(rows_of(claims[claims["verdict"] == verdict])):
            evidence = tuple(_evidence(results, study, claim, labels))
            place = "" if index else _place(study, verdict)
            rows.append(
                [
                    Cell(f"{symbol} {verdict}", "head", place=place),
                    Cell(claim.sentence, note=_reason(claim, labels), evidence=evidence),
                    _effect(claim),
                    text(_expected(claim)),
                    figure(_amount(claim.published, claim)),
                ]
            )
    columns = ["Verdict here", "Claim", "Measured here", "Supported if", "Published"]
    scopes = " ".join(dict.fromkeys(claims.loc[claims["verdict"] != "not run", "scope"]))
    # The data first, then what is the same for all.
    stated = sorted(dict.fromkeys(re.split(r"(?<=\.) ", scopes)), key=lambda s: s[:4] == "The ")
    counts = claims["verdict"].value_counts()
    caption = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in VERDICTS)
    caption += ". In brackets: the interval that decides. "
    caption += f"The verdicts hold for: {' '.join(stated)}" if scopes else ""
    return Table(caption, columns, rows)


def _place(study: str, verdict: str) -> str:
    return f"{study}-{verdict.replace(' ', '-')}"


def verdict_matrix(results: Results) -> Table | None:
    """Return how many claims of each study have which verdict, or None without claims.

    Its caption is what kind of statement the verdicts are.
    """
    rows, data = [], set()
    for name, study in results.studies.items():
        counts = results.claims.loc[results.claims["study"] == name, "verdict"].value_counts()
        if counts.empty:
            continue
        row = [Cell(name, "head", link=f"{study_page(name)}#{name}-claims")]
        for verdict in VERDICTS:
            count, link = counts.get(verdict, 0), f"{study_page(name)}#{_place(name, verdict)}"
            row.append(Cell(str(count), "number", link=link) if count else figure(DASH))
        rows.append(row)
        used = {variant for claim in study.claims.values() for variant in claim_variants(claim)}
        roles = {study.variants[variant].dataset for variant in used & set(study.variants)}
        fetched = [results.plan.datasets[role].fetched for role in roles]
        data |= {"photographs" if own else "drawn scenes" for own in fetched}
    if not rows:
        return None
    scale, seeds = results.plan.scale.name, len(results.plan.run.seeds)
    caption = (
        "What the papers claim, and how many of the claims hold here: at scale "
        f"{scale}, on {' and '.join(sorted(data))}, with {seeds} seed{'' if seeds == 1 else 's'}. "
        "Each number leads to its claims."
    )
    columns = ["Study", *(f"{symbol} {verdict}" for verdict, symbol in VERDICTS.items())]
    return Table(caption, columns, rows)


def _reason(row: Any, labels: Mapping[str, str]) -> str:
    """Return what explains a verdict, besides the effect, and what a reader must know of it."""
    pairs = getattr(row, "tau_pairs", 0)  # only of an order
    tau = f"Kendall's \N{GREEK SMALL LETTER TAU} {number(row.tau, 2)} of {pairs} pairs"
    rates = [
        flag.partition(":")[2].rsplit(" ", 2) for flag in _flags(row) if flag.startswith(MISSED)
    ]
    missing = [
        f"{labels.get(variant, variant)} has {bpp} bpp, where training was to reach {target}"
        for variant, bpp, target in rates
    ]
    # Whole names: one may begin with another one, or be of a variant that is not in this run.
    reason = re.sub(r"[\w-]+(/[\w.-]*\w)+", lambda name: labels.get(name[0], name[0]), row.reason)
    return "; ".join(filter(None, (tau if pairs else "", reason, *missing)))


def _flags(row: Any) -> list[str]:
    return [flag for flag in str(row.notes).split(";") if flag]


def _evidence(results: Results, study: str, claim: Any, labels: Mapping[str, str]) -> Iterator[str]:
    """Return what was compared, each part of it, and what the study states on the claim."""
    yield f"{_compared(claim, labels)}. {_remarks(claim)}".strip()
    parts = results.claims_parts
    parts = parts[(parts["study"] == study) & (parts["claim"] == claim.claim)]
    for part in rows_of(parts) if len(parts) > 1 else ():
        effect = _effect(part)
        words = [f"{_compared(part, labels)}: {effect.text} {effect.note}".strip()]
        words += [part.verdict] if part.verdict in VERDICTS else []  # not of one side
        yield "; ".join(filter(None, [*words, part.reason, _remarks(part)]))
    if claim.preconditions:
        yield f"Preconditions: {claim.preconditions}"
    yield f"Source: {claim.source}"
    stated = results.studies[study].claims
    if claim.claim in stated and stated[claim.claim].note:
        yield stated[claim.claim].note


def _remarks(row: Any) -> str:
    """Return the meaning of the flags of a BD metric."""
    flags = [flag.split(":")[0] for flag in _flags(row)]
    return "; ".join(dict.fromkeys(FLAGS.get(flag, flag) for flag in flags))


def _compared(row: Any, labels: Mapping[str, str]) -> str:
    """Return an effect in words, e.g. ``Box mAP of J-FT minus T-FT at 0.1 bpp``."""
    metric = row.metric if row.form == "count" else find_metric(row.metric).title
    variant, anchor = (labels.get(name, name) for name in (row.variant, row.anchor))
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
        "above": ("above", 1), "not-above": ("at most", 1),
        "below": ("below", -1), "not-below": ("at least", -1),
    }[row.expect]  # fmt: skip
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
