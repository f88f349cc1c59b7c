"""Decoded images at about equal rate, with the detections and parsing maps of the task network."""

from __future__ import annotations

import base64
import colorsys
import io
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from icmbench.evaluate.coded import DECODED, RATE_MAPS, Archives, latents_from_bytes, open_archives
from icmbench.metrics.catalogue import find_metric, is_image_quality
from icmbench.report.outputs import IMAGES
from icmbench.report.results import Results, is_number, rows_of
from icmbench.report.style import COLOURS, Style, Styles, number, shown
from icmbench.utils.files import read_json, reading, write_bytes

MIN_SCORE = 0.5
EQUAL_RATE = 0.1  # a larger relative distance is stated in the title of an image


@dataclass(frozen=True)
class Box:
    """One box: ``xywh`` in pixels of the native image, and its words."""

    xywh: tuple[float, float, float, float]
    text: str
    colour: str


@dataclass(frozen=True)
class Tile:
    """One image on the page, with addresses as seen from there; empty ones are missing."""

    address: str
    title: str  # of its variant; it states a rate that differs from that of the comparison
    lines: list[str]  # its numbers
    size: tuple[int, int] = (1, 1)  # width and height that the boxes refer to
    boxes: list[Box] = field(default_factory=list)  # drawn above the image, sure ones last
    original: str = ""  # address of the image that it differs from
    rates: str = ""  # address of the codec's rate map


