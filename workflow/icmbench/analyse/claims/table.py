"""``claims.csv``: each claim of each study and its verdict; ``claims_parts.csv``: its comparisons.

The verdict of a claim with several comparisons (an order, a trend, each point) is that of its worst
one. Their number needs no correction, because all of them must pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from icmbench.analyse.claims.decide import WORST, decide
from icmbench.analyse.claims.effects import Effect, effects_of
from icmbench.analyse.claims.measure import MISSED, Basis, StudyPoints
from icmbench.analyse.curves import EvaluatedPoint
from icmbench.analyse.targets import Targets
from icmbench.config.claims import Claim, Expect, OrderClaim
from icmbench.metrics.bd import Method
from icmbench.metrics.catalogue import find_metric

#: One row for each comparison. quantity: see :class:`~icmbench.analyse.claims.effects.Effect`;
#: at: place on the curve. effect, low, high: in ``unit``; a difference is variant minus anchor.
#: reason: why it is not decided or was not run. notes: flags of the BD metric, and of rates that
#: miss their target (:data:`~icmbench.analyse.claims.measure.MISSED`).
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

#: One row for each claim: the numbers are those of its worst part; notes have the missed rates of
#: all of them. level: coverage of the
#: interval. expect, threshold, margin: as in the study file, for an order those of each pair.
#: published: the paper's own effect, NaN without one. n_supported: parts out of n_parts.
#: tau: Kendall's tau of an order over tau_pairs pairs (:func:`kendall_tau`). preconditions: each
#: with its verdict and effect. scope: the data that the verdict holds for.
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
    "tau",
    "tau_pairs",
    "reason",
    "notes",
    "preconditions",
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
    preconditions: Mapping[str, Mapping[str, Claim]] | None = None,
    *,
    method: Method = "pchip",
    seed: int = 0,
    scale: str | None = None,
    targets: Targets | None = None,
) -> ClaimTables:
    """Decide every claim.

    Args:
        points: all evaluated operating points, with resamples over shared images.
        claims: by study and name. A claim about variants without points was not run.
        preconditions: that claims name, by study and name.
        method: of BD metrics over whole curves; single rates are always interpolated by PCHIP.
        seed: of the draws of training seeds.
        scale: of the run; a claim about other scales was not run.
        targets: rates that training steered codecs to; a claim on a point that misses its own has
            a flag.
    """
    rows: list[dict[str, object]] = []
    parts: list[dict[str, object]] = []
    for study in sorted(claims):
        own = StudyPoints(study, points, method, seed, targets)
        stated = (preconditions or {}).get(study, {})
        conditions = {name: _decide_claim(one, own, scale)[0] for name, one in stated.items()}
        for name, claim in sorted(claims[study].items()):
            named = {other: conditions[other] for other in claim.preconditions}
            row, effects = _decide_claim(claim, own, scale, named)
            label = {"study": study, "claim": name, "form": claim.form}
            rows.append(label | row)
            parts += [label | _numbers(e) | {"part": place} for place, e in enumerate(effects)]
    return ClaimTables(
        pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(parts, columns=PART_COLUMNS)
    )


Row = dict[str, object]


def _decide_claim(
    claim: Claim,
    points: StudyPoints,
    scale: str | None,
    conditions: Mapping[str, Row] | None = None,
) -> tuple[Row, list[Effect]]:
    """Return the row of a claim and its decided effects.

    ``conditions`` are the rows of its preconditions, by name.
    """
    conditions = conditions or {}
    effects = effects_of(claim, points)
    if claim.scales is not None and scale not in claim.scales:
        reason = f"it is a claim about scale {' or '.join(claim.scales)}"
        effects = [effect.not_run(reason) for effect in effects]
    expect = _expect(claim)
    effects = [
        decide(effect, expect, claim.threshold, claim.margin, claim.level) for effect in effects
    ]
    effects = [_under(effect, conditions) for effect in effects]
    parts = [effect for effect in effects if not effect.side]
    # The worst verdict, and of these the effect that is least inside the claimed side.
    worst = min(parts, key=lambda part: (WORST.index(part.verdict), part.slack))
    missing = (note for effect in effects for note in effect.notes if note.startswith(MISSED))
    row = _numbers(worst) | {
        "notes": ";".join(dict.fromkeys((*worst.notes, *missing))),
        "level": claim.level,
        "expect": expect,
        "threshold": claim.threshold,
        "margin": claim.margin,
        "published": math.nan if claim.published is None else claim.published,
        "form": claim.form,
        "n_parts": len(parts),
        "n_supported": sum(part.verdict == "supported" for part in parts),
        "n_resamples_used": worst.used,
        "tau": math.nan,
        "tau_pairs": 0,
        "preconditions": "; ".join(
            f"{name}: {row['verdict']} ({_measured(row)})" for name, row in conditions.items()
        ),
        "scope": scope(frozenset().union(*(e.basis for e in effects)), claim.level, claim.form),
        "sentence": claim.sentence,
        "source": claim.source,
    }
    if isinstance(claim, OrderClaim):
        row["tau"], row["tau_pairs"] = kendall_tau(parts, expect)
    # The two sides of a difference have intervals but no verdict of their own.
    return row, [replace(e, verdict="", reason="") if e.side else e for e in effects]


def _under(effect: Effect, conditions: Mapping[str, Row]) -> Effect:
    """Return a decided effect, without its verdict unless all preconditions are supported."""
    for name, row in conditions.items():
        if effect.verdict == "not run" or row["verdict"] == "supported":
            continue
        if row["verdict"] == "not run":
            return effect.not_run(f"precondition {name}: {row['reason']}")
        why = f"precondition {name} fails: {_measured(row)}"
        if row["verdict"] == "inconclusive":
            why = f"precondition {name} is inconclusive ({_measured(row)}): {row['reason']}"
        return replace(effect, verdict="not decided", reason=why)
    return effect


def _measured(row: Row) -> str:
    effect = row["effect"]
    assert isinstance(effect, float)
    return f"{effect:.4g} {row['unit']}".rstrip() if math.isfinite(effect) else "not measured"


def kendall_tau(pairs: Sequence[Effect], expect: Expect) -> tuple[float, int]:
    """Return Kendall's tau of a claimed and the measured order, and the number of pairs.

    Agreeing minus disagreeing pairs over all of them: that of Kendall (1938), without a correction
    for ties. It is taken over the pairs that are measured and may decide, each compared directly,
    so that it depends on no anchor; NaN without any.

    Args:
        pairs: effect of each variant against each later one.
        expect: the claimed side of them.
    """
    usable = [e.effect for e in pairs if math.isfinite(e.effect) and not e.weakness]
    if not usable:
        return math.nan, 0
    direction = 1 if expect in ("above", "not-below") else -1
    return direction * float(np.sign(usable).mean()), len(usable)


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
