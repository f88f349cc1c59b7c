"""What metrics are, and what a metric registered by a user's module gets from it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from icmbench.analyse.bd_table import Curve, measured_bd
from icmbench.config.claims import PointEffect, effect_unit
from icmbench.errors import UserError
from icmbench.metrics.catalogue import METRICS, PIXEL_METRICS, Metric, family_metrics, find_metric
from icmbench.registry import TASKS, Registry

FID = Metric("fid", "FID", better="lower", fraction=False)


@pytest.fixture
def own() -> Iterator[Metric]:
    """A user's metric, for the time of a test."""
    entries = dict(METRICS._entries)
    yield METRICS.register(FID)
    METRICS._entries = entries


def test_every_metric_of_a_task_is_described() -> None:
    import icmbench.tasks  # noqa: F401

    named = {name for task in TASKS for name in task.metrics if "." not in task.name}
    assert named <= set(METRICS.names())
    assert family_metrics("detection") == ("box_map", "box_map50", "box_map75")
    assert PIXEL_METRICS == ("psnr", "psnr_ycbcr", "ms_ssim")


@pytest.mark.parametrize(
    ("name", "heading", "difference", "factor"),
    [
        ("box_map", "Box mAP (%)", "points", 100.0),
        ("psnr", "PSNR (dB)", "dB", 1.0),
        ("ms_ssim", "MS-SSIM", "points", 100.0),
        ("bpp", "Rate (bpp)", "bpp", 1.0),
        ("edge_f2", "edge f2", "points", 100.0),
        ("bd_rate_pct:box_map", "BD-rate at equal Box mAP (%)", "%", 1.0),
        ("bd_accuracy_points:psnr", "BD of PSNR at equal rate (dB)", "dB", 1.0),
    ],
)
def test_metric_units(name: str, heading: str, difference: str, factor: float) -> None:
    metric = find_metric(name)
    assert metric.heading == heading
    assert (metric.difference_unit, metric.difference_factor) == (difference, factor)


def test_metric_keys_are_compressais() -> None:
    names = ["psnr", "psnr_ycbcr", "ms_ssim", "box_map", "not_registered"]
    keys = ["psnr-rgb", "psnr-ycbcr-611", "ms-ssim-rgb", "box-map", "not-registered"]
    assert [find_metric(name).json_key for name in names] == keys


def test_own_metric_gives_claims_their_unit(own: Metric) -> None:
    effect = PointEffect(form="point", variant="a", anchor="b", metric="fid", rate_index=0)
    assert effect_unit(effect) == ""
    assert effect_unit(effect.model_copy(update={"metric": "not_registered"})) == "points"


def test_registering_another_metric_of_the_same_name_is_refused() -> None:
    registry: Registry[Metric] = Registry("metric")
    registry.register(FID)
    with pytest.raises(UserError, match="'fid'"):
        registry.register(Metric("fid", "Another"))


def test_lower_is_better_reverses_a_bd_metric() -> None:
    rate = np.array([0.1, 0.2, 0.4, 0.8])
    quality = np.array([40.0, 30.0, 22.0, 16.0])  # falls with rate, as FID does

    def curve(rates: np.ndarray) -> Curve:
        samples = (np.tile(rates, (2, 1)), np.tile(quality, (2, 1)))
        return Curve(rates, quality, *samples, seeds=1, left_out=0, sign=FID.sign)

    result, samples = measured_bd("bd_rate_pct", curve(rate), curve(rate / 2), "pchip")
    assert result.value == pytest.approx(-50) and samples == pytest.approx(-50)
    gain, _ = measured_bd("bd_accuracy_points", curve(rate), curve(rate / 2), "pchip")
    assert gain.value > 0


def test_importing_the_catalogue_is_light() -> None:
    code = (
        "import sys, icmbench.metrics.catalogue\n"
        "heavy = {'numpy', 'pandas', 'torch', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
