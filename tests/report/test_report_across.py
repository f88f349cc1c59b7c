"""What pages across studies are made of: kinds of tasks, complexity, downloads, parsing maps."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icmbench.data.specs import EmbeddedFaces
from icmbench.data.synthetic.face_look import PARSING
from icmbench.data.synthetic.faces import generate_faces
from icmbench.report.complexity import complexity_rows, complexity_table
from icmbench.report.downloads import curve_downloads, table_csv
from icmbench.report.drawing import coloured_map, map_colour
from icmbench.report.families import families_of
from icmbench.report.gallery import Images
from icmbench.report.outputs import (
    expected_outputs,
    leading_metrics,
    pages,
    study_page,
    study_plots,
    vision_roles,
)
from icmbench.report.results import Results, load_results
from icmbench.report.style import joint_styles, metric_style, variant_styles
from icmbench.report.tables import Cell, Table

STUDY = "somewhere2021"
J_FT = "hyperprior/faster-rcnn/j-ft"


@pytest.fixture(scope="module")
def results(made_results: Path) -> Results:
    return load_results(made_results)


def variant(codec: str, task: str, role: str = "r", **more: Any) -> dict[str, Any]:
    content = {"codec": codec, "task": task, "dataset": role, "mode": "m", "evaluate": True}
    return content | {"label": f"{codec}, {task}"} | more


def plan_of(**studies: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The part of a plan that names of files depend on; ``_`` stands for ``-`` in study names."""
    named = {name.replace("_", "-"): variants for name, variants in studies.items()}
    return {
        "run": {"studies": list(named), "modules": []},
        "studies": {name: {"variants": variants} for name, variants in named.items()},
        "points": [
            {"study": name, "variant": key, "evaluated": True, "encoding": None}
            for name, variants in named.items()
            for key in variants
        ],
    }


def test_pages_follow_from_the_plan() -> None:
    plan = plan_of(
        anchors={"a": variant("jpeg", "reconstruction")},
        methods={"a": variant("jpeg", "resnet-mask-rcnn"), "b": variant("uncoded", "linear-probe")},
        task_of={
            "a": variant("layered", "face-analysis-on-features", "faces"),
            "b": variant("jpeg", "face-parsing-on-images", "faces", evaluate=False),
        },
    )
    # A study whose name another page has gets a prefix; that of anchors has its place.
    assert pages(plan) == [
        "index.html",
        "classical.html",
        "study-methods.html",
        "study-task-of.html",
        *(
            f"task-{name}.html"
            for name in (
                "detection",
                "instance-segmentation",
                "classification",
                "face-attributes",
                "face-parsing",
            )
        ),
        "methods.html",
    ]
    assert study_page("zhu2024") == "zhu2024.html"
    outputs = expected_outputs(plan)
    assert len(outputs) == len(set(outputs))
    figures = [name for name in outputs if "/task-face-parsing-" in name]
    assert [name.rpartition("-rate-")[2] for name in figures] == [
        f"{metric}-faces.{suffix}"
        for metric in ("miou", "fwiou", "pixel_accuracy")
        for suffix in ("svg", "pdf")
    ]
    # Features make no images, so nothing of them has a PSNR.
    assert vision_roles(plan) == ["r"]
    assert leading_metrics(plan, "task-of") == ["attribute_accuracy", "miou"]
    assert ("psnr", None) not in study_plots(plan, "task-of")
    assert leading_metrics(plan, "methods") == ["box_map", "mask_map", "top1", "psnr"]


def test_kinds_of_tasks_follow_from_metrics() -> None:
    assert [(f.name, f.metrics) for f in families_of("any", ["mask_map", "psnr", "box_map"])] == [
        ("detection", ("box_map",)),
        ("instance-segmentation", ("mask_map",)),
    ]
    (own,) = families_of("count-cars", ["psnr", "count_error", "cars"])
    assert (own.name, own.title) == ("count-cars", "Count cars")
    assert own.metrics == ("count_error", "cars")
    assert families_of("reconstruction", ["psnr", "ms_ssim"]) == []
    for name in ("top1", "top5", "attribute_accuracy", "miou", "fwiou", "pixel_accuracy"):
        metric = metric_style(name)
        assert (metric.unit, metric.show(0.4321)) == ("%", "43.2")


