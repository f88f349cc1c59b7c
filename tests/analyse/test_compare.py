"""Comparing two result sets: what changed beyond noise, what has no counterpart, what differs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from icmbench.analyse.bootstrap import image_weights, percentile_interval
from icmbench.analyse.compare import compare, p_value
from icmbench.analyse.curves import PointFiles, evaluate_folder
from icmbench.analyse.tables import LABELS
from icmbench.cli import main
from icmbench.utils.files import write_json

RATES = range(4)
IMAGES = 20
Results = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def results(tmp_path: Path, make_point: Any) -> Results:
    """Write a results folder of one study: a codec that was trained, and JPEG."""

    def make(
        name: str,
        *,
        gain: float = 0.0,
        bits: float = 1.0,
        rates: range = RATES,
        seeds: tuple[int, ...] = (0,),
        noise: int = 1,
        digest: str = "d",
        torch: str = "2.13.0",
        steps: int = 100,
        **columns: Any,
    ) -> Path:
        root = tmp_path / name
        points: list[PointFiles] = []
        for variant in ("learned", "jpeg"):
            rng = np.random.default_rng([noise, len(variant)])
            for rate in rates:
                quality = 0.4 + 0.1 * rate + rng.normal(0, 0.05, IMAGES)
                size = 1e3 * 2**rate * np.exp(rng.normal(0, 0.2, IMAGES))
                if variant == "learned":
                    # A known shift, not the same for all images.
                    quality = quality + gain * rng.uniform(0.5, 1.5, IMAGES)
                    size = size * bits
                for seed in seeds:
                    points.append(make_point(variant, rate, size, quality, seed=seed, **columns))
        for point in points:
            shutil.move(point.folder, root / "runs" / key(point))
            described = {
                "dataset": {"digest": digest},
                "implementation": "libjpeg",
                "environment": {"device": "cpu", "versions": {"torch": torch}},
            }
            write_json(root / "runs" / key(point) / "evaluate.json", described)
        write_json(root / "plan.json", plan(points, seeds, steps))
        return root

    return make


def key(point: PointFiles) -> str:
    return f"{point.study}/{point.variant}/rate{point.rate_index}-seed{point.seed}"


def plan(points: list[PointFiles], seeds: tuple[int, ...], steps: int) -> dict[str, Any]:
    """A plan of another machine: its folders do not exist here."""
    optimiser = {"name": "adam", "lr": 0.001}
    schedule = {"steps": steps, "batch_size": 1, "optimisers": {"codec": optimiser},
                "origin": "ours", "note": str(steps)}  # fmt: skip
    variant = {"label": "", "codec": "jpeg", "task": "task", "mode": "mode", "dataset": "d"}
    study = {
        "name": "study",
        "title": "",
        "reference": {"authors": "", "venue": "", "year": 2026},
        "summary": "",
        "schedules": {"s": schedule},
        "variants": {point.variant: variant for point in points},
    }
    return {
        "run": {"seeds": list(seeds), "modules": ["a_module_that_is_not_installed"]},
        "left_out": [],
        "scale": {"name": "tiny", "description": "", "datasets": {}},
        "studies": {"study": study},
        "datasets": {},
        "points": [
            {name: getattr(point, name) for name in LABELS}
            | {"key": key(point), "folder": f"elsewhere/{key(point)}", "label": "", "dataset": "d"}
            | {"trained": False, "evaluated": True, "encoding": None, "scale": "tiny"}
            | {"rate_parameter": None, "rate_value": None}
            for point in points
        ],
    }


def test_compare_finds_copies_identical(results: Results, capsys: Capture) -> None:
    a = results("a")
    b = a.parent / "b"
    shutil.copytree(a, b)
    assert main(["compare", str(a), str(b)]) == 0
    lines = capsys.readouterr().out.splitlines()
    # Two variants, four rates, and accuracy, bpp and the three image metrics of the records.
    assert lines[-1].startswith("0 of 40 ") and "40 identical" in lines[-1]
    assert lines[:-1] == [f"A: {a}", f"B: {b}", ""]


def test_compare_finds_a_known_shift_only(results: Results) -> None:
    found = compare(results("a"), results("b", gain=0.02, bits=0.9))
    beyond = found.table[found.table["verdict"] == "beyond noise"]
    assert set(zip(beyond["variant"], beyond["metric"], strict=True)) == {
        ("learned", "accuracy"),
        ("learned", "bpp"),
    }
    assert len(beyond) == 8 and (found.table["verdict"].iloc[8:] == "identical").all()
    gains = beyond[beyond["metric"] == "accuracy"]
    assert gains["difference"].between(0.015, 0.025).all()
    # The pairing leaves the spread of the shift, far below that of the images (0.05).
    assert ((gains["high"] - gains["low"]) < 0.01).all()
    rates = beyond[beyond["metric"] == "bpp"]
    np.testing.assert_allclose(rates["b"] / rates["a"], 0.9, rtol=1e-3)


def test_compare_does_not_report_noise(results: Results) -> None:
    """Independent noise on the same images: what B differs by is chance."""
    found = compare(results("a", noise=1), results("b", noise=2))
    tested = found.table[found.table["p"].notna()]
    assert len(tested) == 16 and (tested["verdict"] == "within noise").sum() >= 13
    assert not (tested["verdict"] == "beyond noise").any()


def test_p_value_agrees_with_a_t_test(results: Results) -> None:
    rng = np.random.default_rng(5)
    weights = image_weights(200, 4000, 0)
    for shift in (0.0, 0.1, 0.2):
        a, b = rng.normal(0, 1, 200), rng.normal(0, 1, 200)
        b += a + shift
        samples = weights @ (b - a) / 200
        p = p_value(float((b - a).mean()), samples, (200, 200))
        assert p == pytest.approx(stats.ttest_rel(b, a).pvalue, rel=0.15, abs=1e-4)


@pytest.mark.parametrize(
    ("images", "paired", "least"),
    [((5, 5), True, 1 / 16), ((3, 4), False, 2 / 35), ((1, 1), True, 1)],
)
def test_p_value_is_that_of_a_permutation_test_at_least(
    images: tuple[int, int], paired: bool, least: float
) -> None:
    # The same shift on every image: there is no spread, but only so many ways to swap the sides.
    assert p_value(1.0, np.ones(50), images, paired) == pytest.approx(least)


def test_compare_adjusts_p_values_by_benjamini_hochberg(results: Results) -> None:
    table = compare(results("a", noise=1), results("b", noise=2)).table
    p = table["p"].dropna().sort_values()
    # Rank i: p times the number of tests over i; of these, the least from there on.
    scaled = p.to_numpy() * p.size / np.arange(1, p.size + 1)
    expected = np.minimum.accumulate(scaled[::-1])[::-1]
    np.testing.assert_allclose(table.loc[p.index, "p_adjusted"], expected)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"digest": "e"}, "digests differ"),
        ({"pixels": 99}, "other sizes"),
        ({"image_id": [str(i) for i in range(1, IMAGES + 1)]}, "19 ids in both"),
    ],
)
def test_compare_does_not_pair_different_images(
    results: Results, capsys: Capture, other: dict[str, Any], why: str
) -> None:
    a = results("a")
    b = results("b", gain=0.02, **({} if "image_id" in other else other))
    if "image_id" in other:  # the statistics hold the ids, too
        for file in b.rglob("statistics-acc.npz"):
            arrays = dict(np.load(file))
            np.savez(file, **{**arrays, "image_ids": arrays["image_ids"] + 1})
        for file in b.rglob("records.parquet"):
            pd.read_parquet(file).assign(**other).to_parquet(file)
    found = compare(a, b)
    assert len(found.notes) == 8 and all(why in note for note in found.notes)
    assert not found.table["paired_images"].any()
    # Unpaired, the images' own spread hides the shift that pairing shows.
    gains = found.table.query("metric == 'accuracy' and variant == 'learned'")
    assert ((gains["low"] < 0) & (gains["high"] > 0)).all()
    assert main(["compare", str(a), str(b)]) == 0
    assert why in capsys.readouterr().out


def test_compare_lists_points_without_counterpart(results: Results, capsys: Capture) -> None:
    a, b = results("a"), results("b", rates=range(1, 4))
    shutil.rmtree(b / "runs/study/jpeg/rate3-seed0")  # planned and not evaluated yet
    found = compare(a, b)
    assert found.only_a[["variant", "rate_index", "pending"]].to_numpy().tolist() == [
        ["jpeg", 0, False],
        ["jpeg", 3, True],
        ["learned", 0, False],
    ]
    assert found.only_b.empty and len(found.table) == 5 * 5
    assert main(["compare", str(a), str(b)]) == 0
    out = capsys.readouterr().out
    assert "study/jpeg (rate 3; seed 0)" in out and "3 points only in A" in out


def test_compare_pairs_common_seeds_and_pools_others(results: Results) -> None:
    a = results("a", seeds=(0, 1))
    some = compare(a, results("b", seeds=(1, 2), gain=0.02))
    assert some.table["paired_seeds"].all() and set(some.table["seeds_a"]) == {"1"}
    assert set(some.only_a["seed"]) == {0} and set(some.only_b["seed"]) == {2}
    none = compare(a, results("c", seeds=(2, 3), gain=0.02))
    assert not none.table["paired_seeds"].any() and none.only_a.empty and none.only_b.empty
    assert set(none.table["seeds_a"]) == {"0;1"} and set(none.table["seeds_b"]) == {"2;3"}


def test_compare_two_seeds_of_one_folder(results: Results, capsys: Capture) -> None:
    root = results("a", seeds=(0, 1))
    assert main(["compare", str(root), str(root), "--seeds", "0", "1"]) == 0
    assert "40 identical" in capsys.readouterr().out
    assert main(["compare", str(root), str(root), "--seeds", "0", "7"]) == 1
    assert "seed 7; choose from 0, 1" in capsys.readouterr().err


def test_compare_counts_the_spread_of_seeds_as_noise(results: Results, make_point: Any) -> None:
    """Seeds that go two ways: a mean that images alone would call a change is not one."""
    a, b = results("a", seeds=(0, 1)), results("b", seeds=(2, 3), gain=0.02)
    one_way = compare(a, b).table
    for file in b.rglob("rate*-seed3/statistics-acc.npz"):
        arrays = dict(np.load(file))
        np.savez(file, **{**arrays, "values": arrays["values"] - 0.03})
    two_ways = compare(a, b).table

    def widths(table: pd.DataFrame) -> np.ndarray:
        chosen = table.query("metric == 'accuracy' and variant == 'learned'")
        return (chosen["high"] - chosen["low"]).to_numpy()

    assert (widths(two_ways) > 2 * widths(one_way)).all()


def test_compare_needs_more_than_two_seeds_that_agree(results: Results) -> None:
    """Gains of 2 and 1.6 points: each alone is beyond noise, but two seeds may agree by chance."""
    a, b = results("a", seeds=(0, 1)), results("b", seeds=(0, 1), gain=0.02)
    for file in b.rglob("learned/rate*-seed1/statistics-acc.npz"):
        arrays = dict(np.load(file))
        np.savez(file, **{**arrays, "values": arrays["values"] - 0.004})
    chosen = "metric == 'accuracy' and variant == 'learned'"
    both = compare(a, b).table.query(chosen)
    assert both["paired_seeds"].all() and (both["verdict"] == "within noise").all()
    alone = compare(a, b, seeds=(0, 0)).table.query(chosen)
    assert (alone["verdict"] == "beyond noise").all()
    assert (both["p"] > 0.05).all() and (alone["p"] < 1e-3).all()


def test_compare_of_one_seed_uses_percentiles_and_the_t_test(results: Results) -> None:
    """Percentiles and the t test over images, to the last digit."""
    found = compare(results("a"), results("b", gain=0.02, noise=2))
    sides = [
        [evaluate_folder(side / f"runs/study/learned/rate{r}-seed0", 1000, 0) for r in RATES]
        for side in (found.a, found.b)
    ]
    rows = found.table.query("metric == 'accuracy' and variant == 'learned'")
    for row in rows.itertuples():
        a, b = (side[int(row.rate_index)] for side in sides)
        samples = b.value_samples["accuracy"] - a.value_samples["accuracy"]
        assert (row.low, row.high) == percentile_interval(samples)
        t = abs(row.difference) / float(np.std(samples, ddof=1))
        assert row.p == pytest.approx(2 * stats.t.sf(t, IMAGES - 1), rel=1e-12)


def test_compare_reports_a_metric_of_one_side(results: Results, capsys: Capture) -> None:
    a, b = results("a"), results("b")
    (b / "runs/study/learned/rate2-seed0/statistics-acc.npz").unlink()
    found = compare(a, b)
    (row,) = found.table[found.table["verdict"] != "identical"].to_dict("records")
    assert (row["metric"], row["rate_index"], row["verdict"]) == ("accuracy", 2, "undefined")
    assert np.isfinite(row["a"]) and np.isnan([row["b"], row["difference"], row["p"]]).all()
    assert main(["compare", str(a), str(b)]) == 0
    out = capsys.readouterr().out
    assert "undefined" in out and out.splitlines()[-1].count("1 undefined") == 1


def test_compare_accepts_lossless_images(results: Results) -> None:
    a, b = results("a", psnr=np.inf), results("b")
    table = compare(a, b).table
    psnr = table[table["metric"] == "psnr"]
    assert (psnr["verdict"] == "undefined").all() and psnr["p"].isna().all()
    same = compare(a, a).table
    assert (same["verdict"] == "identical").all()


def test_compare_lists_settings_and_environments(results: Results, capsys: Capture) -> None:
    found = compare(results("a"), results("b", steps=50, torch="2.14.0", roundtrip_ok=False))
    # The note, which differs too, is not a setting.
    assert found.settings == [("studies.study.schedules.s.steps", "100", "50")]
    assert found.environment == [("evaluation: torch", "2.13.0", "2.14.0")]
    assert len(found.notes) == 8 and all("20 images of B" in note for note in found.notes)
    assert main(["compare", str(found.a), str(found.b)]) == 0
    assert "studies.study.schedules.s.steps: 100 -> 50" in capsys.readouterr().out


def test_compare_writes_csv_and_shortens_lists(
    results: Results, tmp_path: Path, capsys: Capture
) -> None:
    a, b, file = results("a"), results("b", gain=0.02), tmp_path / "out/c.csv"
    arguments = ["compare", str(a), str(b / "plan.json"), "--output", str(file), "--rows", "3"]
    assert main(arguments) == 0
    assert "and 1 more" in capsys.readouterr().out
    table = pd.read_csv(file)
    assert len(table) == 40 and (table["verdict"] == "beyond noise").sum() == 4


def test_compare_names_unusable_folders(results: Results, tmp_path: Path, capsys: Capture) -> None:
    a = results("a")
    assert main(["compare", str(a), str(tmp_path / "none")]) == 1
    assert str(tmp_path / "none/plan.json") in capsys.readouterr().err
    assert main(["compare", str(a.parent), str(a)]) == 1
    assert f"{a}?" in capsys.readouterr().err
    broken = tmp_path / "broken"
    write_json(broken / "plan.json", {"points": 3})
    assert main(["compare", str(a), str(broken)]) == 1
    assert f"{broken / 'plan.json'}: key 'run'" in capsys.readouterr().err
    shutil.rmtree(a / "runs")
    assert main(["compare", str(a), str(a)]) == 1
    assert str(a) in capsys.readouterr().err
