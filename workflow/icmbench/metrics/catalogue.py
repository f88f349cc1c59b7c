"""Every metric, described once: title, unit, direction, and the kind of task that it measures.

Checks, analysis, report and tracking read it here. A user's module adds its own metrics with
``METRICS.register(Metric(...))``; a metric that nobody registered counts as a fraction without a
unit. Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from icmbench.registry import Registry

#: The family of image quality, which every decoded image has whatever the task.
IMAGE_QUALITY = "image-quality"


@dataclass(frozen=True)
class Metric:
    """What a metric is and how it is shown.

    Attributes:
        name: as in the tables, e.g. ``box_map``.
        title: for people, e.g. ``Box mAP``.
        unit: of the shown number; empty without one.
        factor: from the tables' unit to the shown one.
        digits: decimals shown.
        better: whether higher or lower values are better.
        family: kind of task, e.g. ``detection`` or a name of your own. Metrics of one family share
            a page, ``task-<family>.html``. Empty: the page is named after the task.
        fraction: whether it lies in [0, 1], so that differences are in percentage points; others
            differ in their own unit.
        key: in CompressAI's JSON; empty for the name with hyphens.
        about: network and range, where the name alone does not define it.
        package: that computes it, whose version :attr:`description` has.
    """

    name: str
    title: str
    unit: str = ""
    factor: float = 1.0
    digits: int = 3
    better: Literal["higher", "lower"] = "higher"
    family: str = ""
    fraction: bool = True
    key: str = ""
    about: str = ""
    package: str = ""

    @property
    def description(self) -> str:
        """What it is and the version that computes it; empty where the name defines it."""
        if not self.package:
            return self.about
        try:
            version = metadata.version(self.package)
        except metadata.PackageNotFoundError:
            version = "not installed"
        return f"{self.about} ({self.package} {version})"

    @property
    def heading(self) -> str:
        """Title and unit, e.g. ``PSNR (dB)``."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def json_key(self) -> str:
        """The key in CompressAI's JSON: ``psnr-rgb``, ``ms-ssim-rgb``, ``box-map``."""
        return self.key or self.name.replace("_", "-")

    @property
    def sign(self) -> float:
        """1.0 where higher values are better, else -1.0."""
        return 1.0 if self.better == "higher" else -1.0

    @property
    def difference_unit(self) -> str:
        """The unit of a difference: ``points`` (percentage points), ``dB``, ``bpp``, ..."""
        return "points" if self.fraction else self.unit

    @property
    def difference_factor(self) -> float:
        """The factor from the tables' unit to that of a difference."""
        return 100.0 if self.fraction else self.factor


def _percent(name: str, title: str, family: str) -> Metric:
    return Metric(name, title, "%", 100.0, 1, family=family)


METRICS: Registry[Metric] = Registry("metric")
for _metric in (
    Metric("bpp", "Rate", "bpp", 1.0, 4, better="lower", fraction=False),
    _percent("box_map", "Box mAP", "detection"),
    _percent("box_map50", "Box mAP at IoU 0.50", "detection"),
    _percent("box_map75", "Box mAP at IoU 0.75", "detection"),
    _percent("mask_map", "Mask mAP", "instance-segmentation"),
    _percent("mask_map50", "Mask mAP at IoU 0.50", "instance-segmentation"),
    _percent("mask_map75", "Mask mAP at IoU 0.75", "instance-segmentation"),
    _percent("top1", "Top-1 accuracy", "classification"),
    _percent("top5", "Top-5 accuracy", "classification"),
    _percent("attribute_accuracy", "Attribute accuracy", "face-attributes"),
    _percent("majority_accuracy", "Accuracy of the most frequent value", "face-attributes"),
    _percent("miou", "Mean IoU", "semantic-segmentation"),
    _percent("fwiou", "Frequency-weighted IoU", "semantic-segmentation"),
    _percent("pixel_accuracy", "Pixel accuracy", "semantic-segmentation"),
    Metric("psnr", "PSNR", "dB", 1.0, 2, family=IMAGE_QUALITY, fraction=False, key="psnr-rgb"),
    Metric(
        "psnr_ycbcr",
        "PSNR YCbCr 6:1:1",
        "dB",
        1.0,
        2,
        family=IMAGE_QUALITY,
        fraction=False,
        key="psnr-ycbcr-611",
    ),
    Metric("ms_ssim", "MS-SSIM", "", 1.0, 4, family=IMAGE_QUALITY, key="ms-ssim-rgb"),
):
    METRICS.register(_metric)

_LPIPS = "LPIPS 0.1 on AlexNet with torchvision's ImageNet weights; 0 for equal images, no bound"
_DISTS = "DISTS on VGG16 with torchvision's ImageNet weights, native size; from 0 for equal images"
for _name, _title, _about in (("lpips", "LPIPS", _LPIPS), ("dists", "DISTS", _DISTS)):
    METRICS.register(
        Metric(
            _name,
            _title,
            digits=4,
            better="lower",
            family=IMAGE_QUALITY,
            fraction=False,
            about=_about,
            package="torchmetrics",
        )
    )

#: Before the name of a metric whose truth is the network's own answer on the original image.
AGREEMENT = "agreement_"
for _family in ("detection", "instance-segmentation", "classification", "semantic-segmentation"):
    for _metric in [metric for metric in METRICS if metric.family == _family]:
        _title = f"Agreement: {_metric.title.removesuffix(' accuracy')}"
        METRICS.register(_percent(AGREEMENT + _metric.name, _title, f"{_family}-agreement"))


def family_metrics(family: str) -> tuple[str, ...]:
    """Return the names of a family's metrics, the leading one first."""
    return tuple(metric.name for metric in METRICS if metric.family == family)


#: Image quality that needs the weights of a network; computed where the configuration names it.
PERCEPTUAL_METRICS = ("lpips", "dists")
#: Image quality that every decoded image has.
PIXEL_METRICS = tuple(n for n in family_metrics(IMAGE_QUALITY) if n not in PERCEPTUAL_METRICS)


def quality_metrics(perceptual: Iterable[str]) -> list[str]:
    """Return what decoded images are measured by, with the perceptual metrics that a run names."""
    return [*PIXEL_METRICS, *perceptual]


def is_image_quality(name: str) -> bool:
    """Return whether a metric compares a decoded image with the original, whatever the task."""
    return name in quality_metrics(PERCEPTUAL_METRICS)


def find_metric(name: str) -> Metric:
    """Return a metric by name; an unregistered one is shown as it is in the tables.

    ``bd_rate_pct:box_map`` and ``bd_accuracy_points:box_map`` are what a study quotes of a paper's
    tables of Bjøntegaard deltas.
    """
    kind, _, integrated = name.partition(":")
    if kind == "bd_rate_pct":
        title = f"BD-rate at equal {find_metric(integrated).title}"
        return Metric(name, title, "%", digits=2, better="lower", fraction=False)
    if kind == "bd_accuracy_points":
        of = find_metric(integrated)
        title = f"BD of {of.title} at equal rate"
        return Metric(name, title, of.difference_unit, digits=2, fraction=False)
    return METRICS[name] if name in METRICS else Metric(name, name.replace("_", " "))


def family_title(family: str) -> str:
    """Return the title of a family of metrics: ``face-attributes`` is ``Face attributes``."""
    return "Object detection" if family == "detection" else family.replace("-", " ").capitalize()