@dataclass
class Gallery:
    """One visual comparison of a study."""

    name: str  # what the names of its image files begin with
    title: str
    bpp: float  # rate at which the study wants the variants to be shown
    rate: float  # at which they are: that of the first variant nearest to ``bpp``
    rows: dict[str, list[Tile]] = field(default_factory=dict)  # by image
    missing: list[str] = field(default_factory=list)  # what cannot be shown, in sentences
    boxes: bool = False  # whether objects are detected
    maps: tuple[str, ...] = ()  # classes that the colours of parsing maps stand for

    @contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Note an unreadable file as the reason why something is not shown."""
        try:
            yield
        except CannotWrite:
            raise  # not a fault of the image
        except (OSError, ValueError, KeyError, UserError) as error:
            self.missing.append(f"{what} cannot be shown: {error}.")


@dataclass(eq=False)
class GalleryMaker:
    """Makes the galleries of a report; ``files`` are the images written so far."""

    results: Results
    files: list[Path] = field(default_factory=list)

    def galleries(self, study: str, styles: Styles) -> list[Gallery]:
        """Return the galleries of a study; writes every image to ``report/images``."""
        return [
            self._gallery(f"{study}-{place}", study, comparison, styles)
            for place, comparison in enumerate(self.results.studies[study].visual_comparisons)
        ]

    def _gallery(
        self, name: str, study: str, comparison: VisualComparison, styles: Styles
    ) -> Gallery:
        gallery = Gallery(name, comparison.title, comparison.bpp, comparison.bpp)
        points: list[_ShownPoint] = []
        for variant in comparison.variants:
            label = styles[variant].label
            # The others come near to the rate of the first.
            point = nearest_point(self.results, study, variant, gallery.rate)
            if point is None:
                gallery.missing.append(f"{label} has no measured operating point.")
                continue
            with gallery.noting(label):
                one = _ShownPoint(self.results, point, styles[variant])
                if one.has_images or one.has_maps:
                    gallery.rate = gallery.rate if points else one.rate
                    points.append(one)
                else:
                    gallery.missing.append(f"{label}: its task reads features.")
        if not points:
            return gallery
        with gallery.noting("The original"):
            images = SplitImages(self.results, points[0].point.dataset)
            gallery.boxes = any(one.has_boxes for one in points)
            gallery.maps = images.parsing_names if any(one.has_maps for one in points) else ()
            for image_id in points[0].image_ids(images)[: comparison.images]:
                with gallery.noting(f"Image {image_id}"):
                    gallery.rows[image_id] = self._tiles(image_id, gallery, points, images)
        return gallery

    def _tiles(
        self, image_id: str, gallery: Gallery, points: list[_ShownPoint], images: SplitImages
    ) -> list[Tile]:
        """Return the original and its true parsing map, then image and map of each variant."""
        index = images.places[image_id]
        truth = images.boxes.get(image_id, []) if gallery.boxes else []
        size, stem = images.split.native_size(index), f"{gallery.name}-{image_id}"
        image = images.image(image_id)
        lines = ["24 bpp", *(["boxes: ground truth"] if truth else [])]
        tiles = [Tile(self._write(image, stem), "Original", lines, size, truth)]
        if gallery.maps:
            parsing = coloured_map(images.split.parsing(index))
            address = self._write(parsing, f"{stem}-map-0")
            tiles.append(Tile(address, "Ground truth", ["parsing map"]))
        rates = [one.rate_map(image_id, *image.size) for one in points]
        most = max((float(bpp.max()) for bpp in rates if bpp is not None), default=0.0)
        lines += [f"rate maps: white is {number(most, 2)} bpp"] if most else []
        for place, (one, bpp) in enumerate(zip(points, rates, strict=True), 1):
            title = one.title(gallery.rate)
            if one.has_images:
                more: list[Any] = [size, one.boxes(image_id, images), tiles[0].address]
                if bpp is not None:
                    grey = Image.fromarray(np.uint8(np.round(255 * bpp / (most or 1.0))))
                    more.append(self._write(grey, f"{stem}-rate-{place}"))
                lines = [*one.image_lines(image_id), *one.point_line()]
                decoded = one.image(image_id, images)
                tiles.append(Tile(self._write(decoded, f"{stem}-{place}"), title, lines, *more))
            if (classes := one.parsing(image_id)) is not None:
                lines = ["parsing map", *one.point_line("miou")]
                parsing = coloured_map(classes)
                tiles.append(Tile(self._write(parsing, f"{stem}-map-{place}"), title, lines))
        return tiles

    def _write(self, image: Image.Image, stem: str) -> str:
        """Write an image and return its address."""
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in stem) + ".png"
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        path = self.results.root / IMAGES / name
        write_bytes(path, buffer.getvalue())
        self.files.append(path)
        return f"images/{name}"


def coloured_map(classes: np.ndarray) -> Image.Image:
    """Return a parsing map, uint8 [H, W], as an image of one colour per class."""
    image = Image.fromarray(classes)
    image.putpalette([channel for index in range(256) for channel in map_colour(index)])
    return image


def map_colour(index: int) -> tuple[int, int, int]:
    """Return the colour of a class in parsing maps, 8-bit RGB; class 0 is the background."""
    if index == 0:
        return (40, 44, 48)
    # Steps of the golden ratio keep neighbouring classes apart, however many there are.
    hue, lightness = index * 0.618034 % 1, (0.62, 0.45, 0.75)[index % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.7)
    return round(255 * red), round(255 * green), round(255 * blue)


def nearest_point(results: Results, study: str, variant: str, bpp: float) -> PointSummary | None:
    """Return the measured operating point whose logarithm of rate is nearest, the first seed."""
    points = results.points(study, variant)
    found = [(abs(math.log(rate / bpp)), p) for p in points if (rate := results.rate(p))]
    return min(found, key=lambda one: one[0], default=(0.0, None))[1]


class _ShownPoint:
    """One variant at one operating point, as a gallery shows it."""

    def __init__(self, results: Results, point: PointSummary, style: Style) -> None:
        self.point, self._style, self._results = point, style, results
        self.rate = results.rate(point) or 0.0
        self._decoded: Archives | None = None
        self._rate_maps: Archives | None = None
        self._reads_features = task_entry(results.plan.scale, point.task).input_kind == "features"
        if point.encoding is not None:
            folder = results.root / "encoded" / point.encoding
            self._rate_maps = open_archives(folder, RATE_MAPS)
            self._decoded = None if self._reads_features else open_archives(folder, DECODED)
            if self._decoded is None and not self._reads_features:
                raise FileNotFoundError(f"the decoded images of {point.encoding} are missing")
        predictions = point.inside(results.root) / "predictions.json"
        self._found = read_json(predictions) if predictions.is_file() else []
        kinds = {kind for entry in self._found for kind in entry}
        self.has_maps, self.has_boxes = "parsing" in kinds, "bbox" in kinds
        # A decoded image, or boxes to be drawn on the original one.
        self.has_images = not self._reads_features or self.has_boxes

    def title(self, rate: float) -> str:
        """Return the variant's label, and how far its rate is from ``rate`` if it is far."""
        gap = self.rate / rate - 1
        words = f", {100 * abs(gap):.0f} % {'more' if gap > 0 else 'fewer'} bits"
        return self._style.label + (words if abs(gap) > EQUAL_RATE else "")

    @cached_property
    def _records(self) -> dict[str, Any]:
        """Records of single images by id; empty without the table."""
        if self._results.records_of(self.point) is None:
            return {}
        return {row.image_id: row for row in rows_of(self._results.images_of(self.point))}

    def image_ids(self, images: SplitImages) -> list[str]:
        """Return the ids of the evaluated images, sorted; all images without records."""
        return sort_ids(self._records or images.places)

    def image(self, image_id: str, images: SplitImages) -> Image.Image:
        """Return the decoded image; the original if none is decoded."""
        if self._decoded is None:
            return images.image(image_id)
        data = self._decoded.read(f"{image_id}.png")
        with reading(f"{image_id}.png"):
            return Image.fromarray(read_image(io.BytesIO(data)))

    def rate_map(self, image_id: str, width: int, height: int) -> np.ndarray | None:
        """Return the bits that the codec estimates for every pixel, [height, width], or None."""
        name = f"{image_id}.npz"
        if self._rate_maps is None or name not in self._rate_maps:
            return None
        with reading(name):
            stored = latents_from_bytes(self._rate_maps.read(name))
        bits, stride = stored["bits"].astype(np.float32), int(stored["stride"])
        return (bits / stride**2).repeat(stride, 0).repeat(stride, 1)[:height, :width]

    def parsing(self, image_id: str) -> np.ndarray | None:
        """Return the predicted class of every pixel, uint8 [H, W], or None."""
        for entry in self._found:
            if "parsing" in entry and str(entry["image_id"]) == image_id:
                with Image.open(io.BytesIO(base64.b64decode(entry["parsing"]))) as opened:
                    return np.asarray(opened.convert("L"))
        return None

    def boxes(self, image_id: str, images: SplitImages) -> list[Box]:
        """Return the detections with a score of at least ``MIN_SCORE``, sure ones last."""
        own = [e for e in self._found if "bbox" in e and str(e["image_id"]) == image_id]
        sure = [entry for entry in own if entry["score"] >= MIN_SCORE]
        return [images.box(entry) for entry in sorted(sure, key=lambda entry: entry["score"])]

    def image_lines(self, image_id: str) -> list[str]:
        """Return rate and PSNR of one image, as lines."""
        if (row := self._records.get(image_id)) is None:
            return []
        lines = [f"this image: {number(row.bits / row.pixels, 3)} bpp"]
        if is_number(row.psnr):
            lines.append(f"this image: {shown(find_metric('psnr'), row.psnr)} dB PSNR")
        if self._reads_features:
            lines.append("boxes on the original: no image is decoded")
        return lines

    def point_line(self, wanted: str = "") -> list[str]:
        """Return an accuracy of the operating point, as a line if there is one.

        ``wanted`` is the metric to prefer; otherwise it is the first of the task.
        """
        own = self._results.measured(self.point)
        order = [wanted, *task_entry(self._results.plan.scale, self.point.task).metrics]
        found = [(find_metric(n), own[n]) for n in order if n in own and not is_image_quality(n)]
        return [
            f"all images: {m.title} {shown(m, r.value)} {m.unit} at {number(r.bpp, 3)} bpp"
            for m, r in found[:1]
        ]


