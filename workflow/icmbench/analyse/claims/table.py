"""``claims.csv``: each claim of each study and its verdict; ``claims_parts.csv``: its grounds.

A claim that consists of several comparisons (an order, a trend, each point) is as good as its worst
one. No allowance is needed for their number: all of them must pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from icmbench.analyse.claims.decide import WORST, Decision, Verdict, decide
from icmbench.analyse.claims.effects import Basis, Effect, Measured
from icmbench.analyse.seeds import EvaluatedPoint
from icmbench.config.claims import Claim, Expect, OrderClaim
from icmbench.metrics.bd import Method
from icmbench.metrics.catalogue import find_metric

#: What is said of each comparison. quantity: see :class:`~icmbench.analyse.claims.effects.Effect`;
#: at: where on the curve. effect, low, high: in ``unit``; a difference is variant minus anchor.
#: reason: why it is inconclusive or was not run. notes: flags of the BD metric.
PART_COLUMNS = [
    "study",
    "claim",
    "part",
    "side",
    "form",
    "variant",
    "anchor",
    "metric",
    "quantity",
    "at",
    "verdict",
    "effect",
    "low",
    "high",
    "unit",
    "reason",
    "notes",
]

#: One row for each claim: the numbers are those of its worst part. level: coverage of the
#: interval. expect, threshold, margin: as in the study file, for an order those of each pair.
#: published: the paper's own effect, NaN without one. n_supported: parts out of n_parts.
#: scope: what the verdict holds for.
COLUMNS = [
    "study",
    "claim",
    "verdict",
    "effect",
    "low",
    "high",
    "unit",
    "level",
    "expect",
    "threshold",
    "margin",
    "published",
    "form",
    "variant",
    "anchor",
    "metric",
    "quantity",
    "at",
    "n_parts",
    "n_supported",
    "n_resamples_used",
    "reason",
    "notes",
    "scope",
    "sentence",
    "source",
]


@dataclass(frozen=True, eq=False)
class ClaimTables:
    """Claims with ``COLUMNS`` and their parts with ``PART_COLUMNS``, sorted by study and claim."""

    claims: pd.DataFrame
    parts: pd.DataFrame


def claim_tables(
    points: Sequence[EvaluatedPoint],
    claims: Mapping[str, Mapping[str, Claim]],
    *,
    method: Method = "pchip",
    seed: int = 0,
    scale: str | None = None,
) -> ClaimTables:
    """Decide every claim.

    Args:
        points: all evaluated operating points, with resamples over shared images.
        claims: by study and name. A claim about variants without points was not run.
        method: of BD metrics over whole curves; single rates are always read off by PCHIP.
        seed: of the draws of training seeds.
        scale: what was run at; a claim about other scales was not run.
    """
    rows: list[dict[str, object]] = []
    parts: list[dict[str, object]] = []
    for study in sorted(claims):
        measured = Measured(study, points, method, seed)
        for name in sorted(claims[study]):
            row, own = _decide_claim(measured, claims[study][name], scale)
            rows.append({"study": study, "claim": name, **row})
            label = {"study": study, "claim": name, "form": claims[study][name].form}
            parts += [{**label, "part": place, **part} for place, part in enumerate(own)]
    return ClaimTables(
        pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(parts, columns=PART_COLUMNS)
    )


def _decide_claim(
    measured: Measured, claim: Claim, scale: str | None
) -> tuple[dict[str, object], list[dict[str, object]]]:
    effects = measured.effects(claim)
    if claim.scales is not None and scale not in claim.scales:
        absent = f"it is a claim about scale {' or '.join(claim.scales)}"
        effects = [replace(effect, absent=absent) for effect in effects]
    expect = _expect(claim)
    decided = [
        (effect, decide(effect, expect, claim.threshold, claim.margin, claim.level))
        for effect in effects
    ]
    parts = [pair for pair in decided if not pair[0].side]
    effect, decision = min(parts, key=_badness)
    row = {
        **_numbers(effect, decision),
        "level": claim.level,
        "expect": expect,
        "threshold": claim.threshold,
        "margin": claim.margin,
        "published": math.nan if claim.published is None else claim.published,
        "form": claim.form,
        "n_parts": len(parts),
        "n_supported": sum(d.verdict == "supported" for _, d in parts),
        "n_resamples_used": decision.used,
        "scope": scope(frozenset().union(*(e.basis for e in effects)), claim.level, claim.form),
        "sentence": claim.sentence,
        "source": claim.source,
    }
    # The two sides of a difference have intervals but no verdict of their own.
    silent = {"verdict": "", "reason": ""}
    return row, [_numbers(*pair) | (silent if pair[0].side else {}) for pair in decided]


def _expect(claim: Claim) -> Expect:
    """Return where the effects of a claim lie; of an order, those of better against worse."""
    if not isinstance(claim, OrderClaim):
        return claim.expect
    fewer_is_better = claim.quantity == "bd_rate_pct"
    if claim.quantity == "at_rate":  # a plain difference of the metric
        fewer_is_better = find_metric(claim.metric).better == "lower"
    if claim.expect == "better":
        return "below" if fewer_is_better else "above"
    return "not-above" if fewer_is_better else "not-below"


def _badness(part: tuple[Effect, Decision]) -> tuple[int, float]:
    """Sort parts by verdict, and within one by how far the effect is inside the claimed side."""
    decision = part[1]
    return WORST.index(decision.verdict), -math.inf if math.isnan(decision.slack) else (
        decision.slack
    )


def _numbers(effect: Effect, decision: Decision) -> dict[str, object]:
    verdict: Verdict = decision.verdict
    return {
        "side": effect.side,
        "variant": effect.variant,
        "anchor": effect.anchor or "",
        "metric": effect.metric,
        "quantity": effect.quantity,
        "at": effect.at,
        "verdict": verdict,
        "effect": effect.value,
        "low": decision.low,
        "high": decision.high,
        "unit": effect.unit,
        "reason": decision.reason,
        "notes": ";".join(effect.notes),
    }


def scope(basis: frozenset[Basis], level: float, form: str) -> str:
    """Return what a verdict holds for: data, images, seeds, and what the interval covers."""
    if form == "count":
        return "A property of the networks as built here; nothing is drawn."
    if not basis:
        return "Nothing was measured."
    found = sorted(basis, key=lambda b: (b.dataset, b.split, b.images))
    data = " and ".join(
        dict.fromkeys(f"{b.images} images of {b.dataset} ({b.split})" for b in found)
    )
    seeds = max(b.seeds for b in found)
    resamples = max(b.resamples for b in found)
    covers = (
        "the choice of images, not the variation between trainings"
        if seeds == 1
        else "the choice of images and of seeds, by Student's t for so few"
    )
    word = "seed" if seeds == 1 else "seeds"
    return (
        f"{data}; {seeds} {word}. The {100 * level:g} % interval ({resamples} resamples) covers "
        f"{covers}."
    )
