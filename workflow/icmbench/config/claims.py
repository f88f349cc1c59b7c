"""Claims of a paper, written as tests over curves.

Every claim expects a number, its effect, on one side of a threshold. Differences are always
``variant`` minus ``anchor``, in percentage points (metrics in [0, 1]) or dB; a BD-rate is in
percent of the anchor's rate, negative where the variant needs fewer bits.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from icmbench.metrics.catalogue import find_metric
from icmbench.utils.models import Strict

Expect = Literal["above", "below", "not-below", "not-above", "equal"]
BdQuantity = Literal["bd_rate_pct", "bd_accuracy_points"]

#: The rate itself, which every operating point has beside its metrics.
RATE = "bpp"


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
        description="Lowest and highest rate (bpp) that bd_accuracy_points integrates over, of "
        "which both curves must cover half; null takes all that both curves cover.",
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
    bpp: float = Field(gt=0, description="The rate, which both curves must cover.")


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
        description="Key in evaluate.json, dots between the levels: complexity.parameters.total."
    )
    rate_index: int = Field(0, ge=0)


Effect = Annotated[BdEffect | AtRateEffect | PointEffect | CountEffect, Field(discriminator="form")]


class Statement(Strict):
    """What every claim has: the words, where they stand, and what would support them."""

    sentence: str = Field(description="The claim in plain words.")
    source: str = Field(description="Section, figure or slide of the paper; ours if no paper.")
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
        description="Scales at which the claim is decided, e.g. with full-size networks; at "
        "others it counts as not run. null: all.",
    )
    preconditions: list[str] = Field(
        [],
        description="Names under preconditions of the study: unless all of them are supported, "
        "the claim is not decided.",
    )
    note: str = Field("", description="Notes for the reader, e.g. which codec replaces another.")


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
    bpp: Annotated[float, Field(gt=0)] | None = Field(
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


def effect_unit(effect: Effect) -> str:
    """Return the unit of an effect: ``%``, ``points``, ``dB``, ``bpp``, or empty for a count.

    An accuracy is in percent, a difference of accuracies in percentage points.
    """
    if isinstance(effect, CountEffect):
        return "%" if effect.anchor else ""
    if isinstance(effect, BdEffect) and effect.quantity == "bd_rate_pct":
        return "%"
    unit = find_metric(effect.metric).difference_unit
    return "%" if unit == "points" and effect.anchor is None else unit


def claim_variants(claim: Claim) -> list[str]:
    """Return the variants that a claim is about, each once."""
    if isinstance(claim, OrderClaim):
        return list(dict.fromkeys(claim.variants))
    parts = (claim.first, claim.second) if isinstance(claim, DifferenceClaim) else (claim,)
    names = (name for part in parts for name in (part.variant, getattr(part, "anchor", None)))
    return list(dict.fromkeys(name for name in names if name is not None))
