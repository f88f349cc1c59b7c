"""Decoded images side by side at about equal rate, with what the task network found in them."""

from __future__ import annotations

import base64
import io
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icmbench.errors import CannotWrite, UserError
from icmbench.evaluate.coded import Archives, open_decoded
from icmbench.registry import PIXEL_METRICS, TASKS
from icmbench.report.drawing import Box, annotated, coloured_map, page_uri, png_bytes
from icmbench.report.outputs import IMAGES
from icmbench.report.results import Results, Row
from icmbench.report.style import VariantStyle, metric_style, number
from icmbench.report.test_images import Originals, read_decoded, sort_ids
from icmbench.utils.files import read_json, write_bytes

MIN_SCORE = 0.5
PAGE_BYTES = 6_000_000  # of images embedded in one page
_UNREADABLE = (OSError, ValueError, KeyError, zipfile.BadZipFile, UserError)


@dataclass(frozen=True)
class Tile:
    """One image on the page: its address (a data URI), its words and its lines of figures."""

    uri: str
    title: str
    alt: str
    lines: list[str]


@dataclass(frozen=True)
class Gallery:
    """One image specification of a study: rows of tiles, one or two rows per image.

    ``boxes`` says whether the images have objects to be found, ``maps`` the classes that the
    colours of parsing maps stand for.
    """

    title: str
    bpp: float
    rows: list[tuple[str, list[Tile]]]
    missing: list[str]
    boxes: bool
    maps: tuple[str, ...] = ()


@dataclass(eq=False)
class GalleryMaker:
    """Makes the galleries of a page and counts what they embed.

    Attributes:
        results: the results folder.
        files: images written so far.
        embedded: bytes of data URIs so far on this study's page.
    """

    results: Results
    files: list[Path] = field(default_factory=list)
    embedded: int = 0

    def galleries(self, study: str, styles: dict[str, VariantStyle]) -> list[Gallery]:
        """Return the galleries of a study; writes every image to ``report/images`` as well."""
        self.embedded = 0
        specifications = self.results.plan["studies"][study]["visual_comparisons"]
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
                one = _Shown(self.results, point, styles[variant])
            except _UNREADABLE as error:
                missing.append(f"{styles[variant].label}: cannot be shown ({error}).")
                continue
            if one.is_blind:
                missing.append(
                    f"{styles[variant].label}: its task reads features, and no image is decoded."
                )
                continue
            shown.append(one)
        title, bpp = specification["title"], specification["bpp"]
        if not shown:
            return Gallery(title, bpp, [], missing, boxes=False)
        try:
            originals = Originals(self.results, shown[0].point["dataset"])
        except _UNREADABLE as error:
            missing.append(f"The original images cannot be read ({error}).")
            return Gallery(title, bpp, [], missing, boxes=False)
        mapped = [one for one in shown if one.has_maps]
        names = originals.parsing_names if mapped else ()
        gallery = Gallery(title, bpp, [], missing, originals.annotated, names)
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
                    if one.has_images
                )
                maps = self._maps(mapped, originals, image_id, f"{stem}-map")
            except CannotWrite:
                raise  # no fault of the image's
            except _UNREADABLE as error:
                missing.append(f"Image {image_id} cannot be shown ({error}).")
                continue
            gallery.rows.append((image_id, tiles))
            if maps:
                gallery.rows.append((f"{image_id}, parsing maps", maps))
        return gallery

    def _maps(
        self, mapped: list[_Shown], originals: Originals, image_id: str, stem: str
    ) -> list[Tile]:
        """Return the parsing maps found in an image, after the true one."""
        tiles = []
        for number_, one in enumerate(mapped, 1):
            found = one.parsing(image_id)
            if found is not None:
                lines = ["parsing map", one.point_figures("miou")]
                place = f"{stem}-{number_}"
                tiles.append(self._saved(coloured_map(found), one.style.label, "", lines, place))
        truth = originals.parsing(image_id)
        if tiles and truth is not None:
            drawn = coloured_map(truth)
            tiles.insert(0, self._saved(drawn, "Ground truth", "", ["parsing map"], f"{stem}-0"))
        return tiles

    def _original(self, originals: Originals, image_id: str, stem: str) -> Tile:
        boxes = originals.boxes(image_id)
        lines = ["24 bpp"]
        if boxes:
            lines.append("boxes: ground truth")
        image = originals.image(image_id)
        return self._tile(image, boxes, originals.size(image_id), "Original", lines, stem)

    def _decoded(self, one: _Shown, originals: Originals, image_id: str, stem: str) -> Tile:
        image = one.image(image_id, originals)
        boxes = [
            box
            for box in one.boxes(image_id, originals)
            if box.score is not None and box.score >= MIN_SCORE
        ]
        lines = [*one.image_figures(image_id), one.point_figures()]
        size = originals.size(image_id)
        return self._tile(image, boxes, size, one.style.label, lines, stem)

    def _tile(
        self,
        image: Image.Image,
        boxes: list[Box],
        native: tuple[int, int],
        title: str,
        lines: list[str],
        stem: str,
    ) -> Tile:
        words = ", ".join(box.text for box in boxes)
        return self._saved(annotated(image, boxes, native), title, words, lines, stem)

    def _saved(
        self, drawn: Image.Image, title: str, words: str, lines: list[str], stem: str
    ) -> Tile:
        content = png_bytes(drawn)
        path = self.results.root / IMAGES / f"{_safe(stem)}.png"
        write_bytes(path, content)
        self.files.append(path)
        uri = page_uri(drawn, content)
        self.embedded += len(uri)
        kind = lines[0] if lines[0] == "parsing map" else ""
        described = ", ".join(part for part in (title, kind, words) if part)
        return Tile(uri, title, described, [line for line in lines if line])


