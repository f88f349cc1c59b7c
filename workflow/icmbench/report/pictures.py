"""Decoded images side by side at about equal rate, with what the task network found in them."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from icmbench.data.pictures import list_pictures, read_picture
from icmbench.files import read_json, write_bytes
from icmbench.registry import PIXEL_METRICS
from icmbench.report.drawing import Box, annotated, page_uri, png_bytes
from icmbench.report.outputs import PICTURES
from icmbench.report.results import Results, Row
from icmbench.report.style import VariantStyle, metric_style, number

MIN_SCORE = 0.5
PAGE_BYTES = 6_000_000  # of pictures embedded in one page


@dataclass(frozen=True)
class Tile:
    """One picture on the page: its address (a data URI), its words and its lines of figures."""

    uri: str
    title: str
    alt: str
    lines: list[str]


@dataclass(frozen=True)
class Gallery:
    """One picture specification of a study: rows of tiles, one row per image.

    ``boxes`` says whether the images have objects to be found.
    """

    title: str
    bpp: float
    rows: list[tuple[str, list[Tile]]]
    missing: list[str]
    boxes: bool


@dataclass(eq=False)
class Pictures:
    """Makes the galleries of a page and counts what they embed.

    Attributes:
        results: the results folder.
        files: pictures written so far.
        embedded: bytes of data URIs so far.
    """

    results: Results
    files: list[Path] = field(default_factory=list)
    embedded: int = 0

    def galleries(self, study: str, styles: dict[str, VariantStyle]) -> list[Gallery]:
        """Return the galleries of a study; writes every picture to ``report/pictures`` as well."""
        specifications = self.results.plan["studies"][study]["pictures"]
        return [
            self._gallery(study, place, specification, styles)
            for place, specification in enumerate(specifications)
        ]

    def _gallery(
        self, study: str, place: int, specification: Row, styles: dict[str, VariantStyle]
    ) -> Gallery:
        missing: list[str] = []
        shown: list[_Shown] = []
        for variant in specification["variants"]:
            point = nearest_point(self.results, study, variant, specification["bpp"])
            if point is None:
                missing.append(f"{styles[variant].label} has no measured operating point.")
                continue
            try:
                shown.append(_Shown(self.results, point, styles[variant]))
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                missing.append(f"{styles[variant].label}: cannot be shown ({error}).")
        title, bpp = specification["title"], specification["bpp"]
        if not shown:
            return Gallery(title, bpp, [], missing, boxes=False)
        try:
            originals = Originals(self.results, shown[0].point["dataset"])
        except (OSError, ValueError, KeyError) as error:
            missing.append(f"The original images cannot be read ({error}).")
            return Gallery(title, bpp, [], missing, boxes=False)
        gallery = Gallery(title, bpp, [], missing, originals.annotated)
        for image_id in shown[0].image_ids(originals)[: specification["images"]]:
            if self.embedded > PAGE_BYTES:
                missing.append("Further images are left out to keep the page small.")
                break
            stem = f"{study}-{place}-{image_id}"
            try:
                tiles = [self._original(originals, image_id, stem)]
                tiles.extend(
                    self._decoded(one, originals, image_id, f"{stem}-{number_}")
                    for number_, one in enumerate(shown, 1)
                )
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                missing.append(f"Image {image_id} cannot be shown ({error}).")
                continue
            gallery.rows.append((image_id, tiles))
        return gallery

    def _original(self, originals: Originals, image_id: str, stem: str) -> Tile:
        boxes = originals.boxes(image_id)
        lines = ["24 bpp"]
        if boxes:
            lines.append("boxes: ground truth")
        picture = originals.image(image_id)
        return self._tile(picture, boxes, originals.size(image_id), "Original", lines, stem)

    def _decoded(self, one: _Shown, originals: Originals, image_id: str, stem: str) -> Tile:
        picture = one.image(image_id, originals)
        boxes = [
            box
            for box in one.boxes(image_id, originals)
            if box.score is not None and box.score >= MIN_SCORE
        ]
        lines = [*one.image_figures(image_id), one.point_figures()]
        size = originals.size(image_id)
        return self._tile(picture, boxes, size, one.style.label, lines, stem)

    def _tile(
        self,
        picture: Image.Image,
        boxes: list[Box],
        native: tuple[int, int],
        title: str,
        lines: list[str],
        stem: str,
    ) -> Tile:
        drawn = annotated(picture, boxes, native)
        content = png_bytes(drawn)
        path = self.results.root / PICTURES / f"{_safe(stem)}.png"
        write_bytes(path, content)
        self.files.append(path)
        uri = page_uri(drawn, content)
        self.embedded += len(uri)
        words = ", ".join([title, *(box.text for box in boxes)])
        return Tile(uri, title, words, [line for line in lines if line])


def nearest_point(results: Results, study: str, variant: str, bpp: float) -> Row | None:
    """Return the measured operating point of a variant whose rate is nearest to ``bpp``.

    Distance is that of logarithms; of equal rates the first seed is taken.
    """
    rates = {
        (row["rate_index"], row["seed"]): row["bpp"]
        for row in results.curves
        if row["study"] == study and row["variant"] == variant
    }
    points = [
        point
        for point in results.points(study)
        if point["variant"] == variant and (point["rate_index"], point["seed"]) in rates
    ]
    return min(
        points,
        key=lambda p: abs(math.log(rates[p["rate_index"], p["seed"]] / bpp)),
        default=None,
    )


class Originals:
    """The test images of one data set and their ground truth.

    Attributes:
        annotated: whether there is a ground truth.
    """

    def __init__(self, results: Results, role: str) -> None:
        dataset = results.plan["datasets"][role]
        if dataset["source"] == "embedded-scenes":
            # The folder may have been moved with the results.
            folder = results.root / "data" / role
            self._place = folder / "test.zip"
            annotations: Path | None = folder / "instances_test.json"
        else:
            split = dataset["splits"]["test"]
            self._place = Path(dataset["folder"]) / split["images"]
            named = split["annotations"]
            annotations = Path(dataset["folder"]) / named if named else None
        content = {} if annotations is None else read_json(annotations)
        self.annotated = annotations is not None
        self._files = {str(image["id"]): image["file_name"] for image in content.get("images", [])}
        self._names = {c["id"]: c["name"] for c in content.get("categories", [])}
        self._boxes: dict[str, list[Box]] = {}
        for entry in content.get("annotations", []):
            self._boxes.setdefault(str(entry["image_id"]), []).append(self.box(entry))
        if annotations is None:
            self._files = {path.stem: path.name for path in list_pictures(self._place)}

    def ids(self) -> list[str]:
        """Return the image ids, sorted (as numbers where they are numbers)."""
        return sort_ids(self._files)

    def box(self, entry: Row) -> Box:
        """Return an annotation or a detection of COCO's format as a box."""
        x, y, width, height = entry["bbox"]
        category = entry["category_id"]
        name = self._names.get(category, f"class {category}")
        return Box((x, y, width, height), category, name, entry.get("score"))

    def boxes(self, image_id: str) -> list[Box]:
        """Return the ground truth of an image."""
        return self._boxes.get(image_id, [])

    def image(self, image_id: str) -> Image.Image:
        """Return an original image."""
        return _read(self._place, self._files[image_id])

    def size(self, image_id: str) -> tuple[int, int]:
        """Return width and height of an original image."""
        return self.image(image_id).size


