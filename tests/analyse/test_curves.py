from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from icmbench.analyse.curves import evaluate_folder
from icmbench.errors import UserError
from icmbench.evaluate.records import COLUMNS, read_records, write_records
from icmbench.evaluate.statistics import MeanStatistics, save_statistics


def test_evaluate_folder_gives_rates_and_metrics(make_point: Any) -> None:
    pixels = np.arange(100, 120)
    point = make_point("a", 0, np.arange(20) * 10 + 10, 0.5, pixels=pixels, psnr=range(20))
    evaluation = evaluate_folder(point.folder, 50, 0)
    bits = np.arange(20) * 10 + 10
    assert evaluation.rates == {
        "bpp": pytest.approx(bits.sum() / pixels.sum()),
        "bpp_coded": pytest.approx(bits.sum() / (20 * 128)),
        "bpp_estimated": pytest.approx(99 * 20 / pixels.sum()),
        "bpp_mean": pytest.approx((bits / pixels).mean()),
    }
    assert evaluation.values == pytest.approx(
        {"accuracy": 0.5, "psnr": 9.5, "psnr_ycbcr": 31.0, "ms_ssim": 0.9}
    )
    assert evaluation.rate_samples.shape == (50,)
    assert evaluation.rate_samples.std() > 0


def test_evaluate_folder_matches_statistics_by_image_id(make_point: Any) -> None:
    """Bits and accuracy are equal per image, though stored in opposite orders."""
    bits = np.arange(1, 21) * 7
    evaluation = evaluate_folder(make_point("a", 0, bits, bits / 100).folder, 30, 0)
    assert evaluation.value_samples["accuracy"] == pytest.approx(evaluation.rate_samples)


def test_evaluate_folder_leaves_out_a_metric_without_values(make_point: Any) -> None:
    point = make_point("uncoded", 0, 2400, 0.5, psnr=np.nan, bits_estimated=np.nan)
    evaluation = evaluate_folder(point.folder, 10, 0)
    assert sorted(evaluation.values) == ["accuracy", "ms_ssim", "psnr_ycbcr"]
    assert evaluation.rates["bpp"] == 24.0
    assert np.isnan(evaluation.rates["bpp_estimated"])


def test_evaluate_folder_refuses_a_partly_missing_metric(make_point: Any) -> None:
    point = make_point("a", 0, 100, 0.5, psnr=[np.nan] + [30.0] * 19)
    with pytest.raises(UserError, match=r"records\.parquet: .*psnr.* 1 of 20"):
        evaluate_folder(point.folder, 10, 0)


def test_evaluate_folder_leaves_out_ms_ssim_of_some_images(make_point: Any) -> None:
    point = make_point("a", 0, 100, 0.5, psnr=[30.0] * 20, ms_ssim=[np.nan] + [0.9] * 19)
    values = evaluate_folder(point.folder, 10, 0).values
    assert values["psnr"] == 30.0 and "ms_ssim" not in values


def test_evaluate_folder_prefers_statistics_files(make_point: Any) -> None:
    point = make_point("a", 0, 100, 0.5)
    images = MeanStatistics(np.arange(20), {"psnr": np.full(20, 33.0)})
    save_statistics(point.folder / "statistics-pixels.npz", images)
    assert evaluate_folder(point.folder, 10, 0).values["psnr"] == 33.0
    save_statistics(point.folder / "statistics-z.npz", images)
    with pytest.raises(UserError, match=r"statistics-z\.npz: .*'psnr'"):
        evaluate_folder(point.folder, 10, 0)


def test_evaluate_folder_refuses_statistics_of_other_images(make_point: Any) -> None:
    point = make_point("a", 0, 100, 0.5)
    save_statistics(
        point.folder / "statistics-acc.npz", MeanStatistics(range(1, 21), {"accuracy": range(20)})
    )
    with pytest.raises(UserError, match=r"statistics-acc\.npz: .*'0'"):
        evaluate_folder(point.folder, 10, 0)


def test_evaluate_folder_refuses_two_operating_points(make_point: Any) -> None:
    point = make_point("a", 0, 100, 0.5)
    path = point.folder / "records.parquet"
    good = read_records(path)
    write_records(path, pd.concat([good, good.assign(rate_index=1)]))
    with pytest.raises(UserError, match=r"records\.parquet: .*'0'"):
        evaluate_folder(point.folder, 10, 0)


def test_records_are_checked_on_write_and_read(make_point: Any) -> None:
    path = make_point("a", 0, 100, 0.5).folder / "records.parquet"
    good = read_records(path)
    assert list(good.columns) == list(COLUMNS)
    for bad, words in (
        (good.drop(columns="bits"), "bits"),
        (good.assign(bits=0), "bits.* 0"),
        (good.assign(psnr="high"), "psnr.*float64"),
        (pd.concat([good, good[good["image_id"] == "3"]]), "'3'"),
    ):
        with pytest.raises(UserError, match=rf"records\.parquet: .*{words}"):
            write_records(path, bad)
    with pytest.raises(UserError, match=r"other\.parquet"):
        read_records(path.with_name("other.parquet"))
    assert read_records(path).equals(good)
