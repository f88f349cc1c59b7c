"""Checks of claims that their types cannot make: names, metrics, units, rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from icmbench.config.claims import (
    RATE,
    BdEffect,
    Claim,
    CountEffect,
    DifferenceClaim,
    Effect,
    OrderClaim,
    PointEffect,
    TrendClaim,
    effect_unit,
)
from icmbench.config.study import Study, Variant
from icmbench.errors import unknown

Metrics = Callable[[Variant], Iterable[str]]
Fault = tuple[str, object, str]


def claim_faults(where: str, study: Study, metrics: Metrics) -> list[str]:
    """Return the faults of a study's claims, one line each.

    Args:
        where: the file, as faults name it.
        study: with all its variants, also those that a scale or a run leaves out.
        metrics: returns the metrics that a variant has.
    """
    lines = []
    for section, claims in (("claims", study.claims), ("preconditions", study.preconditions)):
        for name, claim in claims.items():
            start = f"{where}: key '{section}.{name}."
            lines += [
                f"{start}{key}': {value!r} {problem}"
                for key, value, problem in _faults(claim, study, metrics)
            ]
            start += "preconditions': "
            if section == "preconditions" and claim.preconditions:
                problem = "cannot be preconditions of a precondition; name them in the claims"
                lines.append(f"{start}{claim.preconditions!r} {problem}")
            lines += [
                start + unknown("precondition", other, study.preconditions)
                for other in claim.preconditions
                if other not in study.preconditions
            ]
    return lines


def _faults(claim: Claim, study: Study, metrics: Metrics) -> Iterator[Fault]:
    if claim.expect == "equal" and claim.margin == 0:
        yield "margin", claim.margin, "with expect 'equal' can never be met; give more than 0"
    if isinstance(claim, DifferenceClaim):
        parts = [("first", claim.first), ("second", claim.second)]
        for key, part in parts:
            for inner, value, problem in _effect_faults(part, study, metrics):
                yield f"{key}.{inner}", value, problem
            if isinstance(part, PointEffect) and part.rate_index == "each":
                yield f"{key}.rate_index", "each", "is more than one number; name one point"
        units = [effect_unit(part) for _, part in parts]
        if units[0] != units[1]:
            yield "second", units[1], f"is not the unit of the first, {units[0]!r}; compare alike"
    elif isinstance(claim, OrderClaim):
        yield from _order_faults(claim, study, metrics)
    elif isinstance(claim, TrendClaim):
        yield from _variant_faults("variant", claim.variant, claim.metric, study, metrics)
    else:
        yield from _effect_faults(claim, study, metrics)


def _order_faults(claim: OrderClaim, study: Study, metrics: Metrics) -> Iterator[Fault]:
    for place, name in enumerate(claim.variants):
        yield from _variant_faults(f"variants.{place}", name, claim.metric, study, metrics)
        if claim.variants.count(name) > 1:
            yield "variants", name, "is a duplicate; name it once"
    yield from _dataset_faults("variants", claim.variants, study)
    if claim.quantity == "at_rate" and claim.bpp is None:
        yield "bpp", None, "with quantity 'at_rate'; give a rate"
    if claim.quantity != "at_rate" and claim.bpp is not None:
        yield "bpp", claim.bpp, f"with quantity {claim.quantity!r}; set it to null"


def _effect_faults(effect: Effect, study: Study, metrics: Metrics) -> Iterator[Fault]:
    metric = None if isinstance(effect, CountEffect) else effect.metric
    if isinstance(effect, PointEffect) and metric == RATE:
        metric = None
    names = [effect.variant] + ([effect.anchor] if effect.anchor is not None else [])
    for key, name in zip(("variant", "anchor"), names, strict=False):
        yield from _variant_faults(key, name, metric, study, metrics)
    index = effect.anchor_rate_index if isinstance(effect, PointEffect) else None
    # A variant differs from itself only from one operating point to another.
    elsewhere = isinstance(effect, PointEffect) and index not in (None, effect.rate_index)
    if effect.anchor == effect.variant and not elsewhere:
        yield "anchor", effect.anchor, "is the variant itself; name another one"
    if index is not None and effect.anchor is None:
        yield "anchor_rate_index", index, "needs an anchor"
    if not isinstance(effect, CountEffect):
        yield from _dataset_faults("anchor", names, study)
    if isinstance(effect, BdEffect) and effect.rates is not None:
        if not 0 < effect.rates[0] < effect.rates[1]:
            yield "rates", effect.rates, "must be two rates above 0 bpp, the lower one first"
        if effect.quantity != "bd_accuracy_points":
            yield "rates", effect.rates, "needs quantity 'bd_accuracy_points'"


def _variant_faults(
    key: str, name: str, metric: str | None, study: Study, metrics: Metrics
) -> Iterator[Fault]:
    if name not in study.variants:
        yield key, name, f"is not a variant; choose from {', '.join(sorted(study.variants))}"
        return
    known = sorted(metrics(study.variants[name]))
    if metric is not None and metric not in known:
        problem = f"is not reported by variant {name!r}; choose from {', '.join(known)}"
        yield "metric", metric, problem


def _dataset_faults(key: str, names: list[str], study: Study) -> Iterator[Fault]:
    """Compared variants need the same images."""
    roles = {name: study.variants[name].dataset for name in names if name in study.variants}
    if len(set(roles.values())) > 1:
        listed = ", ".join(f"{name!r} on {role!r}" for name, role in roles.items())
        yield key, names, f"are on different data sets; compare on one: {listed}"
