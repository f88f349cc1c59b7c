"""Claims of a paper, written as tests over curves, and the checks that their types cannot make.

Every claim expects a number, its effect, on one side of a threshold. Differences are always
``variant`` minus ``anchor``, in percentage points (metrics in [0, 1]) or dB; a BD-rate is in
percent of the anchor's rate, negative where the variant needs fewer bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from icmbench.utils.models import Strict

if TYPE_CHECKING:
    from icmbench.config.study import Study, Variant

Expect = Literal["above", "below", "not-below", "not-above", "equal"]
BdQuantity = Literal["bd_rate_pct", "bd_accuracy_points"]

#: The rate itself, which every operating point has beside its metrics.
RATE = "bpp"

# Metrics whose unit is dB; all others lie in [0, 1] and differ by percentage points.
DECIBEL = frozenset({"psnr", "psnr_ycbcr"})


class BdEffect(Strict):
    """Form `bd`: Bjøntegaard delta of `variant` against `anchor`."""

    form: Literal["bd"]
    variant: str
    anchor: str
    metric: str
    quantity: BdQuantity = Field(
        "bd_rate_pct",
        description="bd_rate_pct: percent of rate at equal quality, negative is better; "
        "bd_accuracy_points: quality at equal rate, positive is better.",
    )
    rates: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Lowest and highest rate (bpp) that bd_accuracy_points integrates over; null "
        "takes all that both curves cover.",
    )


class AtRateEffect(Strict):
    """Form `at_rate`: a metric at one rate, on curves interpolated by PCHIP over log rate."""

    form: Literal["at_rate"]
    variant: str
    anchor: str | None = Field(
        None,
        description="What is subtracted, at the same rate; original images count at every rate. "
        "null takes the variant's value itself.",
    )
    metric: str
    bpp: float | Literal["lowest", "highest"] = Field(
        description="The rate, which both curves must cover, or the lowest or highest one that "
        "both cover."
    )


class PointEffect(Strict):
    """Form `point`: a metric at operating points as they were measured."""

    form: Literal["point"]
    variant: str
    anchor: str | None = Field(
        None,
        description="What is subtracted, at the same rate index, or at its only one. null takes "
        "the variant's value itself.",
    )
    metric: str = Field(description="A metric of the variant, or bpp.")
    rate_index: Annotated[int, Field(ge=0)] | Literal["lowest", "highest", "each"] = Field(
        description="Which point: its index, that of the lowest or highest rate, or each (then "
        "all of them must pass)."
    )
    anchor_rate_index: Annotated[int, Field(ge=0)] | Literal["lowest", "highest"] | None = Field(
        None, description="The anchor's point where it is another one."
    )


class CountEffect(Strict):
    """Form `count`: a number that evaluate.json states, e.g. of parameters."""

    form: Literal["count"]
    variant: str
    anchor: str | None = Field(
        None,
        description="Then the effect is the difference in percent of the anchor's number; null "
        "takes the variant's number itself.",
    )
    key: str = Field(
        description="Where it stands in evaluate.json, dots between the levels: "
        "complexity.parameters.total."
    )
    rate_index: int = Field(0, ge=0)


Effect = Annotated[BdEffect | AtRateEffect | PointEffect | CountEffect, Field(discriminator="form")]


class Statement(Strict):
    """What every claim has: the words, where they stand, and what would support them."""

    sentence: str = Field(description="The claim in plain words.")
    source: str = Field(description="Where the paper says so.")
    threshold: float = Field(0.0, description="In the unit of the effect.")
    margin: float = Field(
        0.0,
        ge=0,
        description="Practical equivalence: above and below must pass the threshold by it, "
        "not-below and not-above may miss it by it, equal must lie within it on either side.",
    )
    level: float = Field(0.95, gt=0.5, lt=1, description="Coverage of the interval that decides.")
    published: float | None = Field(
        None, description="The paper's own effect, in the same unit, where it gives one."
    )
    scales: list[str] | None = Field(
        None,
        min_length=1,
        description="Scales at which the claim says something, e.g. of networks of full size; at "
        "others it counts as not run. null: all.",
    )
    note: str = Field("", description="What a reader must know, e.g. what stands in for what.")


class Expecting(Statement):
    """A claim about the side of the threshold on which an effect lies."""

    expect: Expect = Field(description="Where the effect lies, seen from the threshold.")


class BdClaim(Expecting, BdEffect):
    """Form `bd`: the Bjøntegaard delta of a variant against an anchor lies where expected."""


class AtRateClaim(Expecting, AtRateEffect):
    """Form `at_rate`: a metric, or its difference, at one rate lies where expected."""


class PointClaim(Expecting, PointEffect):
    """Form `point`: a metric, or its difference, at measured points lies where expected."""


class CountClaim(Expecting, CountEffect):
    """Form `count`: a number of evaluate.json lies where expected."""


class OrderClaim(Statement):
    """Form `order`: each variant is better than, or not worse than, every later one."""

    form: Literal["order"]
    variants: list[str] = Field(min_length=2, description="The best one first.")
    metric: str
    quantity: BdQuantity | Literal["at_rate"] = Field(
        "bd_rate_pct", description="How each pair is compared."
    )
    bpp: float | Literal["lowest", "highest"] | None = Field(
        None, description="The rate of at_rate; null for BD."
    )
    expect: Literal["better", "not-worse"] = Field(
        "not-worse", description="Of every pair; the margin widens or narrows it."
    )


class DifferenceClaim(Expecting):
    """Form `difference`: an effect minus another one, e.g. the gain at low and at high rate."""

    form: Literal["difference"]
    first: Effect
    second: Effect = Field(description="What is subtracted; in the unit of the first.")


class TrendClaim(Expecting):
    """Form `trend`: how a metric changes along one variant as the rate grows."""

    form: Literal["trend"]
    variant: str
    metric: str
    between: Literal["neighbours", "ends"] = Field(
        "neighbours",
        description="neighbours: every step from a point to the next higher rate must pass; ends: "
        "the difference between highest and lowest rate.",
    )


Claim = Annotated[
    BdClaim | AtRateClaim | PointClaim | CountClaim | OrderClaim | DifferenceClaim | TrendClaim,
    Field(discriminator="form"),
]


def effect_unit(effect: BdEffect | AtRateEffect | PointEffect | CountEffect) -> str:
    """Return the unit of an effect: ``%``, ``points``, ``dB``, ``bpp``, or empty for a count.

    An accuracy is in percent, a difference of accuracies in percentage points.
    """
    if isinstance(effect, CountEffect):
        return "%" if effect.anchor else ""
    if isinstance(effect, BdEffect) and effect.quantity == "bd_rate_pct":
        return "%"
    unit = metric_unit(effect.metric)
    return "%" if unit == "points" and effect.anchor is None else unit


def metric_unit(metric: str) -> str:
    """Return the unit in which values of a metric differ: ``points``, ``dB`` or ``bpp``."""
    if metric == RATE:
        return RATE
    return "dB" if metric in DECIBEL else "points"


def claim_variants(claim: Claim) -> list[str]:
    """Return the variants that a claim is about, each once."""
    if isinstance(claim, OrderClaim):
        return list(dict.fromkeys(claim.variants))
    parts = (claim.first, claim.second) if isinstance(claim, DifferenceClaim) else (claim,)
    names = (name for part in parts for name in (part.variant, getattr(part, "anchor", None)))
    return list(dict.fromkeys(name for name in names if name is not None))


def claim_faults(
    where: str, study: Study, metrics: Callable[[Variant], Iterable[str]]
) -> list[str]:
    """Return the faults of a study's claims, one line each.

    Args:
        where: the file, as faults name it.
        study: with all its variants; those that a scale or a run leaves out are no faults.
        metrics: returns the metrics that a variant has.
    """
    lines = []
    for name, claim in study.claims.items():
        for key, value, problem in _faults(claim, study, metrics):
            path = ".".join(filter(None, ("claims", name, key)))
            lines.append(f"{where}: key {path!r}: {value!r} {problem}")
    return lines


Fault = tuple[str, object, str]


def _faults(
    claim: Claim, study: Study, metrics: Callable[[Variant], Iterable[str]]
) -> Iterator[Fault]:
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


def _order_faults(
    claim: OrderClaim, study: Study, metrics: Callable[[Variant], Iterable[str]]
) -> Iterator[Fault]:
    for place, name in enumerate(claim.variants):
        yield from _variant_faults(f"variants.{place}", name, claim.metric, study, metrics)
        if claim.variants.count(name) > 1:
            yield "variants", name, "stands in the order twice; name it once"
    yield from _dataset_faults("variants", claim.variants, study)
    if claim.quantity == "at_rate" and claim.bpp is None:
        yield "bpp", None, "with quantity 'at_rate'; give a rate, lowest or highest"
    if claim.quantity != "at_rate" and claim.bpp is not None:
        yield "bpp", claim.bpp, f"with quantity {claim.quantity!r}; set it to null"
    yield from _rate_faults("bpp", claim.bpp)


def _effect_faults(
    effect: BdEffect | AtRateEffect | PointEffect | CountEffect,
    study: Study,
    metrics: Callable[[Variant], Iterable[str]],
) -> Iterator[Fault]:
    metric = None if isinstance(effect, CountEffect) else effect.metric
    if isinstance(effect, PointEffect) and metric == RATE:
        metric = None
    names = [effect.variant] + ([effect.anchor] if effect.anchor is not None else [])
    for key, name in zip(("variant", "anchor"), names, strict=False):
        yield from _variant_faults(key, name, metric, study, metrics)
    # A variant differs from itself only from one operating point to another.
    elsewhere = isinstance(effect, PointEffect) and effect.anchor_rate_index not in (
        None,
        effect.rate_index,
    )
    if effect.anchor == effect.variant and not elsewhere:
        yield "anchor", effect.anchor, "is the variant itself; name another one"
    index = effect.anchor_rate_index if isinstance(effect, PointEffect) else None
    if index is not None and effect.anchor is None:
        yield "anchor_rate_index", index, "but there is no anchor"
    if not isinstance(effect, CountEffect):
        yield from _dataset_faults("anchor", names, study)
    if isinstance(effect, AtRateEffect):
        yield from _rate_faults("bpp", effect.bpp)
    if isinstance(effect, BdEffect) and effect.rates is not None:
        if not 0 < effect.rates[0] < effect.rates[1]:
            yield "rates", effect.rates, "is no range; give two rates above 0, the lower one first"
        if effect.quantity != "bd_accuracy_points":
            yield "rates", effect.rates, "needs quantity 'bd_accuracy_points'"


def _variant_faults(
    key: str,
    name: str,
    metric: str | None,
    study: Study,
    metrics: Callable[[Variant], Iterable[str]],
) -> Iterator[Fault]:
    if name not in study.variants:
        yield key, name, f"is no variant; allowed: {', '.join(sorted(study.variants))}"
        return
    known = sorted(metrics(study.variants[name]))
    if metric is not None and metric not in known:
        yield "metric", metric, f"is no metric of variant {name!r}; allowed: {', '.join(known)}"


def _dataset_faults(key: str, names: list[str], study: Study) -> Iterator[Fault]:
    """Compared variants need the same images."""
    roles = {name: study.variants[name].dataset for name in names if name in study.variants}
    if len(set(roles.values())) > 1:
        listed = ", ".join(f"{name!r} on {role!r}" for name, role in roles.items())
        yield key, names, f"are on different data sets; compare on one: {listed}"


def _rate_faults(key: str, bpp: float | str | None) -> Iterator[Fault]:
    if isinstance(bpp, int | float) and not bpp > 0:
        yield key, bpp, "is no rate; give more than 0"
