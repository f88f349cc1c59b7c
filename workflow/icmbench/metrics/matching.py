"""Detections matched to COCO ground truth by pycocotools, in a form that can be resampled."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from icmbench.errors import UserError, unknown
from icmbench.utils.coco import CocoAnnotations, CocoResult, ImageId

IouType = Literal["bbox", "segm"]
AREAS = ("all", "small", "medium", "large")
MAX_DETECTIONS = 100

_PACKED = ("matched", "ignored")
_PLAIN = (
    "image_ids",
    "category_ids",
    "iou_thresholds",
    "category_starts",
    "scores",
    "image_index",
    "ground_truths",
)


@dataclass(frozen=True, eq=False)
class Matches:
    """Matched detections of a set of images.

    I images, K categories, T IoU thresholds, A area ranges (``AREAS``), D detections (at most 100
    for each image and category). Detections are sorted by category, then by descending score;
    equal scores are in the order of pycocotools (images in ascending id, stable).

    Attributes:
        iou_type: ``"bbox"`` or ``"segm"``.
        image_ids: (I,), ascending.
        category_ids: (K,), ascending.
        iou_thresholds: (T,), 0.5 to 0.95.
        category_starts: (K + 1,), where each category's detections begin in the (D,) arrays.
        scores: (D,).
        image_index: (D,), position in ``image_ids``.
        matched: (A, T, D), whether the detection matches an object.
        ignored: (A, T, D), whether it counts neither as true nor as false positive.
        ground_truths: (A, K, I), number of objects to be found.
    """

    iou_type: str
    image_ids: npt.NDArray[Any]
    category_ids: npt.NDArray[np.int64]
    iou_thresholds: npt.NDArray[np.float64]
    category_starts: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    image_index: npt.NDArray[np.int32]
    matched: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]
    ground_truths: npt.NDArray[np.int32]

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the content as named arrays for ``np.savez``; flags are packed to bits."""
        arrays: dict[str, npt.NDArray[Any]] = {name: getattr(self, name) for name in _PLAIN}
        arrays |= {name: np.packbits(getattr(self, name), axis=-1) for name in _PACKED}
        return arrays | {"iou_type": np.array(self.iou_type)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> Matches:
        """Rebuild from :meth:`to_arrays`."""
        count = arrays["scores"].size
        content = {name: arrays[name] for name in _PLAIN}
        for name in _PACKED:
            content[name] = np.unpackbits(arrays[name], axis=-1, count=count).astype(np.bool_)
        return cls(iou_type=str(arrays["iou_type"]), **content)


def match_detections(
    annotations: CocoAnnotations,
    detections: Sequence[CocoResult],
    iou_type: IouType,
    image_ids: Sequence[ImageId] | None = None,
) -> Matches:
    """Match detections to ground truth with ``pycocotools.COCOeval.evaluate``.

    Args:
        annotations: a COCO instances file, parsed: ``images``, ``annotations``, ``categories``.
        detections: COCO results: ``image_id``, ``category_id``, ``score`` and ``bbox``
            ([x, y, width, height] in pixels) or ``segmentation`` (RLE). Categories that
            ``annotations`` does not list are left out, as pycocotools does.
        iou_type: ``"bbox"`` or ``"segm"``.
        image_ids: the images to evaluate; None: all of ``annotations``.

    Raises:
        UserError: for an image that ``annotations`` does not list, an unknown ``iou_type``, or
            detections without the geometry that ``iou_type`` needs.

    >>> annotations = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": [
    ...     {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50], "area": 2500}]}
    >>> found = [{"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [0, 0, 50, 40]}]
    >>> matches = match_detections(annotations, found, "bbox")
    >>> matches.matched[0, :, 0].sum()  # at 7 of 10 IoU thresholds, 0.50 to 0.80
    7
    """
    evaluation = _evaluate(annotations, detections, iou_type, image_ids)
    ids = list(evaluation.params.imgIds)
    categories = list(evaluation.params.catIds)
    thresholds = np.asarray(evaluation.params.iouThrs, dtype=np.float64)
    # evalImgs is a flat list: category, then area range, then image; None for empty cells.
    cells = np.empty((len(categories), len(AREAS), len(ids)), dtype=object)
    for index, cell in enumerate(evaluation.evalImgs):
        cells.ravel()[index] = cell

    ground_truths = np.zeros((len(AREAS), len(categories), len(ids)), dtype=np.int32)
    scores: list[npt.NDArray[np.float64]] = []
    image_index: list[npt.NDArray[np.int32]] = []
    flags: dict[str, list[npt.NDArray[np.bool_]]] = {name: [] for name in _PACKED}
    starts = [0]
    for k in range(len(categories)):
        present = [i for i in range(len(ids)) if cells[k, 0, i] is not None]
        for a in range(len(AREAS)):
            for i in present:
                ground_truths[a, k, i] = np.count_nonzero(cells[k, a, i]["gtIgnore"] == 0)
        counts = [len(cells[k, 0, i]["dtScores"]) for i in present]
        unsorted = np.array([s for i in present for s in cells[k, 0, i]["dtScores"]], np.float64)
        order = np.argsort(-unsorted, kind="mergesort")
        scores.append(unsorted[order])
        image_index.append(np.repeat(np.array(present, np.int32), counts)[order])
        for name, key in (("matched", "dtMatches"), ("ignored", "dtIgnore")):
            by_area = np.zeros((len(AREAS), thresholds.size, unsorted.size), dtype=np.bool_)
            if present:
                for a in range(len(AREAS)):
                    by_area[a] = np.concatenate([cells[k, a, i][key] for i in present], 1) != 0
            flags[name].append(by_area[:, :, order])
        starts.append(starts[-1] + unsorted.size)
    return Matches(
        iou_type=iou_type,
        image_ids=np.array(ids),
        category_ids=np.array(categories, np.int64),
        iou_thresholds=thresholds,
        category_starts=np.array(starts, np.int64),
        scores=np.concatenate([np.empty(0), *scores]),
        image_index=np.concatenate([np.empty(0, np.int32), *image_index]),
        matched=np.concatenate(flags["matched"], axis=2),
        ignored=np.concatenate(flags["ignored"], axis=2),
        ground_truths=ground_truths,
    )


def coco_stats(
    annotations: CocoAnnotations, detections: Sequence[CocoResult], iou_type: IouType
) -> list[float]:
    """Return the 12 numbers of ``COCOeval.summarize``, by pycocotools alone.

    AP, AP50, AP75, AP small, medium, large; AR for 1, 10, 100 detections, AR small, medium, large;
    each in [0, 1], or -1 without ground truth. Arguments as :func:`match_detections`.
    """
    evaluation = _evaluate(annotations, detections, iou_type, None)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def _evaluate(
    annotations: CocoAnnotations,
    detections: Sequence[CocoResult],
    iou_type: IouType,
    image_ids: Sequence[ImageId] | None,
) -> Any:
    """Run ``COCOeval.evaluate`` on copies, because pycocotools changes its arguments."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if iou_type not in get_args(IouType):
        raise UserError(unknown("iou_type", iou_type, get_args(IouType)))
    if not annotations["categories"]:
        raise UserError("annotations: 'categories' is empty; list the categories to evaluate")
    known = {image["id"] for image in annotations["images"]}
    wanted = known if image_ids is None else set(image_ids)
    _require_known(wanted, known, "image_ids")
    _require_known((d["image_id"] for d in detections), known, "detections")

    # Ids are renumbered from 1, because id 0 means "not matched" in pycocotools.
    objects = [
        {"iscrowd": 0, **annotation, "id": number}
        for number, annotation in enumerate(annotations["annotations"], start=1)
        if annotation["image_id"] in wanted
    ]
    geometry, other = ("bbox", "segmentation") if iou_type == "bbox" else ("segmentation", "bbox")
    # Without the other geometry, because pycocotools would compute a mask's area from its box.
    results = [
        {key: value for key, value in detection.items() if key != other}
        for detection in detections
        if detection["image_id"] in wanted
    ]
    for result in results:
        if geometry not in result:
            raise UserError(
                f"detections: no {geometry!r} in a detection of image {result['image_id']}; "
                f"iou_type {iou_type!r} needs it in every one"
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [image for image in annotations["images"] if image["id"] in wanted],
            "categories": annotations["categories"],
            "annotations": objects,
        }
        truth.createIndex()
        if results:
            found = truth.loadRes(results)
        else:
            found = COCO()
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, iou_type)
        evaluation.evaluate()
    return evaluation


def _require_known(ids: Any, known: set[Any], what: str) -> None:
    unknown = sorted(set(ids) - known, key=str)
    if unknown:
        raise UserError(
            f"{what}: image {unknown[0]!r} ({len(unknown)} in all) is not in the annotations; "
            "use the annotation file of the same data set and split"
        )