def test_styles_across_studies_keep_the_variant_and_tell_the_study() -> None:
    one = {"a": variant("jpeg", "faster-rcnn"), "b": variant("uncoded", "faster-rcnn")}
    plan = plan_of(first=one, second=one)
    everything = [(study, name) for study in ("first", "second") for name in ("a", "b")]
    styles = joint_styles(plan, everything)
    assert list(styles) == ["first/a", "first/b", "second/a", "second/b"]
    alone = variant_styles(plan, "second")["a"]
    joint = styles["second/a"]
    assert (joint.colour, joint.shape) == (alone.colour, alone.shape)
    assert joint.label == f"second: {alone.label}"
    assert joint.dash != styles["first/a"].dash
    # One study alone needs no prefix.
    assert joint_styles(plan, everything[2:])["second/a"] == alone


def test_complexity_beside_accuracy(results: Results) -> None:
    styles = variant_styles(results.plan, STUDY)
    metrics = [metric_style("box_map")]
    table = complexity_table(results, STUDY, metrics, styles)
    assert table is not None
    # Reconstruction was counted and timed nowhere: it has no column.
    assert not [name for name in table.columns if name.startswith("Reconstruction")]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    shown = dict(zip(table.columns[1:], rows["J-FT"], strict=True))
    assert shown["Codec, million parameters"] == "5.00 to 5.03"
    assert shown["Task network, million parameters"] == "41.00"
    assert shown["Encoding, kMAC per pixel"] == "40.5"
    assert shown["Encoding, ms per image"] == "100.0"
    assert shown["Decoding, ms per image"] == "20.0 to 50.0"
    jpeg = dict(zip(table.columns[1:], rows["JPEG"], strict=True))
    assert jpeg["Codec, million parameters"] == jpeg["Encoding, kMAC per pixel"] == "\N{EN DASH}"
    curve = [100 * row["value"] for row in results.curve(STUDY, "box_map", J_FT)]
    assert shown["Box mAP (%)"] == f"{min(curve):.1f} to {max(curve):.1f}"
    source = complexity_rows(results, STUDY, metrics, styles)
    last = next(r for r in source if r["variant"] == J_FT and r["rate_index"] == 3)
    assert (last["parameters_codec"], last["kmacs_task"]) == (5_030_000, 260.0)
    assert last["decode_ms"] == pytest.approx(50) and last["reconstruct_ms"] is None
    originals = next(row for row in source if row["variant"].startswith("uncoded"))
    assert originals["encode_ms"] is None


def test_results_without_complexity_have_dashes(results: Results) -> None:
    before = {
        key: {name: value for name, value in content.items() if name != "complexity"}
        for key, content in results.evaluations.items()
    }
    changed = dataclasses.replace(results, evaluations=before, records=None)
    table = complexity_table(changed, STUDY, [], variant_styles(results.plan, STUDY))
    assert table is not None and table.columns == ["Variant", "Rate (bpp)"]


def test_csv_of_cells_repeats_what_spans_rows() -> None:
    table = Table(
        "T",
        ["Name", "A, (b)", "C"],
        [
            [Cell("x", "head", 2), Cell("\N{MINUS SIGN}1.5", "number", note="[1, 2]"), Cell("u")],
            [Cell("\N{EN DASH}", "number"), Cell("v", rows=2)],
            [Cell("y", "head"), Cell("2", "number")],
        ],
    )
    assert list(csv.reader(io.StringIO(table_csv(table)))) == [
        ["Name", "A, (b)", "A, (b): note", "C"],
        ["x", "-1.5", "[1, 2]", "u"],
        ["x", "", "", "v"],
        ["y", "2", "", "v"],
    ]


