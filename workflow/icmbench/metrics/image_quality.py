"""Quality of a decoded image against the original: PSNR and MS-SSIM."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from icmbench.errors import UserError
from icmbench.metrics.catalogue import PIXEL_METRICS
from icmbench.utils.images import RgbImage

# Five scales with a window of 11 pixels (Wang, Simoncelli and Bovik, Multiscale structural
# similarity for image quality assessment, 2003).
_MS_SSIM_MIN_SIDE = 161

# Weight, factors of R, G and B, and their divisor, for each of Y, Cb and Cr: BT.709 in integers.
_YCBCR = (
    (6, (2126, 7152, 722), 10000),
    (1, (-2126, -7152, 9278), 2 * 9278),
    (1, (7874, -7152, -722), 2 * 7874),
)


def quality(
    original: RgbImage, decoded: RgbImage, metrics: Sequence[str] = PIXEL_METRICS
) -> dict[str, float]:
    """Return image metrics of two uint8 RGB images [H, W, 3], by name.

    Args:
        original: the image.
        decoded: what a codec left of it.
        metrics: names.

    Raises:
        UserError: if the shapes differ.
    """
    functions: dict[str, Callable[[RgbImage, RgbImage], float]] = {
        "psnr": psnr,
        "psnr_ycbcr": psnr_ycbcr,
        "ms_ssim": ms_ssim,
    }
    return {name: functions[name](original, decoded) for name in metrics}


def psnr(original: RgbImage, decoded: RgbImage) -> float:
    """Return the PSNR in dB over all samples of two uint8 RGB images [H, W, 3].

    Infinite for equal images.

    Raises:
        UserError: if the shapes differ.

    >>> black = np.zeros((8, 8, 3), np.uint8)
    >>> round(psnr(black, black + np.uint8(1)), 2)  # 10 log10(255^2)
    48.13
    >>> psnr(black, black)
    inf
    """
    _check(original, decoded)
    error = np.subtract(original, decoded, dtype=np.int16).ravel()
    squares = int(np.einsum("i,i->", error, error, dtype=np.int64))
    return _decibels(squares / error.size)


def psnr_ycbcr(original: RgbImage, decoded: RgbImage) -> float:
    """Return (6 PSNR of Y + PSNR of Cb + PSNR of Cr) / 8, in dB, of two uint8 RGB images.

    The weights are those of Ohm et al., Comparison of the coding efficiency of video coding
    standards (IEEE TCSVT 22(12), 2012). Y, Cb and Cr are BT.709, full range, computed from the
    8-bit RGB samples at full resolution and not rounded. A component without any error, such as the
    chroma of grey images, is left out with its weight; infinite for equal images.

    Raises:
        UserError: if the shapes differ.

    An error of 1 in R, G and B is an error of 1 in Y and of 0 in Cb and Cr:

    >>> black = np.zeros((8, 8, 3), np.uint8)
    >>> round(psnr_ycbcr(black, black + np.uint8(1)), 2)
    48.13
    """
    _check(original, decoded)
    error = np.subtract(original, decoded, dtype=np.float64).reshape(-1, 3)
    # The conversion is linear, so the squared errors of its components are sums over products of
    # RGB errors. These are integers below 2^53, and exact.
    products = [[int(value) for value in row] for row in error.T @ error]
    total = weights = 0.0
    for weight, row, scale in _YCBCR:
        squares = sum(
            row[i] * row[j] * products[i][j] for i in range(len(row)) for j in range(len(row))
        )
        if squares:
            total += weight * _decibels(squares / scale**2 / len(error))
            weights += weight
    return total / weights if weights else math.inf


def ms_ssim(original: RgbImage, decoded: RgbImage) -> float:
    """Return MS-SSIM in [0, 1] of two uint8 RGB images, by pytorch-msssim.

    NaN if the shorter side is below 161 pixels, for which the metric is not defined.

    Raises:
        UserError: if the shapes differ.

    >>> grey = np.full((161, 200, 3), 128, np.uint8)
    >>> round(ms_ssim(grey, grey), 3), ms_ssim(grey[:64], grey[:64])
    (1.0, nan)
    """
    _check(original, decoded)
    if min(original.shape[:2]) < _MS_SSIM_MIN_SIDE:
        return math.nan
    from pytorch_msssim import ms_ssim as compute

    from icmbench.utils.images import to_tensor

    return float(compute(to_tensor(original), to_tensor(decoded), data_range=1.0))


def _decibels(mean: float) -> float:
    return math.inf if mean == 0 else 10 * math.log10(255**2 / mean)


def _check(original: RgbImage, decoded: RgbImage) -> None:
    if original.shape != decoded.shape:
        raise UserError(f"decoded image is {decoded.shape}, the original {original.shape}")
