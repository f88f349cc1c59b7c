"""Rates that training steers codecs to, and whether bitstreams have them."""

from __future__ import annotations

from icmbench.config.summary import PlanSummary

_MOST = 0.1  # of a target; a rate further from it misses it

#: Target in bits per pixel by study, variant and rate index.
Targets = dict[tuple[str, str, int], float]


def target_rates(plan: PlanSummary) -> Targets:
    """Return the rate that each point's codec was steered to, of those that were."""
    found: Targets = {}
    for point in plan.points:
        study = plan.studies[point.study]
        target = study.target_rate(point.variant, point.rate_index)
        if target is not None:
            found[point.study, point.variant, point.rate_index] = target
    return found


def missed(bpp: float, target: float | None) -> float:
    """Return by how much of its target a rate misses it, -0.2 if it is 20 % below; 0 if it has it.

    >>> missed(0.16, 0.2), missed(0.19, 0.2), missed(0.19, None)
    (-0.2, 0.0, 0.0)
    """
    excess = round(bpp / target - 1, 9) if target else 0.0
    return excess if abs(excess) > _MOST else 0.0