def test_curves_are_the_files_of_the_analysis(results: Results) -> None:
    styles = variant_styles(results.plan, STUDY)
    files = {d.text: d for d in curve_downloads(results, styles.values())}
    assert len(files) == 4
    content = json.loads(base64.b64decode(files["J-FT"].uri.partition(",")[2]))
    assert len(content["results"]["bpp"]) == 4 and "box-map" in content["results"]


def test_colours_of_parsing_maps() -> None:
    colours = {map_colour(index) for index in range(19)}
    assert len(colours) == 19
    drawn = np.asarray(coloured_map(np.array([[0, 3], [18, 1]], np.uint8)))
    assert drawn.shape == (6, 6, 3)
    assert tuple(drawn[0, 5]) == map_colour(3) and tuple(drawn[5, 0]) == map_colour(18)


def face_results(root: Path) -> Results:
    """Faces: JPEG with maps on images, latents with maps, and latents with attributes alone."""
    config = EmbeddedFaces(source="embedded-faces", size=64, train=0, val=0, test=2)
    generate_faces(config, root / "data/faces")
    ids = [3_000_000, 3_000_001]
    variants = {
        "jpeg": variant("jpeg", "face-analysis-on-images", "faces"),
        "latents": variant("layered", "face-parsing-on-features", "faces"),
        "blind": variant("layered", "face-attributes-on-features", "faces"),
    }
    plan = plan_of(faces=variants)
    plan["datasets"] = {"faces": {**config.model_dump(), "folder": "elsewhere"}}
    shown = {"title": "T", "bpp": 1.0, "images": 1, "variants": list(variants)}
    plan["studies"]["faces"]["images"] = [shown]
    curves = []
    for point, name in zip(plan["points"], variants, strict=True):
        point |= {"codec": variants[name]["codec"], "task": variants[name]["task"]}
        point |= {"dataset": "faces", "rate_index": 0, "seed": 0, "key": f"faces/{name}"}
        point["encoding"] = name
        metric = "attribute_accuracy" if name == "blind" else "miou"
        labels = {key: point[key] for key in ("study", "variant", "rate_index", "seed")}
        curves.append({**labels, "bpp": 1.0, "metric": metric, "value": 0.5})
        predictions = []
        for identity in ids:
            buffer = io.BytesIO()
            Image.fromarray(np.full((64, 64), 9, np.uint8)).save(buffer, "PNG")
            found = base64.b64encode(buffer.getvalue()).decode()
            own = {"attributes": [0.5]} if name == "blind" else {"parsing": found}
            predictions.append({"image_id": identity, **own})
        folder = root / "runs" / point["key"]
        folder.mkdir(parents=True)
        (folder / "predictions.json").write_text(json.dumps(predictions))
    image = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(image, "PNG")
    (root / "encoded/jpeg").mkdir(parents=True)
    with zipfile.ZipFile(root / "encoded/jpeg/decoded.zip", "w") as archive:
        for identity in ids:
            archive.writestr(f"{identity}.png", image.getvalue())
    return Results(root, plan, curves, [], None, {}, {})


def test_parsing_maps_stand_below_the_images(tmp_path: Path) -> None:
    results = face_results(tmp_path)
    (gallery,) = Images(results).galleries("faces", variant_styles(results.plan, "faces"))
    assert gallery.missing == [
        "layered, face-attributes-on-features: its task reads features, and no image is decoded."
    ]
    assert gallery.maps == PARSING and not gallery.boxes
    (_, images), (words, maps) = gallery.rows
    assert words == "3000000, parsing maps"
    assert [tile.title for tile in images] == ["Original", "jpeg, face-analysis-on-images"]
    assert [tile.title for tile in maps] == [
        "Ground truth",
        "jpeg, face-analysis-on-images",
        "layered, face-parsing-on-features",
    ]
    assert maps[1].lines == ["parsing map", "all images: Mean IoU 50.0 % at 1.000 bpp"]
    drawn = Image.open(tmp_path / "report/images/faces-0-3000000-map-2.png").convert("RGB")
    assert drawn.getcolors() == [(192 * 192, map_colour(9))]
    truth = Image.open(tmp_path / "report/images/faces-0-3000000-map-0.png").convert("RGB")
    assert len(truth.getcolors() or []) > 4
