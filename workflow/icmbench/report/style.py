"""How metrics, numbers and variants look: the same everywhere on the page and in the figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from icmbench.registry import CODECS

# Mid-tones that keep a contrast of 3:1 against white and against the page's dark ground. The first
# four follow Okabe and Ito; the others are chosen for distance under protanopia, deuteranopia and
# tritanopia (Machado et al., 2009), and the shapes repeat what the colours say.
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#00946B",
    "#CC77AA",
    "#7733FF",
    "#995544",
    "#998844",
    "#FF4477",
    "#FF22DD",
)
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

# Published curves beside no variant, and reference lines.
GREY = "#767676"

# Lines, as lengths of dashes and gaps in pixels: one pattern for each turn through the colours, so
# that variants of equal colour differ in more than the shape. Short dashes are published curves.
Dash = tuple[int, ...]
DASHES: tuple[Dash, ...] = ((), (10, 3), (10, 3, 2, 3), (6, 2), (14, 3, 6, 3))
PUBLISHED_DASHES: tuple[Dash, ...] = ((3, 3), (1, 3))


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        name: as in the tables, e.g. ``box_map``.
        title: for people, e.g. ``Box mAP``.
        unit: of the shown number; empty without one.
        factor: from the tables' unit to the shown one.
        digits: decimals shown.
    """

    name: str
    title: str
    unit: str = ""
    factor: float = 1.0
    digits: int = 3

    @property
    def heading(self) -> str:
        """Return title and unit, e.g. ``PSNR (dB)``."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def show(self, value: float | None) -> str:
        """Return a value of the tables as text, in the shown unit but without its name."""
        return number(None if value is None else value * self.factor, self.digits)

    def show_interval(self, low: float | None, high: float | None) -> str:
        """Return an interval as text, or nothing where it is undefined."""
        return interval(_scaled(low, self.factor), _scaled(high, self.factor), self.digits)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("bpp", "Rate", "bpp", 1.0, 4),
        Metric("box_map", "Box mAP", "%", 100.0, 1),
        Metric("box_map50", "Box mAP at IoU 0.50", "%", 100.0, 1),
        Metric("box_map75", "Box mAP at IoU 0.75", "%", 100.0, 1),
        Metric("mask_map", "Mask mAP", "%", 100.0, 1),
        Metric("mask_map50", "Mask mAP at IoU 0.50", "%", 100.0, 1),
        Metric("mask_map75", "Mask mAP at IoU 0.75", "%", 100.0, 1),
        Metric("top1", "Top-1 accuracy", "%", 100.0, 1),
        Metric("top5", "Top-5 accuracy", "%", 100.0, 1),
        Metric("attribute_accuracy", "Attribute accuracy", "%", 100.0, 1),
        Metric("majority_accuracy", "Accuracy of the most frequent value", "%", 100.0, 1),
        Metric("miou", "Mean IoU", "%", 100.0, 1),
        Metric("fwiou", "Frequency-weighted IoU", "%", 100.0, 1),
        Metric("pixel_accuracy", "Pixel accuracy", "%", 100.0, 1),
        Metric("psnr", "PSNR", "dB", 1.0, 2),
        Metric("psnr_ycbcr", "PSNR YCbCr 6:1:1", "dB", 1.0, 2),
        Metric("ms_ssim", "MS-SSIM", "", 1.0, 4),
    )
}


def metric_style(name: str) -> Metric:
    """Return how a metric is shown; one that is not listed is shown as it stands.

    ``bd_rate_pct:box_map`` and the like are what a study quotes of a paper's BD tables.
    """
    kind, _, integrated = name.partition(":")
    if kind == "bd_rate_pct":
        return Metric(name, f"BD-rate at equal {metric_style(integrated).title}", "%", 1.0, 2)
    if kind == "bd_accuracy_points":
        metric = metric_style(integrated)
        unit = "dB" if metric.unit == "dB" else "points"
        return Metric(name, f"BD of {metric.title} at equal rate", unit, 1.0, 2)
    return METRICS.get(name) or Metric(name, name.replace("_", " "))


@dataclass(frozen=True)
class VariantStyle:
    """How a variant is shown.

    Attributes:
        study: name of its study.
        name: key of the variant in its study.
        label: unique on its page.
        colour: of lines and symbols, ``#rrggbb``.
        shape: SVG path of its symbol in [-1, 1] x [-1, 1].
        dash: of its line; solid if empty.
        is_curve: whether it has rates of its own; original pixels are a reference line instead.
    """

    study: str
    name: str
    label: str
    colour: str
    shape: str
    dash: Dash
    is_curve: bool


def variant_styles(plan: dict[str, Any], study_name: str) -> dict[str, VariantStyle]:
    """Return the style of each variant of a study of ``plan.json``, by variant.

    The order is that of the operating points, which is the study file's; mappings are sorted.
    """
    study = plan["studies"][study_name]
    order = dict.fromkeys(p["variant"] for p in plan["points"] if p["study"] == study_name)
    labels = Counter(variant["label"] for variant in study["variants"].values())
    styles: dict[str, VariantStyle] = {}
    place = 0
    for name in order:
        variant = study["variants"][name]
        unique = labels[variant["label"]] == 1
        label = variant["label"] if unique else f"{variant['label']} ({name})"
        is_curve = CODECS[variant["codec"]].kind != "none"
        colour, shape = COLOURS[place % len(COLOURS)], SHAPES[place % len(SHAPES)]
        dash = DASHES[place // len(COLOURS) % len(DASHES)]
        styles[name] = VariantStyle(study_name, name, label, colour, shape, dash, is_curve)
        # A variant that is in no plot takes no colour from the others.
        place += is_curve and variant["evaluate"]
    return styles


def joint_styles(
    plan: dict[str, Any], variants: Iterable[tuple[str, str]]
) -> dict[str, VariantStyle]:
    """Return the styles of variants of several studies, by ``study/variant``.

    Colours and shapes are those of the study's own page; the line tells the study.

    Args:
        plan: content of ``plan.json``.
        variants: study and name of each; studies keep this order, variants that of their study.
    """
    wanted: dict[str, set[str]] = {}
    for study, name in variants:
        wanted.setdefault(study, set()).add(name)
    several = len(wanted) > 1
    styles: dict[str, VariantStyle] = {}
    for place, study in enumerate(wanted):
        for name, style in variant_styles(plan, study).items():
            if name in wanted[study]:
                joint = style
                if several:
                    label, dash = f"{study}: {style.label}", DASHES[place % len(DASHES)]
                    joint = replace(style, label=label, dash=dash)
                styles[f"{study}/{name}"] = joint
    return styles


def number(value: float | None, digits: int) -> str:
    """Return a number with fixed decimals, a dash where there is none."""
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else "\N{MINUS SIGN}\N{INFINITY}"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        return text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def signed(value: float, digits: int, unit: str) -> str:
    """Return a number with its sign and unit, a dash where there is none."""
    if math.isnan(value):
        return number(value, digits)
    return ("+" if round(value, digits) > 0 else "") + number(value, digits) + unit


def interval(low: float | None, high: float | None, digits: int) -> str:
    """Return ``[low, high]``, or nothing where a bound is missing."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def plain(value: float | int | str | None) -> str:
    """Return a setting as a person would write it: 0.0001, 2e-05, 100000; a dash for none."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
