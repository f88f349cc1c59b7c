"""Images in any mode become uint8 RGB, as stated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icmbench.data.images import list_images, read_image


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (5, 7, 3)).astype(np.uint8)


def test_read_image_keeps_rgb(tmp_path: Path, colours: np.ndarray) -> None:
    Image.fromarray(colours).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), colours)


def test_read_image_repeats_grey(tmp_path: Path, colours: np.ndarray) -> None:
    Image.fromarray(colours[..., 0]).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert all(np.array_equal(read[..., i], colours[..., 0]) for i in range(3))


def test_read_image_keeps_upper_bits_of_16_bit_grey(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255, 256, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 1, 255]


def test_read_image_looks_up_palettes(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([1, 0])
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[200, 100, 50], [10, 20, 30]]]


def test_read_image_lays_alpha_over_black(tmp_path: Path) -> None:
    samples = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]]], np.uint8)
    Image.fromarray(samples).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert read[0, 0].tolist() == [200, 100, 50]
    assert read[0, 1].tolist() == [0, 0, 0]
    assert np.abs(read[0, 2].astype(int) - [100, 50, 25]).max() <= 1


def test_read_image_converts_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red, green, blue = read_image(tmp_path / "a.jpg")[4, 4].tolist()
    assert red > 240 and green < 15 and blue < 15


def test_list_images_ignores_case_and_folders(tmp_path: Path, colours: np.ndarray) -> None:
    for name in ("b.JPEG", "a.PNG", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "inner").mkdir()
    Image.fromarray(colours).save(tmp_path / "inner" / "c.png")
    assert [path.name for path in list_images(tmp_path)] == ["a.PNG", "b.JPEG"]
    assert list_images(tmp_path / "nowhere") == []
