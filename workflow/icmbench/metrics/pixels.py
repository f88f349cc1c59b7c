"""Quality of a decoded picture against the original, for human vision."""

from __future__ import annotations

import math

import numpy as np

from icmbench.codecs.base import Picture
from icmbench.errors import UserError

_MS_SSIM_MIN_SIDE = 161  # five scales with an 11-pixel window (Wang, Simoncelli, Bovik, 2003)


def psnr(original: Picture, decoded: Picture) -> float:
    """Return the PSNR in dB over all samples of two uint8 RGB pictures [H, W, 3].

    Infinite for equal pictures.

    Raises:
        UserError: where the shapes differ.
    """
    _check(original, decoded)
    error = original.astype(np.float64) - decoded.astype(np.float64)
    mean = float(np.mean(error * error))
    return math.inf if mean == 0 else 10 * math.log10(255**2 / mean)


def ms_ssim(original: Picture, decoded: Picture) -> float:
    """Return MS-SSIM in [0, 1] of two uint8 RGB pictures, by pytorch-msssim.

    NaN where the shorter side is under 161 pixels, for which the metric is not defined.
    """
    _check(original, decoded)
    if min(original.shape[:2]) < _MS_SSIM_MIN_SIDE:
        return math.nan
    from pytorch_msssim import ms_ssim as compute

    from icmbench.pixels import to_tensor

    return float(compute(to_tensor(original), to_tensor(decoded), data_range=1.0))


def _check(original: Picture, decoded: Picture) -> None:
    if original.shape != decoded.shape:
        raise UserError(f"decoded picture is {decoded.shape}, the original {original.shape}")
