"""Records on disk."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from icmbench.errors import UserError
from icmbench.evaluate.records import COLUMNS, bits_per_pixel, read_records, write_records


@pytest.fixture
def records() -> pd.DataFrame:
    frame = pd.DataFrame({"image_id": [str(i) for i in range(40)]})
    for name, kind in COLUMNS.items():
        if name != "image_id":
            frame[name] = "a" if kind == "string" else True if kind == "boolean" else 3
    return frame.assign(bits=range(100, 140), pixels=range(50, 90), psnr=30.5)


def test_no_flipped_bit_changes_records_unnoticed(records: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    write_records(path, records)
    whole, good = path.read_bytes(), read_records(path)
    found = 0
    for position in range(4, len(whole) - 8, len(whole) // 60):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        try:
            assert read_records(path).equals(good)
        except UserError as error:
            assert path.name in str(error)
            found += 1
    assert found > 10


def test_rates_of_a_point(records: pd.DataFrame) -> None:
    rates = bits_per_pixel(records.assign(bits_estimated=float("nan"), pixels_coded=64))
    assert rates["bpp"] == sum(range(100, 140)) / sum(range(50, 90))
    assert rates["bpp_coded"] == sum(range(100, 140)) / (40 * 64)
    assert rates["bpp_mean"] == pytest.approx(
        sum(b / p for b, p in zip(range(100, 140), range(50, 90), strict=True)) / 40
    )
    assert rates["bpp_estimated"] != rates["bpp_estimated"]
