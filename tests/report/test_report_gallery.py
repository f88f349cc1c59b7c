"""Galleries: decoded images with detections, and parsing maps."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from icmbench.config.scale import Scale
from icmbench.config.study import Study, Variant, VisualComparison
from icmbench.config.summary import PlanSummary, PointSummary
from icmbench.data.specs import DatasetSpec, EmbeddedFaces
from icmbench.data.synthetic.faces import generate_faces
from icmbench.evaluate.coded import latents_to_bytes, new_archive
from icmbench.report.gallery import (
    GalleryMaker,
    SplitImages,
    coloured_map,
    map_colour,
    nearest_point,
    sort_ids,
)
from icmbench.report.results import Results, load_results
from icmbench.report.style import variant_styles

STUDY = "somewhere2021"
J_FT = "hyperprior/faster-rcnn/j-ft"


def test_nearest_operating_point(results: Results) -> None:
    for row in results.curve(STUDY, J_FT, "psnr").itertuples():
        point = nearest_point(results, STUDY, J_FT, row.bpp * 1.01)
        assert point is not None and point.rate_index == row.rate_index
    assert nearest_point(results, STUDY, "no/such/variant", 1.0) is None


def test_tiles_show_the_numbers_of_their_point(root: Path) -> None:
    results = load_results(root)
    (gallery,) = GalleryMaker(results).galleries(STUDY, variant_styles(results.plan, STUDY))
    assert gallery.missing == [] and gallery.boxes and len(gallery.rows) == 2
    image_id, (original, jpeg, j_ft) = next(iter(gallery.rows.items()))
    # The rate of the first variant that is nearest to the study's; others come near to it.
    first = nearest_point(results, STUDY, "jpeg/faster-rcnn/baseline", gallery.bpp)
    assert first is not None
    assert gallery.rate == next(iter(results.measured(first).values())).bpp
    point = nearest_point(results, STUDY, J_FT, gallery.rate)
    assert point is not None
    gap = next(iter(results.measured(point).values())).bpp / gallery.rate - 1
    assert gap > 0.1  # so the title states it
    titles = [tile.title for tile in (original, jpeg, j_ft)]
    assert titles == ["Original", "JPEG", f"J-FT, {100 * gap:.0f} % more bits"]
    assert (original.original, j_ft.original) == ("", original.address)
    row = results.images_of(point).set_index("image_id").loc[image_id]
    curve = results.curve(STUDY, J_FT, "box_map")
    accuracy = curve[curve["rate_index"] == point.rate_index].iloc[0]
    assert f"{row.bits / row.pixels:.3f} bpp" in j_ft.lines[0]
    assert f"{row.psnr:.2f} dB" in j_ft.lines[1]
    assert f"{100 * accuracy.value:.1f} %" in j_ft.lines[2]
    assert f"{accuracy.bpp:.3f} bpp" in j_ft.lines[2]


def test_rate_maps_of_an_image_share_a_scale(root: Path) -> None:
    """They lie on the image's own grid; without the archive, as before there was one, none."""
    results = load_results(root)
    jpeg = nearest_point(results, STUDY, "jpeg/faster-rcnn/baseline", 0.5)
    assert jpeg is not None
    rate = next(iter(results.measured(jpeg).values())).bpp
    j_ft = nearest_point(results, STUDY, J_FT, rate)
    assert j_ft is not None
    image_id = json.loads((root / "data/detection/instances_test.json").read_text())["images"][0][
        "id"
    ]
    # Nine positions of 48 x 48 pixels cover more than the image of 128 x 128.
    spent = {jpeg: np.full((3, 3), 576), j_ft: 288 * np.arange(9).reshape(3, 3)}
    for point, bits in spent.items():
        with new_archive(root / f"encoded/{point.encoding}/rate_maps.zip") as add:
            stored = {"bits": bits.astype(np.float16), "stride": np.int32(48)}
            add(f"{image_id}.npz", latents_to_bytes(stored))
    (gallery,) = GalleryMaker(results).galleries(STUDY, variant_styles(results.plan, STUDY))
    first, second = gallery.rows.values()
    assert [tile.title[:4] for tile in first] == ["Orig", "JPEG", "J-FT"]
    assert "1.00 bpp" in first[0].lines[-1] and "bpp" not in second[0].lines[-1]
    assert [tile.rates for tile in second] == [""] * 3
    for place, (tile, bits) in enumerate(zip(first[1:], spent.values(), strict=True), 1):
        assert tile.rates == f"images/{STUDY}-0-{image_id}-rate-{place}.png"
        drawn = np.asarray(Image.open(root / "report" / tile.rates))
        expected = np.round(255 * bits / 2304).repeat(48, 0).repeat(48, 1)[:128, :128]
        assert np.array_equal(drawn, expected)


