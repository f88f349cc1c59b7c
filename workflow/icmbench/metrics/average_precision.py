"""COCO average precision under any number of copies of each image, for a bootstrap over images.

pycocotools matches the detections of each image once (:mod:`icmbench.metrics.matching`); here the
matches are accumulated to AP. With one copy of each image the result is that of
``COCOeval.accumulate`` and ``summarize``; with integer weights it is that of an annotation file
that contains each image as many times.

Tied scores: copies of an image are adjacent in the order of images, and copies of one detection are
adjacent to each other. A file with copied images differs from this only for a tie between two
detections of one image and category, one right and one wrong.

Only true positives are visited: recall rises nowhere else, and COCO's precision at a recall is the
best precision at that or a higher recall, which is reached at a true positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from icmbench.metrics.matching import AREAS, IouType, Matches, coco_stats, match_detections

__all__ = [
    "AREAS",
    "IouType",
    "Matches",
    "average_precision",
    "average_precision_by_category",
    "average_precision_resampled",
    "coco_stats",
    "match_detections",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# The recall thresholds of pycocotools, bit for bit.
_RECALLS = np.linspace(0.0, 1.0, 101, endpoint=True)
# Resamples accumulated together: enough for NumPy to run at full speed, few enough for the working
# arrays to stay in the cache.
_BATCH = 32


def average_precision(matches: Matches, weights: npt.ArrayLike | None = None) -> dict[str, float]:
    """Return COCO average precisions in [0, 1]; NaN (pycocotools: -1) without ground truth.

    Args:
        matches: from :func:`match_detections`.
        weights: (I,) non-negative integers, copies of each of ``matches.image_ids`` in the sample;
            None: one of each.

    Returns:
        ``map`` (IoU 0.50 to 0.95), ``map50``, ``map75``, and ``map_small``, ``map_medium``,
        ``map_large`` (objects below 32², up to 96², above 96² pixels).

    One of two objects is found, with a box that overlaps it by 80 %:

    >>> objects = [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 50, 50], "area": 2500}
    ...            for i in (1, 2)]
    >>> annotations = {"images": [{"id": 1}, {"id": 2}], "categories": [{"id": 1}],
    ...                "annotations": objects}
    >>> found = [{"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [0, 0, 50, 40]}]
    >>> matches = match_detections(annotations, found, "bbox")
    >>> values = average_precision(matches)
    >>> {name: round(values[name], 3) for name in ("map", "map50", "map75", "map_small")}
    {'map': 0.353, 'map50': 0.505, 'map75': 0.505, 'map_small': nan}
    """
    images = matches.image_ids.size
    copies = np.ones(images, np.int64) if weights is None else np.asarray(weights)
    resampled = average_precision_resampled(matches, copies[None, :], areas=AREAS)
    return {name: float(values[0]) for name, values in resampled.items()}


def average_precision_resampled(
    matches: Matches, weights: npt.NDArray[np.integer], areas: Sequence[str] = ("all",)
) -> dict[str, Floats]:
    """Return the values of :func:`average_precision` for R samples of the images.

    Args:
        matches: from :func:`match_detections`.
        weights: (R, I) non-negative integers, copies of each image in each sample.
        areas: area ranges to accumulate, of ``AREAS``.

    Returns:
        name to array of shape (R,).

    Raises:
        ValueError: for weights that are not non-negative integers of shape (R, I).

    >>> detection = {"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [0, 0, 50, 50]}
    >>> objects = [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 50, 50], "area": 2500}
    ...            for i in (1, 2)]
    >>> annotations = {"images": [{"id": 1}, {"id": 2}], "categories": [{"id": 1}],
    ...                "annotations": objects}
    >>> matches = match_detections(annotations, [detection], "bbox")
    >>> copies = np.array([[2, 0], [0, 2]])  # only the first image, only the second
    >>> average_precision_resampled(matches, copies)["map"].tolist()
    [1.0, 0.0]
    """
    if weights.ndim != 2 or weights.shape[1] != matches.image_ids.size:
        raise ValueError(f"weights: shape {weights.shape}, not (R, {matches.image_ids.size})")
    if not np.issubdtype(weights.dtype, np.integer) or (weights.size and weights.min() < 0):
        raise ValueError("weights: not non-negative integers (copies of each image)")
    values: dict[str, Floats] = {}
    for area in areas:
        plan = _plan(matches, area)
        batches = [
            _mean_by_threshold(plan, weights[start : start + _BATCH])
            for start in range(0, weights.shape[0], _BATCH)
        ]
        precision = np.concatenate([np.empty((0, matches.iou_thresholds.size)), *batches])
        values["map" if area == "all" else f"map_{area}"] = precision.mean(axis=1)
        if area == "all":
            for name, threshold in (("map50", 0.5), ("map75", 0.75)):
                at = int(np.argmin(np.abs(matches.iou_thresholds - threshold)))
                values[name] = precision[:, at]
    return values


def average_precision_by_category(matches: Matches) -> dict[int, tuple[float, int]]:
    """Return AP (IoU 0.50 to 0.95, in [0, 1]) and number of objects by category id.

    Categories without objects are left out.
    """
    copies = np.ones((1, matches.image_ids.size), np.int64)
    per_category, objects = _by_category(_plan(matches, "all"), copies)
    found = zip(matches.category_ids, per_category[..., 0].mean(1), objects[:, 0], strict=True)
    return {int(own): (float(value), int(count)) for own, value, count in found if count}


@dataclass(frozen=True)
class _Plan:
    """The part that does not depend on the weights, for one area range.

    A segment is one category at one IoU threshold (category-major, K * T of them). Arrays over true
    positives (P,) and ignored detections (Q,) are sorted by segment, then by descending score.
    """

    categories: int
    thresholds: int
    image_index: npt.NDArray[np.int32]  # (D,)
    ground_truths: Ints  # (K, I)
    segment: Ints  # (P,)
    category: Ints  # (P,)
    image: npt.NDArray[np.int32]  # (P,)
    rank_end: Ints  # (P,) the detection's position in (D,), plus 1
    rank_start: Ints  # (P,) where its category begins in (D,)
    first: Ints  # (P,) where its segment begins in (P,)
    segment_bounds: list[tuple[int, int]]  # non-empty segments in (P,)
    ignored_image: npt.NDArray[np.int32]  # (Q,)
    ignored_before: Ints  # (P,) how many of (Q,) precede the true positive
    ignored_start: Ints  # (P,) where its segment begins in (Q,)


_PLANS: WeakKeyDictionary[Matches, dict[str, _Plan]] = WeakKeyDictionary()


def _plan(matches: Matches, area: str) -> _Plan:
    plans = _PLANS.setdefault(matches, {})
    if area not in plans:
        plans[area] = _make_plan(matches, AREAS.index(area))
    return plans[area]


def _make_plan(matches: Matches, area: int) -> _Plan:
    thresholds, detections = matches.matched.shape[1:]
    categories = matches.category_ids.size
    category_of = np.repeat(np.arange(categories), np.diff(matches.category_starts))

    def by_segment(flags: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
        threshold, rank = np.nonzero(flags)
        segment = category_of[rank] * thresholds + threshold
        order = np.lexsort((rank, segment))
        return segment[order], rank[order]

    ignored = matches.ignored[area]
    segment, rank = by_segment(matches.matched[area] & ~ignored)
    ignored_segment, ignored_rank = by_segment(ignored)
    starts = np.searchsorted(segment, np.arange(categories * thresholds + 1))
    ignored_starts = np.searchsorted(ignored_segment, np.arange(categories * thresholds + 1))
    bounds = [(int(a), int(b)) for a, b in pairwise(starts) if b > a]
    return _Plan(
        categories=categories,
        thresholds=thresholds,
        image_index=matches.image_index,
        ground_truths=matches.ground_truths[area].astype(np.int64),
        segment=segment,
        category=category_of[rank],
        image=matches.image_index[rank],
        rank_end=rank + 1,
        rank_start=matches.category_starts[category_of[rank]],
        first=starts[segment],
        segment_bounds=bounds,
        ignored_image=matches.image_index[ignored_rank],
        ignored_before=np.searchsorted(
            ignored_segment * detections + ignored_rank, segment * detections + rank
        ),
        ignored_start=ignored_starts[segment],
    )


def _running_count(weights: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return sums over the first 0, 1, ..., n rows, shape (n + 1, B)."""
    total = np.zeros((weights.shape[0] + 1, weights.shape[1]), np.int32)
    np.cumsum(weights, axis=0, out=total[1:])
    return total


def _thresholds_reached(recall: Floats) -> npt.NDArray[np.intp]:
    """Return ``np.searchsorted(_RECALLS, recall, side="right")``, three times faster.

    recall is a ratio of integers below 10^6, so 100 times it is either a whole number, up to
    rounding, or more than 10^-6 away from one. The comparison then decides whole numbers in
    floating point (0.07 does not reach pycocotools' 0.07000000000000001).
    """
    below = (recall * 100 + 1e-7).astype(np.intp)
    below += _RECALLS.take(below) <= recall
    return below


def _mean_by_threshold(plan: _Plan, weights: npt.NDArray[np.integer]) -> Floats:
    """Return the mean AP over categories at each IoU threshold, (B, T); NaN without objects."""
    per_category, objects = _by_category(plan, weights)
    present = (objects > 0).sum(axis=0)  # categories without objects do not count
    total: Floats = per_category.sum(axis=0)
    mean = np.divide(total, present, out=np.full(total.shape, np.nan), where=present > 0)
    return mean.T


def _by_category(plan: _Plan, weights: npt.NDArray[np.integer]) -> tuple[Floats, Ints]:
    """Return AP of each category and IoU threshold, (K, T, B), and the objects, (K, B)."""
    copies = np.ascontiguousarray(weights.T, dtype=np.int32)  # (I, B): rows are gathered below
    objects = plan.ground_truths @ copies  # (K, B)
    hits = _running_count(copies.take(plan.image, axis=0))
    hits = hits[1:] - hits.take(plan.first, axis=0)
    counted = _running_count(copies.take(plan.image_index, axis=0))
    counted = counted.take(plan.rank_end, axis=0) - counted.take(plan.rank_start, axis=0)
    if plan.ignored_image.size:
        skipped = _running_count(copies.take(plan.ignored_image, axis=0))
        counted -= skipped[plan.ignored_before] - skipped[plan.ignored_start]

    precision = hits / (counted + np.spacing(1))
    recall = hits / np.maximum(objects, 1)[plan.category]
    # The number of recall thresholds reached so far; each is credited with the best precision
    # at or after the true positive that reaches it.
    reached = _thresholds_reached(recall)
    newly_reached = reached.copy()
    newly_reached[1:] -= reached[:-1]
    credited = np.zeros((plan.categories * plan.thresholds, copies.shape[1]))
    for start, stop in plan.segment_bounds:
        newly_reached[start] = reached[start]
        best = np.maximum.accumulate(precision[start:stop][::-1], axis=0)[::-1]
        np.einsum("pb,pb->b", best, newly_reached[start:stop], out=credited[plan.segment[start]])
    return credited.reshape(plan.categories, plan.thresholds, -1) / _RECALLS.size, objects
