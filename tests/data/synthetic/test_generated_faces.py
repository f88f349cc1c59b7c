"""Generated faces: deterministic, labels that fit the image, uneven attributes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from icmbench.data.images import ImageFiles
from icmbench.data.readers.faces import open_faces
from icmbench.data.specs import DatasetSpec, EmbeddedFaces
from icmbench.data.synthetic.face_look import (
    ATTRIBUTES,
    LABELS,
    PARSING,
    Painter,
    ellipse,
    sample_attributes,
    smooth,
)
from icmbench.data.synthetic.faces import generate_faces, make_face
from icmbench.errors import UserError
from icmbench.utils.files import read_json

CONFIG = EmbeddedFaces(source="embedded-faces", size=64, train=5, val=2, test=3)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> DatasetSpec:
    folder = tmp_path_factory.mktemp("faces")
    manifest = generate_faces(CONFIG, folder)
    return DatasetSpec(role="faces", folder=str(folder), manifest=str(manifest), settings=CONFIG)


@pytest.fixture(scope="module")
def drawn() -> list[Any]:
    return [make_face(np.random.default_rng([3, index]), 128) for index in range(60)]


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_generate_gives_equal_bytes_for_any_number_of_processes(
    faces: DatasetSpec, tmp_path: Path
) -> None:
    generate_faces(CONFIG, tmp_path, processes=2)
    assert files(tmp_path) == files(Path(faces.folder))
    assert len(files(tmp_path)) == 10  # images, maps, attributes of three splits; manifest


def test_generate_extends_a_split_without_changing_its_images(
    faces: DatasetSpec, tmp_path: Path
) -> None:
    generate_faces(CONFIG.model_copy(update={"train": 7}), tmp_path)
    small = read_json(Path(faces.folder) / "attributes_train.json")["values"]
    large = read_json(tmp_path / "attributes_train.json")["values"]
    assert len(large) == 7 and small.items() <= large.items()
    assert files(tmp_path)["test.zip"] == files(Path(faces.folder))["test.zip"]


def test_open_faces_gives_images_maps_and_attributes(faces: DatasetSpec) -> None:
    seen: set[Any] = set()
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        own = pickle.loads(pickle.dumps(open_faces(faces, split)))  # as loaders' workers get it
        assert len(own.ids) == count and not seen & set(own.ids)
        seen |= set(own.ids)
        assert own.attribute_names == ATTRIBUTES and own.parsing_names == PARSING
        assert own.attribute_table().shape == (count, len(ATTRIBUTES))
        number = {"train": 0, "val": 1, "test": 2}[split]
        expected = make_face(np.random.default_rng([CONFIG.seed, number, 0]), 64)
        identity = own.ids[0]
        assert np.array_equal(own.attributes(identity), expected.attributes)
        assert np.array_equal(own.parsing(identity, (64, 64)), expected.parsing)
        half = own.parsing(identity, (32, 48))
        assert half.shape == (32, 48) and set(np.unique(half)) <= set(np.unique(expected.parsing))
        image = ImageFiles(own.images).read(own.file(identity))
        assert np.array_equal(image, expected.image)


def test_open_faces_refuses_other_data_sets(faces: DatasetSpec, fetched: Any) -> None:
    with pytest.raises(UserError, match=r"'kodak'.*celeba"):
        open_faces(fetched(Path(), "kodak", {"images": "."}), "test")
    with pytest.raises(UserError, match=r"'all'.*train"):
        open_faces(faces, "all")
    with pytest.raises(UserError, match="nowhere"):
        open_faces(faces.model_copy(update={"folder": "nowhere"}), "test")


def test_face_maps_fit_attributes_and_geometry(drawn: list[Any]) -> None:
    column = {name: index for index, name in enumerate(ATTRIBUTES)}
    rows = np.arange(128)[:, None]
    for face in drawn:
        assert face.image.shape == (128, 128, 3) and face.image.dtype == np.uint8
        assert face.parsing.shape == (128, 128) and face.parsing.max() < len(PARSING)
        shown = set(np.unique(face.parsing))
        for attribute, part in (
            ("Wearing_Hat", "hat"),
            ("Eyeglasses", "glasses"),
            ("Wearing_Earrings", "earring"),
            ("Mouth_Slightly_Open", "mouth"),
        ):
            assert (LABELS[part] in shown) == bool(face.attributes[column[attribute]])
        assert {LABELS[n] for n in ("background", "skin", "nose", "hair", "lips", "neck")} <= shown
        height = {
            name: (rows * (face.parsing == LABELS[name])).sum()
            / (face.parsing == LABELS[name]).sum()
            for name in ("hair", "nose", "lips", "neck")
        }
        assert height["nose"] < height["lips"] < height["neck"]
    everywhere = {label for face in drawn for label in np.unique(face.parsing)}
    assert everywhere == set(range(len(PARSING)))


def test_face_colours_fit_attributes(drawn: list[Any]) -> None:
    column = {name: index for index, name in enumerate(ATTRIBUTES)}
    bright: dict[str, list[float]] = {"Black_Hair": [], "Blond_Hair": []}
    skin: dict[int, list[float]] = {0: [], 1: []}
    for face in drawn:
        for name, values in bright.items():
            if face.attributes[column[name]]:
                values.append(face.image[face.parsing == LABELS["hair"]].mean())
        pale = int(face.attributes[column["Pale_Skin"]])
        skin[pale].append(face.image[face.parsing == LABELS["skin"]].mean())
    assert max(bright["Black_Hair"]) < min(bright["Blond_Hair"])
    assert np.mean(skin[1]) > np.mean(skin[0]) + 20


def test_attributes_are_imbalanced_and_correlated() -> None:
    rng = np.random.default_rng(1)
    table = np.array([list(sample_attributes(rng)[0].values()) for _ in range(4000)])
    share = dict(zip(ATTRIBUTES, table.mean(0), strict=True))
    assert 0.05 < min(share.values()) < 0.1 and 0.55 < max(share.values()) < 0.65
    colours = table[:, [ATTRIBUTES.index(f"{c}_Hair") for c in ("Black", "Blond", "Brown", "Gray")]]
    assert colours.sum(1).max() == 1
    correlation = np.corrcoef(table.T)
    at = ATTRIBUTES.index
    assert correlation[at("Smiling"), at("Mouth_Slightly_Open")] > 0.35
    assert correlation[at("Young"), at("Gray_Hair")] < -0.25
    assert not (table[:, at("Bangs")] & table[:, at("Wearing_Hat")]).any()


def test_painter_areas_agree_with_geometry() -> None:
    painter = Painter(np.zeros((100, 100, 3), np.float32), (50, 50), 20, tilt=0.3)
    shape = painter.fill(ellipse(0, 0, 1, 0.5, steps=200))
    assert shape[1].sum() == pytest.approx(np.pi * 20 * 10, rel=0.02)
    painter.paint(shape, np.array([1, 0.5, 0], np.float32), 7)
    assert (painter.labels == 7).sum() == pytest.approx(np.pi * 20 * 10, rel=0.03)
    assert painter.canvas[50, 50].tolist() == [1, 0.5, 0]
    inside = (painter.x**2 + (painter.y / 0.5) ** 2) < 0.9
    assert (painter.labels[inside] == 7).all()  # coordinates of pixels and of outlines agree
    outside = painter.fill([(9, 9), (10, 9), (10, 10)])
    assert outside[1].size == 0
    painter.paint(outside, np.ones(3, np.float32), 3)
    assert not (painter.labels == 3).any()


def test_smooth_passes_through_its_points() -> None:
    points = [(0.0, 0.0), (1.0, 0.5), (2.0, -1.0), (0.5, -2.0)]
    for closed in (True, False):
        curve = np.array(smooth(points, closed))
        for point in points:
            assert np.abs(curve - point).sum(1).min() < 1e-9


def test_face_hair_has_fine_detail(drawn: list[Any]) -> None:
    """Blurring changes it: low rates lose it first."""
    lost = []
    for face in drawn[:20]:
        soft = Image.fromarray(face.image).filter(ImageFilter.GaussianBlur(1.5))
        hair = face.parsing == LABELS["hair"]
        lost.append(np.abs(face.image[hair].astype(float) - np.asarray(soft)[hair]).mean())
    assert np.mean(lost) > 4
