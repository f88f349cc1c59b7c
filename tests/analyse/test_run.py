from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from icmbench.analyse.curves import PointFiles
from icmbench.analyse.run import analyse, rates_against_ladder
from icmbench.errors import UserError
from icmbench.plugins import load_modules

VERSUS = [("study", "test", "anchor")]


def run(
    out: Path, points: Sequence[PointFiles], comparisons: Any = VERSUS, **options: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    analyse(points, comparisons, out, **{"resamples": 200} | options)
    curves, bd = (
        # Empty flags stay empty strings; only ``nan`` is a missing number.
        pd.read_csv(out / f"tables/{name}.csv", keep_default_na=False, na_values=["nan"])
        for name in ("curves", "bd")
    )
    return curves, bd


def one(bd: pd.DataFrame, metric: str = "accuracy") -> pd.Series:
    rows = bd[bd["metric"] == metric]
    assert len(rows) == 1
    return rows.iloc[0]


def test_analyse_writes_tables_and_curves(tmp_path: Path, make_curve: Any) -> None:
    points = make_curve("anchor") + make_curve("test", noise=2)
    curves, bd = run(tmp_path / "out", points[::-1])
    assert list(curves.columns[:15]) == [
        *("study", "variant", "codec", "task", "mode", "rate_index", "seed"),
        *("bpp", "bpp_coded", "bpp_estimated", "metric", "value", "low", "high", "n_images"),
    ]
    assert len(curves) == 8 * 4
    assert curves["variant"].is_monotonic_increasing
    assert (curves["n_images"] == 20).all()
    noisy = curves[curves["metric"] == "accuracy"]
    assert (noisy["low"] < noisy["value"]).all()
    assert (noisy["value"] < noisy["high"]).all()
    assert bd["metric"].tolist() == ["accuracy", "ms_ssim", "psnr", "psnr_ycbcr"]
    assert (one(bd)["n_points"], one(bd)["n_points_anchor"], one(bd)["n_seeds"]) == (4, 4, 1)
    records = pd.read_parquet(tmp_path / "out/tables/records.parquet")
    assert len(records) == 8 * 20
    # Labels come from the list of points, not from the files.
    assert set(records["variant"]) == {"anchor", "test"}
    assert sorted(p.name for p in (tmp_path / "out/curves/study").iterdir()) == [
        "anchor.json",
        "test.json",
    ]


def test_bd_results_agree_with_the_scalar_functions(tmp_path: Path, make_curve: Any) -> None:
    from icmbench.metrics.bd import bd_accuracy, bd_rate_pct

    points = make_curve("anchor") + make_curve("test", factor=0.9, noise=2)
    curves, bd = run(tmp_path / "out", points)
    curves = curves[curves["metric"] == "accuracy"]
    parts = []
    for variant in ("anchor", "test"):
        own = curves[curves["variant"] == variant]
        parts += [own["bpp"].to_numpy(float), own["value"].to_numpy(float) * 100]
    row = one(bd)
    assert row["bd_rate_pct"] == pytest.approx(bd_rate_pct(*parts).value, rel=1e-6)
    assert row["bd_accuracy_points"] == pytest.approx(bd_accuracy(*parts).value, rel=1e-6)
    assert row["overlap"] == pytest.approx(bd_rate_pct(*parts).overlap, rel=1e-6)
    assert row["low"] < row["bd_rate_pct"] < row["high"]
    assert row["accuracy_low"] < row["bd_accuracy_points"] < row["accuracy_high"]
    assert row["n_resamples_used"] == row["n_resamples"] == 200


@pytest.mark.parametrize("method", ["pchip", "akima", "cubic"])
def test_bd_results_are_paired_over_images(tmp_path: Path, make_curve: Any, method: str) -> None:
    """The same accuracies at exactly 1.5 times the bits: 50 % in every resample."""
    points = make_curve("anchor", factor=2.0) + make_curve("test", factor=3.0)
    _, bd = run(tmp_path / "out", points, method=method, resamples=40)
    row = one(bd)
    assert [row["bd_rate_pct"], row["low"], row["high"]] == pytest.approx([50.0] * 3, abs=1e-6)
    assert row["method"] == method
    assert row["n_resamples_used"] == 40


def test_bd_results_are_in_points_and_psnr_in_db(tmp_path: Path, make_point: Any) -> None:
    points = []
    for r in range(4):
        bits, psnr = 1e4 * 2**r, 30.0 + r
        for variant, gain, more in (("anchor", 0.0, 0.0), ("test", 0.02, 0.5)):
            quality = {"psnr": psnr + more, "psnr_ycbcr": psnr + 2 * more}
            points.append(make_point(variant, r, bits, 0.3 + 0.1 * r + gain, **quality))
    _, bd = run(tmp_path / "out", points, resamples=5)
    for metric, gain in (("accuracy", 2.0), ("psnr", 0.5), ("psnr_ycbcr", 1.0)):
        row = one(bd, metric)
        assert row["bd_accuracy_points"] == pytest.approx(gain)
        assert [row["accuracy_low"], row["accuracy_high"]] == pytest.approx([gain, gain])
    # Constant MS-SSIM is no curve: the envelope has one point.
    assert "too-few-points" in one(bd, "ms_ssim")["flags"]
    assert np.isnan(one(bd, "ms_ssim")["bd_rate_pct"])
    assert one(bd, "ms_ssim")["n_resamples_used"] == 0


def test_lower_distances_are_a_gain(tmp_path: Path, make_point: Any) -> None:
    points = []
    for r in range(4):
        for variant, less in (("anchor", 0.0), ("test", 0.05)):
            points.append(make_point(variant, r, 1e4 * 2**r, 0.3, lpips=0.5 - 0.1 * r - less))
    curves, bd = run(tmp_path / "out", points, resamples=5)
    own = curves[(curves["metric"] == "lpips") & (curves["variant"] == "anchor")]
    assert own["value"].tolist() == pytest.approx([0.5, 0.4, 0.3, 0.2])
    row = one(bd, "lpips")
    assert row["bd_rate_pct"] < -20
    assert row["bd_accuracy_points"] == pytest.approx(0.05)
    records = pd.read_parquet(tmp_path / "out/tables/records.parquet")
    assert records["lpips"].notna().all() and "dists" not in records


def test_bd_results_average_and_resample_seeds(tmp_path: Path, make_curve: Any) -> None:
    anchor = make_curve("anchor")
    gains = {0: 0.0, 1: 0.02, 2: 0.04}
    test = [p for seed, gain in gains.items() for p in make_curve("test", 1.0, gain, seed=seed)]
    _, bd = run(tmp_path / "out", anchor + test)
    row = one(bd)
    # The same images in both curves, so only the seeds vary: 2 +- 4.3 sd(4, 2, 0)/sqrt(3) points.
    assert row["bd_accuracy_points"] == pytest.approx(2.0, abs=0.01)
    assert (row["n_seeds"], row["n_points"]) == (3, 4)
    reach = stats.t.isf(0.025, 2) * 2 / np.sqrt(3)
    assert row["accuracy_low"] == pytest.approx(2 - reach, rel=0.1)
    assert row["accuracy_high"] == pytest.approx(2 + reach, rel=0.1)
    assert -100 < row["low"] < row["bd_rate_pct"] < row["high"]
    _, alone = run(tmp_path / "alone", anchor + test[4:8])
    width = one(alone)["accuracy_high"] - one(alone)["accuracy_low"]
    assert width == pytest.approx(0.0, abs=1e-6)


def test_bd_results_use_the_metrics_of_each_comparison(tmp_path: Path, make_curve: Any) -> None:
    points = make_curve("anchor") + make_curve("test", noise=2) + make_curve("other", noise=3)
    named = [
        ("study", "test", "anchor", ("accuracy",)),
        # a metric that was not measured gives no row: MS-SSIM of small images
        ("study", "other", "anchor", ("psnr", "mask_map")),
    ]
    _, bd = run(tmp_path / "out", points, named, resamples=5)
    assert list(zip(bd["variant"], bd["metric"], strict=True)) == [
        ("other", "psnr"),
        ("test", "accuracy"),
    ]


def test_bd_results_count_undefined_resamples(tmp_path: Path, make_point: Any) -> None:
    """Curves that barely overlap: some resamples have no common range."""
    rng = np.random.default_rng(0)
    points = []
    for r in range(4):
        noise = rng.normal(0, 0.05, 20)
        points.append(make_point("anchor", r, 1e4 * 2**r, 0.3 + 0.05 * r + noise))
        points.append(make_point("test", r, 1e4 * 2**r, 0.44 + 0.05 * r + noise[::-1]))
    _, bd = run(tmp_path / "out", points)
    row = one(bd)
    assert 0 < row["n_resamples_used"] < row["n_resamples"] == 200
    assert row["accuracy_n_resamples_used"] == 200
    assert "low-overlap" in row["flags"].split(";")
    assert np.isfinite([row["low"], row["high"]]).all()


def test_bd_results_leave_out_lossless_points(tmp_path: Path, make_point: Any) -> None:
    points = []
    for r in range(5):
        psnr = 30.0 + r + np.arange(20) / 20
        if r == 4:
            psnr[3] = np.inf
        for variant, factor in (("anchor", 1.0), ("test", 1.2)):
            points.append(make_point(variant, r, factor * 1e4 * 2**r, 0.3 + r / 10, psnr=psnr))
    curves, bd = run(tmp_path / "out", points)
    assert np.isinf(
        curves[(curves["metric"] == "psnr") & (curves["rate_index"] == 4)]["value"]
    ).all()
    row = one(bd, "psnr")
    assert row["n_points"] == 4
    assert row["flags"] == "non-finite:2"
    assert row["bd_rate_pct"] == pytest.approx(20.0)
    assert one(bd)["n_points"] == 5


def test_analyse_repeats_byte_for_byte(tmp_path: Path, make_curve: Any) -> None:
    points = make_curve("anchor") + make_curve("test", 0.8, noise=2)
    run(tmp_path / "one", points)
    run(tmp_path / "two", points[::-1])
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert [str(f) for f in files] == [
        "curves/study/anchor.json",
        "curves/study/test.json",
        "tables/bd.csv",
        "tables/curves.csv",
        "tables/per_class.csv",
        "tables/records.parquet",
    ]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    run(tmp_path / "other", points, seed=1)
    assert (tmp_path / "one/tables/bd.csv").read_bytes() != (
        tmp_path / "other/tables/bd.csv"
    ).read_bytes()


def test_analyse_uses_one_folder_for_two_studies(tmp_path: Path, make_curve: Any) -> None:
    points = make_curve("anchor")
    again = [dataclasses.replace(point, study="second", variant="jpeg/x") for point in points]
    curves, bd = run(tmp_path / "out", points + again, [])
    assert len(curves) == 8 * 4
    assert bd.empty
    first, second = (curves[curves["study"] == s] for s in ("study", "second"))
    assert first["value"].tolist() == second["value"].tolist()
    assert (tmp_path / "out/curves/second/jpeg/x.json").is_file()


def test_analyse_of_one_folder_for_every_seed_equals_that_of_copies(
    tmp_path: Path, make_curve: Any
) -> None:
    test = [
        p for seed in (0, 1, 2) for p in make_curve("test", 0.8, 0.01, seed=seed, noise=2 + seed)
    ]
    copies = [p for seed in (0, 1, 2) for p in make_curve("anchor", seed=seed)]
    first = {point.rate_index: point.folder for point in copies if point.seed == 0}
    shared = [dataclasses.replace(point, folder=first[point.rate_index]) for point in copies]
    for name, anchor in (("copies", copies), ("shared", shared)):
        run(tmp_path / name, anchor + test)
    tables = sorted(path.name for path in (tmp_path / "copies/tables").iterdir())
    assert {"bd.csv", "curves.csv", "records.parquet"} <= set(tables)
    for name in tables:
        one, other = (tmp_path / side / "tables" / name for side in ("copies", "shared"))
        assert one.read_bytes() == other.read_bytes(), name


def test_analyse_refuses_different_images(tmp_path: Path, make_point: Any, make_curve: Any) -> None:
    other = make_point("test", 0, 100, 0.5)
    renamed = pd.read_parquet(other.folder / "records.parquet")
    renamed["image_id"] = [f"x{i}" for i in range(20)]
    renamed.to_parquet(other.folder / "records.parquet")
    (other.folder / "statistics-acc.npz").unlink()
    with pytest.raises(UserError, match=r"study: 'test' .*different images"):
        run(tmp_path, [*make_curve("anchor"), other])


def test_analyse_does_not_import_torch(tmp_path: Path, make_curve: Any) -> None:
    points = make_curve("anchor") + make_curve("test", 0.8, noise=2)
    code = (
        "import sys; from pathlib import Path; from icmbench.analyse.run import *\n"
        "folders = sys.argv[2:]\n"
        "points = [PointFiles('s', Path(f).parent.name, 'c', 't', 'm', i % 4, 0, Path(f))"
        " for i, f in enumerate(folders)]\n"
        "analyse(points, [('s', 'test', 'anchor')], sys.argv[1], resamples=5)\n"
        "assert not {'torch', 'compressai', 'mlflow'} & set(sys.modules)\n"
    )
    arguments = [str(tmp_path / "out"), *(str(point.folder) for point in points)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/tables/bd.csv").is_file()


def test_analyse_writes_records_in_row_groups(
    tmp_path: Path, make_curve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from icmbench.analyse.tables import LABELS
    from icmbench.evaluate.records import RecordsTable, read_records, write_records

    points = make_curve("b") + make_curve("a", noise=2) + make_curve("b", seed=1)
    frames = [
        read_records(point.folder / "records.parquet").assign(
            **{name: getattr(point, name) for name in LABELS}
        )
        for point in points
    ]
    write_records(tmp_path / "once.parquet", pd.concat(frames, ignore_index=True))
    run(tmp_path / "whole", points, [])
    whole = (tmp_path / "whole/tables/records.parquet").read_bytes()
    assert whole == (tmp_path / "once.parquet").read_bytes()
    # 12 points of 20 images in row groups of 7: points are cut in the middle.
    monkeypatch.setattr(RecordsTable, "ROWS", 7)
    run(tmp_path / "parts", points, [])
    import pyarrow.parquet as pq

    file = pq.ParquetFile(tmp_path / "parts/tables/records.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [7, 7, 7]
    assert file.metadata.num_row_groups == -(-12 * 20 // 7)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "parts/tables/records.parquet"),
        pd.read_parquet(tmp_path / "once.parquet"),
    )


def test_rates_against_the_ladder_are_named() -> None:
    load_modules([])
    rates = {
        ("jpeg", "rises"): [0.1, 0.2, 0.4],
        ("jpeg", "falls"): [0.1, 0.4, 0.25],
        ("x265-444", "stays"): [0.1, 0.1, 0.2],
        ("bmshj2018-hyperprior", "learned"): [0.2, 0.1, 0.4],  # training may do that
    }
    curves = pd.DataFrame(
        [
            {"study": "s", "variant": v, "codec": c, "rate_index": i, "seed": seed, "bpp": bpp}
            for (c, v), values in rates.items()
            for i, bpp in enumerate(values)
            for seed in range(2)
        ]
    )
    falls, stays = rates_against_ladder(curves)
    assert falls.startswith("s/falls: 0.25 bpp at rate index 2 ") and "0.4 before" in falls
    assert stays.startswith("s/stays: 0.1 bpp at rate index 1 ")
