"""Image quality against hand-computed cases, published numbers and other code."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icmbench.errors import UserError
from icmbench.metrics.catalogue import PIXEL_METRICS
from icmbench.metrics.image_quality import ms_ssim, psnr, psnr_ycbcr, quality

GREY = np.full((10, 20, 3), 100, np.uint8)


def changed(red: int = 0, green: int = 0, blue: int = 0) -> np.ndarray:
    return (GREY.astype(int) + np.array([red, green, blue])).astype(np.uint8)


def decibels(error: float) -> float:
    """PSNR of an error that is the same everywhere."""
    return 20 * math.log10(255 / abs(error))


def noisy(seed: int, shape: tuple[int, ...] = (50, 70, 3)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    original = rng.integers(0, 256, shape, dtype=np.uint8)
    return original, np.clip(original + rng.normal(0, 20, shape), 0, 255).astype(np.uint8)


def test_psnr_of_known_errors() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black) == math.inf
    assert psnr(black, black + 255) == psnr(black + 255, black) == 0
    one = black.copy()
    one[0, 0, 0] = 48  # 48^2 / 48 samples = 48
    assert psnr(black, one) == pytest.approx(10 * math.log10(255**2 / 48))


def test_psnr_is_exact() -> None:
    original, decoded = noisy(1)
    squares = sum((int(a) - int(b)) ** 2 for a, b in zip(original.flat, decoded.flat, strict=True))
    assert psnr(original, decoded) == 10 * math.log10(255**2 / (squares / original.size))
    assert psnr(original[:, ::2], decoded[:, ::2]) == psnr(
        original[:, ::2].copy(), decoded[:, ::2].copy()
    )


def test_psnr_ycbcr_of_known_errors() -> None:
    # Red by 10: Y by 2.126, Cb by -2.126 / 1.8556, Cr by (10 - 2.126) / 1.5748 = 5.
    expected = (6 * decibels(2.126) + decibels(2.126 / 1.8556) + decibels(5)) / 8
    assert psnr_ycbcr(GREY, changed(red=10)) == pytest.approx(expected, abs=1e-12)
    # Blue by -20: Y by -1.444, Cb by -10, Cr by 1.444 / 1.5748.
    expected = (6 * decibels(1.444) + decibels(10) + decibels(1.444 / 1.5748)) / 8
    assert psnr_ycbcr(GREY, changed(blue=-20)) == pytest.approx(expected, abs=1e-12)


def test_psnr_ycbcr_leaves_out_components_without_error() -> None:
    assert psnr_ycbcr(GREY, GREY) == math.inf
    # Grey stays grey: only Y has an error.
    assert psnr_ycbcr(GREY, changed(5, 5, 5)) == pytest.approx(decibels(5), abs=1e-12)
    # 2126 x 17 - 7152 x 10 + 722 x 49 = 0: Y has none.
    expected = (decibels(49 / 1.8556) + decibels(17 / 1.5748)) / 2
    assert psnr_ycbcr(GREY, changed(17, -10, 49)) == pytest.approx(expected, abs=1e-12)


def test_psnr_ycbcr_equals_compressais_conversion() -> None:
    from compressai.transforms.functional import rgb2ycbcr  # BT.709, full range, in [0, 1]
    from torch import from_numpy

    original, decoded = noisy(2)
    parts = [
        rgb2ycbcr(from_numpy(p.astype(np.float64) / 255).permute(2, 0, 1)[None]).numpy()[0]
        for p in (original, decoded)
    ]
    mean = ((parts[0] - parts[1]) ** 2).mean((1, 2))
    levels = -10 * np.log10(mean)
    expected = (6 * levels[0] + levels[1] + levels[2]) / 8
    assert psnr_ycbcr(original, decoded) == pytest.approx(expected, abs=1e-9)


def test_quality_has_every_image_metric() -> None:
    original, decoded = noisy(3, (176, 200, 3))
    found = quality(original, decoded)
    assert tuple(found) == PIXEL_METRICS
    assert found == {
        "psnr": psnr(original, decoded),
        "psnr_ycbcr": psnr_ycbcr(original, decoded),
        "ms_ssim": ms_ssim(original, decoded),
    }


@pytest.mark.parametrize("metric", [psnr, psnr_ycbcr, ms_ssim])
def test_metrics_refuse_different_shapes(metric: object) -> None:
    assert callable(metric)
    with pytest.raises(UserError, match=r"\(2, 20, 3\)"):
        metric(GREY, GREY[:2])


def test_ms_ssim_is_defined_from_161_pixels() -> None:
    small = np.zeros((160, 200, 3), np.uint8)
    assert math.isnan(ms_ssim(small, small))
    noise = np.random.default_rng(0).integers(0, 255, (176, 176, 3), np.uint8)
    assert ms_ssim(noise, noise) == pytest.approx(1)
    assert ms_ssim(noise, 255 - noise) < 0.5


def test_ms_ssim_of_jpeg_on_kodak_is_the_published_one(mirror: Path) -> None:
    published = Path(__file__).parents[2] / "workflow/studies/published/jpeg.json"
    results = json.loads(published.read_text())["results"]
    values = []
    for path in sorted((mirror / "kodak").glob("*.png")):
        original = np.asarray(Image.open(path).convert("RGB"))
        buffer = io.BytesIO()
        Image.fromarray(original).save(buffer, "JPEG", quality=50)
        values.append(ms_ssim(original, np.asarray(Image.open(buffer))))
    assert len(values) == 24
    # libjpeg-turbo has a better upsampling of chroma since Pillow 7.1.2, which CompressAI used.
    assert 0 <= np.mean(values) - results["ms-ssim-rgb"][9] < 0.002