def nearest_point(results: Results, study: str, variant: str, bpp: float) -> Row | None:
    """Return the measured operating point of a variant whose rate is nearest to ``bpp``.

    Distance is that of logarithms; of equal rates the first seed is taken.
    """
    rates = {
        (row["rate_index"], row["seed"]): row["bpp"] for row in results.variant_rows(study, variant)
    }
    points = [
        point
        for point in results.points(study, variant)
        if (point["rate_index"], point["seed"]) in rates
    ]
    return min(
        points,
        key=lambda p: abs(math.log(rates[p["rate_index"], p["seed"]] / bpp)),
        default=None,
    )


class _Shown:
    """One variant at one operating point, as a gallery shows it."""

    def __init__(self, results: Results, point: Row, style: VariantStyle) -> None:
        self.point, self.style = point, style
        self._records = results.images_of(point)
        self._rows = results.rows_of(point)
        self._decoded: Archives | None = None
        self._reads_features = TASKS[point["task"]].input_kind == "features"
        if point["encoding"] is not None and not self._reads_features:
            self._decoded = open_decoded(results.root / "encoded" / point["encoding"])
            if self._decoded is None:
                raise FileNotFoundError(f"the decoded images of {point['encoding']} are missing")
        self._predictions: dict[str, list[Row]] = {}
        predictions = results.root / "runs" / point["key"] / "predictions.json"
        if predictions.is_file():
            for entry in read_json(predictions):
                self._predictions.setdefault(str(entry["image_id"]), []).append(entry)

    @property
    def has_maps(self) -> bool:
        """Whether the task found parsing maps."""
        return any("parsing" in entry for rows in self._predictions.values() for entry in rows)

    @property
    def has_images(self) -> bool:
        """Whether there is an image, or boxes to be drawn on the original one."""
        boxes = any("bbox" in entry for rows in self._predictions.values() for entry in rows)
        return not self._reads_features or boxes

    @property
    def is_blind(self) -> bool:
        """Whether there is nothing to be seen."""
        return not self.has_images and not self.has_maps

    def image_ids(self, originals: Originals) -> list[str]:
        """Return the ids of the evaluated images, sorted; all images without records."""
        if self._records is None:
            return originals.ids()
        return sort_ids(self._records["image_id"])

    def image(self, image_id: str, originals: Originals) -> Image.Image:
        """Return the decoded image; the original where none is decoded."""
        if self._decoded is None:
            return originals.image(image_id)
        return read_decoded(self._decoded, f"{image_id}.png")

    def parsing(self, image_id: str) -> np.ndarray | None:
        """Return the class that the task found of every pixel, uint8 [H, W], where it is kept."""
        for entry in self._predictions.get(image_id, []):
            if "parsing" in entry:
                with Image.open(io.BytesIO(base64.b64decode(entry["parsing"]))) as opened:
                    return np.asarray(opened.convert("L"))
        return None

    def boxes(self, image_id: str, originals: Originals) -> list[Box]:
        """Return what the task network found."""
        entries = self._predictions.get(image_id, [])
        return [originals.box(entry) for entry in entries if "bbox" in entry]

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
        if self._reads_features:
            lines.append("boxes on the original: no image is decoded")
        return lines

    def point_figures(self, wanted: str | None = None) -> str:
        """Return an accuracy of the whole operating point, as a line: the task's first metric.

        Args:
            wanted: metric to show in its place, where it is measured.
        """
        order = [wanted, *TASKS[self.point["task"]].metrics]
        own = {row["metric"]: row for row in self._rows if row["metric"] not in PIXEL_METRICS}
        leading = next((own[name] for name in order if name in own), None)
        if leading is None:
            return ""
        metric = metric_style(leading["metric"])
        unit = f" {metric.unit}" if metric.unit else ""
        rate = number(leading["bpp"], 3)
        return f"all images: {metric.title} {metric.show(leading['value'])}{unit} at {rate} bpp"


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
