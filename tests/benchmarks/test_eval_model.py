"""The benchmark against CompressAI's eval_model: both measure the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.models import Cheng2020Anchor, ScaleHyperprior
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import eval_model

NETWORKS = {
    "bmshj2018-hyperprior": (ScaleHyperprior, 16, 24),
    "cheng2020-anchor": (Cheng2020Anchor, 8),
}


@pytest.mark.parametrize("codec", NETWORKS)
def test_rates_and_psnr_equal_eval_model(codec: str, tmp_path: Path) -> None:
    kind, *sizes = NETWORKS[codec]
    torch.manual_seed(0)
    network = kind(*sizes)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.startswith("g_a.") and weight.ndim == 4:
                weight *= 1.6
    checkpoint, image = tmp_path / "net.pth", tmp_path / "image.png"
    torch.save({"state_dict": network.state_dict()}, checkpoint)
    coarse = np.random.default_rng(1).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(coarse).resize((256, 192), Image.Resampling.BICUBIC).save(image)
    bpp, psnr = eval_model._ours(codec, checkpoint)(image)
    expected_bpp, expected_psnr = eval_model._theirs(codec, checkpoint)(image)
    assert bpp == pytest.approx(expected_bpp, abs=1e-6) and bpp > 0.01
    assert psnr == pytest.approx(expected_psnr, abs=1e-3)
