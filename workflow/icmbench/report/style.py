"""How variants and numbers are shown, the same on pages and in figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

from icmbench.config.summary import PlanSummary
from icmbench.metrics.catalogue import Metric
from icmbench.registry import CODECS

DASH = "\N{EN DASH}"  # stands for a number that is missing

# Mid-tones that keep a contrast of 3:1 against white and against the page's dark ground. The first
# four follow Okabe and Ito; the others are chosen for distance under protanopia, deuteranopia and
# tritanopia (Machado et al., 2009), and the shapes repeat the information of the colours.
COLOURS = (
    "#0072B2", "#D55E00", "#00946B", "#CC77AA", "#7733FF", "#995544", "#998844", "#FF4477",
    "#FF22DD",
)  # fmt: skip
# SVG paths in [-1, 1] x [-1, 1]; the diamond is left to published numbers.
SHAPES = (
    "M-.9,0A.9,.9 0 1,1 .9,0A.9,.9 0 1,1 -.9,0Z",
    "M-.8,-.8H.8V.8H-.8Z",
    "M0,-1L1,.8H-1Z",
    "M-.35,-1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z",
    "M0,1L1,-.8H-1Z",
    "M1,0L-.8,1V-1Z",
    "M-1,0L.8,1V-1Z",
)
DIAMOND = "M0,-1L1,0L0,1L-1,0Z"
BAR = "M-1,-.2H1V.2H-1Z"  # of reference lines

# Published curves of no variant.
GREY = "#767676"

# Lines, as lengths of dashes and gaps in pixels: one pattern for each turn through the colours, so
# that variants of equal colour differ in more than the shape. Published curves have short dashes.
Dash = tuple[int, ...]
DASHES: tuple[Dash, ...] = ((), (10, 3), (10, 3, 2, 3), (6, 2), (14, 3, 6, 3))
PUBLISHED_DASHES: tuple[Dash, ...] = ((3, 3), (1, 3))


@dataclass(frozen=True)
class Style:
    """How a variant or a published curve is shown."""

    label: str  # unique on its page
    colour: str
    shape: str = DIAMOND  # SVG path of its symbol in [-1, 1] x [-1, 1]
    dash: Dash = ()  # of its line; solid if empty
    study: str = ""  # of the variant; empty for published curves
    name: str = ""  # key of the variant in its study
    is_curve: bool = True  # whether it has rates; original pixels are a reference line instead
    hollow: bool = False  # whether it is published: small outlined symbols and a thin line


#: Styles of variants by name, or by ``study/name`` if they are of several studies.
Styles = dict[str, Style]


def variant_styles(plan: PlanSummary, study: str) -> Styles:
    """Return the style of each variant of a study, by variant, in the order of the study file."""
    variants = plan.studies[study].variants
    labels = Counter(variant.label for variant in variants.values())
    styles: Styles = {}
    place = 0
    # ``plan.json`` keeps the order of points, while its mappings are sorted.
    for name in dict.fromkeys(point.variant for point in plan.points if point.study == study):
        variant = variants[name]
        label = variant.label if labels[variant.label] == 1 else f"{variant.label} ({name})"
        is_curve = CODECS[variant.codec].kind != "none"
        colour, shape = COLOURS[place % len(COLOURS)], SHAPES[place % len(SHAPES)]
        shape = shape if is_curve else BAR
        dash = DASHES[place // len(COLOURS) % len(DASHES)]
        styles[name] = Style(label, colour, shape, dash, study, name, is_curve)
        # A variant without a plot takes no colour from the others.
        place += variant.evaluate
    return styles


def joint_styles(plan: PlanSummary, variants: Collection[tuple[str, str]]) -> Styles:
    """Return the styles of variants of several studies, by ``study/variant``.

    They look as on the study's own page. ``variants`` are study and name of each; studies keep this
    order, variants that of their study.
    """
    studies = dict.fromkeys(study for study, _ in variants)
    styles: Styles = {}
    for study in studies:
        for name, style in variant_styles(plan, study).items():
            if (study, name) in variants:
                label = f"{study}: {style.label}" if len(studies) > 1 else style.label
                styles[f"{study}/{name}"] = replace(style, label=label)
    return styles


def number(value: float | None, digits: int) -> str:
    """Return a number with fixed decimals; a dash if there is none."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else "\N{MINUS SIGN}\N{INFINITY}"
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", "\N{MINUS SIGN}")


def signed(value: float, digits: int, unit: str) -> str:
    """Return a number with its sign and unit; a dash if there is none."""
    if math.isnan(value):
        return DASH
    return ("+" if round(value, digits) > 0 else "") + number(value, digits) + unit


def interval(low: float | None, high: float | None, digits: int) -> str:
    """Return ``[low, high]``; nothing if a bound is missing."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def shown(metric: Metric, value: float | None) -> str:
    """Return a value of the tables in the metric's display unit, without the unit's name."""
    return number(None if value is None else value * metric.factor, metric.digits)


def shown_interval(metric: Metric, low: float, high: float) -> str:
    """Return an interval of the tables in the metric's display unit."""
    return interval(low * metric.factor, high * metric.factor, metric.digits)


def plain(value: float | int | str | None) -> str:
    """Return a setting in its usual notation: 0.0001, 2e-05, 100000; a dash for None."""
    if value is None:
        return DASH
    return f"{value:.10g}" if isinstance(value, float) else str(value)
