"""``claims.csv``: each claim of each study and its verdict; ``claims_parts.csv``: its comparisons.

The verdict of a claim with several comparisons (an order, a trend, each point) is that of its worst
one. Their number needs no correction, because all of them must pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from icmbench.analyse.claims.decide import WORST, decide
from icmbench.analyse.claims.effects import Effect, effects_of
from icmbench.analyse.claims.measure import Basis, StudyPoints
from icmbench.analyse.curves import EvaluatedPoint
from icmbench.config.claims import Claim, Expect, OrderClaim
from icmbench.metrics.bd import Method
from icmbench.metrics.catalogue import find_metric

#: One row for each comparison. quantity: see :class:`~icmbench.analyse.claims.effects.Effect`;
#: at: place on the curve. effect, low, high: in ``unit``; a difference is variant minus anchor.
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
#: scope: the data that the verdict holds for.
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
        method: of BD metrics over whole curves; single rates are always interpolated by PCHIP.
        seed: of the draws of training seeds.
        scale: of the run; a claim about other scales was not run.
    """
    rows: list[dict[str, object]] = []
    parts: list[dict[str, object]] = []
    for study in sorted(claims):
        own = StudyPoints(study, points, method, seed)
        for name, claim in sorted(claims[study].items()):
            row, effects = _decide_claim(claim, own, scale)
            label = {"study": study, "claim": name, "form": claim.form}
            rows.append(label | row)
            parts += [label | _numbers(e) | {"part": place} for place, e in enumerate(effects)]
    return ClaimTables(
        pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(parts, columns=PART_COLUMNS)
    )


def _decide_claim(
    claim: Claim, points: StudyPoints, scale: str | None
) -> tuple[dict[str, object], list[Effect]]:
    """Return the row of a claim and its decided effects."""
    effects = effects_of(claim, points)
    if claim.scales is not None and scale not in claim.scales:
        reason = f"it is a claim about scale {' or '.join(claim.scales)}"
        effects = [effect.not_run(reason) for effect in effects]
    expect = _expect(claim)
    effects = [
        decide(effect, expect, claim.threshold, claim.margin, claim.level) for effect in effects
    ]
    parts = [effect for effect in effects if not effect.side]
    # The worst verdict, and of these the effect that is least inside the claimed side.
    worst = min(parts, key=lambda part: (WORST.index(part.verdict), part.slack))
    row = _numbers(worst) | {
        "level": claim.level,
        "expect": expect,
        "threshold": claim.threshold,
        "margin": claim.margin,
        "published": math.nan if claim.published is None else claim.published,
        "form": claim.form,
        "n_parts": len(parts),
        "n_supported": sum(part.verdict == "supported" for part in parts),
        "n_resamples_used": worst.used,
        "scope": scope(frozenset().union(*(e.basis for e in effects)), claim.level, claim.form),
        "sentence": claim.sentence,
        "source": claim.source,
    }
    # The two sides of a difference have intervals but no verdict of their own.
    return row, [replace(e, verdict="", reason="") if e.side else e for e in effects]


def _numbers(effect: Effect) -> dict[str, object]:
    return vars(effect) | {"notes": ";".join(effect.notes)}


def _expect(claim: Claim) -> Expect:
    """Return the expected side of a claim's effects; for an order, of better against worse."""
    if not isinstance(claim, OrderClaim):
        return claim.expect
    fewer_is_better = claim.quantity == "bd_rate_pct"
    if claim.quantity == "at_rate":  # a plain difference of the metric
        fewer_is_better = find_metric(claim.metric).better == "lower"
    if claim.expect == "better":
        return "below" if fewer_is_better else "above"
    return "not-above" if fewer_is_better else "not-below"


def scope(basis: frozenset[Basis], level: float, form: str) -> str:
    """Return the data that a verdict holds for, and what its interval covers, in a sentence."""
    if form == "count":
        return "A property of the networks as built here; nothing is drawn."
    if not basis:
        return "Nothing was measured."
    found = sorted(basis, key=lambda b: (b.dataset, b.split, b.images))
    data = dict.fromkeys(f"{b.images} images of {b.dataset} ({b.split})" for b in found)
    seeds = max(b.seeds for b in found)
    covers = (
        "the choice of images, not the variation between training runs"
        if seeds == 1
        else "the choice of images and of seeds, the latter by Student's t"
    )
    return (
        f"{' and '.join(data)}; {seeds} {'seed' if seeds == 1 else 'seeds'}. The "
        f"{100 * level:g} % interval ({max(b.resamples for b in found)} resamples) covers {covers}."
    )
