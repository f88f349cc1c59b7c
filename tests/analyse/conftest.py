"""Small evaluated operating points, written as the evaluator writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from icmbench.analyse.curves import PointFiles
from icmbench.evaluate.records import write_records
from icmbench.evaluate.statistics import MeanStatistics, save_statistics

IMAGES = 20


def records(**columns: Any) -> pd.DataFrame:
    """Records of ``IMAGES`` images of 100 pixels, with the given columns replaced."""
    frame = {
        "study": "somewhere",
        "variant": "else",
        "codec": "jpeg",
        "task": "faster-rcnn",
        "mode": "anchor",
        "rate_index": 9,
        "seed": 9,
        "dataset": "embedded",
        "split": "val",
        "image_id": [str(i) for i in range(IMAGES)],
        "pixels": 100,
        "pixels_coded": 128,
        "bits": 100,
        "bits_estimated": 99.0,
        "psnr": 30.0,
        "psnr_ycbcr": 31.0,
        "ms_ssim": 0.9,
        "encode_s": 0.1,
        "decode_s": 0.1,
        "reconstruct_s": float("nan"),
        "roundtrip_ok": True,
        "implementation": "test",
    }
    return pd.DataFrame(frame | columns)


MakePoint = Callable[..., PointFiles]


@pytest.fixture
def make_point(tmp_path: Path) -> MakePoint:
    """Write one operating point whose per-image ``accuracy`` and bits are given."""

    def make(
        variant: str,
        rate_index: int,
        bits: Any,
        accuracy: Any,
        *,
        seed: int = 0,
        study: str = "study",
        **columns: Any,
    ) -> PointFiles:
        folder = tmp_path / "points" / study / variant / f"{rate_index}-{seed}"
        table = records(bits=np.round(np.broadcast_to(bits, IMAGES)).astype(int), **columns)
        write_records(folder / "records.parquet", table)
        # The task's order of images need not be that of the records.
        order = np.arange(IMAGES)[::-1]
        values = np.broadcast_to(np.asarray(accuracy, float), IMAGES)[order]
        save_statistics(folder / "statistics-acc.npz", MeanStatistics(order, {"accuracy": values}))
        return PointFiles(study, variant, "jpeg", "task", "mode", rate_index, seed, folder)

    return make


@pytest.fixture
def make_curve(make_point: MakePoint) -> Callable[..., list[PointFiles]]:
    """Write four operating points along a rising curve with per-image noise."""

    def make(
        variant: str, factor: float = 1.0, gain: float = 0.0, *, seed: int = 0, noise: int = 1
    ) -> list[PointFiles]:
        rng = np.random.default_rng(noise)
        points = []
        for rate_index in range(4):
            bits = 1e4 * 2.0**rate_index * np.exp(rng.normal(0, 0.2, IMAGES))
            accuracy = 0.3 + 0.1 * rate_index + rng.normal(0, 0.02, IMAGES) + gain
            bits = np.round(bits) * factor
            points.append(make_point(variant, rate_index, bits, accuracy, seed=seed))
        return points

    return make