class _Shown:
    """One variant at one operating point, as a gallery shows it."""

    def __init__(self, results: Results, point: Row, style: VariantStyle) -> None:
        self.point, self.style = point, style
        self._records = results.records_of(point)
        self._rows = [
            row
            for row in results.curves
            if all(row[name] == point[name] for name in ("study", "variant", "rate_index", "seed"))
        ]
        self._decoded: Path | None = None
        if point["encoding"] is not None:
            # An archive of a learned codec, a folder of an anchor.
            folder = results.root / "encoded" / point["encoding"]
            places = [folder / "decoded.zip", folder / "decoded"]
            self._decoded = next((place for place in places if place.exists()), None)
            if self._decoded is None:
                raise FileNotFoundError(f"the decoded images of {point['encoding']} are missing")
        self._predictions: dict[str, list[Row]] = {}
        predictions = results.root / "runs" / point["key"] / "predictions.json"
        if predictions.is_file():
            for entry in read_json(predictions):
                self._predictions.setdefault(str(entry["image_id"]), []).append(entry)

    def image_ids(self, originals: Originals) -> list[str]:
        """Return the ids of the evaluated images, sorted; all images without records."""
        if self._records is None:
            return originals.ids()
        return sort_ids(self._records["image_id"])

    def image(self, image_id: str, originals: Originals) -> Image.Image:
        """Return the decoded image; the original where nothing is coded."""
        if self._decoded is None:
            return originals.image(image_id)
        return _read(self._decoded, f"{image_id}.png")

    def boxes(self, image_id: str, originals: Originals) -> list[Box]:
        """Return what the task network found."""
        return [originals.box(entry) for entry in self._predictions.get(image_id, [])]

    def image_figures(self, image_id: str) -> list[str]:
        """Return rate and PSNR of this very image, as lines."""
        if self._records is None:
            return []
        rows = self._records[self._records["image_id"] == image_id]
        if rows.empty:
            return []
        row: Any = rows.iloc[0]
        lines = [f"this image: {number(row.bits / row.pixels, 3)} bpp"]
        if not math.isnan(row.psnr):
            lines.append(f"this image: {metric_style('psnr').show(float(row.psnr))} dB PSNR")
        return lines

    def point_figures(self) -> str:
        """Return the accuracy of the whole operating point, as a line."""
        own = [row for row in self._rows if row["metric"] not in PIXEL_METRICS]
        leading = next((row for row in own if row["metric"] == "box_map"), own[0] if own else None)
        if leading is None:
            return ""
        metric = metric_style(leading["metric"])
        unit = f" {metric.unit}" if metric.unit else ""
        rate = number(leading["bpp"], 3)
        return f"all images: {metric.title} {metric.show(leading['value'])}{unit} at {rate} bpp"


def sort_ids(ids: Iterable[str]) -> list[str]:
    """Return image ids sorted, as numbers where all are numbers."""
    names = [str(name) for name in ids]
    if all(name.isdigit() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _read(place: Path, name: str) -> Image.Image:
    """Return a picture out of a folder or a zip archive."""
    if place.suffix != ".zip":
        return Image.fromarray(read_picture(place / name))
    with zipfile.ZipFile(place) as opened:
        return Image.fromarray(read_picture(io.BytesIO(opened.read(name))))


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
