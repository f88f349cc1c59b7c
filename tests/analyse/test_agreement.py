"""A run against curves of record: noise of images, of seeds, and what is not compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from icmbench.analyse import agreement as places
from icmbench.analyse.agreement import TABLE, agreement
from icmbench.analyse.record import compare_records, record_table
from icmbench.analyse.tables import CURVE_COLUMNS, write_result_table
from icmbench.cli import main

IMAGES = 50


def curve(values: list[float], **changes: Any) -> list[dict[str, Any]]:
    """Rows of one operating point: a value for each seed."""
    row = {"study": "study", "variant": "v", "codec": "c", "task": "t", "mode": "m"}
    row |= {"rate_index": 0, "bpp": 0.5, "bpp_coded": 0.5, "bpp_estimated": 0.5, "bpp_mean": 0.5}
    row |= {"metric": "top1", "n_images": IMAGES, **changes}
    half = changes.get("half", 0.0)
    row.pop("half", None)
    return [
        row | {"seed": seed, "value": value, "low": value - half, "high": value + half}
        for seed, value in enumerate(values)
    ]


def written(folder: Path, *rows: list[dict[str, Any]]) -> Path:
    table = pd.DataFrame([row for own in rows for row in own], columns=CURVE_COLUMNS)
    name = "tables/curves.csv" if folder.name == "run" else "curves.csv"
    write_result_table(folder / name, table)
    return folder


def verdicts(record: Path, run: Path) -> dict[str, str]:
    table = compare_records([record], run).table
    return dict(zip(table["metric"], table["verdict"], strict=True))


def test_a_run_within_the_intervals_agrees(tmp_path: Path) -> None:
    record = written(tmp_path / "record", curve([0.6], half=0.05))
    run = written(tmp_path / "run", curve([0.64], half=0.05))
    assert verdicts(record, run) == {"top1": "within noise", "bpp": "identical"}
    far = written(tmp_path / "far/run", curve([0.75], half=0.05))
    assert verdicts(record, far)["top1"] == "beyond noise"


def test_seeds_of_the_record_widen_what_agrees(tmp_path: Path) -> None:
    """The interval of one new seed is the t test's over the seeds of the record."""
    seeds = [0.60, 0.62, 0.64]
    record = written(tmp_path / "record", curve(seeds))
    run = written(tmp_path / "run", curve([0.70]))
    (row,) = compare_records([record], run).table.query("metric == 'top1'").to_dict("records")
    error = 0.02 * (1 / 3 + 1) ** 0.5
    assert row["high"] - row["difference"] == pytest.approx(stats.t.ppf(0.975, 2) * error)
    assert row["p"] == pytest.approx(2 * stats.t.sf(0.08 / error, 2))
    assert (row["seeds_a"], row["seeds_b"], row["verdict"]) == ("0;1;2", "0", "within noise")


def test_a_changed_rate_without_seeds_counts(tmp_path: Path) -> None:
    record = written(tmp_path / "record", curve([0.6], half=0.05))
    run = written(tmp_path / "run", curve([0.6], half=0.05, bpp=0.51))
    assert verdicts(record, run) == {"bpp": "beyond noise", "top1": "identical"}


def test_a_learned_codecs_rate_without_seeds_is_undefined(tmp_path: Path) -> None:
    own = {"codec": "bmshj2018-hyperprior", "half": 0.05}
    record = written(tmp_path / "record", curve([0.6], **own))
    run = written(tmp_path / "run", curve([0.6], **own, bpp=0.51))
    assert verdicts(record, run) == {"bpp": "undefined", "top1": "identical"}
    several = written(tmp_path / "more/record", curve([0.6, 0.6], **own))
    assert verdicts(several, run)["bpp"] == "beyond noise"


def test_points_of_other_images_are_not_compared(tmp_path: Path) -> None:
    record = written(tmp_path / "record", curve([0.6]), curve([0.7], rate_index=1))
    run = written(tmp_path / "run", curve([0.1], n_images=20), curve([0.7], rate_index=1))
    found = compare_records([record], run)
    assert set(found.table["rate_index"]) == {1}
    assert found.only_a["rate_index"].tolist() == found.only_b["rate_index"].tolist() == [0]


def test_the_first_record_of_a_study_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "shipped_folder", lambda: tmp_path)
    written(tmp_path / "results/record/mini", curve([0.6], half=0.05))
    written(tmp_path / "results/record/study", curve([0.9], half=0.05))
    run = written(tmp_path / "run", curve([0.6], half=0.05))
    assert record_table(run, ["other"]).empty and agreement(run) == ""
    write_result_table(run / TABLE, record_table(run, ["mini", "study"]))
    assert "agrees" in agreement(run) and "2 comparisons" in agreement(run)
    write_result_table(run / TABLE, record_table(run, ["study"]))
    assert "differs" in agreement(run) and "1 of 2" in agreement(run)


def test_compare_takes_a_folder_of_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = written(tmp_path / "record", curve([0.6], half=0.01))
    run = written(tmp_path / "run", curve([0.8], half=0.01))
    assert main(["compare", str(record), str(run)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("1 of 2 comparisons beyond noise") and "1 identical" in last
    assert main(["compare", str(record), str(tmp_path / "nothing")]) == 1