class SplitImages:
    """The test images of a data set, and their ground truth by image id.

    Raises:
        UserError: if images or ground truth are missing.
    """

    def __init__(self, results: Results, role: str) -> None:
        dataset = results.plan.datasets[role]
        if not dataset.fetched:  # the folder may have been moved with the results
            folder = str(results.root / "data" / role)
            dataset = dataset.model_copy(update={"folder": folder})
        self.split = Split(dataset, "test", keep=False)
        self.places = {str(identity): place for place, identity in enumerate(self.split.ids)}
        content = self.split.annotations
        self._names = {c["id"]: c["name"] for c in content["categories"]} if content else {}
        self.boxes: dict[str, list[Box]] = {}
        # Boxes are in native pixels, which a crop would shift.
        for entry in content["annotations"] if content and not dataset.center_crop else []:
            self.boxes.setdefault(str(entry["image_id"]), []).append(self.box(entry))

    def box(self, entry: Mapping[str, Any]) -> Box:
        """Return an annotation or a detection of COCO's format as a box."""
        x, y, width, height = entry["bbox"]
        category = entry["category_id"]
        name = self._names.get(category, f"class {category}")
        if "score" in entry:
            name += f" {100 * entry['score']:.0f}"
        colour = COLOURS[category % len(COLOURS)]
        return Box((x, y, width, height), name, colour)

    def image(self, image_id: str) -> Image.Image:
        """Return an original image at the size that is coded."""
        return Image.fromarray(self.split.original(self.places[image_id]))

    @cached_property
    def parsing_names(self) -> tuple[str, ...]:
        """Names of the classes of parsing maps; empty if there are none."""
        try:
            return tuple(self.split.faces.parsing_names)
        except UserError:
            return ()


def sort_ids(ids: Collection[str]) -> list[str]:
    """Return image ids sorted, as numbers if all are numbers."""
    return sorted(ids, key=int) if all(name.isdigit() for name in ids) else sorted(ids)