def test_boxes_are_drawn_at_their_place(built: Path) -> None:
    """The image stays as it is; boxes lie above it, in its pixels."""
    truth = json.loads((built / "data/detection/instances_test.json").read_text())
    image_id = truth["images"][0]["id"]
    saved = np.asarray(Image.open(built / f"report/images/{STUDY}-0-{image_id}.png"))
    with zipfile.ZipFile(built / "data/detection/test.zip") as archive:
        name = next(name for name in archive.namelist() if str(image_id) in name)
        original = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
    assert (saved == original).all()
    page = (built / f"report/{STUDY}.html").read_text()
    svg = page.partition(f"{STUDY}-0-{image_id}.png")[2].partition("</svg>")[0]
    assert 'viewBox="0 0 128 128"' in svg
    drawn = re.findall(r'<rect x="([^"]*)" y="([^"]*)" width="([^"]*)" height="([^"]*)" st', svg)
    boxes = [entry["bbox"] for entry in truth["annotations"] if entry["image_id"] == image_id]
    assert [list(map(float, box)) for box in drawn] == boxes


def test_images_of_a_fetched_data_set(results: Results, tmp_path: Path) -> None:
    """Images in a folder, with ids that are not file names, and a data set without annotations."""
    for name, colour in (("000007.png", "red"), ("kodim01.png", "blue")):
        (tmp_path / "val").mkdir(exist_ok=True)
        Image.new("RGB", (400, 200), colour).save(tmp_path / "val" / name)
    annotations = {
        "images": [{"id": 7, "file_name": "000007.png", "width": 400, "height": 200}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [{"image_id": 7, "category_id": 3, "bbox": [100, 50, 40, 20], "area": 800}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(annotations))

    def dataset(role: str, file: str | None) -> DatasetSpec:
        splits = {"test": {"images": "val", "annotations": file}}
        settings = {"source": "catalogue", "name": "mine", "splits": splits}
        place = {"folder": str(tmp_path), "manifest": str(tmp_path / "m.json")}
        return DatasetSpec.model_validate({"role": role, "settings": settings, **place})

    datasets = {"plain": dataset("plain", None), "marked": dataset("marked", "instances.json")}
    plan = results.plan.model_copy(update={"datasets": datasets})
    changed = dataclasses.replace(results, plan=plan)
    assert sort_ids(SplitImages(changed, "plain").places) == ["000007", "kodim01"]
    images = SplitImages(changed, "marked")
    assert list(images.places) == ["7"] and images.split.native_size(0) == (400, 200)
    (box,) = images.boxes["7"]
    assert (box.text, box.xywh) == ("cat", (100, 50, 40, 20))
    assert images.image("7").size == (400, 200)


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("encoded/**/decoded.zip", "detection-test/"),
        ("data/detection/test.zip", "The original"),
        ("data/detection/instances_test.json", "The original"),
    ],
)
def test_images_that_cannot_be_shown_are_reported(root: Path, pattern: str, named: str) -> None:
    for path in root.glob(pattern):
        path.unlink()
    results = load_results(root)
    (gallery,) = GalleryMaker(results).galleries(STUDY, variant_styles(results.plan, STUDY))
    assert named in " ".join(gallery.missing)
    assert gallery.rows == {}


