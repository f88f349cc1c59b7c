"""Decoded images at about equal rate, with the detections and parsing maps of the task network."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icmbench.config.study import VisualComparison
from icmbench.config.summary import PointSummary
from icmbench.config.validate import task_entry
from icmbench.data.dataset import Split
from icmbench.data.images import read_image
from icmbench.errors import CannotWrite, UserError
from icmbench.evaluate.coded import Archives, open_decoded
from icmbench.metrics.catalogue import PIXEL_METRICS, find_metric
from icmbench.report.drawing import Box, annotated, coloured_map, page_uri, png_bytes
from icmbench.report.outputs import IMAGES
from icmbench.report.results import Results
from icmbench.report.style import Style, Styles, number, shown
from icmbench.utils.files import read_json, reading, write_bytes

MIN_SCORE = 0.5
_UNREADABLE = (OSError, ValueError, KeyError, UserError)


@dataclass(frozen=True)
class Tile:
    """One image on the page: its address (a data URI), its texts and its lines of numbers."""

    uri: str
    title: str
    alt: str
    lines: list[str]


@dataclass(frozen=True)
class Gallery:
    """One visual comparison of a study.

    Attributes:
        title: of the comparison.
        bpp: rate at which the variants are shown.
        rows: label and tiles; one row for each image, one more for its parsing maps.
        missing: what cannot be shown, in sentences.
        boxes: whether the images have objects to be detected.
        maps: classes that the colours of parsing maps stand for.
    """

    title: str
    bpp: float
    rows: list[tuple[str, list[Tile]]]
    missing: list[str]
    boxes: bool = False
    maps: tuple[str, ...] = ()


@dataclass(eq=False)
class GalleryMaker:
    """Makes the galleries of a report.

    Attributes:
        results: the results folder.
        files: images written so far.
    """

    results: Results
    files: list[Path] = field(default_factory=list)

    def galleries(self, study: str, styles: Styles) -> list[Gallery]:
        """Return the galleries of a study; writes every image to ``report/images`` as well."""
        comparisons = self.results.studies[study].visual_comparisons
        return [
            self._gallery(f"{study}-{place}", study, comparison, styles)
            for place, comparison in enumerate(comparisons)
        ]

    def _gallery(
        self, name: str, study: str, comparison: VisualComparison, styles: Styles
    ) -> Gallery:
        gallery = Gallery(comparison.title, comparison.bpp, [], [])
        shown_points: list[_ShownPoint] = []
        for variant in comparison.variants:
            label = styles[variant].label
            point = nearest_point(self.results, study, variant, comparison.bpp)
            if point is None:
                gallery.missing.append(f"{label} has no measured operating point.")
                continue
            try:
                one = _ShownPoint(self.results, point, styles[variant])
            except _UNREADABLE as error:
                gallery.missing.append(f"{label} cannot be shown: {error}.")
                continue
            if one.has_images or one.has_maps:
                shown_points.append(one)
            else:
                gallery.missing.append(f"{label}: its task reads features; no image is decoded.")
        if not shown_points:
            return gallery
        try:
            images = TestImages(self.results, shown_points[0].point.dataset)
        except _UNREADABLE as error:
            gallery.missing.append(f"The original images cannot be read: {error}.")
            return gallery
        mapped = [one for one in shown_points if one.has_maps]
        maps = images.parsing_names if mapped else ()
        gallery = replace(gallery, boxes=images.annotated, maps=maps)
        for image_id in shown_points[0].image_ids(images)[: comparison.images]:
            stem = f"{name}-{image_id}"
            try:
                tiles = [self._original(images, image_id, stem)]
                tiles += [
                    self._decoded(one, images, image_id, f"{stem}-{place}")
                    for place, one in enumerate(shown_points, 1)
                    if one.has_images
                ]
                parsing = self._maps(mapped, images, image_id, f"{stem}-map")
            except CannotWrite:
                raise  # not a fault of the image
            except _UNREADABLE as error:
                gallery.missing.append(f"Image {image_id} cannot be shown: {error}.")
                continue
            gallery.rows.append((image_id, tiles))
            if parsing:
                gallery.rows.append((f"{image_id}, parsing maps", parsing))
        return gallery

    def _original(self, images: TestImages, image_id: str, stem: str) -> Tile:
        boxes = images.boxes(image_id)
        lines = ["24 bpp", *(["boxes: ground truth"] if boxes else [])]
        drawn = annotated(images.image(image_id), boxes, images.size(image_id))
        return self._saved(drawn, "Original", _words(boxes), lines, stem)

    def _decoded(self, one: _ShownPoint, images: TestImages, image_id: str, stem: str) -> Tile:
        found = [box for box in one.boxes(image_id, images) if (box.score or 0) >= MIN_SCORE]
        drawn = annotated(one.image(image_id, images), found, images.size(image_id))
        lines = [*one.image_lines(image_id), one.point_line()]
        return self._saved(drawn, one.style.label, _words(found), lines, stem)

    def _maps(
        self, mapped: list[_ShownPoint], images: TestImages, image_id: str, stem: str
    ) -> list[Tile]:
        """Return the predicted parsing maps of an image, after the true one."""
        words = "parsing map"
        tiles = []
        for place, one in enumerate(mapped, 1):
            found = one.parsing(image_id)
            if found is not None:
                lines = [words, one.point_line("miou")]
                drawn = coloured_map(found)
                tiles.append(self._saved(drawn, one.style.label, words, lines, f"{stem}-{place}"))
        truth = images.parsing(image_id)
        if tiles and truth is not None:
            drawn = coloured_map(truth)
            tiles.insert(0, self._saved(drawn, "Ground truth", words, [words], f"{stem}-0"))
        return tiles

    def _saved(
        self, drawn: Image.Image, title: str, words: str, lines: list[str], stem: str
    ) -> Tile:
        content = png_bytes(drawn)
        path = self.results.root / IMAGES / f"{_safe(stem)}.png"
        write_bytes(path, content)
        self.files.append(path)
        uri = page_uri(drawn, content)
        described = f"{title}, {words}" if words else title
        return Tile(uri, title, described, [line for line in lines if line])


def _words(boxes: list[Box]) -> str:
    return ", ".join(box.text for box in boxes)


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


def nearest_point(results: Results, study: str, variant: str, bpp: float) -> PointSummary | None:
    """Return the measured operating point of a variant whose rate is nearest to ``bpp``.

    The distance is that of logarithms; of equal rates the first seed is taken.
    """

    def distance(point: PointSummary) -> float:
        return abs(math.log(next(iter(results.measured(point).values())).bpp / bpp))

    points = [point for point in results.points(study, variant) if results.measured(point)]
    return min(points, key=distance, default=None)


class _ShownPoint:
    """One variant at one operating point, as a gallery shows it."""

    def __init__(self, results: Results, point: PointSummary, style: Style) -> None:
        self.point, self.style = point, style
        self._results = results
        self._decoded: Archives | None = None
        self._reads_features = task_entry(results.plan.scale, point.task).input_kind == "features"
        if point.encoding is not None and not self._reads_features:
            self._decoded = open_decoded(results.root / "encoded" / point.encoding)
            if self._decoded is None:
                raise FileNotFoundError(f"the decoded images of {point.encoding} are missing")
        self._predictions: dict[str, list[dict[str, Any]]] = {}
        predictions = results.root / "runs" / point.key / "predictions.json"
        if predictions.is_file():
            for entry in read_json(predictions):
                self._predictions.setdefault(str(entry["image_id"]), []).append(entry)

    def _predicts(self, what: str) -> bool:
        return any(what in entry for rows in self._predictions.values() for entry in rows)

    @property
    def has_maps(self) -> bool:
        """Whether the task predicts parsing maps."""
        return self._predicts("parsing")

    @property
    def has_images(self) -> bool:
        """Whether there is a decoded image, or boxes to be drawn on the original one."""
        return not self._reads_features or self._predicts("bbox")

    @cached_property
    def _records(self) -> Any:
        """Records of single images by id, None without the table."""
        if self._results.records_of(self.point) is None:
            return None
        return self._results.images_of(self.point).set_index("image_id")

    def image_ids(self, images: TestImages) -> list[str]:
        """Return the ids of the evaluated images, sorted; all images without records."""
        return images.ids() if self._records is None else sort_ids(self._records.index)

    def image(self, image_id: str, images: TestImages) -> Image.Image:
        """Return the decoded image; the original if none is decoded."""
        if self._decoded is None:
            return images.image(image_id)
        data = self._decoded.read(f"{image_id}.png")
        with reading(f"{image_id}.png"):
            return Image.fromarray(read_image(io.BytesIO(data)))

    def parsing(self, image_id: str) -> np.ndarray | None:
        """Return the predicted class of every pixel, uint8 [H, W], or None."""
        for entry in self._predictions.get(image_id, []):
            if "parsing" in entry:
                with Image.open(io.BytesIO(base64.b64decode(entry["parsing"]))) as opened:
                    return np.asarray(opened.convert("L"))
        return None

    def boxes(self, image_id: str, images: TestImages) -> list[Box]:
        """Return the detections."""
        entries = self._predictions.get(image_id, [])
        return [images.box(entry) for entry in entries if "bbox" in entry]

    def image_lines(self, image_id: str) -> list[str]:
        """Return rate and PSNR of one image, as lines."""
        if self._records is None or image_id not in self._records.index:
            return []
        row = self._records.loc[image_id]
        lines = [f"this image: {number(row['bits'] / row['pixels'], 3)} bpp"]
        if not math.isnan(row["psnr"]):
            lines.append(f"this image: {shown(find_metric('psnr'), float(row['psnr']))} dB PSNR")
        if self._reads_features:
            lines.append("boxes on the original: no image is decoded")
        return lines

    def point_line(self, wanted: str | None = None) -> str:
        """Return an accuracy of the operating point, as a line: by default the first metric's.

        Args:
            wanted: metric to prefer, if it is measured.
        """
        own = self._results.measured(self.point)
        entry = task_entry(self._results.plan.scale, self.point.task)
        order = [wanted or "", *entry.metrics]
        name = next((n for n in order if n in own and n not in PIXEL_METRICS), None)
        if name is None:
            return ""
        metric = find_metric(name)
        value = f"{shown(metric, own[name].value)} {metric.unit}".strip()
        return f"all images: {metric.title} {value} at {number(own[name].bpp, 3)} bpp"


class TestImages:
    """The test images of a data set and their ground truth.

    Args:
        results: the results folder.
        role: of the data set.

    Raises:
        UserError: if images or ground truth are missing.
    """

    __test__ = False  # not a class of tests

    def __init__(self, results: Results, role: str) -> None:
        dataset = results.plan.datasets[role]
        if not dataset.fetched:  # the folder may have been moved with the results
            folder = str(results.root / "data" / role)
            dataset = dataset.model_copy(update={"folder": folder})
        self._split = Split(dataset, "test", keep=False)
        self._places = {str(identity): place for place, identity in enumerate(self._split.ids)}
        content = self._split.annotations
        self._names = {c["id"]: c["name"] for c in content["categories"]} if content else {}
        self._boxes: dict[str, list[Box]] = {}
        # Boxes are in native pixels, which a crop would shift.
        for entry in content["annotations"] if content and not dataset.center_crop else []:
            self._boxes.setdefault(str(entry["image_id"]), []).append(self.box(entry))

    @property
    def annotated(self) -> bool:
        """Whether the images have objects to be detected."""
        return self._split.annotations is not None

    def ids(self) -> list[str]:
        """Return the image ids, sorted."""
        return sort_ids(self._places)

    def box(self, entry: Mapping[str, Any]) -> Box:
        """Return an annotation or a detection of COCO's format as a box."""
        x, y, width, height = entry["bbox"]
        category = entry["category_id"]
        name = self._names.get(category, f"class {category}")
        return Box((x, y, width, height), category, name, entry.get("score"))

    def boxes(self, image_id: str) -> list[Box]:
        """Return the ground truth of an image."""
        return self._boxes.get(image_id, [])

    def image(self, image_id: str) -> Image.Image:
        """Return an original image at the size that is coded."""
        return Image.fromarray(self._split.original(self._places[image_id]))

    def size(self, image_id: str) -> tuple[int, int]:
        """Return width and height that boxes refer to."""
        return self._split.native_size(self._places[image_id])

    def parsing(self, image_id: str) -> np.ndarray | None:
        """Return the class of every pixel, uint8 [H, W], or None without parsing maps."""
        return self._split.parsing(self._places[image_id]) if self.parsing_names else None

    @cached_property
    def parsing_names(self) -> tuple[str, ...]:
        """Names of the classes of parsing maps; empty if there are none."""
        try:
            return tuple(self._split.faces.parsing_names)
        except UserError:
            return ()


def sort_ids(ids: Iterable[str]) -> list[str]:
    """Return image ids sorted, as numbers if all are numbers."""
    names = [str(name) for name in ids]
    return sorted(names, key=int) if all(name.isdigit() for name in names) else sorted(names)
