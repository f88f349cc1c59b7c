"""Known colours, and the cost of the colour conversion alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from icmbench.codecs.classical.colour import (
    double,
    from_planes,
    halve,
    join_planes,
    rgb_to_ycbcr,
    split_planes,
    to_planes,
    ycbcr_to_rgb,
)
from icmbench.data.synthetic.scenes import make_scene
from icmbench.metrics.image_quality import psnr

Rounding = Literal["nearest", "truncate"]


@pytest.fixture(scope="module")
def kodak(mirror: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(p).convert("RGB")) for p in sorted((mirror / "kodak").iterdir())]


def cost(image: np.ndarray, bit_depth: int, rounding: Rounding = "nearest") -> float:
    planes = rgb_to_ycbcr(image, "bt709", bit_depth, rounding)
    return psnr(image, ycbcr_to_rgb(planes, "bt709", bit_depth, rounding))


# Hand-computed from Kr, Kb = 0.2126, 0.0722 and 0.299, 0.114 (Rec. ITU-R BT.709, BT.601):
# Y = 255 Kr for red, Cb = 128 - 255 Kr / (2 (1 - Kb)), Cr = 128 + 127.5, which is clipped.
COLOURS = {
    "bt709": {
        (0, 0, 0): (0, 128, 128),
        (255, 255, 255): (255, 128, 128),
        (255, 0, 0): (54, 99, 255),
        (0, 255, 0): (182, 30, 12),
        (0, 0, 255): (18, 255, 116),
        (128, 128, 128): (128, 128, 128),
    },
    "bt601": {(255, 0, 0): (76, 85, 255), (0, 255, 0): (150, 44, 21), (0, 0, 255): (29, 255, 107)},
}


@pytest.mark.parametrize("matrix", ["bt709", "bt601"])
def test_rgb_to_ycbcr_of_known_colours(matrix: Literal["bt709", "bt601"]) -> None:
    colours = COLOURS[matrix]
    planes = rgb_to_ycbcr(np.array([list(colours)], np.uint8), matrix, 8)
    assert np.array_equal(np.stack(planes, 2)[0], list(colours.values()))


def test_rgb_to_ycbcr_of_known_colours_in_ten_bits() -> None:
    planes = rgb_to_ycbcr(np.array([[[255, 0, 0], [0, 0, 0]]], np.uint8), "bt709", 10)
    # 1023 x 0.2126 = 217.5, 512 - 1023 x 0.2126 / 1.8556 = 394.8, 512 + 511.5 clipped
    assert [plane.tolist() for plane in planes] == [[[217, 0]], [[395, 512]], [[1023, 512]]]
    assert {plane.dtype for plane in planes} == {np.dtype(np.uint16)}


def test_rgb_to_ycbcr_agrees_with_libjpeg() -> None:
    image = make_scene(np.random.default_rng(2), 64).image
    own = np.stack(rgb_to_ycbcr(image, "bt601", 8), 2).astype(int)
    theirs = np.asarray(Image.fromarray(image).convert("YCbCr")).astype(int)
    assert np.abs(own - theirs).max() <= 1  # theirs is in fixed point


def test_conversion_costs_what_was_measured_on_kodak(kodak: list[np.ndarray]) -> None:
    nearest = [cost(image, 8) for image in kodak]
    assert min(nearest) >= 52
    assert np.mean(nearest) == pytest.approx(53.0, abs=0.3)
    # Measured upper bound of CompressAI's conversion.
    truncated = [cost(image, 8, "truncate") for image in kodak]
    assert np.mean(truncated) == pytest.approx(43.66, abs=0.005)


def test_conversion_costs_little_on_a_scene() -> None:
    scene = make_scene(np.random.default_rng(3), 128).image
    assert cost(scene, 8) >= 52


@pytest.mark.parametrize("matrix", ["bt709", "bt601"])
def test_conversion_in_ten_bits_is_lossless(matrix: Literal["bt709", "bt601"]) -> None:
    levels = np.arange(0, 256, 3, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(len(levels), -1, 3)
    assert np.array_equal(ycbcr_to_rgb(rgb_to_ycbcr(colours, matrix, 10), matrix, 10), colours)


@pytest.mark.parametrize("bit_depth", [8, 10])
def test_conversion_keeps_grey_exactly(bit_depth: int) -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, 2)
    assert cost(grey, bit_depth) == np.inf


def test_subsampling_keeps_an_even_ramp() -> None:
    ramp = np.add.outer(4 * np.arange(16), 8 * np.arange(16)).astype(np.uint16)
    assert np.array_equal(double(halve(ramp))[1:-1, 1:-1], ramp[1:-1, 1:-1])


@pytest.mark.parametrize("chroma", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("bit_depth", [8, 10])
def test_planes_keep_an_image_through_raw_video(chroma: str, bit_depth: int) -> None:
    image = make_scene(np.random.default_rng(4), 32).image[:, :24]
    planes = to_planes(image, chroma, bit_depth)
    again = split_planes(join_planes(planes), 32, 24, chroma, bit_depth)
    assert all(np.array_equal(a, b) for a, b in zip(planes, again, strict=True))
    assert psnr(image, from_planes(again, bit_depth)) > (52 if chroma == "4:4:4" else 28)