def test_colours_of_parsing_maps_differ() -> None:
    assert len({map_colour(index) for index in range(19)}) == 19
    drawn = np.asarray(coloured_map(np.array([[0, 3], [18, 1]], np.uint8)).convert("RGB"))
    assert tuple(drawn[0, 1]) == map_colour(3) and tuple(drawn[1, 0]) == map_colour(18)


def face_results(root: Path) -> Results:
    """Faces: JPEG with maps on images, latents with maps, and latents with attributes alone."""
    config = EmbeddedFaces(source="embedded-faces", size=64, train=0, val=0, test=2)
    generate_faces(config, root / "data/faces")
    ids = [3_000_000, 3_000_001]
    buffer = io.BytesIO()
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(buffer, "PNG")
    found = base64.b64encode(buffer.getvalue()).decode()
    parsing, attributes = {"parsing": found}, {"attributes": [1]}
    coded = {
        "jpeg": ("jpeg", "face-analysis-on-images", "miou", parsing),
        "latents": ("layered", "face-parsing-on-features", "miou", parsing),
        "blind": ("layered", "face-attributes-on-features", "attribute_accuracy", attributes),
    }
    variants, points, curves = {}, [], []
    for name, (codec, task, metric, prediction) in coded.items():
        variants[name] = Variant(label=name, codec=codec, task=task, mode="m", dataset="faces")
        labels: dict[str, Any] = {"study": "faces", "variant": name, "rate_index": 0, "seed": 0}
        folder = root / f"runs/faces/{name}/rate0-seed0"
        own = {"codec": codec, "task": task, "dataset": "faces", "folder": str(folder)}
        points.append(PointSummary.model_construct(**labels, **own, evaluated=True, encoding=name))
        numbers = {"bpp": 1.0, "value": 0.5, "low": 0.4, "high": 0.6}
        curves.append({**labels, "metric": metric, **numbers})
        folder.mkdir(parents=True)
        predictions = [{"image_id": identity, **prediction} for identity in ids]
        (folder / "predictions.json").write_text(json.dumps(predictions))
    with new_archive(root / "encoded/jpeg/decoded.zip") as add:
        for identity in ids:
            add(f"{identity}.png", buffer.getvalue())
    shown = VisualComparison(title="T", bpp=1.0, images=1, variants=list(variants))
    study = Study.model_construct(name="faces", variants=variants, visual_comparisons=[shown])
    run: Any = SimpleNamespace(studies=["faces"])
    plan = PlanSummary.model_construct(
        run=run,
        scale=Scale.model_construct(name="any", tasks={}),
        studies={"faces": study},
        points=points,
        datasets={"faces": DatasetSpec(role="faces", folder="-", manifest="-", settings=config)},
    )
    none = pd.DataFrame()
    return Results(root, plan, pd.DataFrame(curves), none, none, none, none, {}, {}, {}, [])


def test_parsing_maps_follow_their_image(tmp_path: Path) -> None:
    results = face_results(tmp_path)
    (gallery,) = GalleryMaker(results).galleries("faces", variant_styles(results.plan, "faces"))
    (sentence,) = gallery.missing
    assert sentence.startswith("blind")  # attributes of features: nothing to see
    assert "hair" in gallery.maps and not gallery.boxes
    ((image_id, tiles),) = gallery.rows.items()
    assert image_id == "3000000"
    titles = ["Original", "Ground truth", "jpeg", "jpeg", "latents"]
    assert [tile.title for tile in tiles] == titles
    assert tiles[3].lines[0] == "parsing map" and "50.0 %" in tiles[3].lines[1]
    place = tmp_path / "report/images"
    drawn = Image.open(place / "faces-0-3000000-map-2.png").convert("RGB")
    assert drawn.getcolors() == [(64 * 64, map_colour(9))]
    truth = Image.open(place / "faces-0-3000000-map-0.png").convert("RGB")
    assert len(truth.getcolors() or []) > 4


def test_ids_sort_as_numbers() -> None:
    assert sort_ids(["10", "9", "100"]) == ["9", "10", "100"]
    assert sort_ids(["kodim10", "kodim09"]) == ["kodim09", "kodim10"]
